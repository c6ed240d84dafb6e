import assert from "node:assert/strict";
import { CairnError } from "../errors.ts";

/** Options of the checks that every decoder of this folder passes for damaged and hostile bytes. */
export interface HostileOptions {
  /** Bytes at the end that may be cut off without harm, e.g. a final newline. */
  optionalTail?: number;
  /** Look at every n-th position only. */
  step?: number;
}

function expectDamage(decode: (bytes: Uint8Array) => unknown, bytes: Uint8Array, what: string): boolean {
  try {
    decode(bytes);
    return false;
  } catch (error) {
    assert.ok(error instanceof CairnError, `${what}: ${String(error)}`);
    assert.ok(error.code === "damaged" || error.code === "newer_version", `${what}: ${error.code}`);
    assert.ok(error.message.length < 2000, `${what}: a message of ${error.message.length} characters`);
    return true;
  }
}

/** Cuts the bytes at every position: each cut is `damaged`. */
export function everyCutIsDamage(
  decode: (bytes: Uint8Array) => unknown,
  bytes: Uint8Array,
  options: HostileOptions = {},
): void {
  const end = bytes.length - (options.optionalTail ?? 0);
  for (let n = 0; n < end; n += options.step ?? 1) {
    assert.ok(expectDamage(decode, bytes.subarray(0, n), `cut at ${n}`), `a cut at ${n} of ${bytes.length} passed`);
  }
}

/** Changes each byte in several ways: decoding succeeds or throws `damaged` or `newer_version`, and no other error. */
export function everyFlipIsDamageOrDecodes(
  decode: (bytes: Uint8Array) => unknown,
  bytes: Uint8Array,
  options: HostileOptions = {},
): void {
  for (let i = 0; i < bytes.length; i += options.step ?? 1) {
    for (const value of [bytes[i]! ^ 1, bytes[i]! ^ 0x80, 0, 0x22, 0x5c, 0x39, 0x7d]) {
      const changed = Uint8Array.from(bytes);
      changed[i] = value;
      expectDamage(decode, changed, `byte ${i} = ${value}`);
    }
  }
}

/** JSON that is valid but is not the record, and bytes that are no JSON: each is `damaged`. */
export function nonsenseIsDamage(decode: (bytes: Uint8Array) => unknown): void {
  const deep = "[".repeat(20_000);
  const texts = [
    "",
    " ",
    "null",
    "1",
    '"x"',
    "true",
    "[]x",
    "{",
    "\u0000",
    "{}}",
    "[[[[",
    deep,
    deep + "]".repeat(20_000),
  ];
  texts.push(`{"a":${deep}${"]".repeat(20_000)}`, '{"\ud800":1', '{"x":"\u0001"}');
  for (const text of texts) assert.ok(expectDamage(decode, Buffer.from(text), text.slice(0, 20)), text.slice(0, 20));
  assert.ok(expectDamage(decode, Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d), "invalid UTF-8"));
}
