import { HEX_PAIRS } from "../formats/bytes.ts";
import { COMPRESSED_ENTRY_SIZE, PLAIN_ENTRY_SIZE } from "../formats/pack-header.ts";

/**
 * The same bytes as formats/index-file's writer makes, straight from a pack's plain header and several times faster:
 * for the index of a first save, which stands between the last byte stored and the commit.
 */

const HEAD = ascii('{"id":"');
const BLOBS = ascii('","blobs":[');
const BLOB = ascii(',{"id":"');
const DATA = ascii('","type":"data","offset":');
const TREE = ascii('","type":"tree","offset":');
const LENGTH = ascii(',"length":');
const PLAIN_LENGTH = ascii(',"uncompressed_length":');
/** More bytes than any entry takes: 64 of hex, the words and three numbers of ten digits. */
const MOST = 192;

/** JSON of one pack's entry in an index file. `header` is valid: it comes from this process. */
export function packIndexText(packId: Uint8Array, header: Uint8Array): Uint8Array {
  const out = new Uint8Array(128 + Math.ceil(header.length / PLAIN_ENTRY_SIZE) * MOST);
  let p = put(out, 0, HEAD, 0);
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
  return out.subarray(0, p);
}

/** A whole index file of such entries. */
export function indexText(packs: readonly Uint8Array[]): Uint8Array {
  const parts: Uint8Array[] = [ascii('{"packs":[')];
  packs.forEach((pack, i) => {
    if (i > 0) parts.push(ascii(","));
    parts.push(pack);
  });
  parts.push(ascii("]}"));
  return Buffer.concat(parts);
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

/** An integer below 2³² in decimal digits. */
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
