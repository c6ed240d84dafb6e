import { unixModeOf } from "./tree-node.ts";
import {
  ATIME,
  BEGIN,
  CONTENT,
  CTIME,
  END,
  GID,
  GROUP,
  literal,
  MODE,
  MTIME,
  NAME,
  SIZE,
  SUBTREE,
  TARGET,
  TreeCursor,
  UID,
  USER,
} from "./tree-cursor.ts";

/**
 * Reads trees of plain entries without making an object of any: files with one link, directories, and links to paths,
 * with ASCII names and no attributes, as Cairn and restic write them. Nearly all trees are such; `decodeTree` reads any.
 */

const FILE = literal(',"type":"file"');
const DIRECTORY = literal(',"type":"dir"');
const LINK = literal(',"type":"symlink"');
const ONE_LINK = literal(',"links":1');
const NO_CONTENT = literal(',"content":null');
const NOTHING = new Uint8Array(0);

const DIRECTORY_BIT = 0x80000000;
const LINK_BIT = 0x08000000;

export type PlainKind = "file" | "directory" | "link";

/** A position in a tree; after each `next` its fields describe one entry. To be used again for other trees. */
export class PlainTreeCursor extends TreeCursor {
  kind: PlainKind = "file";
  /** Offsets of the raw name in `bytes`. */
  nameStart = 0;
  nameEnd = 0;
  /** Permission bits. */
  mode = 0;
  mtimeSec = 0;
  mtimeNs = 0;
  uid = 0;
  gid = 0;
  size = 0;
  /** Offsets of a link's raw target. */
  targetStart = 0;
  targetEnd = 0;
  /** Ids of a file's blobs back to back, or of a directory's tree; grows, so not to be kept. */
  ids = new Uint8Array(32 * 16);
  /** Number of them that belong to this entry. */
  idCount = 0;
  /** False once something was met that is not plain: what was read so far is to be thrown away. */
  plain = true;
  /** The bytes of the last owner, from uid to group, and the numbers in it. */
  #owner: Uint8Array = NOTHING;

  constructor() {
    super(NOTHING);
  }

  /** Goes to the start of a tree. */
  open(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.plain = true;
    this.nameStart = this.nameEnd = 0;
    this.position = 0;
    if (!this.accept(BEGIN)) this.plain = false;
  }

  /** Reads the next entry. False at the end, or where `plain` has become false. */
  next(): boolean {
    if (!this.plain) return false;
    const first = this.nameEnd === 0;
    if (first || this.bytes[this.position] !== 0x2c) {
      if (this.accept(END) && this.position === this.bytes.length) return false;
      if (!first) return this.#odd();
    } else this.position++;
    return (this.#name() && this.#type() && this.#times() && this.#owned() && this.#rest()) || this.#odd();
  }

  #odd(): false {
    this.plain = false;
    return false;
  }

  /** Steps over ASCII without escapes up to the closing quote; where it ends, or -1. */
  #text(): number {
    const end = this.string();
    return this.odd ? -1 : end;
  }

  #name(): boolean {
    if (!this.accept(NAME)) return false;
    const b = this.bytes;
    const start = this.position;
    const end = this.#text();
    const length = end - start;
    if (length <= 0 || (b[start] === 0x2e && (length === 1 || (length === 2 && b[start + 1] === 0x2e)))) return false;
    for (let p = start; p < end; p++) if (b[p] === 0x2f) return false;
    if (this.nameEnd > 0 && !this.#rises(start, end)) return false;
    this.nameStart = start;
    this.nameEnd = end;
    return true;
  }

  /** True when the name at `start` comes after the one before. */
  #rises(start: number, end: number): boolean {
    const b = this.bytes;
    const before = this.nameStart;
    const n = Math.min(end - start, this.nameEnd - before);
    for (let i = 0; i < n; i++) {
      const difference = b[start + i]! - b[before + i]!;
      if (difference !== 0) return difference > 0;
    }
    return end - start > this.nameEnd - before;
  }

  #type(): boolean {
    let bit = 0;
    if (this.accept(FILE)) this.kind = "file";
    else if (this.accept(DIRECTORY)) {
      this.kind = "directory";
      bit = DIRECTORY_BIT;
    } else if (this.accept(LINK)) {
      this.kind = "link";
      bit = LINK_BIT;
    } else return false;
    let goMode = 0;
    if (this.accept(MODE)) goMode = this.integer();
    if (goMode < bit || goMode > 0xffffffff) return false;
    // Above the permission bits there are only setuid, setgid and sticky: anything else is another writer's.
    const own = goMode - bit;
    if (own > 0x00ffffff || (own & ~0x00d001ff) !== 0) return false;
    this.mode = unixModeOf(own);
    return true;
  }

  #times(): boolean {
    if (!this.accept(MTIME)) return false;
    const start = this.position;
    if (!this.time()) return false;
    this.mtimeSec = this.seconds;
    this.mtimeNs = this.nanoseconds;
    const length = this.position - start;
    return this.accept(ATIME) && this.same(start, length) && this.accept(CTIME) && this.same(start, length);
  }

  #owned(): boolean {
    const owner = this.#owner;
    const start = this.position;
    if (owner.length > 0 && this.accept(owner)) {
      const next = this.bytes[this.position + 2];
      // Not where one owner is the beginning of another's text.
      if (this.bytes[this.position] === 0x2c && next !== 0x75 && next !== 0x67) return true;
      this.position = start;
    }
    if (!this.accept(UID)) return false;
    const uid = this.integer();
    if (!this.accept(GID)) return false;
    const gid = this.integer();
    if (uid < 0 || gid < 0 || uid > 0xffffffff || gid > 0xffffffff) return false;
    if (this.accept(USER) && this.#text() < 0) return false;
    if (this.accept(GROUP) && this.#text() < 0) return false;
    this.uid = uid;
    this.gid = gid;
    this.#owner = Uint8Array.from(this.bytes.subarray(start, this.position));
    return true;
  }

  #rest(): boolean {
    this.size = 0;
    this.idCount = 0;
    if (this.kind === "directory") {
      return this.accept(NO_CONTENT) && this.accept(SUBTREE) && this.#readId() && this.#close();
    }
    if (this.kind === "file" && this.accept(SIZE)) {
      this.size = this.integer();
      if (this.size < 0) return false;
    }
    if (!this.accept(ONE_LINK)) return false;
    if (this.kind === "link") {
      if (!this.accept(TARGET)) return false;
      this.targetStart = this.position;
      this.targetEnd = this.#text();
      return this.targetEnd > 0 && this.accept(NO_CONTENT) && this.#close();
    }
    return this.accept(CONTENT) && this.acceptByte(0x5b) && this.#content() && this.#close();
  }

  #content(): boolean {
    const b = this.bytes;
    if (b[this.position] !== 0x5d) {
      if (!this.#readId()) return false;
      while (b[this.position] === 0x2c) {
        this.position++;
        if (!this.#readId()) return false;
      }
    }
    return b[this.position++] === 0x5d;
  }

  #close(): boolean {
    return this.bytes[this.position++] === 0x7d;
  }

  #readId(): boolean {
    const at = this.idCount * 32;
    if (at === this.ids.length) this.#growIds();
    this.idCount++;
    return this.id(this.ids, at);
  }

  #growIds(): void {
    const grown = new Uint8Array(this.ids.length * 2);
    grown.set(this.ids);
    this.ids = grown;
  }
}
