import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

test("save stores a large file that was changed with its modification time set back, also after a status", async () => {
  const folder = newFolder();
  const big = path.join(folder, "big");
  fs.writeFileSync(big, randomBytes(1_000_000));
  const time = new Date(1_700_000_000_000);
  fs.utimesSync(big, time, time);
  const client = await clientOf(folder);
  // So many young files that some must be read again by the next look, which then keeps what it saw.
  for (let i = 0; i < 200; i++) fs.writeFileSync(path.join(folder, `young-${i}`), `young ${i}`);
  await client.save();
  const fd = fs.openSync(big, "r+");
  fs.writeSync(fd, "CHANGED", 500_000);
  fs.closeSync(fd);
  fs.utimesSync(big, time, time);
  await client.status();
  const saved = await client.save();
  assert.equal(saved.payload_root_hash, walkDigests(folder).state);
});
