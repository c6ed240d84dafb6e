import { C, R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { STAT, wide } from "../../fs/linux/syscalls.ts";
import type { Arena } from "../../native.ts";
import { WORTH_SHARING, workOf } from "../../threads/shared-work.ts";
import type { ScanThread } from "./scan-thread.ts";

/** Name offsets of a listing in raw order, after ignored names were taken out. */
export type Names = readonly number[];

/** Names of a directory with their reserved records: the record of the name at `from` is `start + from`. */
export interface DirectoryPart {
  names: Names;
  from: number;
  to: number;
  start: number;
  /** holds the names, NUL-terminated */
  arena: Arena;
}

/** Entries of a directory that one thread reads. Gives half of the rest away whenever another thread waits. */
export class SharedPart {
  readonly #thread: ScanThread;
  readonly #directory: number;
  readonly #part: DirectoryPart;
  readonly #readBefore: number;
  /** The position of the first entry given away, or the end. */
  end: number;

  constructor(thread: ScanThread, directory: number, part: DirectoryPart) {
    this.#thread = thread;
    this.#directory = directory;
    this.#part = part;
    this.#readBefore = thread.notes.bytesRead;
    this.end = part.to;
  }

  /** Called before reading the entry at a position: gives work away if a thread waits and the rest is worth it. */
  look(at: number): void {
    const left = this.end - at;
    if (left < 2 || !isWaitedFor(this.#thread)) return;
    const { from } = this.#part;
    const bytesEach = at === from ? 0 : (this.#thread.notes.bytesRead - this.#readBefore) / (at - from);
    if (workOf(left, left * bytesEach) >= WORTH_SHARING) this.#giveAway(at + ((left + 1) >> 1));
  }

  /**
   * Called before reading the file that `thread.stat` describes. True if it exceeds this thread's limit; then the
   * entries from `at` on are given away.
   */
  leaves(at: number): boolean {
    const { task, notes, stat } = this.#thread;
    if (notes.bytesRead + wide(stat.words, STAT.SIZE) <= task.readLimit) return false;
    this.#giveAway(at);
    this.#thread.isSpent = true;
    return true;
  }

  #giveAway(from: number): void {
    const given = { ...this.#part, from, to: this.end };
    const { table } = this.#thread;
    // Entries that were given away before, or copied from the previous table, have their names already.
    if (table.recordName(given.start + from).length === 0) putNames(table, given);
    this.#thread.addJob(this.#directory, given.start + from, given.to - from);
    this.end = from;
  }
}

/** True if a thread waits and no job is queued. */
function isWaitedFor({ table: { control } }: ScanThread): boolean {
  return Atomics.load(control, C.IDLE) > 0 && Atomics.load(control, C.NEXT_JOB) === Atomics.load(control, C.JOBS);
}

/** Gives reserved records their names. */
export function putNames(table: ScanTable, { names, from, to, start, arena: { bytes } }: DirectoryPart): void {
  for (let i = from; i < to; i++) {
    const name = names[i]!;
    const length = bytes.indexOf(0, name) - name;
    const at = table.takeNames(length + 1);
    table.names.set(bytes.subarray(name, name + length + 1), at);
    const base = (start + i) * RECORD_WORDS;
    table.records[base] = at;
    table.records[base + R.NAME_FLAGS] = length;
  }
}

/** Compares a NUL-terminated name with a record's name, as raw bytes. */
export function compareName(
  bytes: Uint8Array,
  at: number,
  oldNames: Uint8Array,
  records: Uint32Array,
  record: number,
): number {
  const start = records[record * RECORD_WORDS]!;
  const length = records[record * RECORD_WORDS + R.NAME_FLAGS]! & 0xffff;
  for (let i = 0; i < length; i++) {
    const difference = bytes[at + i]! - oldNames[start + i]!;
    if (difference !== 0) return difference;
  }
  return bytes[at + length]!;
}
