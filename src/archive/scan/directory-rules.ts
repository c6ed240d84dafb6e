import fs from "node:fs";
import { IGNORE_FILE, IgnoreRules, MAX_IGNORE_FILE_BYTES } from "../../fs/ignore.ts";
import { D, DIRECTORY_FLAG, DIRECTORY_WORDS } from "../cache/scan-table.ts";
import { ELOOP } from "../../fs/linux/errno.ts";
import { errnoName, STAT, TYPE } from "../../fs/linux/syscalls.ts";
import type { ScanThread } from "./scan-thread.ts";
import type { ScanTask } from "./task.ts";

const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NONBLOCK | fs.constants.O_NOFOLLOW;

/** The rules above the root: a point's recorded rules, or the present excludes, to which ignore files are added. */
export function rulesOfTask(task: Pick<ScanTask, "excludes" | "rules">): IgnoreRules {
  return task.rules === null ? IgnoreRules.fromExcludes(task.excludes) : IgnoreRules.fromRecord(task.rules);
}

/** The ignore rules of a scan's directories, read by one thread as needed. */
export class DirectoryRules {
  /** False if no rule can apply in any directory. */
  readonly any: boolean;
  readonly #thread: ScanThread;
  readonly #top: IgnoreRules;
  readonly #known = new Map<number, IgnoreRules>();

  constructor(thread: ScanThread) {
    this.#thread = thread;
    this.#top = rulesOfTask(thread.task);
    this.any = !this.#top.emptyBelow;
  }

  /** The rules of a directory, which this thread has open as `fd` and has just listed. */
  listed(directory: number, fd: number): IgnoreRules {
    const known = this.#known.get(directory);
    if (known !== undefined) return known;
    const parent = this.#parent(directory);
    const file = parent.needsFiles ? this.#ignoreFile(directory, fd) : null;
    const rules = IgnoreRules.enterDirectory(parent, this.#path(directory), file);
    this.#known.set(directory, rules);
    return rules;
  }

  /** True if a directory without an ignore file of its own has no rules. */
  emptyWithoutFile(directory: number): boolean {
    const rules = IgnoreRules.enterDirectory(this.#parent(directory), this.#path(directory), null);
    if (!rules.empty) return false;
    this.#known.set(directory, rules);
    return true;
  }

  #parent(directory: number): IgnoreRules {
    if (directory === 0) return this.#top;
    return this.listed(this.#thread.table.directories[directory * DIRECTORY_WORDS + D.PARENT]!, -1);
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
    if (task.passesLongRules && text.length > MAX_IGNORE_FILE_BYTES) {
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
