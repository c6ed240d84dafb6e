import { DIRECT } from "../../fs/linux/direct-reads.ts";
import { append } from "../../append.ts";
import { PAGED } from "../../formats/payloads/sqlite-pages.ts";
import { Sha256Stream } from "../../crypto/hash.ts";
import fs from "node:fs";
import { hashAt } from "../../crypto/primitives.ts";
import { EINVAL, ELOOP, ENOENT, EOVERFLOW, EPERM, faultOfEntry, HAS_NO_ATTRIBUTE } from "../../fs/linux/errno.ts";
import { forgetPages } from "../../fs/linux/flush.ts";
import { cloneAnswer, cloneFile, takeOverNoCow } from "../../fs/linux/reflink.ts";
import { HEADER_BYTES } from "../../formats/sqlite-header.ts";
import { C, EXTRA, FLAG, R, RECORD_WORDS } from "../cache/scan-table.ts";
import { sameContentStat, STAT, type StatBuffer, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { maySecret } from "../../fs/secret-names.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { Chunker } from "../../repository/packs/chunker.ts";
import { DatabaseLook } from "./databases.ts";
import {
  ChunkQueues,
  hashLargeFile,
  HoleAwareReading,
  type LargeFileResult,
  type OpenFile,
  READ_BYTES,
  RingReading,
} from "./large-files.ts";
import type { ScanThread } from "./scan-thread.ts";
import {
  CTIME_WORDS,
  fillRecord,
  hasWords,
  INODE_WORDS,
  deviceWord,
  isYoung,
  isYoungDirectory,
  keepFormerOwner,
  MTIME_WORDS,
  OWNER_WORDS,
  SIZE_WORDS,
  tickOf,
} from "./stat-words.ts";
import { SINGLE_BLOB_LIMIT } from "./task.ts";
import { writtenRecord } from "./written-files.ts";

const YOUNG_SECONDS = 60;
/** Only this many young files are flushed before they are read, so that they need no second reading. */
const SETTLE_LIMIT = 64;
/** The first byte of a SQLite database. */
const FIRST_OF_MAGIC = 0x53;
const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const O_NOATIME = fs.constants.O_NOATIME ?? 0;
/** An unnamed file in a given directory; Linux only. */
const O_TMPFILE = 0x400000 | fs.constants.O_DIRECTORY;

export interface Extra {
  tag: number;
  value: Uint8Array;
}

const UNCHANGED = [...MTIME_WORDS, ...CTIME_WORDS, ...INODE_WORDS];

/** An entry by its name in a held directory, the record to fill, and its previous record (-1: none). */
export interface EntryToRead {
  dirfd: number;
  names: Arena;
  name: number;
  record: number;
  directory: number;
  oldRecord: number;
  /** the file, if it is open already and was read ahead; closed here */
  opened?: OpenedAhead | undefined;
  /** other content for the record: that of an open file, which stays open, or nothing; absent: its own */
  content?: number | "empty" | undefined;
  /** the database's own file does not have all of its content; as {@link FLAG.LIVE} */
  isLive?: boolean;
}

/** An open file. `content`: its first bytes, read from the disk; null if they were not read, or cannot be. */
export interface OpenedAhead {
  fd: number;
  content: Uint8Array | null;
}

/**
 * Reads one entry without a valid record, and fills its record: content hashed and handed to the sink, link target,
 * attributes, holes. `thread.stat` holds its stat result.
 */
export class EntryReader {
  readonly #thread: ScanThread;
  readonly #records: Arena;
  readonly #digest: Arena = newArena(32);
  readonly queues: ChunkQueues;
  /** Made for the first large file: most scans have none. */
  #chunker: Chunker | undefined;
  #noAtime = O_NOATIME;
  #extras: Extra[] = [];
  #flags = 0;
  #makesNoClones = false;
  /** The content may be left to the caller, who stores databases by pages: the previous scan had the file, or may have had it. */
  #mayStay = false;
  /** The content that was read last was left to the caller, but is too short to be stored by pages. */
  #isLeftOver = false;
  readonly databases: DatabaseLook;

  constructor(thread: ScanThread) {
    this.#thread = thread;
    this.databases = new DatabaseLook(thread);
    this.#records = arenaOver(thread.table.recordBytes);
    this.queues = new ChunkQueues(thread);
  }

  read(entry: EntryToRead): void {
    const { record } = entry;
    const { table, stat } = this.#thread;
    const base = record * RECORD_WORDS;
    this.#extras = [];
    this.#flags = 0;
    // A captured database has a record in no previous table, even if the previous scan had the database.
    const mayHave = this.#thread.old === null ? this.#thread.sink?.spills === true : entry.isLive !== undefined;
    this.#mayStay = entry.oldRecord >= 0 || mayHave;
    fillRecord(table.records, base, stat.words);
    const type = (stat.words[STAT.MODE]! >>> 12) & 15;
    const [name, length] = [table.records[base]!, table.records[base + R.NAME_FLAGS]! & 0xffff];
    if (type === TYPE.FILE && maySecret(table.names, name, length)) this.#flags |= FLAG.SECRET;
    if (type === TYPE.FILE && entry.content === "empty") this.#leaveEmpty(entry);
    else if (type === TYPE.FILE && (this.#leftUnread(entry) || this.#takenOnTrust(entry))) this.#ownAttributes(entry);
    else if (type === TYPE.FILE) this.#readFile(entry);
    else {
      // The name now has another entry.
      if (entry.opened !== undefined) this.#thread.sys.close(entry.opened.fd);
      const { request, trustDirectoryTimes } = this.#thread.task;
      if (type === TYPE.DIRECTORY && isYoungDirectory(stat.words, request.heldAt, trustDirectoryTimes))
        this.#flags |= FLAG.YOUNG;
      if (type !== TYPE.LINK || this.#readLink(entry)) this.#ownAttributes(entry);
    }
    if (table.records[base + R.MODE] === 0) return;
    if (entry.oldRecord >= 0) this.#keepFormerOwner(base, entry.oldRecord);
    table.setRecordFlags(record, this.#flags);
    table.setExtras(record, this.#extras);
  }

  #keepFormerOwner(base: number, oldRecord: number): void {
    const { table, stat, old } = this.#thread;
    keepFormerOwner(old!.records, oldRecord * RECORD_WORDS, stat.words);
    for (const [own, of] of OWNER_WORDS) table.records[base + own] = stat.words[of]!;
    table.records[base + R.MODE] = stat.words[STAT.MODE]! & 0xffff;
  }

  /**
   * Reads a small file again if its stat matches its record. True if the content has the recorded hash; false also if
   * the file exceeds this thread's limit. Clears the young mark in the previous table once the file is no longer young.
   */
  stillSame(dirfd: number, names: Arena, name: number, oldRecord: number): boolean {
    const { old, stat, stat2, sys, content, notes, task } = this.#thread;
    if (task.request.unread !== undefined) return false;
    const size = wide(stat.words, STAT.SIZE);
    if (size > SINGLE_BLOB_LIMIT || notes.bytesRead + size > task.readLimit) return false;
    const fd = this.open(dirfd, names, name);
    if (fd < 0) return false;
    const length = this.#readAll(fd, size);
    const unchanged = length === size && sys.fstat(fd, stat2) === 0 && sameContentStat(stat.words, stat2.words);
    sys.close(fd);
    if (!unchanged) return false;
    notes.filesRead++;
    this.#thread.countRead(length);
    hashAt(content, 0, length, this.#digest, 0);
    const at = (oldRecord * RECORD_WORDS + R.HASH) * 4;
    if (Buffer.compare(this.#digest.bytes, old!.recordBytes.subarray(at, at + 32)) !== 0) return false;
    if (!this.#isYoung()) old!.setRecordFlags(oldRecord, old!.recordFlags(oldRecord) & ~FLAG.YOUNG);
    return true;
  }

  /** True if an entry with a matching stat has the recorded attributes. */
  sameAttributes(dirfd: number, names: Arena, name: number, oldRecord: number): boolean {
    const { old } = this.#thread;
    this.#extras = [];
    if (this.#pathAttributes(dirfd, names, name) < 0) return false;
    const were = old!.extrasOf(oldRecord).filter(({ tag }) => tag === EXTRA.XATTR);
    const now = this.#extras;
    return were.length === now.length && were.every(({ value }, i) => Buffer.compare(value, now[i]!.value) === 0);
  }

  /**
   * True if a further change of the file in `thread.stat` may not show in its times: soon after a change, a store
   * through a mapping need not update them. Holding a tree flushes mappings, so that only the clock's tick counts.
   */
  #isYoung(): boolean {
    const { stat, task } = this.#thread;
    if (!this.#trustsTimes()) return true;
    const { heldAt } = task.request;
    if (heldAt === undefined) return isYoung(stat.words, YOUNG_SECONDS);
    return isYoung(stat.words, tickOf(stat.words), heldAt / 1000);
  }

  /** True if the times in `thread.stat` show each change once some time has passed. */
  #trustsTimes(): boolean {
    const { task, stat } = this.#thread;
    if (!task.trustContentTimes || task.devicesInMemory.length === 0) return task.trustContentTimes;
    return !task.devicesInMemory.includes(deviceWord(stat.words));
  }

  /** Reads a small file into the thread's buffer; returns the bytes read, or minus errno. */
  #readAll(fd: number, size: number): number {
    const { content, sys } = this.#thread;
    let length = 0;
    while (length < content.bytes.length) {
      const n = sys.read(fd, content, length, content.bytes.length - length, length);
      if (n < 0) return n;
      length += n;
      if (n === 0 || length >= size) break;
    }
    return length;
  }

  /**
   * In a quick scan, skips reading a large file if its stat decides: another size means different content, equal size
   * and times mean the same. The record claims no more than the old one, so that a later save with this cache still
   * reads the file. Files that a restore has just written are read.
   */
  #takenOnTrust({ record, oldRecord }: EntryToRead): boolean {
    const { table, old } = this.#thread;
    const how = this.#trusted(oldRecord);
    if (how === null) return false;
    const same = how === "same";
    const base = record * RECORD_WORDS;
    const was = oldRecord * RECORD_WORDS;
    const flags = old!.recordFlags(oldRecord);
    const from = same ? old!.records : table.records;
    for (let i = 0; i < 8; i++)
      table.records[base + R.HASH + i] = same ? from[was + R.HASH + i]! : from[base + R.SIZE + i]!;
    if (!same) return true;
    this.#flags |= flags & (FLAG.CHUNKED | FLAG.YOUNG | FLAG.TORN | FLAG.UNREAD);
    const chunks = old!.extra(oldRecord, EXTRA.CHUNKS);
    if (chunks !== null) this.#extras.push({ tag: EXTRA.CHUNKS, value: chunks });
    return true;
  }

  /** True if the content of the file in `thread.stat` is read for its record. */
  readsContent(oldRecord: number): boolean {
    const { stat, task } = this.#thread;
    const isFile = ((stat.words[STAT.MODE]! >>> 12) & 15) === TYPE.FILE;
    return isFile && task.request.unread === undefined && this.#trusted(oldRecord) === null && this.#written() < 0;
  }

  /** Decides on a large file's content without reading it, if the task allows that: see {@link #takenOnTrust}. */
  #trusted(oldRecord: number): "same" | "resized" | null {
    const { task, old, stat } = this.#thread;
    if (!task.quick || oldRecord < 0 || wide(stat.words, STAT.SIZE) <= SINGLE_BLOB_LIMIT) return null;
    const was = [old!.records, oldRecord * RECORD_WORDS, stat.words] as const;
    if (!hasWords(...was, SIZE_WORDS)) return "resized";
    if (task.request.byTimes !== true || (old!.recordFlags(oldRecord) & FLAG.OMITTED) !== 0) return null;
    return hasWords(...was, UNCHANGED) ? "same" : null;
  }

  /**
   * Uses the inode in place of the content, if the task reads no files. If the file may have changed again, the value
   * is valid for this scan only.
   */
  #leftUnread({ record }: EntryToRead): boolean {
    const { table, stat, task } = this.#thread;
    const { unread } = task.request;
    if (unread === undefined) return false;
    const { heldAt, isLater } = unread;
    const { words } = stat;
    const isOpen = isYoung(words, tickOf(words), heldAt / 1000);
    const base = record * RECORD_WORDS + R.HASH;
    const told = [STAT.INO, STAT.INO + 1, STAT.CTIME, STAT.CTIME + 1, STAT.CTIME_NS].map((word) => words[word]!);
    for (const [i, word] of [...told, isOpen ? (isLater ? 2 : 1) : 0, 0, 0].entries()) table.records[base + i] = word;
    if (isOpen) this.#flags |= FLAG.YOUNG;
    return true;
  }

  #vanished(record: number, directory: number): void {
    this.#thread.table.noRecord(record);
    this.#thread.noteMoved(directory);
  }

  #omit(record: number, directory: number, reason: string): void {
    this.#flags |= FLAG.OMITTED;
    this.#thread.noteOmitted(this.#thread.entryPath(directory, this.#thread.table.recordName(record)), reason);
  }

  /** False if there is no target: the link was removed or replaced meanwhile, or cannot be read. */
  #readLink({ dirfd, names, name, record, directory }: EntryToRead): boolean {
    const { sys, scratch } = this.#thread;
    const n = sys.readlink(dirfd, names, name, scratch);
    if (n === ENOENT || n === EINVAL) this.#vanished(record, directory);
    else if (n < 0) this.#omit(record, directory, faultOfEntry(n));
    else this.#extras.push({ tag: EXTRA.LINK_TARGET, value: Uint8Array.from(scratch.bytes.subarray(0, n)) });
    return n >= 0;
  }

  /** Opens a file of a held directory for reading; minus errno if that fails. */
  open(dirfd: number, names: Arena, name: number, isDirect = false): number {
    const { sys } = this.#thread;
    const flags = isDirect ? OPEN_FLAGS | DIRECT : OPEN_FLAGS;
    const fd = sys.open(dirfd, names, name, flags | this.#noAtime, 0);
    if (fd !== EPERM || this.#noAtime === 0) return fd;
    // Only a file's owner may use O_NOATIME.
    return sys.open(dirfd, names, name, flags, 0);
  }

  /** Records a file without its content. */
  #leaveEmpty(entry: EntryToRead): void {
    const { scratch } = this.#thread;
    const base = entry.record * RECORD_WORDS;
    this.#setSize(base, 0);
    hashAt(scratch, 0, 0, this.#records, (base + R.HASH) * 4);
    if (entry.isLive === true) this.#flags |= FLAG.LIVE;
    this.#ownAttributes(entry);
  }

  #readFile(entry: EntryToRead): void {
    const { dirfd, names, name, record, directory, opened } = entry;
    const { sys, task } = this.#thread;
    const fd = opened?.fd ?? this.open(dirfd, names, name);
    if (fd === ENOENT || fd === ELOOP) return this.#vanished(record, directory);
    if (fd < 0) return this.#omit(record, directory, faultOfEntry(fd));
    if (task.request.readAgain === "disk" && opened === undefined && !forgetPages(fd))
      this.#thread.notes.keptInMemory++;
    try {
      this.#readOpenFile(fd, entry);
    } finally {
      sys.close(fd);
    }
  }

  /** The record of a file that a restore wrote and that has not changed since (by `thread.stat`); or -1. */
  #written(): number {
    const { written, stat } = this.#thread;
    const record = written === null || !this.#trustsTimes() ? -1 : writtenRecord(written, stat.words);
    return record < 0 || this.#thread.isStored(written!, record) ? record : -1;
  }

  /** Takes over the known record of an open file, if the file is still as it was written. */
  #tookWritten(fd: number, record: number, directory: number): boolean {
    const { sys, stat, table, written } = this.#thread;
    if (written === null || sys.fstat(fd, stat) < 0) return false;
    const known = this.#written();
    if (known < 0) return false;
    fillRecord(table.records, record * RECORD_WORDS, stat.words);
    const [from, to] = [known, record].map((each) => (each * RECORD_WORDS + R.HASH) * 4) as [number, number];
    table.recordBytes.set(written.recordBytes.subarray(from, from + 32), to);
    this.#flags |= written.recordFlags(known) & FLAG.CHUNKED;
    append(this.#extras, written.extrasOf(known));
    this.#lacks(this.#attributes(fd), record, directory);
    this.#holes(fd, stat);
    return true;
  }

  #readOpenFile(fd: number, entry: EntryToRead): void {
    const { record, directory, content } = entry;
    const ahead = entry.opened?.content ?? null;
    const image = typeof content === "number" ? content : -1;
    if (image < 0 && this.#tookWritten(fd, record, directory)) return;
    if (image < 0 && this.#leftForCapture(fd, entry)) return;
    const thread = this.#thread;
    const { sys, stat, stat2, table } = thread;
    const base = record * RECORD_WORDS;
    let young = this.#isYoung();
    if (
      young &&
      image < 0 &&
      this.#trustsTimes() &&
      thread.task.request.heldAt === undefined &&
      Atomics.add(table.control, C.YOUNG, 1) < SETTLE_LIMIT &&
      thread.sink !== null
    ) {
      sys.settle(fd);
      sys.fstat(fd, stat);
      young = isYoung(stat.words, tickOf(stat.words));
    }
    for (let attempt = 0; ; attempt++) {
      const clone = image >= 0 ? this.#asImage(image) : attempt === 1 ? this.#capture(fd) : -1;
      try {
        fillRecord(table.records, base, stat.words);
        const error = this.#content(clone < 0 ? fd : clone, stat, record, attempt === 0 ? ahead : null);
        const known = sys.fstat(fd, stat2);
        // The opened file is no regular file any more: another entry took its place.
        if (known >= 0 && (stat2.words[STAT.MODE]! & 0xf000) >>> 12 !== TYPE.FILE)
          return this.#vanished(record, directory);
        if (error < 0) return this.#omit(record, directory, faultOfEntry(error));
        const isWhole = error === 1 && (clone >= 0 || sameContentStat(stat.words, stat2.words));
        // A file that shrank during a read may be too small for pages, but its content was left to the caller.
        const isLast = attempt > 0 && !this.#isLeftOver;
        if (!isWhole && isLast) this.#torn(record, directory);
        if (isWhole || isLast) {
          if (young) this.#flags |= FLAG.YOUNG;
          this.#noteDatabase(clone < 0 ? fd : clone, fd, entry);
          this.#lacks(this.#attributes(fd), record, directory);
          this.#holes(clone < 0 ? fd : clone, stat);
          return;
        }
      } finally {
        if (clone >= 0 && clone !== image) fs.closeSync(clone);
      }
      stat.words.set(stat2.words);
      young = true;
      this.#extras = [];
      // The third read stores the content.
      if (attempt > 0) this.#mayStay = false;
    }
  }

  /**
   * A clone of an open file that is being written to, so that all bytes are of one moment. Its size and blocks go to
   * `thread.stat`, whose times are from just before. -1 if the file system makes no clones.
   */
  #capture(fd: number): number {
    const { task, sys, stat2 } = this.#thread;
    if (task.captureIn === null || this.#makesNoClones) return -1;
    let clone: number;
    try {
      clone = fs.openSync(task.captureIn, O_TMPFILE | fs.constants.O_RDWR, 0o600);
    } catch {
      this.#makesNoClones = true;
      return -1;
    }
    takeOverNoCow(fd, clone);
    const answer = cloneAnswer(cloneFile(fd, clone));
    if (answer !== "cloned" || sys.fstat(clone, stat2) < 0) {
      fs.closeSync(clone);
      this.#makesNoClones = answer === "refused";
      return -1;
    }
    this.#takeSize();
    return clone;
  }

  /** Sets `thread.stat` to the content of another open file, and returns its descriptor. */
  #asImage(image: number): number {
    const { sys, stat2 } = this.#thread;
    if (sys.fstat(image, stat2) >= 0) this.#takeSize();
    return image;
  }

  #takeSize(): void {
    const { stat, stat2 } = this.#thread;
    for (const word of [STAT.SIZE, STAT.SIZE + 1, STAT.BLOCKS, STAT.BLOCKS + 1]) stat.words[word] = stat2.words[word]!;
  }

  /** Leaves a large database in use unread, if it is captured afterwards. */
  #leftForCapture(fd: number, entry: EntryToRead): boolean {
    const { stat, task } = this.#thread;
    if (!task.capturesDatabases || entry.isLive !== undefined || wide(stat.words, STAT.SIZE) <= SINGLE_BLOB_LIMIT)
      return false;
    const name = this.#thread.table.recordName(entry.record);
    if (!this.databases.isOne(fd) || !this.databases.isLive(entry.dirfd, name)) return false;
    this.#leaveEmpty({ ...entry, isLive: true });
    this.#thread.noteDatabase(entry.directory, name);
    return true;
  }

  /** Marks a database, and notes it for a capture if it is in use. */
  #noteDatabase(fd: number, source: number, { dirfd, record, directory, isLive }: EntryToRead): void {
    const { content, table, sys, stat2 } = this.#thread;
    const size = wide(table.records, record * RECORD_WORDS + R.SIZE);
    if (size < HEADER_BYTES || (size <= SINGLE_BLOB_LIMIT && content.bytes[0] !== FIRST_OF_MAGIC)) return;
    if (!this.databases.isOne(fd, size > SINGLE_BLOB_LIMIT ? undefined : content.bytes.subarray(0, HEADER_BYTES)))
      return;
    this.#flags |= FLAG.DATABASE;
    const name = table.recordName(record);
    const live = isLive ?? this.databases.isLive(dirfd, name);
    if (live) this.#flags |= FLAG.LIVE;
    // A running transaction may have ended after the read and before the look for its journal.
    else if (
      isLive === undefined &&
      sys.fstat(source, stat2) === 0 &&
      !hasWords(table.records, record * RECORD_WORDS, stat2.words, CTIME_WORDS)
    )
      this.#torn(record, directory);
    if (isLive === undefined && (live || (this.#flags & FLAG.TORN) !== 0)) this.#thread.noteDatabase(directory, name);
    else if (isLive === undefined && this.#thread.sink !== null) {
      this.#flags |= FLAG.UNCHECKED;
      this.#thread.noteResting(directory, record);
    }
  }

  #torn(record: number, directory: number): void {
    this.#flags |= FLAG.TORN;
    const path = this.#thread.entryPath(directory, this.#thread.table.recordName(record));
    this.#thread.noteTorn(path, "changed while it was read");
  }

  /** Reads and stores the content; 1 if the length matches the stat, 0 if not, or minus errno. */
  #content(fd: number, stat: StatBuffer, record: number, ahead: Uint8Array | null): number {
    const thread = this.#thread;
    const size = wide(stat.words, STAT.SIZE);
    const base = record * RECORD_WORDS;
    const hashStart = (base + R.HASH) * 4;
    this.#flags &= ~FLAG.CHUNKED;
    this.#isLeftOver = false;
    thread.notes.filesRead++;
    if (size > SINGLE_BLOB_LIMIT) {
      const file = { fd, size, isSparse: wide(stat.words, STAT.BLOCKS) * 512 < size };
      const hash = this.#records.bytes.subarray(hashStart, hashStart + 32);
      const result =
        thread.task.request.readAgain === undefined ? this.#readLarge(file, hash) : hashLargeFile(thread, file, hash);
      if (result.error < 0) return result.error;
      this.#setSize(base, result.length);
      if (result.chunks !== null) {
        this.#flags |= FLAG.CHUNKED;
        this.#extras.push({ tag: EXTRA.CHUNKS, value: result.chunks });
      }
      return result.length === size ? 1 : 0;
    }
    const { content } = thread;
    const isKnown = ahead?.length === size;
    if (isKnown) content.bytes.set(ahead);
    let length = isKnown ? size : this.#readAll(fd, size);
    if (length < 0) return length;
    if (length > SINGLE_BLOB_LIMIT) length = SINGLE_BLOB_LIMIT;
    thread.countRead(length);
    this.#setSize(base, length);
    hashAt(content, 0, length, this.#records, hashStart);
    if (length > 0) thread.sink?.add("data", { id: this.#records.bytes, offset: hashStart }, content, 0, length);
    return length === size ? 1 : 0;
  }

  /** Reads, cuts, hashes and stores a file larger than one blob; its SHA-256 goes to `hash`. */
  #readLarge(file: OpenFile, hash: Uint8Array): LargeFileResult {
    const thread = this.#thread;
    const { chunkerPolynomial, rings } = thread.task;
    const chunker = (this.#chunker ??= new Chunker(chunkerPolynomial, rings[thread.thread]!));
    chunker.reset();
    const reading = new RingReading(thread, this.queues);
    const whole = new Sha256Stream();
    const ring = this.queues.ring(thread.thread);
    const from = new HoleAwareReading(thread.sys, file);
    const isPaged = this.databases.isOne(file.fd);
    // Points and backups take only the changed pages of a database that an earlier scan had.
    reading.stays = isPaged && file.size >= PAGED.from && this.#mayStay;
    for (;;) {
      thread.checkStop();
      reading.makeRoom(READ_BYTES);
      const n = from.read(ring, reading.end, READ_BYTES);
      if (n < 0) {
        reading.drain();
        return { error: n, length: from.position, chunks: null };
      }
      whole.update(ring.bytes.subarray(reading.end, reading.end + n));
      reading.advance(n, from.wasHole);
      thread.countRead(n);
      // A file that keeps growing is cut off; the caller sees that it changed.
      const eof = n === 0 || from.position >= file.size + 64 * READ_BYTES;
      for (;;) {
        const cut = isPaged ? reading.pagesCut(eof) : chunker.cut(reading.given, reading.end, eof);
        reading.given = cut < 0 ? reading.end : cut;
        if (cut < 0) break;
        reading.publish(cut);
      }
      if (eof) break;
    }
    const chunks = reading.drain();
    hash.set(whole.digest());
    this.#isLeftOver = reading.stays && from.position < PAGED.from;
    return { error: 0, length: from.position, chunks: chunks.length <= 32 ? null : chunks };
  }

  #setSize(base: number, length: number): void {
    const { records } = this.#thread.table;
    records[base + R.SIZE] = length >>> 0;
    records[base + R.SIZE + 1] = Math.floor(length / 4294967296);
  }

  #ownAttributes({ dirfd, names, name, record, directory }: EntryToRead): void {
    this.#lacks(this.#pathAttributes(dirfd, names, name), record, directory);
  }

  /**
   * Notes that attributes of an entry could not be read (`error`: 0, or minus errno). Omitting a directory for this
   * would lose everything below it.
   */
  #lacks(error: number, record: number, directory: number): void {
    if (error === 0) return;
    this.#flags |= FLAG.TORN | FLAG.UNREAD;
    const path = this.#thread.entryPath(directory, this.#thread.table.recordName(record));
    const why = error === EOVERFLOW ? "its access list has ids that this user namespace lacks" : faultOfEntry(error);
    this.#thread.noteTorn(path, `${why}: its extended attributes cannot be read`, ["xattrs"]);
  }

  /** Collects the readable attributes. Returns 0, or minus errno if some may be missing. */
  #attributes(fd: number): number {
    const { sys, scratch } = this.#thread;
    const length = sys.flistxattr(fd, scratch);
    if (length <= 0) return HAS_NO_ATTRIBUTE.has(length) ? 0 : length;
    return this.#collect(scratch.bytes, length, (name) => sys.fgetxattr(fd, scratch, name, this.#thread.value, 0));
  }

  /** Reads the attributes by path; 0, or minus errno. */
  #pathAttributes(dirfd: number, names: Arena, name: number): number {
    const { sys, scratch } = this.#thread;
    const length = sys.llistxattr(dirfd, names, name, scratch);
    if (length <= 0) return HAS_NO_ATTRIBUTE.has(length) ? 0 : length;
    return this.#collect(scratch.bytes, length, (at, end) =>
      sys.lgetxattr(dirfd, names, name, scratch.bytes.subarray(at, end), this.#thread.value, 0),
    );
  }

  #collect(list: Uint8Array, length: number, get: (name: number, end: number) => number): number {
    const found: Extra[] = [];
    let error = 0;
    for (let at = 0; at < length;) {
      const end = list.indexOf(0, at);
      const size = get(at, end);
      if (size < 0 && !HAS_NO_ATTRIBUTE.has(size)) error = size;
      if (size >= 0) {
        const value = new Uint8Array(end - at + 1 + size);
        value.set(list.subarray(at, end + 1));
        value.set(this.#thread.value.bytes.subarray(0, size), end - at + 1);
        found.push({ tag: EXTRA.XATTR, value });
      }
      at = end + 1;
    }
    found.sort((a, b) => Buffer.compare(a.value, b.value));
    append(this.#extras, found);
    return error;
  }

  /** Records the exact holes of a file that occupies less than its size. */
  #holes(fd: number, stat: StatBuffer): void {
    const size = wide(stat.words, STAT.SIZE);
    if (wide(stat.words, STAT.BLOCKS) * 512 >= size) return;
    const { sys } = this.#thread;
    const holes: number[] = [];
    for (let at = 0; at < size;) {
      const hole = sys.seek(fd, at, 4);
      if (hole < 0 || hole >= size) break;
      const data = sys.seek(fd, hole, 3);
      const end = data < 0 ? size : Math.min(data, size);
      holes.push(hole, end - hole);
      at = end;
    }
    if (holes.length === 0) return;
    const value = Buffer.alloc(holes.length * 8);
    holes.forEach((v, i) => value.writeBigUInt64LE(BigInt(v), i * 8));
    this.#extras.push({ tag: EXTRA.HOLES, value });
  }
}
