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
export function writeSections(fd: number, tables: Tables): { counts: SectionCounts; crc: number } {
  const writer = new FileSections(fd);
  const dense = new DenseTable(tables);
  const counts = dense.directories(writer);
  dense.records(writer);
  dense.names(writer);
  if (counts.extras > 0) dense.extras(writer);
  return { counts, crc: writer.finish() };
}

/** Makes a dense table in shared memory: directories, records, names and extras. */
export function denseSections(tables: Tables): { counts: SectionCounts; buffers: SharedArrayBuffer[] } {
  const memory = new MemorySections();
  const dense = new DenseTable(tables);
  memory.begin(tables.table.control[C.DIRECTORIES]! * DIRECTORY_WORDS * 4);
  const counts = dense.directories(memory);
  memory.begin(counts.records * RECORD_WORDS * 4);
  dense.records(memory);
  memory.begin(counts.names);
  dense.names(memory);
  memory.begin(counts.extras);
  if (counts.extras > 0) dense.extras(memory);
  return { counts, buffers: memory.buffers };
}

/** A scan's table, and the previous one for unchanged directories. */
interface Tables {
  table: ScanTable;
  old: ScanTable | null;
}

/** Receives a table section after section; sections of words come before those of bytes. */
interface Sections {
  readonly words: Uint32Array;
  /** Reserves room for words of at most {@link RECORDS_AT_ONCE} records; returns an index into `words`. */
  take(count: number): number;
  bytes(source: Buffer, start: number, end: number): void;
}

/** Keeps each section in a buffer of its own. */
class MemorySections implements Sections {
  readonly buffers: SharedArrayBuffer[] = [];
  words: Uint32Array = new Uint32Array(0);
  #bytes = Buffer.alloc(0);
  #used = 0;

  /** Begins a section of `bytes` bytes. */
  begin(bytes: number): void {
    const buffer = new SharedArrayBuffer(Math.max(bytes, 4));
    this.buffers.push(buffer);
    this.words = new Uint32Array(buffer, 0, buffer.byteLength >> 2);
    this.#bytes = Buffer.from(buffer as unknown as ArrayBuffer);
    this.#used = 0;
  }

  take(count: number): number {
    const at = this.#used >> 2;
    this.#used += count * 4;
    return at;
  }

  bytes(source: Buffer, start: number, end: number): void {
    this.#used += source.copy(this.#bytes, this.#used, start, end);
  }
}

const BUFFER_BYTES = 1 << 20;
const SHORT = 64;
const RECORDS_AT_ONCE = 4096;
/** Ends every name, so that system calls can take a name without a copy. */
const NUL = Buffer.alloc(1);
const KEPT_FLAGS = DIRECTORY_FLAG.OMITTED | DIRECTORY_FLAG.IGNORE_FILE | DIRECTORY_FLAG.LINKED;

/** Collects small pieces into large writes and keeps the checksum. */
class FileSections implements Sections {
  readonly #fd: number;
  readonly #buffer = Buffer.from(new ArrayBuffer(BUFFER_BYTES));
  readonly #words = new Uint32Array(this.#buffer.buffer);
  #crc = 0;
  #used = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

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
      // A call of `set` would cost more than copying the few bytes of a name.
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

  constructor({ table, old }: Tables) {
    this.#table = table;
    this.#old = old;
    this.#count = table.control[C.DIRECTORIES]!;
    this.#newOfOld = table.numbersByOld();
  }

  directories(out: Sections): SectionCounts {
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
    const { from, first, end } = this.#run(directory);
    counts.records += end - first;
    for (let base = first * RECORD_WORDS; base < end * RECORD_WORDS; base += RECORD_WORDS) {
      const nameAndFlags = from.records[base + R.NAME_FLAGS]!;
      counts.names += (nameAndFlags & 0xffff) + 1;
      if ((nameAndFlags >>> 16) & FLAG.EXTRAS)
        counts.extras += from.extras.readUInt32LE(from.records[base + R.EXTRAS]!);
    }
  }

  records(out: Sections): void {
    let nameAt = 0;
    let extraAt = 0;
    for (let d = 0; d < this.#count; d++) {
      const { from, first, end, isSame } = this.#run(d);
      for (let next = first; next < end; next += RECORDS_AT_ONCE) {
        const words = Math.min(RECORDS_AT_ONCE, end - next) * RECORD_WORDS;
        const start = out.take(words);
        const to = out.words;
        to.set(from.records.subarray(next * RECORD_WORDS, next * RECORD_WORDS + words), start);
        for (let at = start; at < start + words; at += RECORD_WORDS) {
          const nameAndFlags = to[at + R.NAME_FLAGS]!;
          to[at + R.NAME] = nameAt;
          nameAt += (nameAndFlags & 0xffff) + 1;
          if ((nameAndFlags >>> 16) & FLAG.EXTRAS) {
            const size = from.extras.readUInt32LE(to[at + R.EXTRAS]!);
            to[at + R.EXTRAS] = extraAt;
            extraAt += size;
          }
          if (isSame && (to[at + R.MODE]! & 0xf000) === 0x4000)
            to[at + R.SUB] = this.#newOfOld.get(to[at + R.SUB]!) ?? 0;
        }
      }
      nameAt += this.#table.directoryPath(d).length;
    }
  }

  names(out: Sections): void {
    for (let d = 0; d < this.#count; d++) {
      const { from, first, end } = this.#run(d);
      for (let record = first; record < end;) {
        const start = from.records[record * RECORD_WORDS]!;
        let stop = start;
        // A dense table's names are contiguous, each with its NUL.
        for (; record < end && from.records[record * RECORD_WORDS] === stop; record++)
          stop += (from.records[record * RECORD_WORDS + R.NAME_FLAGS]! & 0xffff) + 1;
        out.bytes(from.names, start, stop - 1);
        out.bytes(NUL, 0, 1);
      }
      const path = this.#table.directoryPath(d);
      out.bytes(path, 0, path.length);
    }
  }

  extras(out: Sections): void {
    for (let d = 0; d < this.#count; d++) {
      const { from, first, end } = this.#run(d);
      for (let base = first * RECORD_WORDS; base < end * RECORD_WORDS; base += RECORD_WORDS) {
        if (((from.records[base + R.NAME_FLAGS]! >>> 16) & FLAG.EXTRAS) === 0) continue;
        const start = from.records[base + R.EXTRAS]!;
        out.bytes(from.extras, start, start + from.extras.readUInt32LE(start));
      }
    }
  }

  /** Records of a directory, and the table that has them. */
  #run(directory: number): { from: ScanTable; first: number; end: number; isSame: boolean } {
    const { directories } = this.#table;
    const base = directory * DIRECTORY_WORDS;
    const isSame = (directories[base + D.FLAGS]! & DIRECTORY_FLAG.SAME) !== 0;
    const first = directories[base + D.FIRST]!;
    return { from: isSame ? this.#old! : this.#table, first, end: first + directories[base + D.COUNT]!, isSame };
  }
}
