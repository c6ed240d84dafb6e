import assert from "node:assert/strict";
import { test } from "node:test";
import { everyCutIsDamage } from "../hostile.contract.ts";
import { decodeOriginal, encodeOriginal, type OriginalFile } from "./original.ts";

const ORIGINAL: OriginalFile = {
  path: "/volume/.cairn-original-0123456789abcdef",
  inode: "18446744073709551615",
  unchanged_since: "1795189212192000000",
  after: 7,
  at: "2026-11-20T09:15:19.123Z",
  going: false,
};

test("decodeOriginal returns the encoded record, including unknown members of a later version", () => {
  const later = { ...ORIGINAL, reason: "of a later version" };
  const {
    format: _format,
    version: _version,
    ...read
  } = { ...(decodeOriginal(encodeOriginal(later)) as object) } as Record<string, unknown>;
  assert.deepEqual(read, later);
});

test("decodeOriginal throws damaged for a truncated record or an invalid field", () => {
  everyCutIsDamage(decodeOriginal, encodeOriginal(ORIGINAL), { optionalTail: 1 });
  for (const wrong of [
    { inode: "-1" },
    { unchanged_since: "soon" },
    { after: -1 },
    { at: "then" },
    { going: "no" },
    { path: 3 },
  ])
    assert.throws(
      () =>
        decodeOriginal(Buffer.from(JSON.stringify({ format: "cairn.original", version: 1, ...ORIGINAL, ...wrong }))),
      { code: "damaged" },
    );
  assert.throws(
    () => decodeOriginal(Buffer.from(JSON.stringify({ format: "cairn.original", version: 2, ...ORIGINAL }))),
    { code: "newer_version" },
  );
});
