import { endDirect } from "../../fs/linux/direct-reads.ts";
import { EINVAL } from "../../fs/linux/errno.ts";
import { fetchPages, forgetPages } from "../../fs/linux/flush.ts";
import { STAT, wide } from "../../fs/linux/syscalls.ts";
import type { Arena } from "../../native.ts";
import type { EntryReader, OpenedAhead } from "./read-entry.ts";
import { AHEAD, AHEAD_BYTES, type ScanThread } from "./scan-thread.ts";

/** Files whose reads are started with one call. */
const BATCH = AHEAD / 2;
/** Bytes of a larger file that are prefetched. The rest is prefetched while it is read. */
const FIRST_BYTES = 4 * 1024 * 1024;
const REGULAR = 0x8000;

/** Reads files of a directory from the disk, ahead of their use: small ones into own memory, others into the page cache. */
export class ReadAhead {
  readonly #thread: ScanThread;
  readonly #reader: EntryReader;
  readonly #work: { dirfd: number; arena: Arena; names: readonly number[] };
  /** By position in the directory. */
  readonly #opened = new Map<number, { fd: number; isDirect: boolean }>();
  #next: number;
  /** Position of the first file whose read is not started yet, and the number of all such. */
  #waitingFrom = 0;
  #waiting = 0;

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

  /**
   * The open file of a name, for the caller to close, with its content until the next call; undefined if it was not
   * opened. `to`: names from here on are not needed.
   */
  take(at: number, to: number): OpenedAhead | undefined {
    const end = Math.min(at + AHEAD, to);
    while (this.#next < end) this.#open(this.#next++);
    const opened = this.#opened.get(at);
    if (opened === undefined) return undefined;
    this.#opened.delete(at);
    if (!opened.isDirect) return { fd: opened.fd, content: null };
    if (this.#waiting > 0 && at >= this.#waitingFrom) this.#start();
    const content = this.#thread.direct!.wait(at % AHEAD);
    endDirect(opened.fd);
    return { fd: opened.fd, content };
  }

  #open(at: number): void {
    const { sys, stat2, notes } = this.#thread;
    const { dirfd, arena, names } = this.#work;
    if (sys.stat(dirfd, arena, names[at]!, stat2) < 0 || (stat2.words[STAT.MODE]! & 0xf000) !== REGULAR) return;
    const size = wide(stat2.words, STAT.SIZE);
    let isDirect = size > 0 && size <= AHEAD_BYTES && this.#thread.direct !== null;
    let fd = this.#reader.open(dirfd, arena, names[at]!, isDirect);
    if (fd === EINVAL && isDirect) {
      isDirect = false;
      fd = this.#reader.open(dirfd, arena, names[at]!);
    }
    if (fd < 0) return;
    this.#opened.set(at, { fd, isDirect });
    // A file system may answer also a direct read from its cache.
    if (!forgetPages(fd)) notes.keptInMemory++;
    if (!isDirect) return fetchPages(fd, 0, Math.min(size, FIRST_BYTES));
    if (this.#waiting++ === 0) this.#waitingFrom = at;
    this.#thread.direct!.queue(at % AHEAD, fd, size);
    if (this.#waiting === BATCH) this.#start();
  }

  #start(): void {
    this.#thread.direct!.submit();
    this.#waiting = 0;
  }

  /** Closes the files that were not taken. */
  [Symbol.dispose](): void {
    if (this.#opened.size > 0) this.#thread.direct?.settle();
    for (const { fd } of this.#opened.values()) this.#thread.sys.close(fd);
  }
}
