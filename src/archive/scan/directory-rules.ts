import fs from "node:fs";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { D, DIRECTORY_FLAG, DIRECTORY_WORDS } from "../cache/scan-table.ts";
import { LOGS } from "../../formats/sqlite-header.ts";
import { ELOOP } from "../../fs/linux/errno.ts";
import { errnoName, STAT, TYPE } from "../../fs/linux/syscalls.ts";
import { UNFINISHED_NAME } from "../../fs/work-directory.ts";
import type { Names } from "./directory-parts.ts";
import { DatabaseLook } from "./databases.ts";
import type { ScanThread } from "./scan-thread.ts";
import { DUMPS, type ScanRequest, STAGING_NAME } from "./task.ts";
import { type ListedEntry, UnwantedFinder } from "./unwanted.ts";

const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW;

const DOT = 0x2e;

/** The rules of the files of `before` commands: none. */
const OF_DUMPS = IgnoreRules.fromExcludes([]);

/** The rules above the root: a point's recorded rules, or the present excludes, to which ignore files are added. */
export function rulesOfRequest({ excludes = [], rules }: Pick<ScanRequest, "excludes" | "rules">): IgnoreRules {
  return rules === null ? IgnoreRules.fromExcludes(excludes) : IgnoreRules.fromRecord(rules);
}

/** The rules that leave entries out of a scan's directories, read by one thread as needed. */
export class DirectoryRules {
  readonly #thread: ScanThread;
  readonly #top: IgnoreRules;
  readonly #known = new Map<number, IgnoreRules>();
  readonly #skip: ReadonlySet<string>;
  readonly #unwanted: UnwantedFinder | null;
  #look: DatabaseLook | undefined;

  constructor(thread: ScanThread) {
    const { request } = thread.task;
    this.#thread = thread;
    this.#top = rulesOfRequest(request);
    this.#skip = new Set(request.skip);
    this.#unwanted = request.unwanted === undefined ? null : new UnwantedFinder(thread, request.unwanted);
  }

