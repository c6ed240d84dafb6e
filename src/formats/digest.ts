import { compareBytes, put32, put64, type ByteWriter } from "./bytes.ts";
import type { NodeAttribute } from "./restic/tree-node.ts";

/**
 * Version 1 of the canonical bytes of the state digest and of the metadata digest. A node is the SHA-256 of the bytes
 * of one directory. A workspace's digest is the node of its root.
 */

export interface DigestEntry {
  /** file, directory, link, pipe, socket, character device, block device. */
  type: "f" | "d" | "l" | "p" | "s" | "c" | "b";
  name: Uint8Array;
  /** Permission bits with setuid, setgid and sticky. */
  mode: number;
  /** Bytes of a file; 0 for other types. */
  size: number;
  /** SHA-256 of a file's content, 32 bytes. */
  contentHash?: Uint8Array;
  /** Node of a directory: its state node in a state digest, its metadata node in a metadata digest. */
  node?: Uint8Array;
  /** Raw target of a link. */
  target?: Uint8Array;
  major: number;
  minor: number;
  mtimeSec: number;
  mtimeNs: number;
  uid: number;
  gid: number;
  xattrs: readonly NodeAttribute[];
  /**
   * For each member of a hard-link group with two or more members in the tree, including the first: the path of the
   * first member in raw pre-order, from the root, without a leading slash.
   */
  linkedTo?: Uint8Array;
}

const STATE = Buffer.from("cairn.state.v1\n", "latin1");
const METADATA = Buffer.from("cairn.meta.v1\n", "latin1");
const NONE = new Uint8Array(0);

/** Starts the node of a directory with `count` entries, which follow sorted by raw name. */
export function beginStateNode(w: ByteWriter, count: number): void {
  w.append(STATE);
  w.u32(count);
}

/** Starts the metadata node of a directory with `count` entries, which follow sorted by raw name. */
export function beginMetadataNode(w: ByteWriter, count: number): void {
  w.append(METADATA);
  w.u32(count);
}

function putRaw(b: Uint8Array, p: number, from: Uint8Array): number {
  const n = from.length;
  if (n > 64) b.set(from, p);
  else for (let i = 0; i < n; i++) b[p + i] = from[i]!;
  return p + n;
}

function putHash(b: Uint8Array, p: number, hash: Uint8Array | undefined, name: Uint8Array): number {
  if (hash === undefined || hash.length !== 32) {
    throw new TypeError(`digest: no hash of 32 bytes for ${JSON.stringify(Buffer.from(name).toString("latin1"))}`);
  }
  for (let i = 0; i < 32; i++) b[p + i] = hash[i]!;
  return p + 32;
}

/** Appends an entry of a state node. */
export function appendStateEntry(w: ByteWriter, entry: DigestEntry): void {
  const name = entry.name;
  const target = entry.target ?? NONE;
  w.reserve(64 + name.length + target.length);
  const b = w.bytes;
  let p = w.length;
  b[p++] = entry.type.charCodeAt(0);
  p = putRaw(b, put32(b, p, name.length), name);
  p = put32(b, p, entry.mode);
  switch (entry.type) {
    case "f":
      p = putHash(b, put64(b, p, entry.size), entry.contentHash, name);
      break;
    case "d":
      p = putHash(b, p, entry.node, name);
      break;
    case "l":
      p = putRaw(b, put32(b, p, target.length), target);
      break;
    case "c":
    case "b":
      p = put32(b, put32(b, p, entry.major), entry.minor);
      break;
    default:
      break;
  }
  w.length = p;
}

/** Appends an entry of a metadata node: its state bytes, then its times, owner, attributes and hard link. */
export function appendMetadataEntry(w: ByteWriter, entry: DigestEntry): void {
  appendStateEntry(w, entry);
  w.reserve(32);
  const b = w.bytes;
  let p = put64(b, w.length, entry.mtimeSec);
  p = put32(b, p, entry.mtimeNs);
  p = put32(b, put32(b, p, entry.uid), entry.gid);
  w.length = p;
  if (entry.xattrs.length === 0) w.u32(0);
  else appendAttributes(w, entry.xattrs);
  const linkedTo = entry.linkedTo;
  if (linkedTo === undefined) {
    w.u8(0);
    return;
  }
  w.u8(1);
  w.u32(linkedTo.length);
  w.append(linkedTo);
}

function appendAttributes(w: ByteWriter, attributes: readonly NodeAttribute[]): void {
  const digested = attributes.filter((attribute) => isDigestedAttribute(attribute.name));
  digested.sort((a, b) => compareBytes(a.name, b.name));
  w.u32(digested.length);
  for (const { name, value } of digested) {
    w.u32(name.length);
    w.append(name);
    w.u32(value.length);
    w.append(value);
  }
}

const PREFIXES = [Buffer.from("user."), Buffer.from("system.posix_acl_")];
const CAPABILITY = Buffer.from("security.capability");

/** True for attributes that the metadata digest covers. Other attributes are only recorded. */
export function isDigestedAttribute(name: Uint8Array): boolean {
  if (compareBytes(name, CAPABILITY) === 0) return true;
  return PREFIXES.some(
    (prefix) => name.length >= prefix.length && compareBytes(name.subarray(0, prefix.length), prefix) === 0,
  );
}
