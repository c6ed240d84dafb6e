import { CairnError } from "../errors.ts";

const HEX = new Uint8Array(512);
for (let i = 0; i < 256; i++) {
  const text = i.toString(16).padStart(2, "0");
  HEX[i * 2] = text.charCodeAt(0);
  HEX[i * 2 + 1] = text.charCodeAt(1);
}

/** Two ASCII hex digits for each byte value, back to back (byte `v` at `2 v` and `2 v + 1`). */
export const HEX_PAIRS: Uint8Array = HEX;

const encoder = new TextEncoder();

/**
 * A growing byte buffer that is written once and used again. All integers are little-endian.
 * Hot callers `reserve(n)` and then write straight into `bytes` from `length`, advancing `length`
 * themselves; `bytes` may be replaced by any call that reserves.
 */
export class ByteWriter {
  bytes: Uint8Array;
  length = 0;

  constructor(capacity = 1024) {
    this.bytes = new Uint8Array(Math.max(16, capacity));
  }

  /** Drops the content, keeps the memory. */
  reset(): void {
    this.length = 0;
  }

  /** Makes room for `n` more bytes. */
  reserve(n: number): void {
    const needed = this.length + n;
    if (needed <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  u8(v: number): void {
    this.reserve(1);
    this.bytes[this.length++] = v;
  }

  u32(v: number): void {
    this.reserve(4);
    const b = this.bytes;
    let p = this.length;
    b[p++] = v;
    b[p++] = v >>> 8;
    b[p++] = v >>> 16;
    b[p++] = v >>> 24;
    this.length = p;
  }

  append(b: Uint8Array): void {
    this.reserve(b.length);
    this.bytes.set(b, this.length);
    this.length += b.length;
  }

  /** Appends `b[start, end)`. */
  appendRange(b: Uint8Array, start: number, end: number): void {
    const n = end - start;
    this.reserve(n);
    if (n > 48) {
      this.bytes.set(b.subarray(start, end), this.length);
    } else {
      const to = this.bytes;
      let p = this.length;
      for (let i = start; i < end; i++) to[p++] = b[i]!;
    }
    this.length += n;
  }

  /** Appends a string of ASCII characters (others lose their upper bits; use `text` for those). */
  ascii(text: string): void {
    const n = text.length;
    this.reserve(n);
    const b = this.bytes;
    let p = this.length;
    for (let i = 0; i < n; i++) b[p++] = text.charCodeAt(i);
    this.length = p;
  }

  /** Appends a string as UTF-8; lone surrogates become U+FFFD. */
  text(text: string): void {
    this.reserve(text.length * 3);
    this.length += encoder.encodeInto(text, this.bytes.subarray(this.length)).written;
  }

  /** Appends `b[start, end)` as lower-case hex digits. */
  hex(b: Uint8Array, start: number, end: number): void {
    this.reserve((end - start) * 2);
    const to = this.bytes;
    let p = this.length;
    for (let i = start; i < end; i++) {
      const at = b[i]! * 2;
      to[p++] = HEX[at]!;
      to[p++] = HEX[at + 1]!;
    }
    this.length = p;
  }

  /** Appends a non-negative safe integer in decimal digits. */
  decimal(v: number): void {
    this.reserve(20);
    this.length = putDecimal(this.bytes, this.length, v);
  }

  /** Returns the bytes written so far; valid until the next write. */
  view(): Uint8Array {
    return this.bytes.subarray(0, this.length);
  }

  /** Returns a copy of the bytes written so far. */
  copy(): Uint8Array {
    return this.bytes.slice(0, this.length);
  }
}

/** Writes a 32-bit integer at `p`, low byte first; returns the position after it. */
export function put32(b: Uint8Array, p: number, v: number): number {
  b[p] = v;
  b[p + 1] = v >>> 8;
  b[p + 2] = v >>> 16;
  b[p + 3] = v >>> 24;
  return p + 4;
}

/** Writes a safe integer as signed 64 bits at `p`; returns the position after it. */
export function put64(b: Uint8Array, p: number, v: number): number {
  const high = Math.floor(v / 0x100000000);
  return put32(b, put32(b, p, v - high * 0x100000000), high);
}

/** Writes the decimal digits of a non-negative safe integer at `p`; returns the position after them. */
export function putDecimal(b: Uint8Array, p: number, v: number): number {
  if (v < 10) {
    b[p] = 48 + v;
    return p + 1;
  }
  let digits = 2;
  for (let limit = 100; v >= limit && digits < 16; limit *= 10) digits++;
  let rest = v;
  for (let at = p + digits - 1; at >= p; at--) {
    const next = rest < 0x40000000 ? (rest / 10) | 0 : Math.floor(rest / 10);
    b[at] = 48 + (rest - next * 10);
    rest = next;
  }
  return p + digits;
}

/** Compares two byte strings by unsigned byte value: negative, 0 or positive. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const n = Math.min(a.length, b.length);
  for (let i = 0; i < n; i++) {
    const difference = a[i]! - b[i]!;
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Returns bytes of a name or path as text, one character a byte: for keys of maps, and for cutting and comparing. */
export function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

/** Joins a raw path and its directory into a new buffer. Either may be empty. */
export function joinPath(directory: Uint8Array, path: Uint8Array): Buffer {
  if (directory.length === 0) return Buffer.from(path);
  return path.length === 0 ? Buffer.from(directory) : Buffer.concat([directory, SLASH, path]);
}

/** Returns the directory of a relative raw path; empty for an entry of the root. Shares its bytes. */
export function directoryOf(path: Uint8Array): Uint8Array {
  return path.subarray(0, Math.max(path.lastIndexOf(0x2f), 0));
}

/** Like {@link directoryOf}, for a path as text. */
export function folderOf(path: string): string {
  return path.slice(0, Math.max(path.lastIndexOf("/"), 0));
}

/** Returns two lower-case digits for each byte. */
export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex");
}

/** Reads the format of `ByteWriter`. Every read is bounded and throws `damaged` past the end. */
export class ByteReader {
  readonly bytes: Uint8Array;
  position: number;
  /** The file or record, in error messages. */
  readonly what: string;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.position = 0;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.what = what;
  }

  get remaining(): number {
    return this.bytes.length - this.position;
  }

  #take(n: number): number {
    const at = this.position;
    if (n > this.bytes.length - at) {
      throw new CairnError("damaged", `${this.what}: wanted ${n} bytes at ${at}, found ${this.bytes.length - at}`);
    }
    this.position = at + n;
    return at;
  }

  u8(): number {
    return this.bytes[this.#take(1)]!;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true);
  }

  /** Reads 64 bits. Numbers of 2^53 and more are rounded: the caller compares with its limit. */
  u64(): number {
    return Number(this.#view.getBigUint64(this.#take(8), true));
  }

  /** Returns a view (no copy) of the next `n` bytes. */
  take(n: number): Uint8Array {
    const at = this.#take(n);
    return this.bytes.subarray(at, at + n);
  }
}

const SLASH = Buffer.from("/");

/** Compares raw paths in raw pre-order: component by component, so a slash sorts below every byte. */
export function comparePaths(a: Uint8Array, b: Uint8Array): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] === b[i]) continue;
    return (a[i] === 47 ? 0 : a[i]! + 1) - (b[i] === 47 ? 0 : b[i]! + 1);
  }
  return a.length - b.length;
}
