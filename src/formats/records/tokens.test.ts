import assert from "node:assert/strict";
import { test } from "node:test";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { decodeTokens, encodeTokens, type KeptToken } from "./tokens.ts";

const token: KeptToken = {
  id: "0123456789abcdef",
  name: "for <the> agent",
  kind: "agent",
  uid: 1000,
  gid: 100,
  secret_sha256: "a".repeat(64),
  created_at: "2026-11-20T09:15:19.123Z",
  expires_at: "2026-12-20T09:15:19.123Z",
  workspaces: [
    { id: "b".repeat(32), path: "/home/me/ws" },
    { id: "c".repeat(32), path: "/home/me/�", path_b64: "L2hvbWUvbWUv/w==", fork: true },
  ],
};

test("decodeTokens returns the encoded tokens, and keeps unknown members of a later version", () => {
  const file = {
    later: 1,
    tokens: [
      { ...token, more: { x: 1 } },
      { ...token, kind: "person" as const, workspaces: null },
    ],
  };
  assert.deepEqual(decodeTokens(encodeTokens(file)), { format: "cairn.tokens", version: 1, ...file });
  const bytes = encodeTokens({ tokens: [token] });
  everyCutIsDamage(decodeTokens, bytes, { optionalTail: 1 });
  everyFlipIsDamageOrDecodes(decodeTokens, bytes);
  nonsenseIsDamage(decodeTokens);
});

test("decodeTokens refuses a token with rights that Cairn never grants, or with an invalid field", () => {
  for (const wrong of [
    { workspaces: null },
    { kind: "root" },
    { uid: -1 },
    { expires_at: "never" },
    { secret_sha256: "" },
  ])
    assert.throws(() => decodeTokens(encodeTokens({ tokens: [{ ...token, ...wrong } as KeptToken] })), {
      code: "damaged",
    });
  const newer = Buffer.from(encodeTokens({ tokens: [] }))
    .toString("utf8")
    .replace('"version":1', '"version":2');
  assert.throws(() => decodeTokens(Buffer.from(newer)), { code: "newer_version" });
});
