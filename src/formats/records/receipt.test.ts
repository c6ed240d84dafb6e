import assert from "node:assert/strict";
import { test } from "node:test";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes } from "../hostile.contract.ts";
import { decodeReceipt, decodeReceiptBody, encodeReceipt, encodeReceiptBody, type ReceiptBody } from "./receipt.ts";

const BODY: ReceiptBody = {
  made_at: "2026-11-20T09:15:19.123Z",
  repository_id: "a".repeat(64),
  snapshot_id: "b".repeat(64),
  save_point_id: "c".repeat(32),
  state_digest: "d".repeat(64),
  metadata_digest: null,
  metadata_equal: false,
  read_from: "memory",
  left_out: 2,
  host: "host",
  target: "/back",
  program: "cairn 0.1.0",
  previous: null,
};

const BYTES = encodeReceipt(encodeReceiptBody(BODY), new Uint8Array(32).fill(1), new Uint8Array(64).fill(2));

test("decodeReceipt returns the encoded receipt", () => {
  const { body, publicKey, signature } = decodeReceipt(BYTES);
  assert.deepEqual({ ...body }, { format: "cairn.receipt", version: 1, ...BODY });
  assert.deepEqual([publicKey.length, signature.length], [32, 64]);
});

test("the field read_from of a receipt is disk, memory or absent", () => {
  const { read_from: _, ...older } = BODY;
  assert.equal(decodeReceiptBody(encodeReceiptBody(older)).read_from, undefined);
  assert.throws(() => encodeReceiptBody({ ...BODY, read_from: "tape" as "disk" }), /read_from/);
});

test("decodeReceipt throws no error other than damaged or newer_version for changed bytes", () => {
  everyCutIsDamage(decodeReceipt, BYTES, { optionalTail: 1, step: 7 });
  everyFlipIsDamageOrDecodes(decodeReceipt, BYTES, { step: 5 });
});
