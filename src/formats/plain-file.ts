import { HEX_PAIRS, putDecimal, type ByteWriter } from "./bytes.ts";
import { put32, put64 } from "./digest.ts";
import { PLAIN } from "./go-json.ts";
import { MAX_TIME_LENGTH, putTime } from "./go-time.ts";
import { kindPiece, NAME, ownerPiece, piece, put } from "./tree-encode.ts";

/**
 * The three encodings of a regular file with one blob, no attributes, no hole and no other name: nearly every entry of
 * a workspace. They are the same bytes that `appendNode`, `appendStateEntry` and `appendMetadataEntry` write, made in
 * one pass from wherever the parts lie.
 */
export interface PlainFile {
  /** The name is `names[nameAt, nameAt + nameLength)`. */
  names: Uint8Array;
  nameAt: number;
  nameLength: number;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  /** Bytes, at least 1. */
  size: number;
  mtimeSec: number;
  mtimeNs: number;
  uid: number;
  gid: number;
  user: string;
  group: string;
  /** The SHA-256 of the content, which is also the id of its blob: `ids[idAt, idAt + 32)`. */
  ids: Uint8Array;
  idAt: number;
}

const ATIME = piece('","atime":"');
const CTIME = piece('","ctime":"');
const SIZE = piece(',"size":');
const CONTENT = piece(',"links":1,"content":["');
const FIXED = NAME.length + ATIME.length + CTIME.length + SIZE.length + CONTENT.length + 3 * MAX_TIME_LENGTH + 96;
const FILE = 0x66;
const ID_BYTES = 32;
/** Bytes of a metadata entry after those of the state entry. */
const METADATA_BYTES = 25;

/** Appends a file to a tree and to the state and metadata nodes; false, and nothing written, when its name needs escapes. */
export function appendPlainFile(tree: ByteWriter, state: ByteWriter, metadata: ByteWriter, file: PlainFile): boolean {
  const { names, nameAt, nameLength } = file;
  for (let i = nameAt; i < nameAt + nameLength; i++) if (PLAIN[names[i]!] === 0) return false;
  appendNode(tree, file);
  appendDigests(state, metadata, file);
  return true;
}

function appendNode(w: ByteWriter, file: PlainFile): void {
  const { names, nameAt, nameLength, ids, idAt } = file;
  const kind = kindPiece("file", file.mode);
  const owner = ownerPiece(w, file);
  w.reserve(FIXED + nameLength + kind.length + owner.length);
  const b = w.bytes;
  let p = w.length;
  if (b[p - 1] !== 0x5b) b[p++] = 0x2c;
  p = put(b, p, NAME);
  for (let i = 0; i < nameLength; i++) b[p++] = names[nameAt + i]!;
  const time = put(b, p, kind);
  const end = putTime(b, time, file.mtimeSec, file.mtimeNs);
  p = put(b, end, ATIME);
  for (let i = time; i < end; i++) b[p++] = b[i]!;
  p = put(b, p, CTIME);
  for (let i = time; i < end; i++) b[p++] = b[i]!;
  p = put(b, p, owner);
  p = put(b, putDecimal(b, put(b, p, SIZE), file.size), CONTENT);
  for (let i = idAt; i < idAt + ID_BYTES; i++) {
    const pair = ids[i]! * 2;
    b[p++] = HEX_PAIRS[pair]!;
    b[p++] = HEX_PAIRS[pair + 1]!;
  }
  b[p++] = 0x22;
  b[p++] = 0x5d;
  b[p++] = 0x7d;
  w.length = p;
}

function appendDigests(state: ByteWriter, metadata: ByteWriter, file: PlainFile): void {
  const { names, nameAt, nameLength, ids, idAt } = file;
  const length = 1 + 4 + nameLength + 4 + 8 + ID_BYTES;
  state.reserve(length);
  metadata.reserve(length + METADATA_BYTES);
  const s = state.bytes;
  const start = state.length;
  s[start] = FILE;
  let p = put32(s, start + 1, nameLength);
  for (let i = 0; i < nameLength; i++) s[p++] = names[nameAt + i]!;
  p = put64(s, put32(s, p, file.mode), file.size);
  for (let i = 0; i < ID_BYTES; i++) s[p++] = ids[idAt + i]!;
  state.length = p;
  const m = metadata.bytes;
  let q = metadata.length;
  for (let i = start; i < p; i++) m[q++] = s[i]!;
  q = put32(m, put64(m, q, file.mtimeSec), file.mtimeNs);
  q = put32(m, put32(m, put32(m, q, file.uid), file.gid), 0);
  m[q++] = 0;
  metadata.length = q;
}
