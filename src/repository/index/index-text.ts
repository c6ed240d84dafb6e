import { HEX_PAIRS } from "../../formats/bytes.ts";
import { COMPRESSED_ENTRY_SIZE, PLAIN_ENTRY_SIZE } from "../../formats/restic/pack-header.ts";
import { giveBack } from "../../native.ts";

/**
 * Writes the same bytes as `formats/index-file`, straight from a pack's plain header and several times faster. The
 * index of a first save delays its commit.
 */

const FILE_HEAD = ascii('{"packs":[');
const FILE_TAIL = ascii("]}");
const COMMA = ascii(",");
const HEAD = ascii('{"id":"');
const BLOBS = ascii('","blobs":[');
const BLOB = ascii(',{"id":"');
const DATA = ascii('","type":"data","offset":');
const TREE = ascii('","type":"tree","offset":');
const LENGTH = ascii(',"length":');
const PLAIN_LENGTH = ascii(',"uncompressed_length":');
/** An upper limit of the bytes of an entry: 64 hex digits, words and three numbers of ten digits. */
const MOST = 192;

/** Makes the texts of index files, one after the other in the same memory. */
export class IndexText {
  readonly #limit: number;
  readonly #bytes: Uint8Array;
  #end = 0;

  /**
   * `limit`: most bytes of a file, unless one pack alone needs more. `packs`: all packs that will be added, to reserve
   * memory.
   */
  constructor(limit: number, packs: readonly { readonly header: Uint8Array }[]) {
    this.#limit = limit;
    let all = 0;
    let largest = 0;
    for (const { header } of packs) {
      const room = roomOf(header);
      all += room;
      largest = Math.max(largest, room);
    }
    this.#bytes = new Uint8Array(FILE_HEAD.length + FILE_TAIL.length + Math.min(all, limit + largest));
  }

  /**
   * Adds a pack's entry. `header` comes from this process, so it is valid. Returns false, and adds nothing, if the file
   * would exceed its limit: add the pack to the next file.
   */
  add(packId: Uint8Array, header: Uint8Array): boolean {
    const isFirst = this.#end === 0;
    const start = isFirst ? put(this.#bytes, 0, FILE_HEAD, 0) : this.#end;
    const end = putPack(this.#bytes, isFirst ? start : put(this.#bytes, start, COMMA, 0), packId, header);
    if (!isFirst && end + FILE_TAIL.length > this.#limit) return false;
    this.#end = end;
    return true;
  }

  /**
   * Returns the whole file; empty if nothing was added. The next `add` begins another file and overwrites these bytes.
   */
  finish(): Uint8Array {
    const end = this.#end === 0 ? 0 : put(this.#bytes, this.#end, FILE_TAIL, 0);
    this.#end = 0;
    return this.#bytes.subarray(0, end);
  }

  /** Frees the memory. Call it last: the bytes that `finish` returned become empty. */
  release(): void {
    giveBack(this.#bytes);
  }
}

/** An upper limit of the bytes of a pack's entry. */
function roomOf(header: Uint8Array): number {
  return 128 + Math.ceil(header.length / PLAIN_ENTRY_SIZE) * MOST;
}

/** Writes the JSON of one pack's entry. Returns the position after it. */
function putPack(out: Uint8Array, start: number, packId: Uint8Array, header: Uint8Array): number {
  let p = put(out, start, HEAD, 0);
  p = putHex(out, p, packId, 0);
  p = put(out, p, BLOBS, 0);
  let offset = 0;
  for (let at = 0; at < header.length;) {
    const kind = header[at]!;
    const compressed = kind >= 2;
    const length = u32(header, at + 1);
    const idAt = at + (compressed ? 9 : 5);
    p = put(out, p, BLOB, at === 0 ? 1 : 0);
    p = putHex(out, p, header, idAt);
    p = put(out, p, (kind & 1) === 0 ? DATA : TREE, 0);
    p = putNumber(out, p, offset);
    p = put(out, p, LENGTH, 0);
    p = putNumber(out, p, length);
    if (compressed) {
      p = put(out, p, PLAIN_LENGTH, 0);
      p = putNumber(out, p, u32(header, at + 5));
    }
    out[p++] = 0x7d;
    offset += length;
    at += compressed ? COMPRESSED_ENTRY_SIZE : PLAIN_ENTRY_SIZE;
  }
  out[p++] = 0x5d;
  out[p++] = 0x7d;
  return p;
}

function ascii(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, "latin1"));
}

function u32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0;
}

function put(out: Uint8Array, at: number, text: Uint8Array, from: number): number {
  const n = text.length;
  for (let i = from; i < n; i++) out[at++] = text[i]!;
  return at;
}

function putHex(out: Uint8Array, at: number, bytes: Uint8Array, from: number): number {
  for (let i = from; i < from + 32; i++) {
    const pair = bytes[i]! * 2;
    out[at++] = HEX_PAIRS[pair]!;
    out[at++] = HEX_PAIRS[pair + 1]!;
  }
  return at;
}

/** Writes an integer below 2³² in decimal digits. Returns the position after it. */
function putNumber(out: Uint8Array, at: number, value: number): number {
  let digits = 1;
  for (let bound = 10; value >= bound; bound *= 10) digits++;
  let rest = value;
  for (let i = at + digits - 1; i >= at; i--) {
    const next = Math.floor(rest / 10);
    out[i] = 48 + (rest - next * 10);
    rest = next;
  }
  return at + digits;
}
