import { ByteWriter, HEX_PAIRS } from "../../formats/bytes.ts";
import { PLAIN } from "../../formats/restic/go-json.ts";
import { kindPiece, ownerPiece } from "../../formats/restic/tree-encode.ts";
import { R, RECORD_WORDS, type ScanTable } from "../cache/scan-table.ts";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { groupName, userName } from "../../fs/users.ts";
import { newKernel } from "../../web-assembly.ts";
import { PLAIN_FILES_KERNEL } from "./plain-files-kernel.ts";

/**
 * Encodes regular files with one blob, no attributes, no hole and no other name, nearly every entry of a workspace,
 * straight from their records: the same bytes as `appendNode`, `appendStateEntry` and `appendMetadataEntry` write.
 * In WebAssembly, because a save runs this once for each entry and is over before a compiler has made it fast.
 */

/** Writers for the nodes of one directory each. */
export interface NodeWriters {
  tree: ByteWriter;
  state: ByteWriter;
  metadata: ByteWriter;
}

// Addresses in the kernel's memory; the kernel has the same numbers.
const HEX = 0x100;
const DIGIT_PAIRS = 0x300;
const PLAIN_BYTES = 0x400;
const OWNER = 0x600;
const OWNER_BYTES = 256;
/** For each mode its piece, address << 8 | length; 0 if none is known yet. */
const KIND_TABLE = 0x2000;
const KINDS = 0x6000;
const KIND_BYTES = 64;
const MAX_KINDS = 128;
const RECORDS = 0x10000;
/** Records at a time. */
const BATCH = 512;
const NAMES = 0x20000;
/** Copies of names may read a little beyond their end. */
const NAMES_BYTES = 0x30000 - 8;
const TREE = 0x50000;
const STATE = 0xb8000;
const METADATA = 0xe0000;

const RECORD_BYTES = RECORD_WORDS * 4;
const OPENING_BRACKET = 0x5b;

interface Kernel {
  memory: { buffer: ArrayBuffer };
  owner(uid: number, gid: number, length: number): void;
  encode(first: number, end: number, names: number): number;
}

export class PlainFiles {
  readonly #kernel: Kernel;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #scratch = new ByteWriter(OWNER_BYTES);
  #uid = -1;
  #gid = -1;
  #kinds = 0;
  // The records that lie in the kernel's memory, and the offset of the first byte of names there.
  #from: ScanTable | undefined;
  #first = 0;
  #end = 0;
  #namesFrom = 0;

  constructor() {
    this.#kernel = newKernel<Kernel>(PLAIN_FILES_KERNEL);
    this.#bytes = new Uint8Array(this.#kernel.memory.buffer);
    this.#words = new Uint32Array(this.#kernel.memory.buffer);
    this.#bytes.set(HEX_PAIRS, HEX);
    for (let value = 0; value < 100; value++)
      this.#bytes.set(Buffer.from(String(value).padStart(2, "0")), DIGIT_PAIRS + 2 * value);
    this.#bytes.set(PLAIN, PLAIN_BYTES);
    // Before that the kernel's own value is the id of an unknown owner.
    this.#learnOwner(0, 0);
  }

  /** Appends records from `first` on; returns the first record that is not such a file or whose name needs escapes, or `end`. */
  append(from: ScanTable, { first, end }: { first: number; end: number }, writers: NodeWriters): number {
    let record = first;
    while (record < end) {
      if (from !== this.#from || record < this.#first || record >= this.#end) this.#load(from, record, end);
      if (record >= this.#end) return record;
      const stopped = this.#encode(record, Math.min(end, this.#end), writers);
      if (stopped === record && !this.#learn(from, record)) return record;
      record = stopped;
    }
    return end;
  }

  #encode(first: number, end: number, writers: NodeWriters): number {
    const stopped = this.#kernel.encode(first - this.#first, end - this.#first, NAMES - this.#namesFrom) + this.#first;
    if (stopped === first) return first;
    const { tree, state, metadata } = writers;
    const isFirst = tree.length > 0 && tree.bytes[tree.length - 1] === OPENING_BRACKET;
    tree.append(this.#bytes.subarray(isFirst ? TREE + 1 : TREE, this.#words[0]));
    state.append(this.#bytes.subarray(STATE, this.#words[1]));
    metadata.append(this.#bytes.subarray(METADATA, this.#words[2]));
    return stopped;
  }

  /** Loads as many records as fit; none if their names are too far apart. */
  #load(from: ScanTable, first: number, end: number): void {
    const last = Math.min(end, first + BATCH);
    const { records } = from;
    let low = 2 ** 32;
    let high = 0;
    for (let base = first * RECORD_WORDS; base < last * RECORD_WORDS; base += RECORD_WORDS) {
      const name = records[base + R.NAME]!;
      if (name < low) low = name;
      const nameEnd = name + (records[base + R.NAME_FLAGS]! & 0xffff);
      if (nameEnd > high) high = nameEnd;
    }
    this.#from = from;
    this.#first = first;
    this.#end = high - low > NAMES_BYTES ? first : last;
    this.#namesFrom = low;
    if (this.#end === first) return;
    this.#bytes.set(from.recordBytes.subarray(first * RECORD_BYTES, last * RECORD_BYTES), RECORDS);
    this.#bytes.set(from.names.subarray(low, high), NAMES);
  }

  /** Tells the kernel an unknown owner or mode; true if it can go on with the file. */
  #learn(from: ScanTable, record: number): boolean {
    const words = from.records;
    const base = record * RECORD_WORDS;
    if (words[base + R.MODE]! >>> 12 !== TYPE.FILE) return false;
    return (
      this.#learnKind(words[base + R.MODE]! & 0o7777) || this.#learnOwner(words[base + R.UID]!, words[base + R.GID]!)
    );
  }

  #learnKind(mode: number): boolean {
    const at = KIND_TABLE / 4 + mode;
    const piece = kindPiece("file", mode);
    if (this.#words[at] !== 0 || piece.length > KIND_BYTES) return false;
    if (this.#kinds === MAX_KINDS) {
      this.#words.fill(0, KIND_TABLE / 4, KINDS / 4);
      this.#kinds = 0;
    }
    const address = KINDS + KIND_BYTES * this.#kinds++;
    this.#bytes.set(piece, address);
    this.#words[at] = (address << 8) | piece.length;
    return true;
  }

  #learnOwner(uid: number, gid: number): boolean {
    if (uid === this.#uid && gid === this.#gid) return false;
    const piece = ownerPiece(this.#scratch, { uid, gid, user: userName(uid), group: groupName(gid) });
    if (piece.length > OWNER_BYTES) return false;
    this.#bytes.set(piece, OWNER);
    this.#kernel.owner(uid, gid, piece.length);
    this.#uid = uid;
    this.#gid = gid;
    return true;
  }
}
