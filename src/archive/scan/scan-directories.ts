import { ENOENT, faultOfEntry } from "../../fs/linux/errno.ts";
import { IGNORE_FILE } from "../../fs/ignore.ts";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { ATTRIBUTE_MOUNT_ROOT, putName, STAT, TYPE, wide } from "../../fs/linux/syscalls.ts";
import { type Arena, arenaOver } from "../../native.ts";
import { LOOK, lookOf } from "../cache/unchanged.ts";
import { nameAt } from "../../fs/listing.ts";
import { compareName, type Names, putNames, SharedPart } from "./directory-parts.ts";
import { PATH_MAX, sidecarOf } from "./databases.ts";
import { DirectoryRules } from "./directory-rules.ts";
import { ReadAhead } from "./read-ahead.ts";
import { EntryReader, type OpenedAhead } from "./read-entry.ts";
import { isGone, type ScanThread } from "./scan-thread.ts";
import {
  deviceWord,
  hasWords,
  keepFormerOwner,
  INODE_WORDS,
  isYoung,
  isYoungDirectory,
  sameStat,
  RECORDED,
  RECORDED_OF_FILES,
  tickOf,
} from "./stat-words.ts";
import { LIST_AGAIN, LIST_IF_CHANGED } from "./task.ts";

/** Number of times that a directory with vanished names is read again, each time for its new names. */
const READINGS = 3;
/** A listing longer than this is shared out among the threads in parts. */
const PART = 1024;
/** Last bytes of `-wal` and `-journal`, and of `-shm`. */
const LAST_OF_LOG = 0x6c;
const LAST_OF_INDEX = 0x6d;
const DOT = Buffer.from(".");
/** Words of a stat result with the change time. */
const CTIME = [STAT.CTIME, STAT.CTIME + 1, STAT.CTIME_NS];
const IGNORE_NAME = Buffer.from(`${IGNORE_FILE}\0`, "latin1");

/** Phase one of a scan on one thread: takes directories until none is left anywhere. */
export function scanDirectories(thread: ScanThread): void {
  new DirectoryScanner(thread).run();
}

/** The names of a directory, NUL-terminated in an arena. */
interface Listed {
  names: Names;
  arena: Arena;
  /** the names are those of the old records, in the same order */
  known: boolean;
}

class DirectoryScanner {
  readonly #thread: ScanThread;
  readonly #reader: EntryReader;
  readonly #rules: DirectoryRules;
  readonly #newOfOld = new Map<number, number>();

  constructor(thread: ScanThread) {
    this.#thread = thread;
    this.#reader = new EntryReader(thread);
    this.#rules = new DirectoryRules(thread);
  }

