import { HashedWriter } from "./hashed-writer.ts";
import { sha256, Sha256Stream } from "../../crypto/hash.ts";
import { ByteWriter, put32, put64 } from "../../formats/bytes.ts";
import { beginMetadataNode, beginStateNode } from "../../formats/digest.ts";
import type { TreeCursor } from "../../formats/restic/tree-cursor.ts";
import { newArena } from "../../native.ts";

/** The bytes of both digests of a directory, with gaps for the digests of its children. */
export interface PlainNode {
  state: Uint8Array;
  meta: Uint8Array;
  /** for each child the offset of its gap in `state`, then in `meta` */
  gaps: number[];
  /** true if `state` and `meta` are the digests themselves */
  isHashed: boolean;
}

/** SHA-256 of an empty file. */
export const NOTHING = sha256(new Uint8Array(0));
const F = 0x66;
const D = 0x64;
const L = 0x6c;
/**
 * True for the entries that `PlainDigester` can encode: files without hard links, directories and links, without
 * attributes.
 */
export function isPlain({ type, hasOtherNames, xattrs }: TreeCursor): boolean {
  if (xattrs.length > 0) return false;
  return type === "file" ? !hasOtherNames : type === "dir" || type === "symlink";
}

/** An upper limit of the fixed parts of an entry. */
const ROOM = 128;
/** Bytes of one part in which encoded entries are hashed after `begin(count)`. */
const PART = 64 * 1024;

/**
 * Encodes directories of plain entries for both digests, straight from the bytes of their trees. Writes the same bytes
 * as `appendStateEntry` and `appendMetadataEntry`, without an object for each entry; a test compares them.
 */
export class PlainDigester {
  readonly #state = new HashedWriter();
  readonly #meta = new HashedWriter();
  readonly #result = newArena(64);
  /** Running hashes of both digests; null if the encoded entries are kept. */
  #hashes: [Sha256Stream, Sha256Stream] | null = null;
  #count = 0;
  #gaps: number[] = [];
  #subtrees = new Uint8Array(32 * 64);

