import fs from "node:fs";
import { crc32 } from "node:zlib";
import { C, D, DIRECTORY_FLAG, DIRECTORY_WORDS, FLAG, R, RECORD_WORDS, type ScanTable } from "./scan-table.ts";

/** Sizes of the sections that follow the header, in entries, entries, bytes and bytes. */
export interface SectionCounts {
  directories: number;
  records: number;
  names: number;
  extras: number;
}

/**
 * Writes a scan's table as one dense table: records in directory order, names and extras without gaps, section after
 * section through one small buffer, so that a table of any size costs no memory beside the scan's own.
 */
export function writeSections(
  fd: number,
  tables: { table: ScanTable; old: ScanTable | null },
): { counts: SectionCounts; crc: number } {
  const writer = new SectionWriter(fd);
  const dense = new DenseTable(tables.table, tables.old);
  const counts = dense.directories(writer);
  dense.records(writer);
  dense.names(writer);
  dense.extras(writer);
  return { counts, crc: writer.finish() };
}

/**
 * Makes that table in memory which another thread can use: directories, records, names and extras. `old` is dense itself, so
 * that what is as it was is copied directory by directory.
 */
export function denseSections({ table, old }: { table: ScanTable; old: ScanTable | null }): {
  counts: SectionCounts;
  buffers: SharedArrayBuffer[];
} {
  const merged = new MergedTable(table, old);
  return { counts: merged.counts, buffers: merged.fill() };
}

/** Bytes and places of one directory in the table that it is copied from. */
interface Run {
  from: ScanTable;
  first: number;
  count: number;
  /** Names of its records lie side by side, and begin here; -1: they lie anywhere. */
  names: number;
}

class MergedTable {
  readonly counts: SectionCounts = { directories: 0, records: 0, names: 0, extras: 0 };
  readonly #table: ScanTable;
  readonly #old: ScanTable | null;
  readonly #runs: Run[] = [];
  readonly #newOfOld: ReadonlyMap<number, number>;

  constructor(table: ScanTable, old: ScanTable | null) {
    this.#table = table;
    this.#old = old;
    this.#newOfOld = table.numbersByOld();
    this.counts.directories = table.control[C.DIRECTORIES]!;
    for (let d = 0; d < this.counts.directories; d++) this.#measure(d);
  }

  #measure(d: number): void {
    const { directories } = this.#table;
    const { counts } = this;
    const base = d * DIRECTORY_WORDS;
    const isSame = (directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME) !== 0;
    const from = isSame ? this.#old! : this.#table;
    const [first, count] = [directories[base + D.FIRST]!, directories[base + D.COUNT]!];
    counts.records += count;
    counts.names += directories[base + D.PATH_LENGTH]!;
    const isDense = isSame && count > 0;
    this.#runs.push({ from, first, count, names: isDense ? from.records[first * RECORD_WORDS]! : -1 });
    if (isDense)
      counts.names +=
        from.directories[(directories[base + D.OLD]! - 1) * DIRECTORY_WORDS + D.PATH]! -
        from.records[first * RECORD_WORDS]!;
    if (isDense && from.extras.length <= NO_EXTRAS) return;
    for (let at = first * RECORD_WORDS; at < (first + count) * RECORD_WORDS; at += RECORD_WORDS) {
      const nameAndFlags = from.records[at + R.NAME_FLAGS]!;
      if (!isDense) counts.names += (nameAndFlags & 0xffff) + 1;
      if ((nameAndFlags >>> 16) & FLAG.EXTRAS) counts.extras += from.extras.readUInt32LE(from.records[at + R.EXTRAS]!);
    }
  }

  fill(): SharedArrayBuffer[] {
    const sizes = [
      this.counts.directories * DIRECTORY_WORDS * 4,
      this.counts.records * RECORD_WORDS * 4,
      this.counts.names,
      this.counts.extras,
    ];
    const buffers = sizes.map((bytes) => new SharedArrayBuffer(Math.max(bytes, 4)));
    const [directories, records] = [new Uint32Array(buffers[0]!), new Uint32Array(buffers[1]!)];
    const [names, extras] = [Buffer.from(buffers[2] as never), Buffer.from(buffers[3] as never)];
    directories.set(this.#table.directories.subarray(0, this.counts.directories * DIRECTORY_WORDS));
    const at = { record: 0, name: 0, extra: 0 };
    this.#runs.forEach((run, d) => {
      const base = d * DIRECTORY_WORDS;
      directories[base + D.FIRST] = at.record;
      this.#records(run, d, { records, names, extras }, at);
      const path = this.#table.directoryPath(d);
      directories[base + D.PATH] = at.name;
      names.set(path, at.name);
      at.name += path.length;
      directories[base + D.OLD] = directories[base + D.DONE] = directories[base + D.RULES] = 0;
      directories[base + D.FLAGS]! &= KEPT_FLAGS;
    });
    return buffers;
  }

  #records(
    { from, first, count, names: start }: Run,
    d: number,
    to: { records: Uint32Array; names: Buffer; extras: Buffer },
    at: { record: number; name: number; extra: number },
  ): void {
    const target = at.record * RECORD_WORDS;
    to.records.set(from.records.subarray(first * RECORD_WORDS, (first + count) * RECORD_WORDS), target);
    const shift = at.name - start;
    for (let t = target; t < target + count * RECORD_WORDS; t += RECORD_WORDS) {
      const nameAndFlags = to.records[t + R.NAME_FLAGS]!;
      const length = nameAndFlags & 0xffff;
      const name = to.records[t]!;
      if (start < 0) {
        to.names.set(from.names.subarray(name, name + length), at.name);
        to.records[t] = at.name;
      } else to.records[t] = name + shift;
      at.name += length + 1;
      if ((nameAndFlags >>> 16) & FLAG.EXTRAS) {
        const extra = to.records[t + R.EXTRAS]!;
        const size = from.extras.readUInt32LE(extra);
        to.extras.set(from.extras.subarray(extra, extra + size), at.extra);
        to.records[t + R.EXTRAS] = at.extra;
        at.extra += size;
      }
      if (start >= 0 && (to.records[t + R.MODE]! & 0xf000) === 0x4000)
        to.records[t + R.SUB] = this.#newOfOld.get(to.records[t + R.SUB]!) ?? 0;
    }
    if (start >= 0) to.names.set(from.names.subarray(start, start + at.name - (start + shift)), start + shift);
    at.record += count;
  }
}

