import { Sha256Stream } from "../../crypto/hash.ts";
import { hashAt } from "../../crypto/primitives.ts";
import { BlobOpener, SEAL_OVERHEAD } from "../../crypto/seal.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import { newArena } from "../../native.ts";
import type { Arena } from "../../native.ts";
import { Decompressor, MAX_PLAIN_LENGTH } from "./compression.ts";

const IV_LENGTH = SEAL_OVERHEAD / 2;
const ID_LENGTH = 32;
/**
 * Bytes above which a blob counts as large: its arena is freed after use, so that a huge blob does not keep its memory.
 */
const KEEP = 16 * 1024 * 1024;
const LEAST = 1024 * 1024;
const OTHER_LENGTH = "it does not decompress to its stated length";
const OTHER_CONTENT = "its content does not match its SHA-256";

/** Returns the reason why a blob's lengths are impossible, or null. Call it before you reserve memory for the blob. */
export function placeProblem(length: number, uncompressedLength: number): string | null {
  if (!(length > SEAL_OVERHEAD && length <= MAX_PLAIN_LENGTH + SEAL_OVERHEAD))
    return `stored length ${length} is out of bounds`;
  if (!(uncompressedLength >= 0 && uncompressedLength <= MAX_PLAIN_LENGTH))
    return `plain length ${uncompressedLength} is out of bounds`;
  return null;
}

/** Lengths of a blob as a pack lists them. */
export interface StoredLengths {
  readonly length: number;
  /** 0 if the blob is not compressed. */
  readonly uncompressedLength: number;
}

/** Tells whether a blob is large enough to be decompressed piece by piece, if the caller allows it. */
export function isInPieces({ uncompressedLength }: StoredLengths): boolean {
  return uncompressedLength > KEEP;
}

/**
 * Decrypts and decompresses blobs with reused contexts and memory. `contentProblem` leaves the plaintext in `arena`,
 * `offset`, `length`, valid until the next call.
 */
export class BlobDecoder {
  readonly #opener: BlobOpener;
  readonly #decompressor = new Decompressor();
  readonly #digest = newArena(ID_LENGTH);
  #plain = newArena(LEAST);
  #arena: Arena;
  offset = 0;
  length = 0;

  constructor(keys: MasterKeys) {
    this.#opener = new BlobOpener(keys);
    this.#arena = this.#plain;
  }

  get arena(): Arena {
    return this.#arena;
  }

  /** Tells whether the encrypted blob has a valid MAC. */
  authentic(sealed: Arena, at: number, length: number): boolean {
    return this.#opener.verify(sealed, at, length);
  }

  /**
   * Returns the reason why the encrypted blob at `at` is damaged, or null if its MAC is valid; then call
   * `contentProblem`. `found`: bytes that were read into the arena, negative if the disk could not read them.
   */
  storedProblem(
    sealed: Arena,
    at: number,
    found: number,
    { length, uncompressedLength }: StoredLengths,
  ): string | null {
    const problem = placeProblem(length, uncompressedLength);
    if (problem !== null) return problem;
    if (at + length > found) return found < 0 ? "a sector of it cannot be read" : "the pack ends before the blob does";
    return this.authentic(sealed, at, length) ? null : "its MAC does not match its bytes";
  }