  run(): void {
    const { control } = this.#thread.table;
    const { queues } = this.#reader;
    for (;;) {
      this.#thread.checkStop();
      if (queues.help()) continue;
      if (this.#thread.isSpent) return;
      const signal = Atomics.load(control, C.SIGNAL);
      if (this.#takeJobs()) continue;
      if (Atomics.load(control, C.PENDING) === 0) return;
      if (queues.help()) continue;
      Atomics.add(control, C.IDLE, 1);
      Atomics.wait(control, C.SIGNAL, signal, 20);
      Atomics.sub(control, C.IDLE, 1);
    }
  }

  /** Takes a share of the waiting jobs: up to 16, fewer if few wait. */
  #takeJobs(): boolean {
    const { control, jobs } = this.#thread.table;
    for (;;) {
      const next = Atomics.load(control, C.NEXT_JOB);
      const waiting = Atomics.load(control, C.JOBS) - next;
      if (waiting <= 0) return false;
      const count = Math.max(1, Math.min(16, waiting >> 2));
      if (Atomics.compareExchange(control, C.NEXT_JOB, next, next + count) !== next) continue;
      for (let job = next; job < next + count; job++) {
        // Another thread has reserved the place and is about to fill it.
        while (Atomics.load(jobs, job * 4 + 3) === 0);
        const [directory, start, count] = [jobs[job * 4]!, jobs[job * 4 + 1]!, jobs[job * 4 + 2]!];
        if (this.#thread.isSpent) this.#thread.addJob(directory, start, count);
        else if (count === 0) this.#directory(directory);
        else if (count === LIST_AGAIN) this.#again(directory);
        else if (count === LIST_IF_CHANGED) this.#ifChanged(directory);
        else this.#part(directory, start, count);
        this.#thread.endJob();
      }
      return true;
    }
  }

  #directory(directory: number): void {
    if (this.#takesOver(directory)) return;
    const thread = this.#thread;
    const known = this.#knownNames(directory);
    const open = (): number => thread.openDirectory(directory);
    const looks = { before: thread.stat2, after: thread.stat };
    const fd = known === null ? thread.listing.openSteady(thread.sys, open, looks) : open();
    if (fd < 0) return this.#lost(directory, fd);
    try {
      if (known !== null) return this.#small(directory, fd, known);
      thread.notes.listed++;
      if (isYoung(thread.stat.words, tickOf(thread.stat.words), thread.task.began / 1000)) thread.notes.changed++;
      this.#keepTime(directory);
      if (thread.listing.has(IGNORE_NAME)) thread.table.addDirectoryFlag(directory, DIRECTORY_FLAG.IGNORE_FILE);
      const names = this.#rules.names(directory, fd);
      if (names.length > PART) this.#split(directory, names);
      else this.#small(directory, fd, { names, arena: thread.listing.names, known: false });
    } finally {
      thread.sys.close(fd);
    }
  }

  /** Finishes a directory that is known to be unchanged, or changed only in some entries; false if it must be scanned as usual. */
  #takesOver(directory: number): boolean {
    const { table, old, task } = this.#thread;
    const oldDirectory = table.directories[directory * DIRECTORY_WORDS + D.OLD]! - 1;
    if (task.unchanged === null || oldDirectory < 0) return false;
    const look = lookOf(old!, task.unchanged, oldDirectory);
    if (look === LOOK.WHOLE) return false;
    const first = old!.directories[oldDirectory * DIRECTORY_WORDS + D.FIRST]!;
    const count = old!.directories[oldDirectory * DIRECTORY_WORDS + D.COUNT]!;
    if (look === LOOK.SOME) return this.#some(directory, { first, count });
    for (let record = first; record < first + count; record++)
      if (old!.records[record * RECORD_WORDS + R.MODE]! >>> 12 === TYPE.DIRECTORY) this.#descend(directory, record, 0);
    table.directories[directory * DIRECTORY_WORDS + D.FIRST] = first;
    table.directories[directory * DIRECTORY_WORDS + D.COUNT] = count;
    table.addDirectoryFlag(directory, DIRECTORY_FLAG.SAME);
    this.#done(count);
    return true;
  }

  /** Scans only the entries of a directory that may have changed. */
  #some(directory: number, { first, count }: { first: number; count: number }): boolean {
    const fd = this.#thread.openDirectory(directory);
    if (fd < 0) return false;
    try {
      const names = Array.from({ length: count }, (_, i) => this.#thread.old!.records[(first + i) * RECORD_WORDS]!);
      this.#looked = this.#thread.task.unchanged!.records;
      this.#small(directory, fd, {
        names,
        arena: (this.#oldNames ??= arenaOver(this.#thread.old!.names)),
        known: true,
      });
    } finally {
      this.#looked = null;
      this.#thread.sys.close(fd);
    }
    return true;
  }

  /** Old records of a directory that is scanned in part: 1 for each to be read. */
  #looked: Uint8Array | null = null;

  /**
   * The previous table's names, if the directory's times prove that they are still valid and no rule applied or
   * applies; else null.
   */
  #knownNames(directory: number): Listed | null {
    const { table, old } = this.#thread;
    const base = directory * DIRECTORY_WORDS;
    if ((table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.LISTED) === 0) return null;
    const was = old!.directories;
    const oldBase = (table.directories[base + D.OLD]! - 1) * DIRECTORY_WORDS;
    if (was[oldBase + D.FLAGS]! & (DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.IGNORE_FILE)) return null;
    if (was[oldBase + D.IGNORED] !== 0) return null;
    if (!this.#rules.emptyWithoutFile(directory)) return null;
    const names: number[] = [];
    const end = was[oldBase + D.FIRST]! + was[oldBase + D.COUNT]!;
    for (let record = was[oldBase + D.FIRST]!; record < end; record++) {
      const words = record * RECORD_WORDS;
      // The old scan listed the entry but could not read it.
      if ((old!.records[words + R.NAME_FLAGS]! & 0xffff) === 0) return null;
      names.push(old!.records[words + R.NAME]!);
    }
    return { names, arena: (this.#oldNames ??= arenaOver(old!.names)), known: true };
  }

  #oldNames: Arena | undefined;

  /** Keeps the change time of a directory that was just listed, as `thread.stat` has it. */
  #keepTime(directory: number): void {
    const { table, stat, task } = this.#thread;
    const isSure = !isYoungDirectory(stat.words, task.request.heldAt, task.trustDirectoryTimes);
    const base = directory * DIRECTORY_WORDS + D.CTIME;
    for (let i = 0; i < CTIME.length; i++) table.directories[base + i] = isSure ? stat.words[CTIME[i]!]! : 0;
  }

  /** Lists a directory again if it may have changed since. A removed directory keeps the entries that were read. */
  #ifChanged(directory: number): void {
    const { table, sys, rootFd, paths, stat } = this.#thread;
    const path = table.directoryPath(directory);
    if (path.length < PATH_MAX) {
      putName(paths, 0, path.length === 0 ? DOT : path);
      if (sys.stat(rootFd, paths, 0, stat) < 0) return;
      const base = directory * DIRECTORY_WORDS + D.CTIME;
      if (CTIME.every((word, i) => table.directories[base + i] === stat.words[word])) return;
    }
    this.#again(directory);
  }

