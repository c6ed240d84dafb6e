import { isUtf8 } from "node:buffer";
import { unquoteGoName } from "./go-json.ts";
import { parseTime } from "../go-time.ts";
import { JsonCursor } from "./json-cursor.ts";
import {
  goModeOf,
  isEntryName,
  NODE_TYPES,
  type NodeAttribute,
  type NodeType,
  type TreeNode,
  unixModeOf,
} from "./tree-node.ts";

function literal(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

// The bytes between the values of a tree, in restic's order.
const BEGIN = literal('{"nodes":[');
const END = literal("]}\n");
const NAME = literal('{"name":"');
const MODE = literal(',"mode":');
const MTIME = literal(',"mtime":"');
const ATIME = literal(',"atime":"');
const CTIME = literal(',"ctime":"');
const UID = literal(',"uid":');
const GID = literal(',"gid":');
const USER = literal(',"user":"');
const GROUP = literal(',"group":"');
const INODE = literal(',"inode":');
const DEVICE_ID = literal(',"device_id":');
const SIZE = literal(',"size":');
const LINKS = literal(',"links":');
const TARGET = literal(',"linktarget":"');
const RAW_TARGET = literal(',"linktarget_raw":"');
const ATTRIBUTES = literal(',"extended_attributes":[');
const VALUE = literal('","value":"');
const DEVICE = literal(',"device":');
const CONTENT = literal(',"content":');
const SUBTREE = literal(',"subtree":');
const NO_CONTENT = literal("null");
const TYPES = NODE_TYPES.map((type) => ({ type, text: literal(`,"type":"${type}"`) }));

const QUOTE = 0x22;
const COMMA = 0x2c;
const DAY_BYTES = 11;
const NOTHING = new Uint8Array(0);
const NO_ATTRIBUTES: readonly NodeAttribute[] = [];

/**
 * Reads a tree in restic's own encoding (fixed order of keys, no white space, as Cairn and restic write it) entry by
 * entry, without an object for each. After each `next` the fields describe one entry. Reusable for other trees.
 */
export class TreeCursor extends JsonCursor {
  /** False after another encoding was met: drop everything read so far, and use `decodeTree`. */
  usual = true;
  /** Offset of the current entry. */
  entryStart = 0;
  /** The raw name is `names` from `nameStart` to `nameEnd`. */
  names: Uint8Array = NOTHING;
  nameStart = 0;
  nameEnd = 0;
  type: NodeType = "file";
  /** Permission bits. */
  mode = 0;
  mtimeSec = 0;
  mtimeNs = 0;
  uid = 0;
  gid = 0;
  size = 0;
  links = 0;
  /** The raw target of a link is `targets` from `targetStart` to `targetEnd`. */
  targets: Uint8Array = NOTHING;
  targetStart = 0;
  targetEnd = 0;
  xattrs: readonly NodeAttribute[] = NO_ATTRIBUTES;
  /**
   * Ids of a file's blobs back to back, or of a directory's tree. Do not keep a reference: it is replaced when it
   * grows.
   */
  ids = new Uint8Array(32 * 16);
  /** Number of ids that belong to this entry. */
  idCount = 0;
  /** The time that was read last: seconds since 1970, and nanoseconds. */
  seconds = 0;
  nanoseconds = 0;
  /** The day of the last time as `YYYY-MM-DDT`: the next time is mostly of the same day. */
  #day = new Uint8Array(DAY_BYTES);
  /** Seconds of that day's midnight. */
  #daySeconds = 0;
  #goMode = 0;
  #user = "";
  #group = "";
  /** The bytes of the last owner, from uid to group: the next entry mostly has the same owner. */
  #owner: Uint8Array = NOTHING;
  /** Offset of the number's first digit; 0: absent. */
  #inode = 0;
  #deviceId = 0;
  #device = 0;
  /** Offsets of the three times. */
  #mtime = 0;
  #atime = 0;
  #ctime = 0;
  /** True if all three times are equal, and in the form that Cairn writes. */
  #isOneTime = true;
  #isFirst = true;

  constructor() {
    super(NOTHING);
  }

  /** Moves to the start of a tree. */
  open(bytes: Uint8Array): void {
    this.bytes = bytes;
    this.#seek(0);
    this.usual = this.accept(BEGIN);
  }

  /** Moves to an entry that was read before, and returns its node. */
  read(entryStart: number): TreeNode {
    this.#seek(entryStart);
    this.next();
    return this.node();
  }

  #seek(position: number): void {
    this.position = position;
    this.usual = true;
    this.#isFirst = true;
    this.nameStart = this.nameEnd = 0;
  }

  /** Reads the next entry. Returns false at the end, and after `usual` has become false. */
  next(): boolean {
    if (!this.usual) return false;
    if (this.accept(END)) return this.position === this.bytes.length ? false : this.#unusual();
    if (!this.#isFirst && !this.acceptByte(COMMA)) return this.#unusual();
    this.#isFirst = false;
    this.entryStart = this.position;
    return (
      (this.#name() && this.#kind() && this.#times() && this.#owned() && this.#counts() && this.#more()) ||
      this.#unusual()
    );
  }

  /** True if a file has hard links. */
  get hasOtherNames(): boolean {
    return this.links > 1 && this.#inode > 0 && this.bytes[this.#inode] !== 0x30;
  }

  /** Returns the entry as a node that owns its bytes. */
  node(): TreeNode {
    const { type, mode, mtimeSec, mtimeNs, uid, gid, size, links, xattrs, idCount, targetStart, targetEnd } = this;
    const length = this.nameEnd - this.nameStart;
    const own = Buffer.allocUnsafe(length + idCount * 32);
    for (let i = 0; i < length; i++) own[i] = this.names[this.nameStart + i]!;
    own.set(this.ids.subarray(0, idCount * 32), length);
    const ids = new Uint8Array(own.buffer, own.byteOffset + length, idCount * 32);
    const node: TreeNode = {
      name: new Uint8Array(own.buffer, own.byteOffset, length),
      type,
      mode,
      mtimeSec,
      mtimeNs,
      uid,
      gid,
      user: this.#user,
      group: this.#group,
      inode: this.#big(this.#inode),
      deviceId: this.#big(this.#deviceId),
      links,
      size,
      xattrs,
      device: this.#big(this.#device),
    };
    if (targetEnd > targetStart) node.linktarget = this.targets.slice(targetStart, targetEnd);
    if (type === "file") node.content = ids;
    if (type === "dir") node.subtree = ids;
    const isOddMode = this.#goMode !== goModeOf(type, mode);
    if (this.#isOneTime && !isOddMode) return node;
    const [mtime, atime, ctime] = [this.#mtime, this.#atime, this.#ctime].map((at) => this.#textTo(at, QUOTE));
    node.foreign = { mtime: mtime!, atime: atime!, ctime: ctime! };
    if (isOddMode) node.foreign.goMode = this.#goMode;
    return node;
  }

  #unusual(): false {
    this.usual = false;
    return false;
  }

  #name(): boolean {
    if (!this.accept(NAME)) return false;
    const [before, from, to] = [this.names, this.nameStart, this.nameEnd];
    const end = this.string();
    if (end < 0) return false;
    this.names = this.bytes;
    this.nameStart = this.start;
    this.nameEnd = end;
    if (this.odd) {
      const text = this.#oddText(end);
      const name = text === null ? null : unquoteGoName(text);
      if (name === null) return false;
      this.names = name;
      this.nameStart = 0;
      this.nameEnd = name.length;
    }
    return isEntryName(this.names, this.nameStart, this.nameEnd) && this.#rises(before, from, to);
  }

  /** True if the name is greater than the previous name. */
  #rises(before: Uint8Array, from: number, to: number): boolean {
    const { names, nameStart } = this;
    const length = this.nameEnd - nameStart;
    const n = Math.min(length, to - from);
    for (let i = 0; i < n; i++) {
      const difference = names[nameStart + i]! - before[from + i]!;
      if (difference !== 0) return difference > 0;
    }
    return length > to - from;
  }

  /** Returns the current string without escapes; null if it is invalid. */
  #oddText(end: number): string | null {
    const raw = this.bytes.subarray(this.start, end);
    if (!isUtf8(raw)) return null;
    try {
      return JSON.parse(`"${Buffer.from(raw.buffer, raw.byteOffset, raw.length).toString("utf8")}"`) as string;
    } catch {
      return null;
    }
  }

  /** Skips the rest of a string. Returns its text, or null if it is invalid. */
  #text(): string | null {
    const end = this.string();
    if (end < 0) return null;
    return this.odd ? this.#oddText(end) : this.#slice(this.start, end);
  }

  #slice(from: number, to: number): string {
    const { buffer, byteOffset } = this.bytes;
    return Buffer.from(buffer, byteOffset + from, to - from).toString("latin1");
  }

  #textTo(from: number, byte: number): string {
    return this.#slice(from, this.bytes.indexOf(byte, from));
  }

  #kind(): boolean {
    let at = 0;
    while (at < TYPES.length && !this.accept(TYPES[at]!.text)) at++;
    if (at === TYPES.length) return false;
    this.type = TYPES[at]!.type;
    this.#goMode = this.accept(MODE) ? this.integer() : 0;
    this.mode = unixModeOf(this.#goMode);
    return this.#goMode >= 0 && this.#goMode <= 0xffffffff;
  }

  #times(): boolean {
    if (!this.accept(MTIME)) return false;
    const start = this.position;
    const isOurs = this.time();
    if (!isOurs && !this.#otherTime()) return false;
    this.mtimeSec = this.seconds;
    this.mtimeNs = this.nanoseconds;
    const length = this.position - start;
    this.#mtime = start;
    if (!this.accept(ATIME)) return false;
    this.#atime = this.position;
    const sameAtime = this.same(start, length);
    if ((!sameAtime && !this.time() && !this.#otherTime()) || !this.accept(CTIME)) return false;
    this.#ctime = this.position;
    const sameCtime = this.same(start, length);
    this.#isOneTime = isOurs && sameAtime && sameCtime;
    return sameCtime || this.time() || this.#otherTime();
  }

  /** Reads a time in another form than Cairn writes. */
  #otherTime(): boolean {
    const end = this.string();
    const instant = end < 0 || this.odd ? null : parseTime(this.#slice(this.start, end));
    if (instant === null) return false;
    this.seconds = instant.seconds;
    this.nanoseconds = instant.nanoseconds;
    return true;
  }

  #owned(): boolean {
    const owner = this.#owner;
    const start = this.position;
    if (owner.length > 0 && this.accept(owner)) {
      const next = this.bytes[this.position + 2];
      // The text of the last owner may be only the beginning of this one.
      if (this.bytes[this.position] === COMMA && next !== 0x75 && next !== 0x67) return true;
      this.position = start;
    }
    this.#owner = NOTHING;
    if (!this.accept(UID)) return false;
    this.uid = this.integer();
    if (!this.accept(GID)) return false;
    this.gid = this.integer();
    if (this.uid < 0 || this.gid < 0 || this.uid > 0xffffffff || this.gid > 0xffffffff) return false;
    const user = this.accept(USER) ? this.#text() : "";
    const group = this.accept(GROUP) ? this.#text() : "";
    if (user === null || group === null) return false;
    this.#user = user;
    this.#group = group;
    // A copy: the next tree may be read into the same memory.
    this.#owner = Uint8Array.from(this.bytes.subarray(start, this.position));
    return true;
  }

  #counts(): boolean {
    this.#inode = this.#digits(INODE);
    this.#deviceId = this.#digits(DEVICE_ID);
    this.size = this.accept(SIZE) ? this.integer() : 0;
    this.links = this.accept(LINKS) ? this.integer() : 0;
    return this.#inode >= 0 && this.#deviceId >= 0 && this.size >= 0 && this.links >= 0;
  }

  /**
   * Skips an unsigned 64-bit integer with this key. Returns its offset; 0 if the key is absent, -1 if the number is
   * invalid.
   */
  #digits(key: Uint8Array): number {
    if (!this.accept(key)) return 0;
    const b = this.bytes;
    const start = this.position;
    let p = start;
    while (p - start < 21 && b[p]! >= 48 && b[p]! <= 57) p++;
    const digits = p - start;
    if (digits === 0 || digits > 20 || (digits > 1 && b[start] === 48)) return -1;
    if (digits === 20 && BigInt(this.#slice(start, p)) > 0xffffffffffffffffn) return -1;
    this.position = p;
    return start;
  }

  #big(start: number): bigint {
    if (start === 0) return 0n;
    let end = start;
    for (; this.bytes[end]! >= 48 && this.bytes[end]! <= 57; end++);
    return BigInt(this.#slice(start, end));
  }

  #more(): boolean {
    this.targetStart = this.targetEnd = 0;
    this.xattrs = NO_ATTRIBUTES;
    this.idCount = 0;
    if (this.accept(TARGET) && !this.#target()) return false;
    if (this.accept(RAW_TARGET) && !this.#rawTarget()) return false;
    if (this.accept(ATTRIBUTES) && !this.#attributes()) return false;
    this.#device = this.#digits(DEVICE);
    return this.#device >= 0 && this.#content() && this.acceptByte(0x7d);
  }

  #target(): boolean {
    const end = this.string();
    if (end < 0) return false;
    if (!this.odd) return this.#targetIn(this.bytes, this.start, end);
    const text = this.#oddText(end);
    return text !== null && this.#targetIn(Buffer.from(text, "utf8"));
  }

  #rawTarget(): boolean {
    const target = this.#base64();
    return target !== null && this.#targetIn(target);
  }

  #targetIn(bytes: Uint8Array, start = 0, end = bytes.length): true {
    this.targets = bytes;
    this.targetStart = start;
    this.targetEnd = end;
    return true;
  }

  #base64(): Uint8Array | null {
    const text = this.#text();
    if (text === null) return null;
    const value = Buffer.from(text, "base64");
    return value.toString("base64") === text ? value : null;
  }

  #attributes(): boolean {
    const attributes: NodeAttribute[] = [];
    this.xattrs = attributes;
    if (this.acceptByte(0x5d)) return true;
    do {
      if (!this.accept(NAME)) return false;
      const name = this.#text();
      // The separator of name and value begins with the string's closing quote.
      this.position--;
      if (name === null || !this.accept(VALUE)) return false;
      const value = this.#base64();
      if (value === null || !this.acceptByte(0x7d)) return false;
      attributes.push({ name: Buffer.from(name, "utf8"), value });
    } while (this.acceptByte(COMMA));
    return this.acceptByte(0x5d);
  }

  /** A file must have content and a directory a subtree; other types have neither. */
  #content(): boolean {
    if (!this.accept(CONTENT)) return false;
    const isList = this.acceptByte(0x5b);
    if (isList !== (this.type === "file") || !(isList ? this.#list() : this.accept(NO_CONTENT))) return false;
    const hasTree = this.accept(SUBTREE);
    return hasTree === (this.type === "dir") && (!hasTree || this.#id());
  }

  #list(): boolean {
    if (this.acceptByte(0x5d)) return true;
    do if (!this.#id()) return false;
    while (this.acceptByte(COMMA));
    return this.acceptByte(0x5d);
  }

  #id(): boolean {
    const at = this.idCount++ * 32;
    if (at === this.ids.length) {
      const grown = new Uint8Array(this.ids.length * 2);
      grown.set(this.ids);
      this.ids = grown;
    }
    return this.id(this.ids, at);
  }

  /**
   * Reads a time in UTC without trailing zeros, and its closing quote. Returns false, without a step, for another form.
   */
  time(): boolean {
    const b = this.bytes;
    let p = this.position;
    if (!this.#isSameDay(p) && !this.#readDay(p)) return false;
    p += DAY_BYTES;
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
    this.position = p + 2;
    this.seconds = this.#daySeconds + hour * 3600 + minute * 60 + second;
    this.nanoseconds = nanoseconds;
    return true;
  }

  /** Skips `length` bytes if they equal the bytes at `from`. */
  same(from: number, length: number): boolean {
    const b = this.bytes;
    const p = this.position;
    for (let i = 0; i < length; i++) if (b[p + i] !== b[from + i]) return false;
    this.position = p + length;
    return true;
  }

  #isSameDay(start: number): boolean {
    const b = this.bytes;
    const day = this.#day;
    for (let i = 0; i < DAY_BYTES; i++) if (b[start + i] !== day[i]) return false;
    return true;
  }

  #readDay(start: number): boolean {
    // A copy: the next tree may be read into the same memory.
    const day = Uint8Array.from(this.bytes.subarray(start, start + DAY_BYTES));
    const text = Buffer.from(day).toString("latin1");
    const midnight = /^\d{4}-\d\d-\d\dT$/.test(text) ? parseTime(`${text}00:00:00Z`) : null;
    if (midnight === null) return false;
    this.#day = day;
    this.#daySeconds = midnight.seconds;
    return true;
  }
}

/** Returns two digits as a number; 255 if they are no digits. */
function pair(b: Uint8Array, p: number): number {
  const tens = b[p]! - 48;
  const ones = b[p + 1]! - 48;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : 255;
}
