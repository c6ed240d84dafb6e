import { HEX_VALUES } from "./json-cursor.ts";
import { parseTime } from "./go-time.ts";
import { unixModeOf } from "./tree-node.ts";

/**
 * Reads trees of plain entries without making an object of any: files with one link, directories, and links to paths,
 * with ASCII names and no attributes, as Cairn and restic write them. Nearly all trees are such; `decodeTree` reads any.
 */

function literal(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

const BEGIN = literal('{"nodes":[');
const END = literal("]}\n");
const NAME = literal('{"name":"');
const FILE = literal(',"type":"file"');
const DIRECTORY = literal(',"type":"dir"');
const LINK = literal(',"type":"symlink"');
const MODE = literal(',"mode":');
const MTIME = literal(',"mtime":"');
const ATIME = literal(',"atime":"');
const CTIME = literal(',"ctime":"');
const UID = literal(',"uid":');
const GID = literal(',"gid":');
const USER = literal(',"user":"');
const GROUP = literal(',"group":"');
const SIZE = literal(',"size":');
const ONE_LINK = literal(',"links":1');
const TARGET = literal(',"linktarget":"');
const CONTENT = literal(',"content":[');
const NO_CONTENT = literal(',"content":null');
const SUBTREE = literal(',"subtree":');
const NOTHING = new Uint8Array(0);

const DIRECTORY_BIT = 0x80000000;
const LINK_BIT = 0x08000000;
const QUOTE = 0x22;

export type PlainKind = "file" | "directory" | "link";

/** A position in a tree; after each `next` its fields describe one entry. To be used again for other trees. */
export class PlainTreeCursor {
  bytes: Uint8Array = NOTHING;
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
  #position = 0;
  #day = new Uint8Array(11);
  #daySeconds = 0;
  /** The bytes of the last owner, from uid to group, and the numbers in it. */
  #owner: Uint8Array = NOTHING;

  /** Goes to the start of a tree. */
  open(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.plain = true;
    this.nameStart = this.nameEnd = 0;
    this.#position = 0;
    if (!this.#accept(BEGIN)) this.plain = false;
  }

  /** Reads the next entry. False at the end, or where `plain` has become false. */
  next(): boolean {
    if (!this.plain) return false;
    const first = this.nameEnd === 0;
    if (first || this.bytes[this.#position] !== 0x2c) {
      if (this.#accept(END) && this.#position === this.bytes.length) return false;
      if (!first) return this.#odd();
    } else this.#position++;
    return (this.#name() && this.#type() && this.#times() && this.#owned() && this.#rest()) || this.#odd();
  }

  #odd(): false {
    this.plain = false;
    return false;
  }

  #accept(text: Uint8Array): boolean {
    const b = this.bytes;
    const p = this.#position;
    const n = text.length;
    for (let i = 0; i < n; i++) if (b[p + i] !== text[i]) return false;
    this.#position = p + n;
    return true;
  }

  /** A non-negative integer of at most 15 digits; -1 for anything else. */
  #integer(): number {
    const b = this.bytes;
    const start = this.#position;
    let p = start;
    let value = 0;
    for (let c = b[p]!; c >= 48 && c <= 57; c = b[++p]!) value = value * 10 + (c - 48);
    if (p === start || p - start > 15 || (b[start] === 48 && p - start > 1)) return -1;
    this.#position = p;
    return value;
  }

  /** Steps over printable ASCII without escapes up to the closing quote; where it ends, or -1. */
  #text(): number {
    const b = this.bytes;
    const n = b.length;
    for (let p = this.#position; p < n; p++) {
      const c = b[p]!;
      if (c === QUOTE) {
        this.#position = p + 1;
        return p;
      }
      if (c < 0x20 || c >= 0x7f || c === 0x5c) return -1;
    }
    return -1;
  }

  #name(): boolean {
    if (!this.#accept(NAME)) return false;
    const b = this.bytes;
    const start = this.#position;
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
    if (this.#accept(FILE)) this.kind = "file";
    else if (this.#accept(DIRECTORY)) {
      this.kind = "directory";
      bit = DIRECTORY_BIT;
    } else if (this.#accept(LINK)) {
      this.kind = "link";
      bit = LINK_BIT;
    } else return false;
    let goMode = 0;
    if (this.#accept(MODE)) goMode = this.#integer();
    if (goMode < bit || goMode > 0xffffffff) return false;
    // Above the permission bits there are only setuid, setgid and sticky: anything else is another writer's.
    const own = goMode - bit;
    if (own > 0x00ffffff || (own & ~0x00d001ff) !== 0) return false;
    this.mode = unixModeOf(own);
    return true;
  }

  #times(): boolean {
    if (!this.#accept(MTIME)) return false;
    const start = this.#position;
    if (!this.#time()) return false;
    const length = this.#position - start;
    return this.#accept(ATIME) && this.#same(start, length) && this.#accept(CTIME) && this.#same(start, length);
  }

  #same(from: number, length: number): boolean {
    const b = this.bytes;
    const p = this.#position;
    for (let i = 0; i < length; i++) if (b[p + i] !== b[from + i]) return false;
    this.#position = p + length;
    return true;
  }

  /** A time in UTC with trailing zeros trimmed, and its quote. */
  #time(): boolean {
    const b = this.bytes;
    let p = this.#position;
    if (!this.#sameDay(p) && !this.#newDay(p)) return false;
    p += 11;
    const hour = pair(b, p);
    const minute = pair(b, p + 3);
    const second = pair(b, p + 6);
    if (hour > 23 || minute > 59 || second > 59 || b[p + 2] !== 0x3a || b[p + 5] !== 0x3a) return false;
    p += 8;
    let nanoseconds = 0;
    if (b[p] === 0x2e) {
      let scale = 100000000;
      for (let c = b[++p]!; c >= 48 && c <= 57 && scale > 0; c = b[++p]!) {
        nanoseconds += (c - 48) * scale;
        scale = (scale / 10) | 0;
      }
      if (b[p - 1] === 0x2e || b[p - 1] === 48) return false;
    }
    if (b[p] !== 0x5a || b[p + 1] !== QUOTE) return false;
    this.#position = p + 2;
    this.mtimeSec = this.#daySeconds + hour * 3600 + minute * 60 + second;
    this.mtimeNs = nanoseconds;
    return true;
  }

  #sameDay(start: number): boolean {
    const b = this.bytes;
    const day = this.#day;
    for (let i = 0; i < 11; i++) if (b[start + i] !== day[i]) return false;
    return true;
  }

  #newDay(start: number): boolean {
    const day = copyOf(this.bytes, start, start + 11);
    const text = Buffer.from(day).toString("latin1");
    const midnight = /^\d{4}-\d\d-\d\dT$/.test(text) ? parseTime(`${text}00:00:00Z`) : null;
    if (midnight === null) return false;
    this.#day = day;
    this.#daySeconds = midnight.seconds;
    return true;
  }

  #owned(): boolean {
    const owner = this.#owner;
    const start = this.#position;
    if (owner.length > 0 && this.#accept(owner)) {
      const next = this.bytes[this.#position + 2];
      // Not where one owner is the beginning of another's text.
      if (this.bytes[this.#position] === 0x2c && next !== 0x75 && next !== 0x67) return true;
      this.#position = start;
    }
    if (!this.#accept(UID)) return false;
    const uid = this.#integer();
    if (!this.#accept(GID)) return false;
    const gid = this.#integer();
    if (uid < 0 || gid < 0 || uid > 0xffffffff || gid > 0xffffffff) return false;
    if (this.#accept(USER) && this.#text() < 0) return false;
    if (this.#accept(GROUP) && this.#text() < 0) return false;
    this.uid = uid;
    this.gid = gid;
    this.#owner = copyOf(this.bytes, start, this.#position);
    return true;
  }

  #rest(): boolean {
    this.size = 0;
    this.idCount = 0;
    if (this.kind === "directory") {
      return this.#accept(NO_CONTENT) && this.#accept(SUBTREE) && this.#readId() && this.#close();
    }
    if (this.kind === "file" && this.#accept(SIZE)) {
      this.size = this.#integer();
      if (this.size < 0) return false;
    }
    if (!this.#accept(ONE_LINK)) return false;
    if (this.kind === "link") {
      if (!this.#accept(TARGET)) return false;
      this.targetStart = this.#position;
      this.targetEnd = this.#text();
      return this.targetEnd > 0 && this.#accept(NO_CONTENT) && this.#close();
    }
    return this.#accept(CONTENT) && this.#content() && this.#close();
  }

  #content(): boolean {
    const b = this.bytes;
    if (b[this.#position] !== 0x5d) {
      if (!this.#readId()) return false;
      while (b[this.#position] === 0x2c) {
        this.#position++;
        if (!this.#readId()) return false;
      }
    }
    return b[this.#position++] === 0x5d;
  }

  #close(): boolean {
    return this.bytes[this.#position++] === 0x7d;
  }

  #readId(): boolean {
    const b = this.bytes;
    let p = this.#position;
    if (b[p] !== QUOTE || b[p + 65] !== QUOTE) return false;
    let at = this.idCount * 32;
    if (at === this.ids.length) this.#growIds();
    const ids = this.ids;
    let bad = 0;
    for (const end = at + 32; at < end; at++) {
      const high = HEX_VALUES[b[++p]!]!;
      const low = HEX_VALUES[b[++p]!]!;
      bad |= high | low;
      ids[at] = (high << 4) | low;
    }
    this.#position = p + 2;
    this.idCount++;
    return bad < 16;
  }

  #growIds(): void {
    const grown = new Uint8Array(this.ids.length * 2);
    grown.set(this.ids);
    this.ids = grown;
  }
}

/** A copy also of a Buffer, whose own `slice` shares memory that the next tree may fill. */
function copyOf(bytes: Uint8Array, start: number, end: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(bytes.subarray(start, end));
}

/** Two digits as a number; 255 when they are none. */
function pair(b: Uint8Array, p: number): number {
  const tens = b[p]! - 48;
  const ones = b[p + 1]! - 48;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : 255;
}