  /** A directory that cannot be opened or listed. */
  #lost(directory: number, result: number): void {
    const { table } = this.#thread;
    if (directory !== 0 && isGone(result)) return this.#thread.noteGone(directory);
    table.addDirectoryFlag(directory, DIRECTORY_FLAG.OMITTED);
    this.#thread.noteOmitted(table.directoryPath(directory), faultOfEntry(result));
  }

  /**
   * Reads unrecorded entries of a directory in which names had vanished or may have come, after everything else. Earlier
   * records stay, unless their entry is now read under another name. If a name vanishes again, the directory is noted
   * as moved again.
   */
  #again(directory: number): void {
    const { table, sys, listing, stat, stat2, goneNames } = this.#thread;
    if (table.isBelowGone(directory)) return;
    const open = (): number => this.#thread.openDirectory(directory);
    this.#thread.listsAgain = directory;
    try {
      for (let left = READINGS; left > 0; left--) {
        const fd = listing.openSteady(sys, open, { before: stat2, after: stat });
        if (fd < 0) return this.#lost(directory, fd);
        this.#keepTime(directory);
        try {
          const again = new DirectoryAgain(this.#thread, directory, {
            fd,
            names: this.#rules.names(directory, fd, true),
          });
          if (again.isTooMuch()) {
            this.#thread.isSpent = true;
            return this.#thread.addJob(directory, 0, LIST_AGAIN);
          }
          if (again.read((entry) => this.#readAgain(directory, fd, entry)).size === 0) break;
        } finally {
          sys.close(fd);
        }
      }
    } finally {
      this.#thread.listsAgain = -1;
    }
    if (this.#thread.goneNames > goneNames) this.#thread.noteMoved(directory);
  }

  /** Reads an entry into a reserved record. Counts a vanished name in the thread's `goneNames`. */
  #readAgain(directory: number, fd: number, entry: AgainEntry): void {
    const { arena, name, record, oldRecord } = entry;
    if (this.#rules.leavesOut(directory, fd, name)) return this.#thread.table.noRecord(record);
    const result = this.#thread.look(directory, fd, arena, name, this.#thread.stat);
    if (result < 0) this.#unreadable(directory, record, result, nameAt(arena, name));
    else if (oldRecord >= 0 && this.#vouched(fd, arena, name, oldRecord)) {
      this.#thread.table.copyRecord(this.#thread.old!, oldRecord, record);
      this.#takenOver(directory, oldRecord, record);
    } else this.#newRecord(directory, fd, entry);
  }

  /** Scans a directory of ordinary size: writes no records while it equals the old table. */
  #small(directory: number, fd: number, listed: Listed): void {
    const { names, arena, known } = listed;
    const { table, old } = this.#thread;
    const base = directory * DIRECTORY_WORDS;
    const oldDirectory = table.directories[base + D.OLD]! - 1;
    const oldBase = oldDirectory * DIRECTORY_WORDS;
    let position = 0;
    // A directory that could not be read in the previous scan has no digests to reuse.
    if (old !== null && oldDirectory >= 0 && (old.directories[oldBase + D.FLAGS]! & DIRECTORY_FLAG.OMITTED) === 0) {
      const first = old.directories[oldBase + D.FIRST]!;
      const count = old.directories[oldBase + D.COUNT]!;
      while (
        position < names.length &&
        position < count &&
        this.#sameEntry(directory, fd, { arena, name: names[position]!, known }, first + position)
      )
        position++;
      if (position === names.length && position === count) {
        table.directories[base + D.FIRST] = first;
        table.directories[base + D.COUNT] = count;
        table.addDirectoryFlag(directory, DIRECTORY_FLAG.SAME);
        this.#done(count);
        return;
      }
    }
    const start = table.takeRecords(names.length);
    table.directories[base + D.FIRST] = start;
    table.directories[base + D.COUNT] = names.length;
    table.addDirectoryFlag(directory, DIRECTORY_FLAG.DIFFERS | (known ? DIRECTORY_FLAG.ALIGNED : 0));
    const oldFirst = position > 0 || known ? old!.directories[oldBase + D.FIRST]! : 0;
    if (position > 0 || known) table.copyRecords(old!, oldFirst, start, known ? names.length : position);
    for (let i = 0; i < position; i++) this.#takenOver(directory, oldFirst + i, start + i);
    const work = { names, from: position, start, arena };
    const end = known ? this.#knownRecords(directory, fd, { ...work, oldFirst }) : this.#records(directory, fd, work);
    this.#done(end);
  }

  #done(entries: number): void {
    Atomics.add(this.#thread.table.control, C.FILES_DONE, entries);
  }

  /** True if the entry equals the old record; then queues its directory or notes its links. */
  #sameEntry(
    directory: number,
    fd: number,
    entry: { arena: Arena; name: number; known: boolean },
    oldRecord: number,
  ): boolean {
    const { old, stat } = this.#thread;
    const { arena, name, known } = entry;
    if (!known && compareName(arena.bytes, name, old!.names, old!.records, oldRecord) !== 0) return false;
    if (this.#looked?.[oldRecord] === 0) {
      this.#follow(directory, oldRecord);
      return true;
    }
    if (this.#thread.look(directory, fd, arena, name, stat) < 0) return false;
    if (!this.#vouched(fd, arena, name, oldRecord)) return false;
    this.#follow(directory, oldRecord);
    return true;
  }

  /** True if the old record still matches `thread.stat` and the content need not be read. */
  #vouched(fd: number, names: Arena, name: number, oldRecord: number): boolean {
    const { old, stat, task } = this.#thread;
    const words = old!.records;
    const base = oldRecord * RECORD_WORDS;
    keepFormerOwner(words, base, stat.words);
    if (!sameStat(words, base, stat.words)) return false;
    // A device's number may change between mounts.
    if (words[base + R.NLINK]! > 1) words[base + R.DEVICE] = deviceWord(stat.words);
    const type = words[base + R.MODE]! >>> 12;
    const flags = words[base + R.NAME_FLAGS]! >>> 16;
    if (flags & (FLAG.OMITTED | FLAG.TORN | FLAG.LIVE)) return false;
    if (!task.trustAttributeTimes && !this.#reader.sameAttributes(fd, names, name, oldRecord)) return false;
    if (type === TYPE.DIRECTORY) return !this.#isForeignMount(type);
    if (type !== TYPE.FILE) return true;
    if ((task.request.reread === true || flags & FLAG.YOUNG) && !this.#reader.stillSame(fd, names, name, oldRecord))
      return false;
    return !task.distrust || this.#thread.isStored(old!, oldRecord);
  }

  /** An unchanged entry: descend into a directory, note a member of a link group. */
  #follow(directory: number, oldRecord: number): void {
    const { old } = this.#thread;
    const words = old!.records;
    const base = oldRecord * RECORD_WORDS;
    if (words[base + R.MODE]! >>> 12 === TYPE.DIRECTORY) {
      if (this.#newOfOld.has(words[base + R.SUB]!)) return;
      const isListed = this.#looked === null && this.#asListed(oldRecord);
      this.#descend(directory, oldRecord, isListed ? DIRECTORY_FLAG.LISTED : 0);
    } else if (words[base + R.NLINK]! > 1) {
      // Only later does the scan decide which of the two tables holds the record, so the mark is on the directory.
      this.#thread.table.addDirectoryFlag(directory, DIRECTORY_FLAG.LINKED);
    }
  }

  #descend(directory: number, oldRecord: number, flags: number): void {
    const { old } = this.#thread;
    const words = oldRecord * RECORD_WORDS;
    const oldChild = old!.records[words + R.SUB]!;
    const child = this.#thread.addDirectory(directory, old!.recordName(oldRecord), oldChild, flags);
    this.#newOfOld.set(oldChild, child);
    const { directories } = this.#thread.table;
    const base = child * DIRECTORY_WORDS + D.CTIME;
    for (let i = 0; i < CTIME.length; i++) directories[base + i] = old!.records[words + R.CTIME + i]!;
  }

  /**
   * True if a directory with a valid record (`thread.stat` describes it) still has the listed names. A directory that
   * was listed too soon after a change loses its young mark in the previous table and is listed again.
   */
  #asListed(oldRecord: number): boolean {
    const { old, stat, task } = this.#thread;
    if (!task.trustDirectoryTimes) return false;
    const flags = old!.recordFlags(oldRecord);
    if ((flags & FLAG.YOUNG) === 0) return true;
    if (!task.oldStays && !isYoungDirectory(stat.words, task.request.heldAt, task.trustDirectoryTimes))
      old!.setRecordFlags(oldRecord, flags & ~FLAG.YOUNG);
    return false;
  }

  /** Takes over a valid old record that was copied into this scan's table. */
  #takenOver(directory: number, oldRecord: number, record: number): void {
    const { table } = this.#thread;
    const base = record * RECORD_WORDS;
    if (table.records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY) {
      table.touched[record] = 1;
      this.#follow(directory, oldRecord);
      table.records[base + R.SUB] = this.#newOfOld.get(table.records[base + R.SUB]!)!;
    } else if (table.records[base + R.NLINK]! > 1) {
      table.records[base + R.DEVICE] = this.#thread.old!.records[oldRecord * RECORD_WORDS + R.DEVICE]!;
      table.addDirectoryFlag(directory, DIRECTORY_FLAG.LINKED);
    }
  }

  /**
   * Fills records from position `from` on, taking over valid old records. Gives half of the rest to another thread
   * whenever one waits. Returns the first position given away, or the end.
   */
  #records(directory: number, fd: number, work: { names: Names; from: number; start: number; arena: Arena }): number {
    const { table, old, stat } = this.#thread;
    const { names, from, start, arena } = work;
    const oldDirectory = table.directories[directory * DIRECTORY_WORDS + D.OLD]! - 1;
    const oldFirst = oldDirectory < 0 ? 0 : old!.directories[oldDirectory * DIRECTORY_WORDS + D.FIRST]!;
    const oldEnd = oldDirectory < 0 ? 0 : oldFirst + old!.directories[oldDirectory * DIRECTORY_WORDS + D.COUNT]!;
    let cursor = oldFirst;
    const shared = new SharedPart(this.#thread, directory, { names, from, to: names.length, start, arena });
    using ahead =
      this.#thread.task.request.readAgain === "disk"
        ? new ReadAhead(this.#thread, this.#reader, { directory, dirfd: fd, arena, names, from })
        : null;
    for (let i = from; i < shared.end; i++) {
      const name = names[i]!;
      const record = start + i;
      if ((i & 63) === 0) this.#thread.checkStop();
      shared.look(i);
      while (cursor < oldEnd && compareName(arena.bytes, name, old!.names, old!.records, cursor) > 0) cursor++;
      const oldRecord =
        cursor < oldEnd && compareName(arena.bytes, name, old!.names, old!.records, cursor) === 0 ? cursor : -1;
      const result = this.#thread.look(directory, fd, arena, name, stat);
      if (result < 0) this.#unreadable(directory, record, result, nameAt(arena, name));
      else if (oldRecord >= 0 && this.#vouched(fd, arena, name, oldRecord)) {
        table.copyRecord(old!, oldRecord, record);
        this.#takenOver(directory, oldRecord, record);
      } else if (this.#leaves(shared, i, oldRecord)) break;
      else this.#newRecord(directory, fd, { arena, name, record, oldRecord, opened: ahead?.take(i, shared.end) });
    }
    return shared.end;
  }

  /** Takes over copied records name by name; the old ones begin at `oldFirst`. */
  #knownRecords(
    directory: number,
    fd: number,
    work: { names: Names; from: number; start: number; arena: Arena; oldFirst: number },
  ): number {
    const { stat } = this.#thread;
    const { names, from, start, arena, oldFirst } = work;
    const shared = new SharedPart(this.#thread, directory, { names, from, to: names.length, start, arena });
    for (let i = from; i < shared.end; i++) {
      const name = names[i]!;
      const record = start + i;
      if ((i & 63) === 0) this.#thread.checkStop();
      shared.look(i);
      if (this.#looked?.[oldFirst + i] === 0) {
        this.#takenOver(directory, oldFirst + i, record);
        continue;
      }
      const result = this.#thread.look(directory, fd, arena, name, stat);
      if (result < 0) this.#unreadable(directory, record, result, nameAt(arena, name));
      else if (this.#vouched(fd, arena, name, oldFirst + i)) this.#takenOver(directory, oldFirst + i, record);
      else if (this.#leaves(shared, i, oldFirst + i)) break;
      else this.#newRecord(directory, fd, { arena, name, record, oldRecord: oldFirst + i });
    }
    return shared.end;
  }

  /** True if the content of the file in `thread.stat` has to be read and exceeds this thread's limit. */
  #leaves(shared: SharedPart, at: number, oldRecord: number): boolean {
    if (!this.#reader.readsContent(oldRecord)) return false;
    this.#endIfDifferent(oldRecord);
    return shared.leaves(at);
  }

  /** Handles a listed name that cannot be read. */
  #unreadable(directory: number, record: number, result: number, name: Uint8Array): void {
    this.#thread.table.noRecord(record);
    if (result === ENOENT) this.#thread.noteMoved(directory);
    else this.#thread.noteOmitted(this.#thread.entryPath(directory, name), faultOfEntry(result));
  }

  #newRecord(
    directory: number,
    fd: number,
    entry: { arena: Arena; name: number; record: number; oldRecord: number; opened?: OpenedAhead | undefined },
  ): void {
    const thread = this.#thread;
    const { table, old, stat, notes } = thread;
    const { arena, name, record, oldRecord, opened } = entry;
    const base = record * RECORD_WORDS;
    const length = arena.bytes.indexOf(0, name) - name;
    const type = (stat.words[STAT.MODE]! & 0xf000) >>> 12;
    const at = table.takeNames(length + 1);
    table.names.set(arena.bytes.subarray(name, name + length), at);
    table.touched[record] = 1;
    // The old record may have been copied here.
    table.records.fill(0, base, base + RECORD_WORDS);
    table.records[base] = at;
    table.records[base + R.NAME_FLAGS] = length;
    if (this.#isForeignMount(type)) {
      notes.mounts.push(this.#thread.entryPath(directory, table.recordName(record)));
      table.records[base + R.MODE] = 0;
      return;
    }
    const last = arena.bytes[name + length - 1];
    const maybe = type === TYPE.FILE && (last === LAST_OF_LOG || last === LAST_OF_INDEX);
    const sidecar = maybe ? this.#sidecar(fd, directory, record) : null;
    if (sidecar === "index") {
      if (opened !== undefined) thread.sys.close(opened.fd);
      table.records[base + R.MODE] = 0;
      return;
    }
    this.#endIfDifferent(oldRecord);
    const content = sidecar === null ? {} : ({ content: "empty", isLive: sidecar === "captured" } as const);
    this.#reader.read({ dirfd: fd, names: arena, name, record, directory, oldRecord, opened, ...content });
    if (table.records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY) {
      const was = oldRecord >= 0 && old!.records[oldRecord * RECORD_WORDS + R.MODE]! >>> 12 === TYPE.DIRECTORY;
      table.records[base + R.SUB] = this.#thread.addDirectory(
        directory,
        table.recordName(record),
        was ? old!.records[oldRecord * RECORD_WORDS + R.SUB]! : -1,
      );
    } else if (table.records[base + R.NLINK]! > 1) {
      table.addDirectoryFlag(directory, DIRECTORY_FLAG.LINKED);
    }
  }

  /**
   * Tells how the file in `thread.stat` belongs to a database beside it: the index of its log, which SQLite makes anew
   * and no state has; a log or journal that a capture replaces; or an empty one. Null for other files.
   */
  #sidecar(fd: number, directory: number, record: number): "index" | "captured" | "empty" | null {
    const { stat, task, table } = this.#thread;
    const name = table.recordName(record);
    const ending = sidecarOf(name);
    if (ending === null) return null;
    if (ending !== "-shm" && !task.capturesDatabases) return null;
    const isEmpty = wide(stat.words, STAT.SIZE) === 0;
    const of = Buffer.from(name.subarray(0, name.length - ending.length));
    if (!this.#reader.databases.isOneThere(fd, of)) return null;
    if (ending === "-shm") return "index";
    if (!isEmpty) this.#thread.noteDatabase(directory, of);
    return isEmpty ? "empty" : "captured";
  }

  #endIfDifferent(oldRecord: number): void {
    const { quick, request } = this.#thread.task;
    if (quick && request.untilDifferent === true && !this.#mayBeSame(oldRecord)) this.#thread.endAtDifference();
  }

  /** False if `thread.stat` alone proves that an entry differs from its record. */
  #mayBeSame(oldRecord: number): boolean {
    if (oldRecord < 0) return false;
    const { old, stat } = this.#thread;
    const base = oldRecord * RECORD_WORDS;
    const isFile = (stat.words[STAT.MODE]! & 0xf000) >>> 12 === TYPE.FILE;
    const told = isFile ? RECORDED_OF_FILES : RECORDED;
    if (old!.records[base + R.MODE] !== (stat.words[STAT.MODE]! & 0xffff)) return false;
    return hasWords(old!.records, base, stat.words, told);
  }

  #isForeignMount(type: number): boolean {
    const { stat, task } = this.#thread;
    if (type !== TYPE.DIRECTORY || task.request.crossMounts === true) return false;
    return (stat.words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) !== 0;
  }

  /** Reserves the records of a long listing and shares them out. */
  #split(directory: number, names: Names): void {
    const { table, listing } = this.#thread;
    const base = directory * DIRECTORY_WORDS;
    const start = table.takeRecords(names.length);
    table.directories[base + D.FIRST] = start;
    table.directories[base + D.COUNT] = names.length;
    table.addDirectoryFlag(directory, DIRECTORY_FLAG.DIFFERS);
    putNames(table, { names, from: 0, to: names.length, start, arena: listing.names });
    for (let i = 0; i < names.length; i += PART)
      this.#thread.addJob(directory, start + i, Math.min(PART, names.length - i));
  }

  /** One part of a long listing, on the thread that took it. */
  #part(directory: number, start: number, count: number): void {
    const { table, sys } = this.#thread;
    const fd = this.#thread.openDirectory(directory);
    if (fd < 0) {
      // The records may have been copied from the previous table.
      for (let record = start; record < start + count; record++) table.noRecord(record);
      return this.#lost(directory, fd);
    }
    const arena = (this.#names ??= arenaOver(table.names));
    const names = Array.from({ length: count }, (_, i) => table.records[(start + i) * RECORD_WORDS]!);
    try {
      this.#done(this.#records(directory, fd, { names, from: 0, start, arena }));
    } finally {
      sys.close(fd);
    }
  }

  #names: Arena | undefined;
}

