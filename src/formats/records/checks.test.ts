import assert from "node:assert/strict";
import { test } from "node:test";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { decodeChecks, encodeChecks, MOST_COMMAND, MOST_OUTPUT, MOST_PROBES, type SnapshotChecks } from "./checks.ts";
import { recordPath } from "./record.ts";

const PROBE = { command: 'cat "$DIR/a"', status: 0, output_b64: "b25lCg==" };
const CHECKS: SnapshotChecks = {
  rows: [{ database: recordPath(Buffer.from([0xff])), folder: recordPath(Buffer.from("att")), query: "select path" }],
  probes: [PROBE, { command: "yes", status: null, output_b64: "" }],
};

test("the checks of a snapshot decode to what was encoded, and hostile bytes are damage", () => {
  const bytes = encodeChecks(CHECKS);
  const { rows, probes } = decodeChecks(bytes);
  assert.deepEqual({ rows, probes }, CHECKS);
  assert.deepEqual(encodeChecks(CHECKS), bytes);
  everyCutIsDamage(decodeChecks, bytes, { optionalTail: 1 });
  everyFlipIsDamageOrDecodes(decodeChecks, bytes);
  nonsenseIsDamage(decodeChecks);
});

test("checks with too many probes, a longer answer or an impossible status are damage", () => {
  const decode = (probes: unknown[]): unknown =>
    decodeChecks(Buffer.from(JSON.stringify({ format: "cairn.checks", version: 1, rows: [], probes })));
  decode(Array.from({ length: MOST_PROBES }, () => PROBE));
  for (const probes of [
    Array.from({ length: MOST_PROBES + 1 }, () => PROBE),
    [{ ...PROBE, output_b64: Buffer.alloc(MOST_OUTPUT * 2).toString("base64") }],
    [{ ...PROBE, status: 256 }],
    [{ ...PROBE, command: 1 }],
    [{ ...PROBE, command: "#".repeat(MOST_COMMAND + 1) }],
  ])
    assert.throws(() => decode(probes), { code: "damaged" });
});
