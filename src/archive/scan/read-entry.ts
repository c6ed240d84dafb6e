import { append } from "../../append.ts";
import fs from "node:fs";
import { EINVAL, ELOOP, ENOENT, EPERM, faultOfEntry, HAS_NO_ATTRIBUTE } from "../../fs/linux/errno.ts";
import { forgetPages } from "../../fs/linux/flush.ts";
import { deviceNumber } from "../../fs/linux/mounts.ts";
import { cloneAnswer, cloneFile, takeOverNoCow } from "../../fs/linux/reflink.ts";
import { C, EXTRA, FLAG, R, RECORD_WORDS } from "../cache/scan-table.ts";
import { sameContentStat, STAT, type StatBuffer, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { type Arena, arenaOver, newArena } from "../../native.ts";
import { hashLargeFile, readLargeFile } from "./read-large.ts";
import type { ScanThread } from "./scan-thread.ts";
import { CTIME_WORDS, hasWords, INODE_WORDS, MTIME_WORDS, SIZE_WORDS } from "./stat-words.ts";
import { SINGLE_BLOB_LIMIT } from "./task.ts";

const YOUNG_SECONDS = 60;
/** Few young files are settled (written back) before they are read, so that they need no second reading. */
const SETTLE_LIMIT = 64;
const OPEN_FLAGS = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const O_NOATIME = fs.constants.O_NOATIME ?? 0;
/** A file without a name, in the directory that is given; Linux only. */
const O_TMPFILE = 0x400000 | fs.constants.O_DIRECTORY;

export interface Extra {
  tag: number;
  value: Uint8Array;
}

const UNCHANGED = [...MTIME_WORDS, ...CTIME_WORDS, ...INODE_WORDS];

/** Fills a record's words from a stat result; name, flags, SUB and hash are left alone. */
function fillRecord(words: Uint32Array, base: number, s: Uint32Array): void {
  words[base + R.MODE] = s[STAT.MODE]! & 0xffff;
  words[base + R.UID] = s[STAT.UID]!;
  words[base + R.GID] = s[STAT.GID]!;
  words[base + R.NLINK] = s[STAT.NLINK]!;
  words[base + R.SIZE] = s[STAT.SIZE]!;
  words[base + R.SIZE + 1] = s[STAT.SIZE + 1]!;
  words[base + R.MTIME] = s[STAT.MTIME]!;
  words[base + R.MTIME + 1] = s[STAT.MTIME + 1]!;
  words[base + R.MTIME_NS] = s[STAT.MTIME_NS]!;
  words[base + R.CTIME] = s[STAT.CTIME]!;
  words[base + R.CTIME + 1] = s[STAT.CTIME + 1]!;
  words[base + R.CTIME_NS] = s[STAT.CTIME_NS]!;
  words[base + R.INO] = s[STAT.INO]!;
  words[base + R.INO + 1] = s[STAT.INO + 1]!;
  words[base + R.RDEV_MAJOR] = s[STAT.RDEV_MAJOR]!;
  words[base + R.RDEV_MINOR] = s[STAT.RDEV_MINOR]!;
  words[base + R.DEVICE] = deviceWord(s);
}

/** The device that an entry lies on, in one word. */
export function deviceWord(s: Uint32Array): number {
  return deviceNumber(s[STAT.DEV_MAJOR]!, s[STAT.DEV_MINOR]!);
}

/** True when a record still describes what stat found. */
export function sameStat(words: Uint32Array, base: number, s: Uint32Array): boolean {
  return (
    words[base + R.CTIME_NS] === s[STAT.CTIME_NS] &&
    words[base + R.CTIME] === s[STAT.CTIME] &&
    words[base + R.CTIME + 1] === s[STAT.CTIME + 1] &&
    words[base + R.MTIME_NS] === s[STAT.MTIME_NS] &&
    words[base + R.MTIME] === s[STAT.MTIME] &&
    words[base + R.MTIME + 1] === s[STAT.MTIME + 1] &&
    words[base + R.INO] === s[STAT.INO] &&
    words[base + R.INO + 1] === s[STAT.INO + 1] &&
    words[base + R.SIZE] === s[STAT.SIZE] &&
    words[base + R.SIZE + 1] === s[STAT.SIZE + 1] &&
    words[base + R.MODE] === (s[STAT.MODE]! & 0xffff) &&
    words[base + R.UID] === s[STAT.UID] &&
    words[base + R.GID] === s[STAT.GID] &&
    words[base + R.NLINK] === s[STAT.NLINK]
  );
}

/**
 * True when a directory may have been changed once more after it was listed without its times telling; `heldAt`: when
 * the tree was held that has its names (ms since 1970), null for the folder itself.
 */
export function isYoungDirectory(s: Uint32Array, heldAt: number | null): boolean {
  return heldAt === null ? isYoung(s, tickOf(s)) : isYoung(s, tickOf(s), heldAt / 1000);
}

function isYoung(s: Uint32Array, within: number, now = Date.now() / 1000): boolean {
  const changed = s[STAT.CTIME + 1]! * 4294967296 + s[STAT.CTIME]! + s[STAT.CTIME_NS]! / 1e9;
  return now - changed < within;
}

/**
 * Seconds within which a further change may leave a change time as it is: a tick of the kernel's clock, or where the
 * file system has whole seconds (ext4 with small inodes, some network ones; two on FAT) one of these.
 */
function tickOf(s: Uint32Array): number {
  return s[STAT.CTIME_NS] === 0 && s[STAT.MTIME_NS] === 0 ? 2.1 : 0.05;
}

/** An entry by its name in a held directory, the record to fill, and the record it had before (-1: none). */
export interface EntryToRead {
  dirfd: number;
  names: Arena;
  name: number;
  record: number;
  directory: number;
  oldRecord: number;
  /** the file, where it is open already and on its way from the disk; closed here */
  opened?: number | undefined;
}

/**
 * Reads one entry that the cache does not vouch for, and fills its record: content hashed and
 * handed to the sink, link target, attributes, holes. `thread.stat` holds its stat result.
 */
export class EntryReader {
  readonly #thread: ScanThread;
  readonly #records: Arena;
  readonly #digest: Arena = newArena(32);
  #noAtime = O_NOATIME;
  #extras: Extra[] = [];
  #flags = 0;
  #makesNoClones = false;

  constructor(thread: ScanThread) {
    this.#thread = thread;
    this.#records = arenaOver(thread.table.recordBytes);
  }

  read(entry: EntryToRead): void {
    const { record } = entry;
    const { table, stat } = this.#thread;
    const base = record * RECORD_WORDS;
    this.#extras = [];
    this.#flags = 0;
    fillRecord(table.records, base, stat.words);
    const type = (stat.words[STAT.MODE]! >>> 12) & 15;
    if (type === TYPE.FILE && this.#takenOnTrust(entry)) this.#ownAttributes(entry);
    else if (type === TYPE.FILE) this.#readFile(entry);
    else {
      // Something else has come to lie there.
      if (entry.opened !== undefined) this.#thread.sys.close(entry.opened);
      if (type === TYPE.DIRECTORY && isYoungDirectory(stat.words, this.#thread.task.heldAt)) this.#flags |= FLAG.YOUNG;
      if (type !== TYPE.LINK || this.#readLink(entry)) this.#ownAttributes(entry);
    }
    if (table.records[base + R.MODE] === 0) return;
    table.setRecordFlags(record, this.#flags);
    table.setExtras(record, this.#extras);
  }

  /**
   * Reads a small file again whose record is right as far as stat tells, and says whether its content is still the
   * one that was hashed: false, too, where it is more than this thread may read. One that is no longer young loses that
   * mark, in the previous table.
   */
  stillSame(dirfd: number, names: Arena, name: number, oldRecord: number): boolean {
    const { old, stat, stat2, sys, content, notes, task } = this.#thread;
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
    this.#thread.hash(content, 0, length, this.#digest, 0);
    const at = (oldRecord * RECORD_WORDS + R.HASH) * 4;
    if (Buffer.compare(this.#digest.bytes, old!.recordBytes.subarray(at, at + 32)) !== 0) return false;
    if (!this.#isYoung()) old!.setRecordFlags(oldRecord, old!.recordFlags(oldRecord) & ~FLAG.YOUNG);
    return true;
  }

  /** Tells whether an entry whose record is right as far as stat tells has the attributes that were recorded. */
  sameAttributes(dirfd: number, names: Arena, name: number, oldRecord: number): boolean {
    const { old } = this.#thread;
    this.#extras = [];
    if (this.#pathAttributes(dirfd, names, name) < 0) return false;
    const were = old!.extrasOf(oldRecord).filter(({ tag }) => tag === EXTRA.XATTR);
    const now = this.#extras;
    return were.length === now.length && were.every(({ value }, i) => Buffer.compare(value, now[i]!.value) === 0);
  }

  /**
   * Tells whether a further change of the file that `thread.stat` describes may not show in its times: soon after a
   * change a store through a mapping need not move them. Holding a tree writes back what was mapped, so there only the
   * clock is in doubt.
   */
  #isYoung(): boolean {
    const { stat, task } = this.#thread;
    if (!this.#trustsTimes()) return true;
    if (task.heldAt === null) return isYoung(stat.words, YOUNG_SECONDS);
    return isYoung(stat.words, tickOf(stat.words), task.heldAt / 1000);
  }

  /** Tells whether the times of what `thread.stat` describes show each change once some time has passed. */
  #trustsTimes(): boolean {
    const { task, stat } = this.#thread;
    if (!task.trustContentTimes || task.devicesInMemory.length === 0) return task.trustContentTimes;
    return !task.devicesInMemory.includes(deviceWord(stat.words));
  }

  /** The content of a small file into the thread's buffer; bytes read, or minus errno. */
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
   * A scan that only looks reads no large file that it can tell without: with another size its content is another one
   * that nobody knows, and by times it is the same with size and times as they were. Its record says no more than the
   * old one, so that a save that uses it as its cache still reads the file. What a restore has just put there is read.
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

  /** Tells whether the content of what `thread.stat` describes is read for its record. */
  readsContent(oldRecord: number): boolean {
    return ((this.#thread.stat.words[STAT.MODE]! >>> 12) & 15) === TYPE.FILE && this.#trusted(oldRecord) === null;
  }

  /**
   * Says what can be told of a large file's content without reading it, where that will do: see {@link #takenOnTrust}.
   */
  #trusted(oldRecord: number): "same" | "resized" | null {
    const { task, old, stat } = this.#thread;
    if (!task.quick || oldRecord < 0 || wide(stat.words, STAT.SIZE) <= SINGLE_BLOB_LIMIT) return null;
    const was = [old!.records, oldRecord * RECORD_WORDS, stat.words] as const;
    if (!hasWords(...was, SIZE_WORDS)) return "resized";
    if (!task.byTimes || (old!.recordFlags(oldRecord) & FLAG.OMITTED) !== 0) return null;
    return hasWords(...was, UNCHANGED) ? "same" : null;
  }

  #vanished(record: number, directory: number): void {
    this.#thread.table.noRecord(record);
    this.#thread.noteMoved(directory);
  }

  #omit(record: number, directory: number, reason: string): void {
    this.#flags |= FLAG.OMITTED;
    this.#thread.noteOmitted(this.#thread.entryPath(directory, this.#thread.table.recordName(record)), reason);
  }

  /** False where there is no target: it was removed meanwhile, or another entry took its place, or it cannot be read. */
  #readLink({ dirfd, names, name, record, directory }: EntryToRead): boolean {
    const { sys, scratch } = this.#thread;
    const n = sys.readlink(dirfd, names, name, scratch);
    if (n === ENOENT || n === EINVAL) this.#vanished(record, directory);
    else if (n < 0) this.#omit(record, directory, faultOfEntry(n));
    else this.#extras.push({ tag: EXTRA.LINK_TARGET, value: Uint8Array.from(scratch.bytes.subarray(0, n)) });
    return n >= 0;
  }

  /** Opens a file of a held directory for reading; minus errno where it cannot be. */
  open(dirfd: number, names: Arena, name: number): number {
    const { sys } = this.#thread;
    const fd = sys.open(dirfd, names, name, OPEN_FLAGS | this.#noAtime, 0);
    if (fd !== EPERM || this.#noAtime === 0) return fd;
    // Only a file's owner may ask for that.
    return sys.open(dirfd, names, name, OPEN_FLAGS, 0);
  }

  #readFile({ dirfd, names, name, record, directory, opened }: EntryToRead): void {
    const { sys, task } = this.#thread;
    const fd = opened ?? this.open(dirfd, names, name);
    if (fd === ENOENT || fd === ELOOP) return this.#vanished(record, directory);
    if (fd < 0) return this.#omit(record, directory, faultOfEntry(fd));
    if (task.readAgain === "disk" && opened === undefined && !forgetPages(fd)) this.#thread.notes.keptInMemory++;
    try {
      this.#readOpenFile(fd, record, directory);
    } finally {
      sys.close(fd);
    }
  }

  #readOpenFile(fd: number, record: number, directory: number): void {
    const thread = this.#thread;
    const { sys, stat, stat2, table } = thread;
    const base = record * RECORD_WORDS;
    let young = this.#isYoung();
    if (
      young &&
      this.#trustsTimes() &&
      thread.task.heldAt === null &&
      Atomics.add(table.control, C.YOUNG, 1) < SETTLE_LIMIT &&
      thread.sink !== null
    ) {
      sys.settle(fd);
      sys.fstat(fd, stat);
      young = isYoung(stat.words, tickOf(stat.words));
    }
    for (let attempt = 0; ; attempt++) {
      const clone = attempt === 1 ? this.#capture(fd) : -1;
      try {
        fillRecord(table.records, base, stat.words);
        const error = this.#content(clone < 0 ? fd : clone, stat, record);
        const known = sys.fstat(fd, stat2);
        // What was opened is no file any more than what was listed is: another entry took its place.
        if (known >= 0 && (stat2.words[STAT.MODE]! & 0xf000) >>> 12 !== TYPE.FILE)
          return this.#vanished(record, directory);
        if (error < 0) return this.#omit(record, directory, faultOfEntry(error));
        const isWhole = error === 1 && (clone >= 0 || sameContentStat(stat.words, stat2.words));
        if (!isWhole && attempt === 1) this.#torn(record, directory);
        if (isWhole || attempt === 1) {
          if (young) this.#flags |= FLAG.YOUNG;
          this.#lacks(this.#attributes(fd), record, directory);
          this.#holes(clone < 0 ? fd : clone, stat);
          return;
        }
      } finally {
        if (clone >= 0) fs.closeSync(clone);
      }
      stat.words.set(stat2.words);
      young = true;
      this.#extras = [];
    }
  }

  /**
   * A clone of an open file that is being written to, so that what is read is of one moment; its size and blocks go to
   * `thread.stat`, whose times are those of just before. -1 where the file system makes none.
   */
  #capture(fd: number): number {
    const { task, sys, stat, stat2 } = this.#thread;
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
    for (const word of [STAT.SIZE, STAT.SIZE + 1, STAT.BLOCKS, STAT.BLOCKS + 1]) stat.words[word] = stat2.words[word]!;
    return clone;
  }

  #torn(record: number, directory: number): void {
    this.#flags |= FLAG.TORN;
    const path = this.#thread.entryPath(directory, this.#thread.table.recordName(record));
    this.#thread.noteTorn(path, "changed while it was read");
  }

  /** Reads and stores the content; 1 when the length was as stated, 0 when not, or minus errno. */
  #content(fd: number, stat: StatBuffer, record: number): number {
    const thread = this.#thread;
    const size = wide(stat.words, STAT.SIZE);
    const base = record * RECORD_WORDS;
    const hashAt = (base + R.HASH) * 4;
    this.#flags &= ~FLAG.CHUNKED;
    thread.notes.filesRead++;
    if (size > SINGLE_BLOB_LIMIT) {
      const read = thread.task.readAgain === null ? readLargeFile : hashLargeFile;
      const file = { fd, size, isSparse: wide(stat.words, STAT.BLOCKS) * 512 < size };
      const result = read(thread, file, this.#records.bytes.subarray(hashAt, hashAt + 32));
      if (result.error < 0) return result.error;
      this.#setSize(base, result.length);
      if (result.chunks !== null) {
        this.#flags |= FLAG.CHUNKED;
        this.#extras.push({ tag: EXTRA.CHUNKS, value: result.chunks });
      }
      return result.length === size ? 1 : 0;
    }
    const { content } = thread;
    let length = this.#readAll(fd, size);
    if (length < 0) return length;
    if (length > SINGLE_BLOB_LIMIT) length = SINGLE_BLOB_LIMIT;
    thread.countRead(length);
    this.#setSize(base, length);
    thread.hash(content, 0, length, this.#records, hashAt);
    if (length > 0) thread.sink?.data(this.#records.bytes, hashAt, content, 0, length);
    return length === size ? 1 : 0;
  }

  #setSize(base: number, length: number): void {
    const { records } = this.#thread.table;
    records[base + R.SIZE] = length >>> 0;
    records[base + R.SIZE + 1] = Math.floor(length / 4294967296);
  }

  #ownAttributes({ dirfd, names, name, record, directory }: EntryToRead): void {
    this.#lacks(this.#pathAttributes(dirfd, names, name), record, directory);
  }

  /** Says of an entry whose attributes could not all be read (`error`: 0, or minus errno) that those are missing. */
  #lacks(error: number, record: number, directory: number): void {
    if (error === 0) return;
    this.#flags |= FLAG.TORN | FLAG.UNREAD;
    const path = this.#thread.entryPath(directory, this.#thread.table.recordName(record));
    this.#thread.noteTorn(path, `${faultOfEntry(error)}: its extended attributes cannot be read`, ["xattrs"]);
  }

  /** Collects what can be read; 0, or minus errno where there may be some that cannot. */
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
