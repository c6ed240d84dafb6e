import { isUtf8 } from "node:buffer";
import fs from "node:fs";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { patternOfPath, placeOfPath } from "../../fs/ignore-pattern.ts";
import { DirectoryListing } from "../../fs/listing.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { secretIn } from "../../fs/secret-files.ts";
import { ATTRIBUTE_MOUNT_ROOT, STAT, TYPE, wide } from "../../fs/linux/syscall-abi.ts";
import { newStatBuffer, openDirectory, syscalls } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { newPacer, throttled } from "../../pacer.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import type { WorkspaceCall } from "../open/workspace.ts";

/** Most bytes of all patterns together: each look at the history reads the record that has them. */
const MAX_PATTERN_BYTES = 8 << 20;
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;
const FILE = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW;
const IGNORE_NAME = Buffer.from(`${IGNORE_FILE}\0`);
const SLASH = Buffer.from("/");
/** Entries of a directory between two checks of the signal. */
const MANY = 1000;

export interface UnwantedWhere extends WorkspaceCall {
  root: Buffer;
  /** patterns of entries that need not be searched */
  exclude: readonly string[];
  /** latin1 paths that are not part of the folder */
  skip: readonly string[];
  crossMounts: boolean;
}

interface Place {
  path: Buffer;
  /** tags of a folder; null for a file */
  tags: readonly Tag[] | null;
  /** true for a file that is a secret, false for one that is too large */
  isSecret?: boolean;
}

export interface FoundUnwanted {
  /** Excludes that match exactly the found entries. */
  patterns: string[];
  leftOut: LeftOutEntry[];
  /** Lists entries that still exist but are not unwanted any more. */
  changed(): Promise<LeftOutEntry[]>;
}

/**
 * Walks a folder for unwanted entries, but not below them or below ignored entries. Skips directories that cannot be
 * read; the save reports them. Throws `usage` if nothing would be left, `refused` if the patterns are too long.
 */
export async function findUnwanted(kinds: UnwantedKinds, where: UnwantedWhere): Promise<FoundUnwanted> {
  const found = new UnwantedFinder(kinds, where);
  try {
    await found.walk();
  } finally {
    found.close();
  }
  const places = found.places.sort((a, b) => a.path.compare(b.path));
  return {
    patterns: places.flatMap(({ patterns }) => patterns),
    // Secrets are reported together with those that patterns leave out.
    leftOut: places
      .filter(({ isSecret }) => isSecret !== true)
      .map(({ path, detail }) => ({ path, reason: "excluded", detail })),
    async changed() {
      const again = new UnwantedFinder(kinds, where);
      try {
        return await again.noLonger(places);
      } finally {
        again.close();
      }
    },
  };
}

/** A directory that is to be listed. */
interface Open {
  path: Buffer;
  /** rules of the parent directory */
  rules: IgnoreRules;
  /** true if the directory's pattern matches no other entry */
  isTold: boolean;
}

class UnwantedFinder {
  readonly places: (Place & { patterns: string[]; detail: string })[] = [];
  readonly #kinds: UnwantedKinds;
  readonly #where: UnwantedWhere;
  readonly #skip: ReadonlySet<string>;
  readonly #sys = syscalls();
  readonly #listing = new DirectoryListing();
  readonly #stat = newStatBuffer();
  readonly #scratch = newArena(8192);
  readonly #root: number;
  readonly #open: Open[] = [];
  readonly #pace: () => Promise<void>;
  #bytes = 0;

  constructor(kinds: UnwantedKinds, where: UnwantedWhere) {
    this.#kinds = kinds;
    this.#where = where;
    this.#skip = new Set(where.skip);
    this.#pace = newPacer(where.signal);
    this.#root = openDirectory(where.root);
  }

