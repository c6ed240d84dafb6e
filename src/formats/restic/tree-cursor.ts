import { parseTime } from "./go-time.ts";
import { JsonCursor } from "./json-cursor.ts";

function literal(text: string): Uint8Array {
  return Buffer.from(text, "latin1");
}

// What stands between the values of a tree, in restic's order.
export const BEGIN = literal('{"nodes":[');
export const END = literal("]}\n");
export const NAME = literal('{"name":"');
export const TYPE = literal(',"type":"');
export const MODE = literal(',"mode":');
export const MTIME = literal(',"mtime":"');
export const ATIME = literal(',"atime":"');
export const CTIME = literal(',"ctime":"');
export const UID = literal(',"uid":');
export const GID = literal(',"gid":');
export const USER = literal(',"user":"');
export const GROUP = literal(',"group":"');
export const INODE = literal(',"inode":');
export const DEVICE_ID = literal(',"device_id":');
export const SIZE = literal(',"size":');
export const LINKS = literal(',"links":');
export const TARGET = literal(',"linktarget":"');
export const RAW_TARGET = literal(',"linktarget_raw":"');
export const ATTRIBUTES = literal(',"extended_attributes":[');
export const VALUE = literal('","value":"');
export const DEVICE = literal(',"device":');
export const CONTENT = literal(',"content":');
export const NULL = literal("null");
export const SUBTREE = literal(',"subtree":');

export { literal };

const QUOTE = 0x22;
const DAY_BYTES = 11;

/** A position in a tree of restic's own encoding: JSON, and the times in it. */
export class TreeCursor extends JsonCursor {
  /** Seconds since 1970 of the time that was read last, and what goes beyond them. */
  seconds = 0;
  nanoseconds = 0;
  /** The day of that time as `YYYY-MM-DDT`, which is nearly always the next one's too. */
  #day = new Uint8Array(DAY_BYTES);
  /** Seconds of that day's midnight. */
  #daySeconds = 0;

  /** Steps over a time in UTC with trailing zeros trimmed, and its closing quote. False, and no step, for any other. */
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

  /** Steps over `length` bytes when they are those at `from`. */
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

/** Two digits as a number; 255 when they are none. */
function pair(b: Uint8Array, p: number): number {
  const tens = b[p]! - 48;
  const ones = b[p + 1]! - 48;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : 255;
}