/** An entry of a listing, and the record that it is read into. */
interface AgainEntry {
  arena: Arena;
  name: number;
  record: number;
  oldRecord: number;
}

/** An entry that was read: its record, and the table that has it. */
interface Known {
  from: ScanTable;
  record: number;
}

function isGoneDirectory(table: ScanTable, directory: number): boolean {
  return (table.directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.GONE) !== 0;
}

/** A directory as listed now, with the records read before. */
class DirectoryAgain {
  readonly #thread: ScanThread;
  readonly #directory: number;
  readonly #fd: number;
  readonly #names: Names;
  /** records by their position in the listing, and those whose names are no longer listed */
  readonly #known = new Map<number, Known>();
  readonly #unlisted: Known[] = [];
  /** records whose names now belong to other entries */
  readonly #replaced: Known[] = [];
  /** False if the directory still uses the previous table's records and one of their entries is gone. */
  #isWhole = true;

  constructor(thread: ScanThread, directory: number, { fd, names }: { fd: number; names: Names }) {
    this.#thread = thread;
    this.#directory = directory;
    this.#fd = fd;
    this.#names = names;
    const { bytes } = thread.listing.names;
    let at = 0;
    for (const known of this.#present()) {
      const { from, record } = known;
      let order = 1;
      while (at < names.length && (order = compareName(bytes, names[at]!, from.names, from.records, record)) < 0) at++;
      if (at === names.length || order > 0) this.#unlisted.push(known);
      else if (this.#stands(known, names[at]!)) this.#known.set(at, known);
      else this.#replaced.push(known);
    }
  }

  /** True if the unrecorded entries exceed this thread's limit and are left to others. */
  isTooMuch(): boolean {
    const { stat, notes, task } = this.#thread;
    if (task.readLimit === Number.MAX_SAFE_INTEGER) return false;
    let bytes = notes.bytesRead;
    for (const [at, name] of this.#names.entries())
      if (!this.#known.has(at) && this.#look(name) >= 0)
        if ((stat.words[STAT.MODE]! & 0xf000) >>> 12 === TYPE.FILE) bytes += wide(stat.words, STAT.SIZE);
    return bytes > task.readLimit;
  }

  /** Gives the directory a record of each entry. Returns the inodes that vanished again and have no record. */
  read(readEntry: (entry: AgainEntry) => void): Set<bigint> {
    if (this.#known.size === this.#names.length && this.#isWhole && this.#unlisted.length === 0) return new Set();
    const { table, listing } = this.#thread;
    for (const known of this.#replaced) this.#leaveOut(known);
    const order = this.#merged();
    const start = table.takeRecords(order.length);
    const oldRecordOf = this.#oldRecords();
    const gone = new Set<bigint>();
    const now = new Set<bigint>();
    for (const [i, at] of order.entries()) {
      if (typeof at !== "number" || this.#known.has(at)) continue;
      const [name, arena, record] = [this.#names[at]!, listing.names, start + i];
      putNames(table, { names: [name], from: 0, to: 1, start: record, arena });
      const before = this.#thread.goneNames;
      readEntry({ arena, name, record, oldRecord: oldRecordOf(name) });
      if (this.#thread.goneNames > before) gone.add(listing.inodeOf(name));
      else now.add(inodeOfRecord(table, record));
    }
    for (const [i, at] of order.entries()) {
      const known = typeof at === "number" ? this.#known.get(at) : at;
      if (known === undefined) continue;
      const inode = inodeOfRecord(known.from, known.record);
      gone.delete(inode);
      this.#keep(known, start + i);
      // The entry exists under another name and was read again under it.
      if (typeof at !== "number" && now.has(inode)) table.leaveOut(start + i);
    }
    const base = this.#directory * DIRECTORY_WORDS;
    table.directories[base + D.FIRST] = start;
    table.directories[base + D.COUNT] = order.length;
    table.clearDirectoryFlags(this.#directory, DIRECTORY_FLAG.SAME | DIRECTORY_FLAG.ALIGNED);
    table.addDirectoryFlag(this.#directory, DIRECTORY_FLAG.DIFFERS);
    for (const inode of now) gone.delete(inode);
    return gone;
  }

  /** Records of entries read before, in the order of their names. */
  *#present(): Generator<Known> {
    const { table, old } = this.#thread;
    const base = this.#directory * DIRECTORY_WORDS;
    const from = table.directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME ? old! : table;
    const first = table.directories[base + D.FIRST]!;
    for (let record = first; record < first + table.directories[base + D.COUNT]!; record++) {
      const mode = from.records[record * RECORD_WORDS + R.MODE]!;
      if (mode === 0) continue;
      if (mode >>> 12 !== TYPE.DIRECTORY || !isGoneDirectory(table, this.#child({ from, record })))
        yield { from, record };
      else if (from === table) table.noRecord(record);
      else this.#isWhole = false;
    }
  }

  #look(name: number): number {
    const { listing, stat } = this.#thread;
    return this.#thread.look(this.#directory, this.#fd, listing.names, name, stat);
  }

  /** True if a record describes the entry that has its name now: another entry may have been renamed to it. */
  #stands({ from, record }: Known, name: number): boolean {
    const { listing, stat } = this.#thread;
    if (listing.inodeOf(name) === inodeOfRecord(from, record)) return true;
    // Listings of mounts, overlays and some file systems have other inode numbers than stat.
    if (this.#look(name) < 0) return false;
    const base = record * RECORD_WORDS;
    if (from.records[base + R.MODE]! >>> 12 !== TYPE.DIRECTORY) return sameStat(from.records, base, stat.words);
    return hasWords(from.records, base, stat.words, INODE_WORDS);
  }

  /** Positions in the listing, merged with the records that are no longer listed. */
  #merged(): (number | Known)[] {
    const { bytes } = this.#thread.listing.names;
    const merged: (number | Known)[] = [];
    let at = 0;
    for (const known of this.#unlisted) {
      const { from, record } = known;
      while (at < this.#names.length && compareName(bytes, this.#names[at]!, from.names, from.records, record) < 0)
        merged.push(at++);
      merged.push(known);
    }
    while (at < this.#names.length) merged.push(at++);
    return merged;
  }

  /** The previous table's record of a name, or -1; asked for in the order of names. */
  #oldRecords(): (name: number) => number {
    const { table, old, listing } = this.#thread;
    const oldDirectory = table.directories[this.#directory * DIRECTORY_WORDS + D.OLD]! - 1;
    if (old === null || oldDirectory < 0) return () => -1;
    let cursor = old.directories[oldDirectory * DIRECTORY_WORDS + D.FIRST]!;
    const end = cursor + old.directories[oldDirectory * DIRECTORY_WORDS + D.COUNT]!;
    return (name) => {
      for (; cursor < end; cursor++) {
        const order = compareName(listing.names.bytes, name, old.names, old.records, cursor);
        if (order <= 0) return order === 0 ? cursor : -1;
      }
      return -1;
    };
  }

  #keep(known: Known, record: number): void {
    const { table } = this.#thread;
    table.copyRecord(known.from, known.record, record);
    table.touched[record] = 1;
    const base = record * RECORD_WORDS;
    if (table.records[base + R.MODE]! >>> 12 === TYPE.DIRECTORY) table.records[base + R.SUB] = this.#child(known);
  }

  /** Takes the records below a directory out of the state. */
  #leaveOut(known: Known): void {
    if (known.from.records[known.record * RECORD_WORDS + R.MODE]! >>> 12 === TYPE.DIRECTORY)
      this.#thread.table.addDirectoryFlag(this.#child(known), DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.GONE);
  }

  /** The number of a directory, by its record. */
  #child({ from, record }: Known): number {
    const { table } = this.#thread;
    const sub = from.records[record * RECORD_WORDS + R.SUB]!;
    return from === table ? sub : this.#children.get(sub)!;
  }

  get #children(): ReadonlyMap<number, number> {
    this.#childOfOld ??= this.#thread.table.numbersByOld(this.#directory);
    return this.#childOfOld;
  }
  #childOfOld: ReadonlyMap<number, number> | undefined;
}

function inodeOfRecord({ records }: ScanTable, record: number): bigint {
  const base = record * RECORD_WORDS + R.INO;
  return (BigInt(records[base + 1]!) << 32n) | BigInt(records[base]!);
}