  close(): void {
    fs.closeSync(this.#root);
  }

  async walk(): Promise<void> {
    const report = throttled(this.#where.onProgress);
    let done = 0;
    this.#open.push({ path: Buffer.alloc(0), rules: IgnoreRules.fromExcludes(this.#where.exclude), isTold: true });
    for (let next = this.#open.pop(); next !== undefined; next = this.#open.pop()) {
      const fd = openBelow(this.#sys, this.#root, next.path, DIRECTORY, this.#scratch);
      if (fd < 0) continue;
      try {
        if (!this.#isPart(fd, next.path) || this.#listing.read(this.#sys, fd) < 0) continue;
        await this.#directory(fd, next);
        done += this.#listing.count;
        report({ phase: "planning", done });
      } finally {
        this.#sys.close(fd);
      }
      await this.#pace();
    }
  }

  #isPart(fd: number, path: Buffer): boolean {
    if (path.length === 0 || this.#where.crossMounts) return true;
    const isKnown = this.#sys.fstat(fd, this.#stat) >= 0;
    return isKnown && (this.#stat.words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) === 0;
  }

  async #directory(fd: number, { path, rules: above, isTold }: Open): Promise<void> {
    const file = this.#listing.has(IGNORE_NAME) ? this.#head(fd, IGNORE_FILE, MAX_IGNORE_FILE_BYTES + 1) : null;
    // An ignore file that is too long makes the save fail.
    const text = file !== null && file.length > MAX_IGNORE_FILE_BYTES ? null : file;
    const rules = IgnoreRules.enterDirectory(above, path.toString("latin1"), text);
    const tags = this.#kinds.tags.filter((tag) => this.#listing.has(nulTerminated(tag.name)) && this.#has(fd, tag));
    if (tags.length > 0) return this.#tagged(fd, { path, rules, isTold }, tags);
    const isUnique = this.#uniqueNames();
    const { offsets } = this.#listing;
    for (const [i, offset] of offsets.entries()) {
      if (i % MANY === MANY - 1) await this.#pace();
      const name = this.#listing.nameOf(offset);
      const type = this.#typeOf(fd, offset);
      const isDirectory = type === TYPE.DIRECTORY;
      if (!isDirectory && (type !== TYPE.FILE || (this.#kinds.largest === Infinity && !this.#kinds.secrets))) continue;
      const own = below(path, name);
      if (this.#skip.has(own.toString("latin1")) || (path.length === 0 && STAGING_NAME.test(name))) continue;
      if (rules.ignores(name, isDirectory)) continue;
      if (isDirectory) this.#open.push({ path: own, rules, isTold: isTold && isUnique(name) });
      else if (this.#kinds.secrets && secretIn(this.#root, own, this.#scratch) !== null) {
        const place = { path: own, tags: null, isSecret: true, patterns: [`/${patternOfPath(own)}`], detail: "" };
        this.#add(place, isTold && isUnique(name));
      } else if (this.#sys.stat(fd, this.#listing.names, offset, this.#stat) >= 0) {
        const size = wide(this.#stat.words, STAT.SIZE);
        if (size <= this.#kinds.largest) continue;
        const detail = `${size} bytes are more than ${this.#kinds.largest}`;
        const place = { path: own, tags: null, patterns: [`/${patternOfPath(own)}`], detail };
        this.#add(place, isTold && isUnique(name));
      }
    }
  }

  #typeOf(fd: number, offset: number): number {
    const known = this.#listing.names.bytes[offset - 1]!;
    if (known !== 0) return known;
    return this.#sys.stat(fd, this.#listing.names, offset, this.#stat) < 0 ? 0 : this.#stat.words[STAT.MODE]! >>> 12;
  }

  #tagged(fd: number, { path, rules, isTold }: Open, tags: readonly Tag[]): void {
    const names = [...new Set(tags.map(({ name }) => name))];
    const shown = names.map((name) => printablePath(Buffer.from(name, "latin1"))).join(" and ");
    if (path.length === 0)
      throw new CairnError(
        "usage",
        `the folder ${printablePath(this.#where.root)} itself contains ${shown}: nothing would be left to save`,
        {
          hint: "save the folder without the option that leaves such folders out",
        },
      );
    const patterns = [`/${patternOfPath(path)}/*`];
    for (const name of names) {
      const { type, size } = this.#look(fd, name);
      if (rules.ignores(name, type === TYPE.DIRECTORY)) continue;
      if (type === TYPE.FILE && size > this.#kinds.largest) continue;
      const own = below(path, name);
      patterns.push(`!/${patternOfPath(own)}`);
      if (type === TYPE.DIRECTORY) this.#open.push({ path: own, rules, isTold });
    }
    this.#add({ path, tags, patterns, detail: `everything in it except ${shown}` }, isTold);
  }

  #add(place: (typeof this.places)[number], isTold: boolean): void {
    if (!isTold) {
      this.#where.onWarning?.(
        `${printablePath(place.path)} is not left out: its name is not UTF-8, so a pattern for it would also match other names`,
      );
      return;
    }
    this.places.push(place);
    this.#bytes += place.patterns.reduce((sum, { length }) => sum + length, 0);
    if (this.#bytes > MAX_PATTERN_BYTES)
      throw new CairnError(
        "refused",
        `${this.places.length} folders and files are too many to be left out one by one`,
        {
          hint: advice`leave them out with a pattern that matches all of them: ${option("exclude")}`,
        },
      );
  }

  /** Returns a function that tells if a name's pattern matches no other name of the listing. */
  #uniqueNames(): (name: string) => boolean {
    let counts: Map<string, number> | undefined;
    return (name) => {
      if (isUtf8(Buffer.from(name, "latin1"))) return true;
      counts ??= this.#countPlaces();
      return counts.get(placeOfPath(name)) === 1;
    };
  }

  #countPlaces(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const offset of this.#listing.offsets) {
      const place = placeOfPath(this.#listing.nameOf(offset));
      counts.set(place, (counts.get(place) ?? 0) + 1);
    }
    return counts;
  }

  #has(fd: number, { name, header }: Tag): boolean {
    if (header.length === 0) return this.#look(fd, name).type !== 0;
    return this.#head(fd, name, header.length)?.equals(header) === true;
  }

  /** Looks at an entry. Type 0: it is missing or cannot be read. */
  #look(fd: number, name: string): { type: number; size: number } {
    this.#scratch.bytes.set(nulTerminated(name));
    if (this.#sys.stat(fd, this.#scratch, 0, this.#stat) < 0) return { type: 0, size: 0 };
    const { words } = this.#stat;
    return { type: words[STAT.MODE]! >>> 12, size: wide(words, STAT.SIZE) };
  }

  /** Returns the first bytes of a regular file; null for any other entry, or if it cannot be read. */
  #head(fd: number, name: string, most: number): Buffer | null {
    if (this.#look(fd, name).type !== TYPE.FILE) return null;
    const file = this.#sys.open(fd, this.#scratch, 0, FILE, 0);
    if (file < 0) return null;
    try {
      if (this.#sys.fstat(file, this.#stat) < 0 || this.#stat.words[STAT.MODE]! >>> 12 !== TYPE.FILE) return null;
      const parts: Buffer[] = [];
      for (let length = 0; length < most;) {
        const wanted = Math.min(most - length, this.#scratch.bytes.length);
        const n = this.#sys.read(file, this.#scratch, 0, wanted, length);
        if (n < 0) return null;
        if (n === 0) break;
        parts.push(Buffer.from(this.#scratch.bytes.subarray(0, n)));
        length += n;
      }
      return Buffer.concat(parts);
    } finally {
      this.#sys.close(file);
    }
  }

  async noLonger(places: readonly Place[]): Promise<LeftOutEntry[]> {
    const changed: LeftOutEntry[] = [];
    for (const { path, tags, isSecret } of places) {
      await this.#pace();
      if (isSecret === true && secretIn(this.#root, path, this.#scratch) !== null) continue;
      if (tags === null ? this.#isLargeOrGone(path) : this.#below(path, (fd) => tags.some((tag) => this.#has(fd, tag))))
        continue;
      changed.push({
        path,
        reason: "changing",
        detail: "it was left out, but at the end of the save the exclusion no longer applied to it",
      });
    }
    return changed;
  }

  #isLargeOrGone(path: Buffer): boolean {
    const slash = path.lastIndexOf(SLASH);
    const name = path.toString("latin1", slash + 1);
    return this.#below(path.subarray(0, Math.max(0, slash)), (fd) => {
      const { type, size } = this.#look(fd, name);
      return type === 0 || (type === TYPE.FILE && size > this.#kinds.largest);
    });
  }

  /** Tells if `isSo` holds for a directory; true if there is no such directory. */
  #below(path: Buffer, isSo: (fd: number) => boolean): boolean {
    const fd = openBelow(this.#sys, this.#root, path, DIRECTORY, this.#scratch);
    if (fd < 0) return true;
    try {
      return isSo(fd);
    } finally {
      this.#sys.close(fd);
    }
  }
}

function nulTerminated(name: string): Buffer {
  return Buffer.from(`${name}\0`, "latin1");
}

function below(directory: Buffer, name: string): Buffer {
  const own = Buffer.from(name, "latin1");
  return directory.length === 0 ? own : Buffer.concat([directory, SLASH, own]);
}

/** Kinds of folders and files that a save leaves out, in addition to patterns. */
export interface Unwanted {
  /** leaves out folders with a valid `CACHEDIR.TAG`, except for that file */
  excludeCaches?: boolean | undefined;
  /** leaves out folders with this entry, except the entry; `NAME:HEADER`: an entry that begins with HEADER */
  excludeIfPresent?: readonly string[] | undefined;
  /** leaves out regular files with more bytes */
  excludeLargerThan?: number | undefined;
  /** false: also leaves out files whose content is a credential */
  secrets?: boolean | undefined;
}

export function unwantedOf({ excludeCaches, excludeIfPresent, excludeLargerThan }: Unwanted): Unwanted {
  return { excludeCaches, excludeIfPresent, excludeLargerThan };
}

/** The kinds of {@link Unwanted}, checked. */
export interface UnwantedKinds {
  tags: readonly Tag[];
  largest: number;
  secrets: boolean;
}

/** An entry that marks its folder as unwanted. */
export interface Tag {
  /** name of the entry, latin1 */
  name: string;
  /** the first bytes of the file; empty: any entry of the name counts */
  header: Buffer;
}

/** The first bytes make the file a tag: https://bford.info/cachedir/ */
const CACHE: Tag = { name: "CACHEDIR.TAG", header: Buffer.from("Signature: 8a477f597d28d172789f06886806bc55") };
const MAX_HEADER_BYTES = 4096;

/** Returns the kinds to leave out; null if there are none. Throws `usage`. */
export function unwantedKinds(unwanted: Unwanted): UnwantedKinds | null {
  const { excludeCaches, excludeIfPresent, excludeLargerThan } = unwanted;
  const tags = (excludeIfPresent ?? []).map(tagOf);
  if (excludeCaches === true) tags.push(CACHE);
  if (excludeLargerThan !== undefined && !(excludeLargerThan >= 1))
    throw new CairnError("usage", "a size of less than one byte would leave every file out");
  const largest = excludeLargerThan ?? Infinity;
  const secrets = unwanted.secrets === false;
  return tags.length === 0 && largest === Infinity && !secrets ? null : { tags, largest, secrets };
}

function tagOf(given: string): Tag {
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
