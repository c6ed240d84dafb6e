import { HEX_PAIRS, putDecimal, type ByteWriter } from "../bytes.ts";
import { appendGoName, appendGoString, appendGoText, decodeRune } from "./go-json.ts";
import { MAX_TIME_LENGTH, putTime } from "../go-time.ts";
import { goModeOf, type NodeAttribute, type TreeNode } from "./tree-node.ts";

/**
 * Encodes restic trees byte for byte like Go. The encoder runs once for every entry of every changed directory, so it
 * copies prepared pieces instead of joining strings.
 */

/** Returns bytes that are copied into many nodes. */
function piece(text: string): Uint8Array {
  return Buffer.from(text, "utf8");
}

const NAME = piece('{"name":"');
const ATIME = piece('","atime":"');
const CTIME = piece('","ctime":"');
const SIZE = piece(',"size":');
const LINKS = piece(',"links":');
const CONTENT = piece(',"content":[');
const NO_CONTENT = piece(',"content":null');
const SUBTREE = piece(',"subtree":"');

const kinds = new Map<string, Uint8Array>();
let kindType = "";
let kindMode = -1;
let kind: Uint8Array = piece("");

/** Returns the part from the end of the name to the first time: `","type":"file","mode":420,"mtime":"`. */
export function kindPiece(type: TreeNode["type"], mode: number): Uint8Array {
  if (type === kindType && mode === kindMode) return kind;
  const key = `${type}${mode}`;
  let found = kinds.get(key);
  if (found === undefined) {
    found = kindPieceOf(type, goModeOf(type, mode));
    kinds.set(key, found);
  }
  kindType = type;
  kindMode = mode;
  kind = found;
  return found;
}

function kindPieceOf(type: TreeNode["type"], goMode: number): Uint8Array {
  return piece(`","type":"${type}"${goMode === 0 ? "" : `,"mode":${goMode}`},"mtime":"`);
}

let ownerUid = -1;
let ownerGid = -1;
let ownerUser = "";
let ownerGroup = "";
let owner: Uint8Array = piece("");

/** Returns the part after the last time: `","uid":0,"gid":0,"user":"root","group":"root"`. */
export function ownerPiece(scratch: ByteWriter, node: Pick<TreeNode, "uid" | "gid" | "user" | "group">): Uint8Array {
  if (node.uid === ownerUid && node.gid === ownerGid && node.user === ownerUser && node.group === ownerGroup) {
    return owner;
  }
  const start = scratch.length;
  scratch.ascii(`","uid":${node.uid},"gid":${node.gid}`);
  appendText(scratch, "user", node.user);
  appendText(scratch, "group", node.group);
  owner = scratch.bytes.slice(start, scratch.length);
  scratch.length = start;
  ownerUid = node.uid;
  ownerGid = node.gid;
  ownerUser = node.user;
  ownerGroup = node.group;
  return owner;
}

function appendText(w: ByteWriter, key: string, value: string): void {
  if (value === "") return;
  w.ascii(`,"${key}":"`);
  appendGoText(w, value);
  w.u8(0x22);
}

function put(to: Uint8Array, at: number, from: Uint8Array): number {
  const n = from.length;
  for (let i = 0; i < n; i++) to[at + i] = from[i]!;
  return at + n;
}

/** Starts a tree in `w`, which may already hold other bytes. */
export function beginTree(w: ByteWriter): void {
  w.ascii('{"nodes":[');
}

/** Ends the tree: the bytes since `beginTree` are the blob. */
export function endTree(w: ByteWriter): void {
  w.ascii("]}\n");
}

/** Appends a node, with a comma unless it is the first. The caller appends nodes in byte order of their names. */
export function appendNode(w: ByteWriter, node: TreeNode): void {
  w.reserve(8);
  if (w.bytes[w.length - 1] !== 0x5b) w.bytes[w.length++] = 0x2c;
  w.append(NAME);
  appendGoName(w, node.name);
  if (node.foreign === undefined) appendTimes(w, node);
  else appendForeignTimes(w, node);
  w.append(ownerPiece(w, node));
  if (node.inode !== 0n) w.ascii(`,"inode":${node.inode}`);
  if (node.deviceId !== 0n) w.ascii(`,"device_id":${node.deviceId}`);
  appendCounts(w, node);
  if (node.linktarget !== undefined && node.linktarget.length > 0) appendTarget(w, node.linktarget);
  if (node.xattrs.length > 0) appendAttributes(w, node.xattrs);
  const generic = node.foreign?.genericAttributes;
  if (generic !== undefined) w.text(`,"generic_attributes":${generic}`);
  if (node.device !== 0n) w.ascii(`,"device":${node.device}`);
  appendContent(w, node);
  if (node.foreign?.rest !== undefined) w.text(node.foreign.rest);
  w.u8(0x7d);
}

