import { fetchPages, forgetPages } from "../../fs/linux/flush.ts";
import { STAT, wide } from "../../fs/linux/syscalls.ts";
import type { Arena } from "../../native.ts";
import type { EntryReader } from "./read-entry.ts";
import type { ScanThread } from "./scan-thread.ts";

/** Files of a directory that are on their way from the disk while others are read. */
const AHEAD = 32;
/** Bytes of each file that are prefetched. The rest of a longer file is prefetched while it is read. */
const FIRST_BYTES = 4 * 1024 * 1024;
const REGULAR = 0x8000;

/** Opens the files of a directory ahead, so that reading each need not wait for the disk. */
export class ReadAhead {
  readonly #thread: ScanThread;
  readonly #reader: EntryReader;
  readonly #work: { dirfd: number; arena: Arena; names: readonly number[] };
  readonly #opened = new Map<number, number>();
  #next: number;

  constructor(
    thread: ScanThread,
    reader: EntryReader,
    work: { dirfd: number; arena: Arena; names: readonly number[]; from: number },
  ) {
    this.#thread = thread;
    this.#reader = reader;
    this.#work = work;
    this.#next = work.from;
  }

  /** The open file of a name, for the caller to close; undefined if none is open. `to`: names from here on are not needed. */
  take(at: number, to: number): number | undefined {
    const end = Math.min(at + AHEAD, to);
    while (this.#next < end) this.#open(this.#next++);
    const fd = this.#opened.get(at);
    this.#opened.delete(at);
    return fd;
  }

  /** Closes the files that were not taken. */
  [Symbol.dispose](): void {
    for (const fd of this.#opened.values()) this.#thread.sys.close(fd);
    this.#opened.clear();
  }

  #open(at: number): void {
    const { sys, stat2, notes } = this.#thread;
    const { dirfd, arena, names } = this.#work;
    if (sys.stat(dirfd, arena, names[at]!, stat2) < 0 || (stat2.words[STAT.MODE]! & 0xf000) !== REGULAR) return;
    const fd = this.#reader.open(dirfd, arena, names[at]!);
    if (fd < 0) return;
    this.#opened.set(at, fd);
    if (!forgetPages(fd)) notes.keptInMemory++;
    fetchPages(fd, 0, Math.min(wide(stat2.words, STAT.SIZE), FIRST_BYTES));
  }
}
