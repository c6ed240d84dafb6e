/**
 * A position in JSON bytes, for decoders that expect a certain encoding. No method throws: a caller that finds another
 * encoding uses a slower decoder for any valid JSON.
 */

/**
 * Value of a hex digit by its ASCII code; 255 for other codes. Upper-case digits count as invalid, since restic writes
 * lower case.
 */
const HEX_VALUES: Uint8Array = new Uint8Array(256).fill(255);
for (let i = 0; i < 16; i++) HEX_VALUES[i.toString(16).charCodeAt(0)] = i;

export class JsonCursor {
  bytes: Uint8Array;
  position = 0;
  /** First byte of the string that `string` read last. */
  start = 0;
  /** True if that string has escapes or bytes beyond ASCII. */
  odd = false;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  /** Skips a literal. Returns false, without a step, if other bytes follow. */
  accept(literal: Uint8Array): boolean {
    const b = this.bytes;
    const p = this.position;
    const n = literal.length;
    for (let i = 0; i < n; i++) if (b[p + i] !== literal[i]) return false;
    this.position = p + n;
    return true;
  }

  /** Skips one byte. Returns false, without a step, if another byte follows. */
  acceptByte(value: number): boolean {
    if (this.bytes[this.position] !== value) return false;
    this.position++;
    return true;
  }

  /** Reads a non-negative integer of at most 15 digits; -1 if none follows. */
  integer(): number {
    const b = this.bytes;
    const start = this.position;
    let p = start;
    let value = 0;
    for (let c = b[p]!; c >= 48 && c <= 57; c = b[p]!) {
      value = value * 10 + (c - 48);
      p++;
    }
    const digits = p - start;
    if (digits === 0 || digits > 15 || (digits > 1 && b[start] === 48)) return -1;
    this.position = p;
    return value;
  }

  /**
   * Skips the rest of a string after its opening quote. Returns the end of its content (from `start`), or -1 if the
   * string does not end or has a control character.
   */
  string(): number {
    const b = this.bytes;
    let p = this.position;
    this.start = p;
    let odd = false;
    for (; p < b.length; p++) {
      const c = b[p]!;
      if (c === 0x22) {
        this.position = p + 1;
        this.odd = odd;
        return p;
      }
      if (c < 0x20) return -1;
      if (c === 0x5c) {
        p++;
        odd = true;
      } else if (c >= 0x80) odd = true;
    }
    return -1;
  }

  /** Reads a quoted id of 64 hex digits into `to` at `at`; false if none follows. */
  id(to: Uint8Array, at: number): boolean {
    const b = this.bytes;
    let p = this.position;
    if (b[p] !== 0x22 || b[p + 65] !== 0x22) return false;
    p++;
    let bad = 0;
    for (let i = 0; i < 32; i++) {
      const high = HEX_VALUES[b[p]!]!;
      const low = HEX_VALUES[b[p + 1]!]!;
      p += 2;
      bad |= high | low;
      to[at + i] = (high << 4) | low;
    }
    // 255 is the only entry with bits above the low four.
    if (bad > 15) return false;
    this.position = p + 1;
    return true;
  }
}
