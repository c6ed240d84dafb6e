import { isUtf8 } from "node:buffer";
import fs from "node:fs";
import type { SaveOptions } from "../../contract/points.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { directoryOf, joinPath, latin1 } from "../../formats/bytes.ts";
import type { IgnoreRules } from "../../fs/ignore.ts";
import { patternOfPath, placeOfPath } from "../../fs/ignore-pattern.ts";
import { STAT, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { secretIn } from "../../fs/secret-files.ts";
import type { ScanThread } from "./scan-thread.ts";
import type { UnwantedEntry, UnwantedKinds, UnwantedTag } from "./task.ts";

/** Most bytes of all patterns together: each look at the history reads the record that has them. */
const MAX_PATTERN_BYTES = 8 << 20;
const MAX_HEADER_BYTES = 4096;
const FILE = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW;
const SLASH = 0x2f;

/** The first bytes make the file a tag: https://bford.info/cachedir/ */
const CACHE: UnwantedTag = { name: "CACHEDIR.TAG", header: Buffer.from("Signature: 8a477f597d28d172789f06886806bc55") };

type Options = Pick<SaveOptions, "excludeCaches" | "excludeIfPresent" | "excludeLargerThan" | "secrets">;

/** Returns the kinds to leave out; undefined if there are none. Throws `usage`. */
export function unwantedKinds(options: Options): UnwantedKinds | undefined {
  const { excludeCaches, excludeIfPresent, excludeLargerThan } = options;
  const tags = (excludeIfPresent ?? []).map(tagOf);
  if (excludeCaches === true) tags.push(CACHE);
  if (excludeLargerThan !== undefined && !(excludeLargerThan >= 1))
    throw new CairnError("usage", "a size of less than one byte would leave every file out");
  const largest = excludeLargerThan ?? Infinity;
  const secrets = options.secrets === false;
  return tags.length === 0 && largest === Infinity && !secrets ? undefined : { tags, largest, secrets };
}

function tagOf(given: string): UnwantedTag {
  const colon = given.indexOf(":");
  const name = colon < 0 ? given : given.slice(0, colon);
  const header = Buffer.from(given.slice(name.length + 1));
  if (name === "" || name === "." || name === ".." || /[/\0]/.test(name))
    throw new CairnError("usage", `${JSON.stringify(given)} does not begin with the name of a file`, {
      hint: "use NAME, or NAME:HEADER for a file that begins with HEADER",
    });
  if (header.length > MAX_HEADER_BYTES)
    throw new CairnError("usage", `${JSON.stringify(name)}: ${header.length} bytes are too many for a header`);
  return { name: Buffer.from(name).toString("latin1"), header };
}

/** Returns the excludes of all found entries. Throws `refused` if they are too long to be recorded. */
export function patternsOfUnwanted(found: readonly UnwantedEntry[]): string[] {
  const patterns = found.flatMap(({ patterns: own }) => own ?? []);
  if (patterns.reduce((sum, { length }) => sum + length, 0) > MAX_PATTERN_BYTES)
    throw new CairnError("refused", `${found.length} folders and files are too many to be left out one by one`, {
      hint: advice`leave them out with a pattern that matches all of them: ${option("exclude")}`,
    });
  return patterns;
}

/** An entry of the directory that a thread listed last and has open. */
export interface ListedEntry {
  directory: number;
  fd: number;
  /** of the name in the listing */
  offset: number;
}

/** Finds the unwanted entries of directories that one thread lists. Turns each into excludes, which given ones override. */
export class UnwantedFinder {
  readonly #thread: ScanThread;
  readonly #kinds: UnwantedKinds;

  constructor(thread: ScanThread, kinds: UnwantedKinds) {
    this.#thread = thread;
    this.#kinds = kinds;
  }

  /**
   * Adds the excludes of unwanted entries to a directory's rules. The thread that first lists the directory (fd ≥ 0)
   * looks for tags, and notes them; later listings use the excludes that the scan has found.
   */
  enter(rules: IgnoreRules, directory: number, fd: number): IgnoreRules {
    const path = Buffer.from(this.#thread.table.directoryPath(directory));
    if (fd < 0)
      return rules.excluding(
        latin1(path),
        this.#thread.unwanted.flatMap((each) => foundIn(path, each)),
      );
    const tags = this.#kinds.tags.filter((tag) => this.#has(fd, tag));
    if (tags.length === 0) return rules;
    const names = [...new Set(tags.map(({ name }) => name))];
    const shown = names.map((name) => printablePath(Buffer.from(name, "latin1"))).join(" and ");
    if (directory === 0)
      throw new CairnError(
        "usage",
        `the folder ${printablePath(this.#thread.task.request.root)} itself contains ${shown}: nothing would be left to save`,
        { hint: "save the folder without the option that leaves such folders out" },
      );
    const kept = names.filter((name) => {
      const { type, size } = this.#look(fd, name);
      return !rules.ignores(name, type === TYPE.DIRECTORY) && !(type === TYPE.FILE && size > this.#kinds.largest);
    });
    const own = kept.map((name) => `!/${patternOfPath(joinPath(path, Buffer.from(name, "latin1")))}`);
    const patterns = [`/${patternOfPath(path)}/*`, ...own];
    return this.#note(path, patterns, `everything in it except ${shown}`)
      ? rules.excluding(latin1(path), patterns)
      : rules;
  }

  /** Tells if an entry is unwanted for its content or size, and notes it. */
  leavesOut(rules: IgnoreRules, pathOf: () => Buffer, { directory, fd, offset }: ListedEntry): boolean {
    const { secrets, largest } = this.#kinds;
    const { listing, stat2, rootFd, paths } = this.#thread;
    if (largest === Infinity && !secrets) return false;
    const listed = listing.names.bytes[offset - 1]!;
    if (listed !== 0 && listed !== TYPE.FILE) return false;
    if (this.#thread.look(directory, fd, listing.names, offset, stat2) < 0) return false;
    if (stat2.words[STAT.MODE]! >>> 12 !== TYPE.FILE) return false;
    const size = wide(stat2.words, STAT.SIZE);
    const path = pathOf();
    const isSecret = secrets && secretIn(rootFd, path, paths) !== null;
    if (!isSecret && size <= largest) return false;
    const patterns = [`/${patternOfPath(path)}`];
    if (!rules.excluding(latin1(directoryOf(path)), patterns).ignores(listing.nameOf(offset), false)) return false;
    return this.#note(path, patterns, isSecret ? null : `${size} bytes are more than ${largest}`);
  }

  /** False if the entry's patterns would match other entries, so that it is not left out. */
  #note(path: Buffer, patterns: readonly string[], detail: string | null): boolean {
    const isExact = isUtf8(path) || isToldFromOthers(this.#thread.task.request.root, path);
    const found = { path, patterns: isExact ? patterns : null, detail };
    this.#thread.notes.unwanted.push(found);
    this.#thread.unwanted.push(found);
    return isExact;
  }

  #has(fd: number, { name, header }: UnwantedTag): boolean {
    const { listing, sys, content, paths } = this.#thread;
    if (!listing.has(Buffer.from(`${name}\0`, "latin1"))) return false;
    if (header.length === 0) return this.#look(fd, name).type !== 0;
    if (this.#look(fd, name).type !== TYPE.FILE) return false;
    const file = sys.open(fd, paths, 0, FILE, 0);
    if (file < 0) return false;
    try {
      const read = sys.read(file, content, 0, header.length, 0);
      return read === header.length && Buffer.compare(header, content.bytes.subarray(0, read)) === 0;
    } finally {
      sys.close(file);
    }
  }

  /** Looks at an entry. Type 0: it is missing or cannot be read. */
  #look(fd: number, name: string): { type: number; size: number } {
    const { sys, paths, stat2 } = this.#thread;
    paths.bytes.set(Buffer.from(`${name}\0`, "latin1"));
    if (sys.stat(fd, paths, 0, stat2) < 0) return { type: 0, size: 0 };
    return { type: stat2.words[STAT.MODE]! >>> 12, size: wide(stat2.words, STAT.SIZE) };
  }
}

/** The excludes of an entry if they apply to entries of this directory. */
function foundIn(directory: Buffer, { path, patterns }: UnwantedEntry): readonly string[] {
  return directory.equals(path) || directory.equals(directoryOf(path)) ? (patterns ?? []) : [];
}

/** Tells if the pattern of a path matches no other path of the folder: bytes that are not UTF-8 match each other. */
function isToldFromOthers(root: Uint8Array, path: Buffer): boolean {
  for (let at = 0, end = 0; end >= 0; at = end + 1) {
    end = path.indexOf(SLASH, at);
    const name = path.subarray(at, end < 0 ? path.length : end);
    if (isUtf8(name)) continue;
    const place = placeOfPath(name.toString("latin1"));
    const beside = fs.readdirSync(joinPath(root, path.subarray(0, Math.max(0, at - 1))), "buffer");
    if (beside.filter((each) => placeOfPath(each.toString("latin1")) === place).length !== 1) return false;
  }
  return true;
}
