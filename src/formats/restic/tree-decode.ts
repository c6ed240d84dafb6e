import { isUtf8 } from "node:buffer";
import { parseTime } from "./go-time.ts";
import { unquoteGoName } from "./go-json.ts";
import {
  ATIME,
  ATTRIBUTES,
  BEGIN,
  CONTENT,
  CTIME,
  DEVICE,
  DEVICE_ID,
  END,
  GID,
  GROUP,
  INODE,
  LINKS,
  literal,
  MODE,
  MTIME,
  NAME,
  NULL,
  RAW_TARGET,
  SIZE,
  SUBTREE,
  TARGET,
  TreeCursor,
  TYPE,
  UID,
  USER,
  VALUE,
} from "./tree-cursor.ts";
import {
  goModeOf,
  isEntryName,
  isSorted,
  NODE_TYPES,
  unixModeOf,
  type NodeAttribute,
  type NodeType,
  type TreeNode,
} from "./tree-node.ts";

/**
 * Reads a tree whose keys stand in restic's order without white space, as Cairn and restic write it.
 * Anything else is `null`: the general decoder decides whether it is another writer or damage.
 */

const TYPES = NODE_TYPES.map((type) => ({ type, text: literal(`${type}"`) }));
const NO_ATTRIBUTES: readonly NodeAttribute[] = [];

/** Thrown and caught in this file: these bytes need the general decoder. */
const UNUSUAL = new Error("unusual");

function must(condition: boolean): void {
  if (!condition) throw UNUSUAL;
}

/** The last user or group name and its source bytes: nearly always the next one too. */
interface TextCache {
  bytes: Uint8Array;
  text: string;
}

class TreeReader {
  readonly #cursor: TreeCursor;
  /** Names and ids of all nodes: never longer than their text. */
  readonly #pool: Uint8Array;
  #poolEnd = 0;
  readonly #user: TextCache = { bytes: new Uint8Array(0), text: "" };
  readonly #group: TextCache = { bytes: new Uint8Array(0), text: "" };

  constructor(bytes: Uint8Array) {
    this.#cursor = new TreeCursor(bytes);
    this.#pool = new Uint8Array(bytes.length);
  }

  read(): TreeNode[] {
    const cursor = this.#cursor;
    const nodes: TreeNode[] = [];
    must(cursor.accept(BEGIN));
    if (!cursor.accept(END)) {
      do nodes.push(this.#node());
      while (cursor.acceptByte(0x2c));
      must(cursor.accept(END));
    }
    must(cursor.position === cursor.bytes.length && isSorted(nodes));
    return nodes;
  }

  #node(): TreeNode {
    const cursor = this.#cursor;
    must(cursor.accept(NAME));
    const name = this.#name();
    must(cursor.accept(TYPE));
    const type = this.#type();
    const goMode = this.#optionalInteger(MODE);
    must(goMode <= 0xffffffff);
    const node: TreeNode = {
      name,
      type,
      mode: unixModeOf(goMode),
      mtimeSec: 0,
      mtimeNs: 0,
      uid: 0,
      gid: 0,
      user: "",
      group: "",
      inode: 0n,
      deviceId: 0n,
      links: 0,
      size: 0,
      xattrs: NO_ATTRIBUTES,
      device: 0n,
    };
    this.#times(node, goMode === goModeOf(type, node.mode) ? -1 : goMode);
    this.#owner(node);
    node.inode = this.#optionalBig(INODE);
    node.deviceId = this.#optionalBig(DEVICE_ID);
    node.size = this.#optionalInteger(SIZE);
    node.links = this.#optionalInteger(LINKS);
    if (cursor.accept(TARGET)) node.linktarget = this.#string();
    if (cursor.accept(RAW_TARGET)) node.linktarget = this.#base64();
    if (cursor.accept(ATTRIBUTES)) node.xattrs = this.#attributes();
    node.device = this.#optionalBig(DEVICE);
    this.#content(node);
    must(cursor.acceptByte(0x7d));
    return node;
  }