  /**
   * The names of a directory that are part of the state; this thread has the directory open as `fd` and has just listed
   * it. `again`: decides as the first listing did; the caller asks {@link leavesOut} for names without a record.
   */
  names(directory: number, fd: number, again = false): Names {
    const { listing } = this.#thread;
    if (directory !== 0 && this.#top.emptyBelow && this.#skip.size === 0) return listing.offsets;
    let rules = this.#listed(directory, again ? -1 : fd);
    this.#listedLast = rules;
    if (rules === OF_DUMPS) return listing.offsets;
    if (this.#unwanted !== null) rules = this.#unwanted.enter(rules, directory, again ? -1 : fd);
    this.#listedLast = rules;
    const bytes = Buffer.from(listing.names.bytes.buffer);
    return listing.offsets.filter((offset) => {
      if (bytes[offset] === DOT) {
        const hidden = bytes.toString("latin1", offset, bytes.indexOf(0, offset));
        if (UNFINISHED_NAME.test(hidden) || (directory === 0 && STAGING_NAME.test(hidden))) return false;
        if (directory === 0 && hidden === DUMPS) return true;
      }
      if (rules.empty && this.#skip.size === 0 && this.#unwanted === null) return true;
      const name = bytes.toString("latin1", offset, bytes.indexOf(0, offset));
      const path = (): Buffer => this.#thread.entryPath(directory, Buffer.from(name, "latin1"));
      if (this.#skip.size > 0 && this.#skip.has(path().toString("latin1"))) return false;
      const isIgnored = this.#ignores(rules, name, { directory, fd, offset });
      if (isIgnored && !again) this.#noteIgnored(directory, path());
      return !isIgnored && (again || !this.leavesOut(directory, fd, offset));
    });
  }

  #listedLast: IgnoreRules | undefined;

  /** Tells if rules leave an entry out. A log goes with its database: one without the other is damaged or useless. */
  #ignores(rules: IgnoreRules, name: string, { directory, fd, offset }: ListedEntry): boolean {
    const isIgnored = rules.ignores(name, this.#isDirectory(directory, fd, offset));
    const database = this.#databaseOf(name);
    if (database === null || rules.ignores(database, false) === isIgnored || !this.#isDatabase(fd, database))
      return isIgnored;
    return !isIgnored;
  }

  /** The name of the file in the listed directory that an entry would be the log of; null if there is none. */
  #databaseOf(name: string): string | null {
    const ending = LOGS.find((each) => name.endsWith(each));
    const database = ending === undefined ? "" : name.slice(0, -ending.length);
    return database !== "" && this.#thread.listing.has(Buffer.from(`${database}\0`, "latin1")) ? database : null;
  }

  #isDatabase(fd: number, name: string): boolean {
    this.#look ??= new DatabaseLook(this.#thread);
    return this.#look.isOneThere(fd, Buffer.from(name, "latin1"));
  }

  /** Tells if an entry of the directory that was listed last is unwanted for its content or size, and notes it. */
  leavesOut(directory: number, fd: number, offset: number): boolean {
    if (this.#unwanted === null || this.#listedLast === OF_DUMPS) return false;
    const name = this.#thread.listing.nameOf(offset);
    const database = this.#databaseOf(name);
    if (database !== null && this.#isDatabase(fd, database)) return false;
    const path = (): Buffer => this.#thread.entryPath(directory, Buffer.from(name, "latin1"));
    if (!this.#unwanted.leavesOut(this.#listedLast!, path, { directory, fd, offset })) return false;
    this.#noteIgnored(directory, path());
    return true;
  }

  #noteIgnored(directory: number, path: Uint8Array): void {
    this.#thread.table.directories[directory * DIRECTORY_WORDS + D.IGNORED]!++;
    this.#thread.noteIgnored(path);
  }

  /** A function if the listing does not tell the type: most patterns need none, and the look may take long. */
  #isDirectory(directory: number, fd: number, offset: number): boolean | (() => boolean) {
    const { listing, stat2 } = this.#thread;
    if (listing.names.bytes[offset - 1] !== 0) return listing.isDirectory(offset);
    return () =>
      this.#thread.look(directory, fd, listing.names, offset, stat2) === 0 &&
      stat2.words[STAT.MODE]! >>> 12 === TYPE.DIRECTORY;
  }

  /** The rules of a directory, which this thread has open as `fd`. */
  #listed(directory: number, fd: number): IgnoreRules {
    const known = this.#known.get(directory);
    if (known !== undefined) return known;
    const parent = this.#parent(directory);
    const path = this.#path(directory);
    const isOfDumps = parent === OF_DUMPS || path === DUMPS;
    const file = parent.needsFiles && !isOfDumps ? this.#ignoreFile(directory, fd) : null;
    const rules = isOfDumps ? OF_DUMPS : IgnoreRules.enterDirectory(parent, path, file);
    this.#known.set(directory, rules);
    return rules;
  }

  /** True if a directory without an ignore file of its own has all its entries. */
  emptyWithoutFile(directory: number): boolean {
    if (this.#skip.size > 0 || this.#unwanted !== null) return false;
    const rules = IgnoreRules.enterDirectory(this.#parent(directory), this.#path(directory), null);
    if (!rules.empty) return false;
    this.#known.set(directory, rules);
    return true;
  }

  #parent(directory: number): IgnoreRules {
    if (directory === 0) return this.#top;
    return this.#listed(this.#thread.table.directories[directory * DIRECTORY_WORDS + D.PARENT]!, -1);
  }

  #path(directory: number): string {
    return this.#thread.table.directoryPath(directory).toString("latin1");
  }

  /**
   * The bytes of a directory's ignore file. The thread that first lists the directory (fd ≥ 0) reads and notes the
   * file; all others use these bytes, even if the file has changed.
   */
  #ignoreFile(directory: number, fd: number): Uint8Array | null {
    const { table, notes, task } = this.#thread;
    if ((table.directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.IGNORE_FILE) === 0) return null;
    if (fd < 0) return table.rulesOf(directory);
    const path = Uint8Array.from(table.directoryPath(directory));
    const text = this.#read(fd);
    if (typeof text === "string") {
      notes.oddRules.push({ path, why: text });
      return null;
    }
    if (text.includes(0)) notes.oddRules.push({ path, why: "it contains NUL bytes, as UTF-16 does: save it as UTF-8" });
    if (task.request.passesLongRules === true && text.length > MAX_IGNORE_FILE_BYTES) {
      notes.longRules.push(path);
      return null;
    }
    notes.ignoreFiles.push({ path, text });
    table.setRules(directory, text);
    return text;
  }

  /** Returns the rules' bytes, or why they cannot be read as text. */
  #read(dirfd: number): Uint8Array | string {
    const { sys, paths, stat2 } = this.#thread;
    Buffer.from(paths.bytes.buffer, paths.bytes.byteOffset).write(`${IGNORE_FILE}\0`, 0, "latin1");
    const fd = sys.open(dirfd, paths, 0, OPEN_FLAGS, 0);
    if (fd < 0)
      return fd === ELOOP ? "it is a symlink, and Cairn does not follow it" : `it cannot be read: ${errnoName(-fd)}`;
    try {
      const isRegular = sys.fstat(fd, stat2) === 0 && stat2.words[STAT.MODE]! >>> 12 === TYPE.FILE;
      return isRegular ? this.#content(fd) : "it is not a regular file";
    } finally {
      sys.close(fd);
    }
  }

  /** The content of an ignore file, of a too long one only the part that shows this; or why it cannot be read. */
  #content(fd: number): Uint8Array | string {
    const { sys, content } = this.#thread;
    const parts: Uint8Array[] = [];
    for (let length = 0; length <= MAX_IGNORE_FILE_BYTES;) {
      const n = sys.read(fd, content, 0, content.bytes.length, length);
      if (n < 0) return `it cannot be read: ${errnoName(-n)}`;
      if (n === 0) break;
      parts.push(Uint8Array.from(content.bytes.subarray(0, n)));
      length += n;
    }
    return Buffer.concat(parts);
  }
}