  /** `count`: the number of entries that will be added, none a directory: they are hashed and not kept. 0: unknown. */
  begin(count = 0): void {
    this.#hashes = count === 0 ? null : [new Sha256Stream(), new Sha256Stream()];
    this.#count = 0;
    this.#gaps = [];
    this.#state.writer.reset();
    this.#meta.writer.reset();
    beginStateNode(this.#state.writer, count);
    beginMetadataNode(this.#meta.writer, count);
  }

  /** Appends the cursor's current entry. `hash`: SHA-256 of a file's whole content in its first 32 bytes. */
  add(cursor: TreeCursor, hash: Uint8Array): void {
    const state = this.#state.writer;
    const meta = this.#meta.writer;
    const variable = cursor.nameEnd - cursor.nameStart + cursor.targetEnd - cursor.targetStart;
    state.reserve(ROOM + variable);
    meta.reserve(ROOM + variable);
    const start = state.length;
    if (cursor.type === "file") addFile(state, cursor, hash);
    else if (cursor.type === "symlink") addLink(state, cursor);
    else {
      this.#subtree(cursor.ids);
      addHead(state, D, cursor);
      this.#gaps.push(state.length, meta.length + state.length - start);
      state.length += 32;
    }
    const from = state.bytes;
    const to = meta.bytes;
    let p = meta.length;
    for (let i = start; i < state.length; i++) to[p++] = from[i]!;
    p = put32(to, put64(to, p, cursor.mtimeSec), cursor.mtimeNs);
    p = put32(to, put32(to, p, cursor.uid), cursor.gid);
    // No attributes, no hard link.
    p = put32(to, p, 0);
    to[p++] = 0;
    meta.length = p;
    this.#count++;
    if (this.#hashes !== null && meta.length > PART) this.#hashPart(this.#hashes);
  }

  #hashPart([ofState, ofMeta]: [Sha256Stream, Sha256Stream]): void {
    ofState.update(this.#state.writer.view());
    ofMeta.update(this.#meta.writer.view());
    this.#state.writer.reset();
    this.#meta.writer.reset();
  }

  #subtree(ids: Uint8Array): void {
    const at = this.#gaps.length * 16;
    if (at + 32 > this.#subtrees.length) {
      const grown = new Uint8Array(this.#subtrees.length * 2);
      grown.set(this.#subtrees);
      this.#subtrees = grown;
    }
    for (let i = 0; i < 32; i++) this.#subtrees[at + i] = ids[i]!;
  }

  /**
   * Returns the encoded entries: a copy if the entries wait for digests of children; otherwise valid until the next
   * `begin`.
   */
  end(): { node: PlainNode; subtrees: Uint8Array } {
    const gaps = this.#gaps;
    const hashes = this.#hashes;
    if (hashes !== null) {
      this.#hashPart(hashes);
      const [state, meta] = hashes.map((each) => each.digest());
      return { node: { state: state!, meta: meta!, gaps, isHashed: true }, subtrees: NOTHING.subarray(32) };
    }
    put32(this.#state.writer.bytes, STATE_COUNT, this.#count);
    put32(this.#meta.writer.bytes, META_COUNT, this.#count);
    const view = (writer: ByteWriter): Uint8Array => (gaps.length === 0 ? writer.view() : writer.copy());
    return {
      node: { state: view(this.#state.writer), meta: view(this.#meta.writer), gaps, isHashed: false },
      subtrees: this.#subtrees.slice(0, gaps.length * 16),
    };
  }

  /**
   * Returns state digest and metadata digest, 64 bytes, valid until the next call. `child` returns both digests of the
   * n-th child.
   */
  digest(node: PlainNode, child: (n: number) => Uint8Array): Uint8Array {
    const { gaps, state, meta, isHashed } = node;
    const result = this.#result;
    if (isHashed) {
      result.bytes.set(state, 0);
      result.bytes.set(meta, 32);
      return result.bytes;
    }
    if (gaps.length === 0) {
      this.#state.hash(result, 0);
      this.#meta.hash(result, 32);
      return result.bytes;
    }
    for (let i = 0; i < gaps.length; i += 2) {
      const digests = child(i / 2);
      state.set(digests.subarray(0, 32), gaps[i]!);
      meta.set(digests.subarray(32, 64), gaps[i + 1]!);
    }
    result.bytes.set(sha256(state), 0);
    result.bytes.set(sha256(meta), 32);
    return result.bytes;
  }
}

/** Offsets of the number of entries, which is written last. */
const STATE_COUNT = countOffset(beginStateNode);
const META_COUNT = countOffset(beginMetadataNode);

function countOffset(begin: (writer: ByteWriter, count: number) => void): number {
  const writer = new ByteWriter(64);
  begin(writer, 0);
  return writer.length - 4;
}

/** Appends type, name and mode. */
function addHead(w: ByteWriter, type: number, cursor: TreeCursor): void {
  const b = w.bytes;
  const { nameStart, nameEnd, names } = cursor;
  let p = w.length;
  b[p++] = type;
  p = put32(b, p, nameEnd - nameStart);
  for (let i = nameStart; i < nameEnd; i++) b[p++] = names[i]!;
  w.length = put32(b, p, cursor.mode);
}

function addFile(w: ByteWriter, cursor: TreeCursor, hash: Uint8Array): void {
  addHead(w, F, cursor);
  const b = w.bytes;
  let p = put64(b, w.length, cursor.size);
  for (let i = 0; i < 32; i++) b[p++] = hash[i]!;
  w.length = p;
}

function addLink(w: ByteWriter, cursor: TreeCursor): void {
  addHead(w, L, cursor);
  const b = w.bytes;
  const { targetStart, targetEnd, targets } = cursor;
  let p = put32(b, w.length, targetEnd - targetStart);
  for (let i = targetStart; i < targetEnd; i++) b[p++] = targets[i]!;
  w.length = p;
}
