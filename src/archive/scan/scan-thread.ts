import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { DirectoryListing, nameAt } from "../../fs/listing.ts";
import { openBelow } from "../../fs/linux/open-below.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, EXTRA, FLAG, R, RECORD_WORDS, ScanTable } from "../cache/scan-table.ts";
import { DirectReads } from "../../fs/linux/direct-reads.ts";
import {
  ATTRIBUTE_MOUNT_ROOT,
  newStatBuffer,
  openDirectory,
  STAT,
  type StatBuffer,
  type Syscalls,
  syscalls,
  TYPE,
  wide,
} from "../../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../../native.ts";
import { ELOOP, ENOENT, ENOTDIR, ETIMEDOUT } from "../../fs/linux/errno.ts";
import { isSilent } from "../../fs/silent-mounts.ts";
import { asSource } from "../cache/origins.ts";
import type { StoreSink } from "./store-sink.ts";
import {
  FoundDifference,
  newScanNotes,
  type ScanNotes,
  type ScanTask,
  SINGLE_BLOB_LIMIT,
  TORN_LIMIT,
  type TornEntry,
  type UnwantedEntry,
} from "./task.ts";

/** Files that are read ahead from the disk, if they are that small. */
export const AHEAD = 64;
export const AHEAD_BYTES = 32 * 1024;
/** Bytes read between two progress reports to the other threads. */
const REPORTED_BYTES = 1024 * 1024;
const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;

/** Buffers of this thread, reused by each scan. */
class ThreadBuffers {
  readonly listing = new DirectoryListing();
  readonly stat = newStatBuffer();
  readonly stat2 = newStatBuffer();
  /** file content, with spare room to detect growth */
  readonly content = newArena(SINGLE_BLOB_LIMIT + 64 * 1024);
  /** link targets and attribute lists */
  readonly scratch = newArena(256 * 1024);
  /** one attribute's value */
  readonly value = newArena(128 * 1024);
  readonly paths = newArena(8192);
}

let kept: ThreadBuffers | undefined;

function threadBuffers(): ThreadBuffers {
  return (kept ??= new ThreadBuffers());
}

/** Everything that one thread of a scan holds: its views, buffers and notes. */
export class ScanThread {
  readonly task: ScanTask;
  readonly thread: number;
  readonly sink: StoreSink | null;
  readonly table: ScanTable;
  readonly old: ScanTable | null;
  readonly written: ScanTable | null;
  readonly sys: Syscalls;
  readonly listing = threadBuffers().listing;
  readonly stat = threadBuffers().stat;
  readonly stat2 = threadBuffers().stat2;
  readonly content = threadBuffers().content;
  readonly scratch = threadBuffers().scratch;
  readonly value = threadBuffers().value;
  readonly paths = threadBuffers().paths;
  /** of all requests until a database is captured, then of the present request */
  notes: ScanNotes = newScanNotes();
  /** unwanted entries that all threads found before the present request, or this thread since */
  unwanted: UnwantedEntry[] = [];
  readonly rootFd: number;
  /** This thread has left entries to others, and takes no more. */
  isSpent = false;
  /** the directory that is being listed again, or -1; number of vanished names in such directories */
  listsAgain = -1;
  goneNames = 0;
  #root: number | undefined;
  #direct: DirectReads | null | undefined;
  #directFails = false;
  #unreported = 0;
  #onMuchRead: (() => void) | null;

  constructor(
    task: ScanTask,
    thread: number,
    { sink, onMuchRead }: { sink: StoreSink | null; onMuchRead: (() => void) | null },
  ) {
    this.#onMuchRead = onMuchRead;
    this.task = task;
    const { clonedFrom, root } = task.request;
    this.sys = clonedFrom === undefined ? syscalls() : asSource(syscalls(), clonedFrom);
    this.thread = thread;
    this.sink = sink;
    this.table = new ScanTable(task.table);
    this.old = task.old === null ? null : new ScanTable(task.old);
    this.written = task.written === null ? null : new ScanTable(task.written);
    this.rootFd = openDirectory(Buffer.from(root));
    this.#root = this.rootFd;
  }

