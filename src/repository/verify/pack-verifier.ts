import { Sha256Stream } from "../../crypto/hash.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { toCairnError } from "../../errors.ts";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { newArena } from "../../native.ts";
import type { Arena } from "../../native.ts";
import { BlobDecoder } from "../packs/blob-decoder.ts";
import { readAt, readPackHeader } from "../packs/pack-read.ts";
import type { PackHeader } from "../packs/pack-read.ts";

/** A problem of a pack. */
export interface PackProblem {
  /**
   * `name`: the file's SHA-256 is not its name · `header`: the list of blobs is unreadable · `blob`: a blob is damaged
   * · `size`: the file is shorter than stated.
   */
  readonly kind: "name" | "header" | "blob" | "size";
  readonly message: string;
  /** The damaged blob; only for `blob`. */
  readonly blob?: IndexBlob;
}

export interface PackToVerify {
  /** Open for reading; the verifier does not close it. */
  readonly descriptor: number;
  readonly size: number;
  /** 32 bytes: the expected SHA-256. */
  readonly id: Uint8Array;
  /**
   * Called for every sound blob in file order. The plaintext is valid during the call; blobs above 16 MiB have none.
   */
  onBlob?(blob: IndexBlob, arena: Arena, offset: number, length: number): void;
}

const WINDOW = 1024 * 1024;

/** Reads whole packs and checks every byte. Reuses contexts and memory; one per thread. */
export class PackVerifier {
  readonly #keys: MasterKeys;
  readonly #decoder: BlobDecoder;
  #window = newArena(WINDOW);

  constructor(keys: MasterKeys) {
    this.#keys = keys;
    this.#decoder = new BlobDecoder(keys);
  }

  /**
   * Reads the pack once. Compares the file's SHA-256 with its name, the header with the file, and checks MAC,
   * decompressed length and SHA-256 of each blob. Returns all problems; none for a sound pack. Throws only errors of
   * the file system.
   */
  verify(pack: PackToVerify): PackProblem[] {
    const problems: PackProblem[] = [];
    const header = this.#header(pack, problems);
    const hash = new Sha256Stream();
    const end = header?.dataLength ?? pack.size;
    let read = 0;
    if (header === null) read = this.#hashOnly(pack, hash, 0, end);
    else read = this.#verifyBlobs(pack, header, hash, problems);
    if (read < end) problems.push({ kind: "size", message: `the file ends at ${read} of ${pack.size} bytes` });
    if (header !== null) hash.update(header.trailer);
    const digest = hash.digest();
    if (Buffer.compare(digest, pack.id) !== 0) {
      problems.unshift({
        kind: "name",
        message: `the file's SHA-256 is ${Buffer.from(digest).toString("hex")}, not its name`,
      });
    }
    return problems;
  }

  #header(pack: PackToVerify, problems: PackProblem[]): PackHeader | null {
    try {
      return readPackHeader(pack.descriptor, pack.size, this.#keys);
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      problems.push({ kind: "header", message: known.message });
      return null;
    }
  }

  #hashOnly(pack: PackToVerify, hash: Sha256Stream, from: number, to: number): number {
    let at = from;
    while (at < to) {
      const count = readAt(pack.descriptor, at, Math.min(WINDOW, to - at), this.#window, 0);
      if (count === 0) break;
      hash.update(this.#window.bytes.subarray(0, count));
      at += count;
    }
    return at;
  }

  /** Reads blobs in windows of up to 1 MiB; a larger blob is a window of its own. Returns the end of the bytes read. */
  #verifyBlobs(pack: PackToVerify, header: PackHeader, hash: Sha256Stream, problems: PackProblem[]): number {
    const { blobs } = header;
    for (let from = 0; from < blobs.length;) {
      const start = blobs[from]!.offset;
      const to = windowEnd(blobs, from);
      const last = blobs[to - 1]!;
      const length = last.offset + last.length - start;
      if (length > this.#window.bytes.length) this.#window = newArena(length);
      const count = readAt(pack.descriptor, start, length, this.#window, 0);
      hash.update(this.#window.bytes.subarray(0, count));
      this.#verifyWindow(pack, blobs, { from, to, start, count }, problems);
      if (count < length) return start + count;
      from = to;
    }
    return header.dataLength;
  }

  #verifyWindow(
    pack: PackToVerify,
    blobs: readonly IndexBlob[],
    window: { from: number; to: number; start: number; count: number },
    problems: PackProblem[],
  ): void {
    const { from, to, start, count } = window;
    const reasons: (string | null)[] = [];
    for (let index = from; index < to; index++) {
      const blob = blobs[index]!;
      reasons.push(this.#decoder.storedProblem(this.#window, blob.offset - start, count, blob));
    }
    for (let index = from; index < to; index++) {
      const blob = blobs[index]!;
      const reason =
        reasons[index - from] ?? this.#decoder.proofProblem(this.#window, blob.offset - start, blob, blob.id);
      if (reason !== null) problems.push({ kind: "blob", message: reason, blob });
      else pack.onBlob?.(blob, this.#decoder.arena, this.#decoder.offset, this.#decoder.length);
    }
  }
}

/** Returns the end of the window that starts with the blob `from`. A larger blob is a window of its own. */
function windowEnd(blobs: readonly IndexBlob[], from: number): number {
  const end = blobs[from]!.offset + WINDOW;
  let to = from + 1;
  while (to < blobs.length && blobs[to]!.offset + blobs[to]!.length <= end) to += 1;
  return to;
}