/** Section of extras without any. */
const NO_EXTRAS = 4;
const BUFFER_BYTES = 1 << 20;
const SHORT = 64;
/** Ends every name, so that system calls take it where it lies. */
const NUL = Buffer.alloc(1);
const KEPT_FLAGS = DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.IGNORE_FILE | DIRECTORY_FLAG.LINKED;

/** Collects small pieces into large writes and keeps the checksum. */
class SectionWriter {
  readonly #fd: number;
  readonly #buffer = Buffer.from(new ArrayBuffer(BUFFER_BYTES));
  readonly #words = new Uint32Array(this.#buffer.buffer);
  #crc = 0;
  #used = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Room for words at a multiple of four; the returned index is of `words`. Sections of words come before those of bytes. */
  take(count: number): number {
    if (this.#used + count * 4 > BUFFER_BYTES) this.#flush();
    const at = this.#used >> 2;
    this.#used += count * 4;
    return at;
  }

  get words(): Uint32Array {
    return this.#words;
  }

  bytes(source: Buffer, start: number, end: number): void {
    if (end - start <= SHORT && this.#used + end - start <= BUFFER_BYTES) {
      // A call costs more than a name has bytes.
      for (let from = start; from < end; from++) this.#buffer[this.#used++] = source[from]!;
      return;
    }
    for (let from = start; from < end;) {
      if (this.#used === BUFFER_BYTES) this.#flush();
      const n = Math.min(end - from, BUFFER_BYTES - this.#used);
      source.copy(this.#buffer, this.#used, from, from + n);
      this.#used += n;
      from += n;
    }
  }

  finish(): number {
    this.#flush();
    return this.#crc;
  }

  #flush(): void {
    const part = this.#buffer.subarray(0, this.#used);
    this.#crc = crc32(part, this.#crc);
    for (let at = 0; at < part.length;) at += fs.writeSync(this.#fd, part, at, part.length - at);
    this.#used = 0;
  }
}

class DenseTable {
  readonly #table: ScanTable;
  readonly #old: ScanTable | null;
  readonly #count: number;
  readonly #newOfOld: ReadonlyMap<number, number>;

  constructor(table: ScanTable, old: ScanTable | null) {
    this.#table = table;
    this.#old = old;
    this.#count = table.control[C.DIRECTORIES]!;
    this.#newOfOld = table.numbersByOld();
  }

  #isSame(directory: number): boolean {
    return (this.#table.directories[directory * DIRECTORY_WORDS + D.FLAGS]! & DIRECTORY_FLAG.SAME) !== 0;
  }

  #from(directory: number): ScanTable {
    return this.#isSame(directory) ? this.#old! : this.#table;
  }

  directories(out: SectionWriter): SectionCounts {
    const counts = { directories: this.#count, records: 0, names: 0, extras: 0 };
    const { directories } = this.#table;
    for (let d = 0; d < this.#count; d++) {
      const base = d * DIRECTORY_WORDS;
      const at = out.take(DIRECTORY_WORDS);
      for (let i = 0; i < DIRECTORY_WORDS; i++) out.words[at + i] = directories[base + i]!;
      out.words[at + D.FIRST] = counts.records;
      this.#measure(d, counts);
      out.words[at + D.PATH] = counts.names;
      counts.names += directories[base + D.PATH_LENGTH]!;
      out.words[at + D.OLD] = 0;
      out.words[at + D.FLAGS] = directories[base + D.FLAGS]! & KEPT_FLAGS;
      out.words[at + D.DONE] = 0;
      out.words[at + D.RULES] = 0;
    }
    return counts;
  }

  #measure(directory: number, counts: SectionCounts): void {
    const from = this.#from(directory);
    const { directories } = this.#table;
    const first = directories[directory * DIRECTORY_WORDS + D.FIRST]!;
    const n = directories[directory * DIRECTORY_WORDS + D.COUNT]!;
    counts.records += n;
    for (let record = first; record < first + n; record++) {
      const nameAndFlags = from.records[record * RECORD_WORDS + R.NAME_FLAGS]!;
      counts.names += (nameAndFlags & 0xffff) + 1;
      if ((nameAndFlags >>> 16) & FLAG.EXTRAS)
        counts.extras += from.extras.readUInt32LE(from.records[record * RECORD_WORDS + R.EXTRAS]!);
    }
  }

  records(out: SectionWriter): void {
    let nameAt = 0;
    let extraAt = 0;
    this.#each(
      (from, record, directory) => {
        const base = record * RECORD_WORDS;
        const at = out.take(RECORD_WORDS);
        const { words } = out;
        for (let i = 0; i < RECORD_WORDS; i++) words[at + i] = from.records[base + i]!;
        words[at + R.NAME] = nameAt;
        nameAt += (words[at + R.NAME_FLAGS]! & 0xffff) + 1;
        if ((words[at + R.NAME_FLAGS]! >>> 16) & FLAG.EXTRAS) {
          extraAt += from.extras.readUInt32LE(words[at + R.EXTRAS]!);
          words[at + R.EXTRAS] = extraAt - from.extras.readUInt32LE(from.records[base + R.EXTRAS]!);
        }
        if ((words[at + R.MODE]! & 0xf000) === 0x4000 && this.#isSame(directory))
          words[at + R.SUB] = this.#newOfOld.get(words[at + R.SUB]!) ?? 0;
      },
      (path) => {
        nameAt += path;
      },
    );
  }

  names(out: SectionWriter): void {
    this.#each(
      (from, record) => {
        const base = record * RECORD_WORDS;
        const start = from.records[base]!;
        out.bytes(from.names, start, start + (from.records[base + R.NAME_FLAGS]! & 0xffff));
        out.bytes(NUL, 0, 1);
      },
      (length, directory) => {
        const start = this.#table.directories[directory * DIRECTORY_WORDS + D.PATH]!;
        out.bytes(this.#table.names, start, start + length);
      },
    );
  }

  extras(out: SectionWriter): void {
    this.#each(
      (from, record) => {
        const base = record * RECORD_WORDS;
        if (((from.records[base + R.NAME_FLAGS]! >>> 16) & FLAG.EXTRAS) === 0) return;
        const start = from.records[base + R.EXTRAS]!;
        out.bytes(from.extras, start, start + from.extras.readUInt32LE(start));
      },
      () => undefined,
    );
  }

  /** Every record in directory order, and after a directory's records the length of its path. */
  #each(
    visit: (from: ScanTable, record: number, directory: number) => void,
    after: (pathLength: number, directory: number) => void,
  ): void {
    const { directories } = this.#table;
    for (let d = 0; d < this.#count; d++) {
      const from = this.#from(d);
      const first = directories[d * DIRECTORY_WORDS + D.FIRST]!;
      const end = first + directories[d * DIRECTORY_WORDS + D.COUNT]!;
      for (let record = first; record < end; record++) visit(from, record, d);
      after(directories[d * DIRECTORY_WORDS + D.PATH_LENGTH]!, d);
    }
  }
}