  /** True if the store has the content of a file's record, or if nothing is stored at all. */
  isStored(from: ScanTable, record: number): boolean {
    const { sink } = this;
    if (sink === null) return true;
    if (from.recordFlags(record) & FLAG.CHUNKED) {
      const chunks = from.extra(record, EXTRA.CHUNKS);
      if (chunks === null) return false;
      for (let at = 0; at < chunks.length; at += 32) if (!sink.known(chunks, at)) return false;
      return true;
    }
    const base = record * RECORD_WORDS;
    return wide(from.records, base + R.SIZE) === 0 || sink.known(from.recordBytes, (base + R.HASH) * 4);
  }

  /** Reads small files ahead from the disk; null if the system refuses that, or one of them has failed. */
  get direct(): DirectReads | null {
    if (this.#direct === undefined) this.#direct = DirectReads.open(AHEAD, AHEAD_BYTES);
    return this.#directFails ? null : this.#direct;
  }

  /** To be called after a direct read that failed: some file systems open files for such reads and then refuse them. */
  endDirectReads(): void {
    this.#directFails = true;
  }

  /** Throws `interrupted` after the main thread's request to stop. */
  checkStop(): void {
    if (Atomics.load(this.table.control, C.STOP) !== 0)
      throw new CairnError("interrupted", "stopped; nothing was saved");
  }

  /** Ends the scan in all threads. */
  endAtDifference(): never {
    const { control } = this.table;
    Atomics.store(control, C.DIFFERS, 1);
    Atomics.store(control, C.STOP, 1);
    this.wake();
    throw new FoundDifference();
  }

  /** Opens a directory of the table; returns a descriptor or minus errno. Follows no link. */
  openDirectory(directory: number): number {
    return openBelow(this.sys, this.rootFd, this.table.directoryPath(directory), DIRECTORY, this.paths);
  }

  /**
   * Stats a listed entry of a directory that is open as `fd`. A mount that is left out is not looked at, and shows as a
   * directory with a mount; one that does not answer has `ETIMEDOUT`.
   */
  look(directory: number, fd: number, names: Arena, name: number, out: StatBuffer): number {
    const isLeftOut = this.#mountsIn(directory)?.get(latin1(nameAt(names, name)));
    if (isLeftOut === undefined) return this.sys.stat(fd, names, name, out);
    if (!isLeftOut) {
      const place = joinPath(this.task.request.root, this.entryPath(directory, nameAt(names, name)));
      return isSilent(place) ? ETIMEDOUT : this.sys.stat(fd, names, name, out);
    }
    out.words.fill(0);
    out.words[STAT.MODE] = TYPE.DIRECTORY << 12;
    out.words[STAT.ATTRIBUTES] = ATTRIBUTE_MOUNT_ROOT;
    return 0;
  }

  /** The mount points directly in a directory, by name; undefined if there are none. */
  #mountsIn(directory: number): ReadonlyMap<string, boolean> | undefined {
    if (this.task.mounts.size === 0) return undefined;
    if (directory !== this.#mountsOf) {
      this.#mountsOf = directory;
      const above = latin1(this.table.directoryPath(directory));
      const inside = [...this.task.mounts].flatMap(([path, isLeftOut]) => {
        const slash = path.lastIndexOf("/");
        return path.slice(0, Math.max(0, slash)) === above ? [[path.slice(slash + 1), isLeftOut] as const] : [];
      });
      this.#mounts = inside.length === 0 ? undefined : new Map(inside);
    }
    return this.#mounts;
  }

  #mountsOf = -1;
  #mounts: ReadonlyMap<string, boolean> | undefined;

  /** Adds a child directory, queues it and returns its number. */
  addDirectory(parent: number, name: Uint8Array, old: number, flags = 0): number {
    const { table } = this;
    const directory = table.takeDirectory();
    const parentPath = table.directoryPath(parent);
    const length = parentPath.length === 0 ? name.length : parentPath.length + 1 + name.length;
    const path = table.takeNames(length);
    if (parentPath.length > 0) {
      table.names.set(parentPath, path);
      table.names[path + parentPath.length] = 47;
    }
    table.names.set(name, path + length - name.length);
    const base = directory * DIRECTORY_WORDS;
    table.directories[base + D.PARENT] = parent;
    table.directories[base + D.PATH] = path;
    table.directories[base + D.PATH_LENGTH] = length;
    table.directories[base + D.OLD] = old + 1;
    table.directories[base + D.FLAGS] = flags;
    this.addJob(directory, 0, 0);
    return directory;
  }