function appendTimes(w: ByteWriter, node: TreeNode): void {
  const head = kindPiece(node.type, node.mode);
  w.reserve(head.length + 3 * MAX_TIME_LENGTH + ATIME.length + CTIME.length);
  const b = w.bytes;
  const start = put(b, w.length, head);
  const end = putTime(b, start, node.mtimeSec, node.mtimeNs);
  let p = put(b, end, ATIME);
  for (let i = start; i < end; i++) b[p++] = b[i]!;
  p = put(b, p, CTIME);
  for (let i = start; i < end; i++) b[p++] = b[i]!;
  w.length = p;
}

function appendForeignTimes(w: ByteWriter, node: TreeNode): void {
  const foreign = node.foreign!;
  w.append(foreign.goMode === undefined ? kindPiece(node.type, node.mode) : kindPieceOf(node.type, foreign.goMode));
  w.ascii(`${foreign.mtime}","atime":"${foreign.atime}","ctime":"${foreign.ctime}`);
}

function appendCounts(w: ByteWriter, node: TreeNode): void {
  w.reserve(64);
  const b = w.bytes;
  let p = w.length;
  if (node.size !== 0) p = putDecimal(b, put(b, p, SIZE), node.size);
  const type = node.type;
  if (node.links !== 0 && type !== "dir" && type !== "fifo" && type !== "socket") {
    p = putDecimal(b, put(b, p, LINKS), node.links);
  }
  w.length = p;
}

function appendTarget(w: ByteWriter, target: Uint8Array): void {
  w.ascii(',"linktarget":"');
  appendGoString(w, target);
  w.u8(0x22);
  // restic since 0.16 also keeps the raw bytes of a target that is not valid text; older versions ignore the key.
  if (!isText(target)) w.ascii(`,"linktarget_raw":"${base64(target)}"`);
}

function isText(b: Uint8Array): boolean {
  for (let i = 0; i < b.length;) {
    const rune = decodeRune(b, i, b.length);
    if (rune < 0) return false;
    i += rune & 7;
  }
  return true;
}

function base64(b: Uint8Array): string {
  return Buffer.from(b.buffer, b.byteOffset, b.byteLength).toString("base64");
}

function appendAttributes(w: ByteWriter, attributes: readonly NodeAttribute[]): void {
  w.ascii(',"extended_attributes":[');
  let first = true;
  for (const attribute of attributes) {
    w.ascii(first ? '{"name":"' : ',{"name":"');
    appendGoString(w, attribute.name);
    w.ascii(`","value":"${base64(attribute.value)}"}`);
    first = false;
  }
  w.u8(0x5d);
}

function appendContent(w: ByteWriter, node: TreeNode): void {
  const ids = node.content;
  if (ids === undefined) {
    if (node.type === "file") w.ascii(',"content":[]');
    else w.append(NO_CONTENT);
  } else {
    w.reserve(CONTENT.length + 1 + (ids.length / 32) * 67);
    const b = w.bytes;
    let p = put(b, w.length, CONTENT);
    for (let at = 0; at < ids.length; at += 32) {
      if (at > 0) b[p++] = 0x2c;
      p = putId(b, p, ids, at);
    }
    b[p++] = 0x5d;
    w.length = p;
  }
  if (node.subtree === undefined) return;
  w.reserve(SUBTREE.length + 66);
  const p = put(w.bytes, w.length, SUBTREE) - 1;
  w.length = putId(w.bytes, p, node.subtree, 0);
}

/** Writes a quoted id of 32 bytes at `p`. Returns the position after it. */
function putId(b: Uint8Array, at: number, ids: Uint8Array, from: number): number {
  let p = at;
  b[p++] = 0x22;
  for (let i = from; i < from + 32; i++) {
    const pair = ids[i]! * 2;
    b[p++] = HEX_PAIRS[pair]!;
    b[p++] = HEX_PAIRS[pair + 1]!;
  }
  b[p++] = 0x22;
  return p;
}
