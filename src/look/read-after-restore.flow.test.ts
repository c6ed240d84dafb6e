import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import type { Client } from "../contract/index.ts";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { testFolder } from "../keep/testing-folder.ts";

const BIG = 3 << 20;

/** A tick of the kernel's clock: what was written within it is read again for being young. */
const TICK_MS = 60;

/** A folder whose first point was restored just now, over another one. */
async function restored(t: TestContext): Promise<{ client: Client; folder: string; first: string }> {
  const { client, folder, write } = await testFolder(t, { same: "same", changed: "one", "gone/deep/file": "gone" });
  const big = join(folder, "big");
  fs.writeFileSync(big, randomBytes(BIG));
  fs.writeFileSync(join(folder, "sparse"), "data");
  fs.truncateSync(join(folder, "sparse"), BIG);
  fs.linkSync(join(folder, "same"), join(folder, "linked"));
  await sleep(TICK_MS);
  const first = await client.save();
  write("changed", "two");
  fs.writeFileSync(big, randomBytes(BIG));
  fs.rmSync(join(folder, "sparse"));
  fs.rmSync(join(folder, "gone"), { recursive: true });
  await sleep(TICK_MS);
  await client.save();
  await client.restore({ target: first.save_point_id });
  return { client, folder, first: first.payload_root_hash! };
}

for (const looks of [false, true])
  test(`a save after a restore${looks ? " and a status" : ""} reads none of the files that the restore wrote`, async (t) => {
    const { client, folder, first } = await restored(t);
    await sleep(TICK_MS);
    if (looks) assert.equal((await client.status()).clean, true);
    for (let time = 0; time < 2; time++) {
      const saved = await client.save();
      assert.deepEqual([saved.read_bytes, saved.payload_root_hash, saved.bytes_stored], [0, first, 0]);
    }
    assert.equal(walkDigests(folder).state, first);
  });

test("a save finds changes made right after a restore, even if size or times are the same", async (t) => {
  const { client, folder, first } = await restored(t);
  fs.writeFileSync(join(folder, "changed"), "six");
  const { atime, mtime } = fs.statSync(join(folder, "big"));
  await sleep(TICK_MS);
  assert.equal((await client.status()).clean, false);
  const file = fs.openSync(join(folder, "big"), "r+");
  fs.writeSync(file, "cairn", 1000);
  fs.closeSync(file);
  fs.utimesSync(join(folder, "big"), atime, mtime);
  const saved = await client.save();
  assert.equal(saved.read_bytes, "six".length + BIG);
  assert.notEqual(saved.payload_root_hash, first);
  await client.restore({ target: "head" });
  assert.equal(fs.readFileSync(join(folder, "changed"), "utf8"), "six");
});

test("a status and a save after a restore of some paths read none of their files", async (t) => {
  const { client, folder } = await restored(t);
  await sleep(TICK_MS);
  const point = await client.save();
  fs.writeFileSync(join(folder, "big"), "small");
  fs.rmSync(join(folder, "changed"));
  await client.restore({ target: point.save_point_id, paths: ["big", "changed"] });
  await sleep(TICK_MS);
  assert.equal((await client.status()).clean, true);
  assert.equal((await client.save()).read_bytes, 0);
});