  /** Queues a directory (count 0), a part of a listed one, or a directory to be listed again (count below 0). */
  addJob(directory: number, start: number, count: number): void {
    this.table.addJob(directory, start, count);
    this.wake();
  }

  /** Notes the end of a job: threads that have no other work end after the last one. */
  endJob(): void {
    if (Atomics.sub(this.table.control, C.PENDING, 1) === 1) this.wake();
  }

  wake(): void {
    Atomics.add(this.table.control, C.SIGNAL, 1);
    Atomics.notify(this.table.control, C.SIGNAL);
  }

  entryPath(directory: number, name: Uint8Array): Buffer {
    return joinPath(this.table.directoryPath(directory), name);
  }

  /** Counts bytes of content that were just read. */
  countRead(length: number): void {
    this.notes.bytesRead += length;
    this.#unreported += length;
    if (this.#unreported < REPORTED_BYTES) return;
    if (this.#onMuchRead !== null && this.notes.bytesRead > this.task.readLimit / 2) {
      this.#onMuchRead();
      this.#onMuchRead = null;
    }
    Atomics.add(this.table.control, C.KIB_DONE, this.#unreported >>> 10);
    this.#unreported &= 1023;
  }

  noteOmitted(path: Uint8Array, reason: string): void {
    this.notes.omitted.push({ path: Uint8Array.from(path), reason });
  }

  /** Notes that a listed name of a directory has vanished: its entry may have been renamed. */
  noteMoved(directory: number): void {
    const { table, notes } = this;
    if (directory === this.listsAgain) {
      this.goneNames++;
      return;
    }
    if ((table.directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.MOVED) !== 0) return;
    table.addDirectoryFlag(directory, DIRECTORY_FLAG.MOVED);
    notes.moved.push(directory);
  }

  /** Notes that a directory has vanished, perhaps with some of its parents: the nearest parent that exists is listed again. */
  noteGone(directory: number): void {
    const { table, sys } = this;
    let there = directory;
    for (let fd = -1; fd < 0;) {
      table.addDirectoryFlag(there, DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.GONE);
      there = table.directories[there * DIRECTORY_WORDS + D.PARENT]!;
      if (there === 0) break;
      fd = this.openDirectory(there);
      if (fd >= 0) sys.close(fd);
      else if (!isGone(fd)) break;
    }
    this.noteMoved(there);
  }

  noteTorn(path: Uint8Array, reason: string, aspects?: TornEntry["aspects"]): void {
    // A restore must know every entry with missing attributes: it would otherwise remove attributes that the point
    // lacks.
    if (aspects === undefined && this.notes.torn.length >= TORN_LIMIT) return;
    this.notes.torn.push({ path: Uint8Array.from(path), reason, ...(aspects === undefined ? {} : { aspects }) });
  }

  /** Notes a database in use, whose file does not have all of its content. */
  noteDatabase(directory: number, name: Uint8Array): void {
    if (this.task.capturesDatabases) this.notes.databases.push({ directory, name: Uint8Array.from(name) });
  }

  /** Notes a database that was read while no process used it, to be checked. */
  noteResting(directory: number, record: number): void {
    const name = Uint8Array.from(this.table.recordName(record));
    if (this.task.capturesDatabases) this.notes.resting.push({ directory, name });
  }

  noteIgnored(path: Uint8Array): void {
    this.notes.ignoredCount++;
    if (this.notes.ignored.length < 20) this.notes.ignored.push(Buffer.from(path).toString("latin1"));
  }

  close(): void {
    if (this.#root !== undefined) fs.closeSync(this.#root);
    this.#root = undefined;
    this.#direct?.close();
    this.#direct = undefined;
  }
}

/** True if opening a directory failed because the path has no entry or another kind of entry. */
export function isGone(result: number): boolean {
  return result === ENOENT || result === ENOTDIR || result === ELOOP;
}