  #copy(start: number, end: number): Uint8Array {
    const from = this.#cursor.bytes;
    const pool = this.#pool;
    const at = this.#poolEnd;
    let p = at;
    for (let i = start; i < end; i++) pool[p++] = from[i]!;
    this.#poolEnd = p;
    return new Uint8Array(pool.buffer, at, p - at);
  }

  /** The string just entered, as UTF-8 bytes without escapes. */
  #string(): Uint8Array {
    const cursor = this.#cursor;
    const end = cursor.string();
    must(end >= 0);
    return cursor.odd ? Buffer.from(this.#oddText(end), "utf8") : this.#copy(cursor.start, end);
  }

  #oddText(end: number): string {
    const raw = this.#cursor.bytes.subarray(this.#cursor.start, end);
    must(isUtf8(raw));
    try {
      return JSON.parse(`"${Buffer.from(raw).toString("utf8")}"`) as string;
    } catch {
      throw UNUSUAL;
    }
  }

  #name(): Uint8Array {
    const cursor = this.#cursor;
    const end = cursor.string();
    must(end >= 0);
    const name = cursor.odd ? unquoteGoName(this.#oddText(end)) : this.#copy(cursor.start, end);
    if (name === null || !isEntryName(name)) throw UNUSUAL;
    return name;
  }

  #type(): NodeType {
    for (const candidate of TYPES) if (this.#cursor.accept(candidate.text)) return candidate.type;
    throw UNUSUAL;
  }

  #optionalInteger(key: Uint8Array): number {
    if (!this.#cursor.accept(key)) return 0;
    const value = this.#cursor.integer();
    must(value >= 0);
    return value;
  }

  #optionalBig(key: Uint8Array): bigint {
    if (!this.#cursor.accept(key)) return 0n;
    const value = this.#cursor.bigInteger();
    must(value >= 0n);
    return value;
  }

  #times(node: TreeNode, oddMode: number): void {
    const cursor = this.#cursor;
    must(cursor.accept(MTIME));
    const mtime = cursor.position;
    const ours = this.#time(node);
    const length = cursor.position - mtime;
    must(cursor.accept(ATIME));
    const atime = cursor.position;
    const sameAtime = this.#sameText(mtime, length);
    must(cursor.accept(CTIME));
    const ctime = cursor.position;
    const sameCtime = this.#sameText(mtime, length);
    if (ours && sameAtime && sameCtime && oddMode < 0) return;
    node.foreign = { mtime: this.#timeAt(mtime), atime: this.#timeAt(atime), ctime: this.#timeAt(ctime) };
    if (oddMode >= 0) node.foreign.goMode = oddMode;
  }

  /** Steps over a time; true when its text is the same `length` bytes (with the quote) as at `from`. */
  #sameText(from: number, length: number): boolean {
    if (this.#cursor.same(from, length)) return true;
    must(this.#cursor.string() >= 0);
    return false;
  }

  #timeAt(start: number): string {
    const b = this.#cursor.bytes;
    const text = Buffer.from(b.buffer, b.byteOffset + start, b.indexOf(0x22, start) - start).toString("latin1");
    must(parseTime(text) !== null);
    return text;
  }

  /** Reads the time at the cursor into the node; true when it is written as we would write it. */
  #time(node: TreeNode): boolean {
    const cursor = this.#cursor;
    if (cursor.time()) {
      node.mtimeSec = cursor.seconds;
      node.mtimeNs = cursor.nanoseconds;
      return true;
    }
    const end = cursor.string();
    must(end >= 0 && !cursor.odd);
    const instant = parseTime(Buffer.from(cursor.bytes.subarray(cursor.start, end)).toString("latin1"));
    if (instant === null) throw UNUSUAL;
    node.mtimeSec = instant.seconds;
    node.mtimeNs = instant.nanoseconds;
    return false;
  }

  #owner(node: TreeNode): void {
    const cursor = this.#cursor;
    must(cursor.accept(UID));
    node.uid = cursor.integer();
    must(cursor.accept(GID));
    node.gid = cursor.integer();
    must(node.uid >= 0 && node.uid <= 0xffffffff && node.gid >= 0 && node.gid <= 0xffffffff);
    if (cursor.accept(USER)) node.user = this.#cachedText(this.#user);
    if (cursor.accept(GROUP)) node.group = this.#cachedText(this.#group);
  }

  #cachedText(cache: TextCache): string {
    const cursor = this.#cursor;
    const end = cursor.string();
    must(end >= 0);
    const start = cursor.start;
    const known = cache.bytes;
    let same = known.length === end - start;
    for (let i = 0; same && i < known.length; i++) same = known[i] === cursor.bytes[start + i];
    if (!same) {
      cache.text = this.#oddText(end);
      cache.bytes = cursor.bytes.slice(start, end);
    }
    return cache.text;
  }

  #base64(): Uint8Array {
    const cursor = this.#cursor;
    const end = cursor.string();
    must(end >= 0 && !cursor.odd);
    const text = Buffer.from(cursor.bytes.subarray(cursor.start, end)).toString("latin1");
    const value = Buffer.from(text, "base64");
    must(value.toString("base64") === text);
    return value;
  }

  #attributes(): NodeAttribute[] {
    const cursor = this.#cursor;
    const attributes: NodeAttribute[] = [];
    if (cursor.acceptByte(0x5d)) return attributes;
    do {
      must(cursor.accept(NAME));
      const name = this.#string();
      // The string's own closing quote begins what separates name and value.
      cursor.position--;
      must(cursor.accept(VALUE));
      attributes.push({ name, value: this.#base64() });
      must(cursor.acceptByte(0x7d));
    } while (cursor.acceptByte(0x2c));
    must(cursor.acceptByte(0x5d));
    return attributes;
  }

  #id(): void {
    must(this.#cursor.id(this.#pool, this.#poolEnd));
    this.#poolEnd += 32;
  }

  #content(node: TreeNode): void {
    const cursor = this.#cursor;
    must(cursor.accept(CONTENT));
    const start = this.#poolEnd;
    if (cursor.acceptByte(0x5b)) {
      if (!cursor.acceptByte(0x5d)) {
        do this.#id();
        while (cursor.acceptByte(0x2c));
        must(cursor.acceptByte(0x5d));
      }
      node.content = new Uint8Array(this.#pool.buffer, start, this.#poolEnd - start);
    } else {
      must(cursor.accept(NULL));
    }
    must((node.type === "file") === (node.content !== undefined));
    if (cursor.accept(SUBTREE)) {
      const at = this.#poolEnd;
      this.#id();
      node.subtree = new Uint8Array(this.#pool.buffer, at, 32);
    }
    must((node.type === "dir") === (node.subtree !== undefined));
  }
}

/** The nodes of a tree in restic's own encoding; null when it is encoded in any other way. */
export function decodeUsualTree(bytes: Uint8Array): TreeNode[] | null {
  try {
    return new TreeReader(bytes).read();
  } catch (error) {
    if (error === UNUSUAL) return null;
    throw error;
  }
}