  /**
   * Decodes a blob that `storedProblem` accepted. Returns the reason why it does not match `id`, or null. Without `id`
   * nothing is compared.
   */
  contentProblem(sealed: Arena, at: number, lengths: StoredLengths, id: Uint8Array | undefined): string | null {
    if (!this.#decode(sealed, at, lengths.length, lengths.uncompressedLength)) return OTHER_LENGTH;
    return id === undefined || this.#matches(id) ? null : OTHER_CONTENT;
  }

  /** Like `contentProblem`, but keeps no plaintext. Decodes a large blob piece by piece if possible. */
  proofProblem(sealed: Arena, at: number, lengths: StoredLengths, id: Uint8Array): string | null {
    if (lengths.uncompressedLength <= KEEP) return this.contentProblem(sealed, at, lengths, id);
    const stored = this.#opener.decrypt(sealed, at, lengths.length, sealed, at + IV_LENGTH);
    const problem = this.#problemInPieces(sealed, at, lengths, id);
    if (problem !== OTHER_LENGTH) return problem;
    return this.#decompress(sealed, at + IV_LENGTH, stored, lengths.uncompressedLength)
      ? this.#matches(id)
        ? null
        : OTHER_CONTENT
      : OTHER_LENGTH;
  }

  /**
   * Decrypts a large blob and checks it like `contentProblem`. If it returns null, `pieces` yields the plaintext, which
   * is never in memory as a whole.
   */
  piecesProblem(sealed: Arena, at: number, lengths: StoredLengths, id: Uint8Array): string | null {
    this.#opener.decrypt(sealed, at, lengths.length, sealed, at + IV_LENGTH);
    const problem = this.#problemInPieces(sealed, at, lengths, id);
    return problem === OTHER_LENGTH ? `${problem}, or needs more memory than a large blob may use` : problem;
  }

  /** Yields the plaintext of a blob that `piecesProblem` accepted. Decode nothing else until it is done. */
  pieces(sealed: Arena, at: number, { length, uncompressedLength }: StoredLengths): Generator<Uint8Array, boolean> {
    return this.#decompressor.inPieces(sealed, at + IV_LENGTH, length - SEAL_OVERHEAD, {
      window: this.#plain,
      expected: uncompressedLength,
    });
  }

  #problemInPieces(sealed: Arena, at: number, lengths: StoredLengths, id: Uint8Array): string | null {
    const hash = new Sha256Stream();
    const pieces = this.pieces(sealed, at, lengths);
    let next = pieces.next();
    for (; next.done !== true; next = pieces.next()) hash.update(next.value);
    if (!next.value) return OTHER_LENGTH;
    return Buffer.compare(hash.digest(), id) === 0 ? null : OTHER_CONTENT;
  }

  /**
   * Returns the plaintext of a large blob, which the caller then owns. Null for a smaller blob: the caller copies it.
   */
  handOver(): Uint8Array | null {
    if (this.#arena !== this.#plain || this.length <= KEEP) return null;
    const plain = this.#plain.bytes.subarray(0, this.length);
    this.#plain = this.#arena = newArena(LEAST);
    this.length = 0;
    return plain;
  }

  /** Decrypts in place and decompresses. Returns false if the zstd frame is broken or has another length. */
  #decode(sealed: Arena, at: number, length: number, uncompressedLength: number): boolean {
    const stored = this.#opener.decrypt(sealed, at, length, sealed, at + IV_LENGTH);
    if (uncompressedLength === 0) {
      this.#arena = sealed;
      this.offset = at + IV_LENGTH;
      this.length = stored;
      return true;
    }
    return this.#decompress(sealed, at + IV_LENGTH, stored, uncompressedLength);
  }

  #decompress(from: Arena, at: number, stored: number, uncompressedLength: number): boolean {
    const room = this.#plain.bytes.length;
    if (uncompressedLength > room) {
      if (uncompressedLength > KEEP && !this.#decompressor.canHold(from, at, stored, uncompressedLength)) return false;
      this.#plain = newArena(uncompressedLength);
    } else if (room > KEEP && uncompressedLength <= KEEP) this.#plain = newArena(Math.max(LEAST, uncompressedLength));
    this.#arena = this.#plain;
    this.offset = 0;
    this.length = uncompressedLength;
    return this.#decompressor.decompress(from, at, stored, this.#plain, 0, uncompressedLength);
  }

  #matches(id: Uint8Array): boolean {
    const digest = this.#digest;
    hashAt(this.#arena, this.offset, this.length, digest, 0);
    for (let index = 0; index < ID_LENGTH; index++) if (digest.bytes[index] !== id[index]) return false;
    return true;
  }
}
