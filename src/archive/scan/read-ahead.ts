import { type DirectReads, endDirect } from "../../fs/linux/direct-reads.ts";
import { EINVAL } from "../../fs/linux/errno.ts";
import { fetchPages, forgetPages } from "../../fs/linux/flush.ts";
import { sameContentStat, STAT, wide } from "../../fs/linux/syscalls.ts";
import type { Arena } from "../../native.ts";
import type { EntryReader, OpenedAhead } from "./read-entry.ts";
import { AHEAD, AHEAD_BYTES, type ScanThread } from "./scan-thread.ts";

/** Larger files that are open at once. */
const LARGER_AHEAD = AHEAD / 2;
/** Bytes of a larger file that are prefetched. The rest is prefetched while it is read. */
const FIRST_BYTES = 4 * 1024 * 1024;
const REGULAR = 0x8000;

/** An open file. `direct`: its direct read, and its stat result from before. */
interface Opened {
  fd: number;
  direct: { reads: DirectReads; stat: Uint32Array } | null;
}

/** Reads files of a directory from the disk, ahead of their use: small ones into own memory, others into the page cache. */
export class ReadAhead {
  readonly #thread: ScanThread;
  readonly #reader: EntryReader;
  readonly #work: { directory: number; dirfd: number; arena: Arena; names: readonly number[] };
  /** By position in the directory, in order. */
  readonly #opened = new Map<number, Opened>();
  #next: number;
  /** Position of a larger file that is not opened yet, because it is too far ahead. */
  #later = -1;

  constructor(
    thread: ScanThread,
    reader: EntryReader,
    work: { directory: number; dirfd: number; arena: Arena; names: readonly number[]; from: number },
  ) {
    this.#thread = thread;
    this.#reader = reader;
    this.#work = work;
    this.#next = work.from;
  }

  /**
   * The open file of a name, for the caller to close, with its content until the next call; undefined if it is not open.
   * Positions are taken in order. `thread.stat` describes the file. `to`: names from here on are not needed.
   */
  take(at: number, to: number): OpenedAhead | undefined {
    for (const before of this.#opened.keys()) {
      if (before >= at) break;
      this.#drop(before);
    }
    const end = Math.min(at + AHEAD, to);
    const limit = at + LARGER_AHEAD;
    while (this.#next < end && (this.#next !== this.#later || this.#later < limit)) {
      if (!this.#open(this.#next, limit)) break;
      this.#next++;
    }
    const opened = this.#opened.get(at);
    if (opened === undefined) return undefined;
    const content = this.#content(at, opened);
    if (opened.direct !== null && content === null) {
      // After a failed or outdated direct read, the file is opened again and read in the usual way.
      this.#drop(at);
      return undefined;
    }
    this.#opened.delete(at);
    return { fd: opened.fd, content };
  }

  /** False for a larger file beyond `limit`, which is opened later. */
  #open(at: number, limit: number): boolean {
    const { stat2, notes } = this.#thread;
    const { directory, dirfd, arena, names } = this.#work;
    if (this.#thread.look(directory, dirfd, arena, names[at]!, stat2) < 0) return true;
    if ((stat2.words[STAT.MODE]! & 0xf000) !== REGULAR) return true;
    const size = wide(stat2.words, STAT.SIZE);
    let reads = size > 0 && size <= AHEAD_BYTES ? this.#thread.direct : null;
    if (reads === null && at >= limit) {
      this.#later = at;
      return false;
    }
    let fd = this.#reader.open(dirfd, arena, names[at]!, reads !== null);
    if (fd === EINVAL && reads !== null) {
      reads = null;
      fd = this.#reader.open(dirfd, arena, names[at]!);
    }
    if (fd < 0) return true;
    this.#opened.set(at, { fd, direct: reads === null ? null : { reads, stat: stat2.words.slice() } });
    // A file system may answer also a direct read from its cache.
    if (!forgetPages(fd)) notes.keptInMemory++;
    if (reads === null) fetchPages(fd, 0, Math.min(size, FIRST_BYTES));
    else reads.queue(at % AHEAD, fd, size);
    return true;
  }

  /** Waits for a file's direct read. Null if it failed, or if the file has changed since it was asked for. */
  #content(at: number, { fd, direct }: Opened): Uint8Array | null {
    if (direct === null) return null;
    const content = direct.reads.wait(at % AHEAD);
    if (content === null) this.#thread.endDirectReads();
    endDirect(fd);
    return sameContentStat(direct.stat, this.#thread.stat.words) ? content : null;
  }

  /** Closes a file without its content. A later direct read can use its place. */
  #drop(at: number): void {
    const opened = this.#opened.get(at)!;
    this.#opened.delete(at);
    try {
      this.#content(at, opened);
    } finally {
      this.#thread.sys.close(opened.fd);
    }
  }

  /** Closes the files that were not taken. */
  [Symbol.dispose](): void {
    try {
      for (const at of this.#opened.keys()) this.#drop(at);
    } finally {
      for (const { fd } of this.#opened.values()) this.#thread.sys.close(fd);
    }
  }
}
