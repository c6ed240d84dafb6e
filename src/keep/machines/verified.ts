import { type BigIntStats, lstatSync } from "node:fs";
import { CairnError } from "../../errors.ts";
import { type JsonObject, parseJson } from "../../formats/fields.ts";
import { durableWrite, readSmallFile } from "../../fs/durable.ts";
import { printablePath, type RawPath } from "../../fs/paths/safe-path.ts";
import { requireChecksum, withChecksum } from "../../fs/unfinished.ts";

/** A file that changed shortly before it was read may change again within the same tick of the file system's clock. */
const SETTLED_MS = 2000;
const KEPT = 1000;
const SIZE_LIMIT = 16 << 20;

/**
 * Facts about content that was read and verified before, in a file: digests of files, which count as long as inode,
 * size and times are the same, and answers about content by its digest. A damaged list is empty.
 */
export class Verified {
  readonly #list: string;
  readonly #before: JsonObject;
  /** Facts that this call used or found. */
  readonly #now: JsonObject = {};
  /** Stamps of all files seen by this call. */
  readonly #seen = new Map<string, { file: RawPath; sha256: string; stamp: string }>();
  #isNew = false;

  constructor(list: string) {
    this.#list = list;
    this.#before = readKept(list);
  }

  /** True if the file had this digest when it was read, and did not change since. */
  has(file: RawPath, sha256: string): boolean {
    const key = keyOf(file);
    const stamp = stampOf(factsOf(file), sha256);
    this.#seen.set(key, { file, sha256, stamp });
    if (this.#before[key] !== stamp) return false;
    this.#now[key] = stamp;
    return true;
  }

  /** Notes that the file's content was read after `has`, and has the digest. */
  isRight(file: RawPath): void {
    this.#note(file, this.#seen.get(keyOf(file))!.stamp);
  }

  /**
   * Copies a file, and tells whether the copy has the digest. Reads the copy with `isEqual` if the file was not read
   * before, or changes during the copy. Another process may replace the file meanwhile.
   */
  async copies(
    file: RawPath,
    sha256: string,
    { copy, isEqual }: { copy: () => Promise<void>; isEqual: () => Promise<boolean> },
  ): Promise<boolean> {
    const before = stampOf(factsOf(file), sha256);
    await copy();
    const isUnchanged = stampOf(factsOf(file), sha256) === before;
    if (isUnchanged && this.#before[keyOf(file)] === before) return true;
    const is = await isEqual();
    if (is && isUnchanged) this.#note(file, before);
    return is;
  }

  #note(file: RawPath, stamp: string): void {
    const { mtimeMs, ctimeMs } = factsOf(file);
    // A file whose time was set to 0 before it was read gets another time by any later write.
    if (mtimeMs !== 0n && Date.now() - Math.max(Number(mtimeMs), Number(ctimeMs)) < SETTLED_MS) return;
    this.#now[keyOf(file)] = stamp;
    this.#isNew = true;
  }

  /** Returns the stored answer to a question that names content by its digest; undefined if there is none. */
  answer(question: string): unknown {
    const known = this.#now[question] ?? this.#before[question];
    if (known !== undefined) this.#now[question] = known;
    return known;
  }

  learn(question: string, answer: unknown): void {
    this.#now[question] = answer;
    this.#isNew = true;
  }

  /** Throws `damaged` if a file that was seen has changed since. */
  requireUnchanged(): void {
    for (const { file, sha256, stamp } of this.#seen.values())
      if (stampOf(factsOf(file), sha256) !== stamp)
        throw new CairnError("damaged", `${printablePath(file)} changed while it was copied`);
  }

  keep(): void {
    if (!this.#isNew) return;
    const others = Object.entries(this.#before).filter(([key]) => !(key in this.#now));
    const kept = [...others, ...Object.entries(this.#now)].slice(-KEPT);
    durableWrite(this.#list, withChecksum(Buffer.from(`${JSON.stringify(Object.fromEntries(kept))}\n`)));
  }
}

const keyOf = (file: RawPath): string => `file ${Buffer.from(file).toString("latin1")}`;
const factsOf = (file: RawPath): BigIntStats => lstatSync(file as Buffer, { bigint: true });

function stampOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats, sha256: string): string {
  return [dev, ino, size, mtimeNs, ctimeNs, sha256].join(" ");
}

function readKept(list: string): JsonObject {
  try {
    const bytes = readSmallFile(list, SIZE_LIMIT) ?? Buffer.alloc(0);
    requireChecksum(bytes);
    const { checksum: _, ...kept } = parseJson(bytes, list) as JsonObject;
    return kept;
  } catch {
    return {};
  }
}
