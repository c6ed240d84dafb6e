import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { retentionOf, storedRetention } from "../formats/records/policy.ts";
import type { SavePoint } from "../contract/words.ts";
import { hasCode, testFolder, type TestFolder } from "../keep/testing-folder.ts";
import { loopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { estimateBytes } from "../workspace/save/space.ts";

async function saveNew({ client, folder }: TestFolder, warnings: string[] = []): Promise<SavePoint> {
  fs.writeFileSync(join(folder, "own"), randomBytes(100_000));
  return client.save({ onWarning: (message) => void warnings.push(message) });
}

async function atQuota(context: TestContext, ageDays: number): Promise<{ at: TestFolder; points: SavePoint[] }> {
  const at = await testFolder(context, { kept: "in all" });
  context.mock.timers.enable({ apis: ["Date"], now: Date.now() - ageDays * 86_400_000 });
  const points = [await saveNew(at), await saveNew(at), await saveNew(at)];
  context.mock.timers.reset();
  await at.client.setPolicy({ quotaBytes: 250_000 });
  return { at, points };
}

test("a save at the quota fails with no_space and removes nothing if no policy is set", async (context) => {
  const { at } = await atQuota(context, 30);
  await assert.rejects(saveNew(at), hasCode("no_space"));
  assert.equal((await at.client.history()).save_points.length, 3);
  await at.client.setPolicy({ quotaBytes: 10_000_000 });
  await saveNew(at);
});

test("status warns if the points take more than half of the file system", async (context) => {
  const disk = loopFileSystem(context, "ext4", { size: 64 << 20 });
  if (disk === null) return;
  const { library } = await testFolder(context);
  const folder = join(disk.root, "free");
  fs.mkdirSync(folder);
  fs.writeFileSync(join(folder, "own"), randomBytes(14 << 20));
  const client = await library.init(folder);
  await client.save();
  const warned = async (): Promise<string> => {
    const warnings: string[] = [];
    await client.status({ onWarning: (message) => void warnings.push(message) });
    return warnings.join("\n");
  };
  assert.equal(await warned(), "");
  for (let at = 0; at < 2; at++) {
    fs.writeFileSync(join(folder, "own"), randomBytes(9 << 20));
    await client.save();
  }
  assert.match(await warned(), /the save points take 32.* MiB, more than half of the file system/);
});

function bytesBelow(folder: string): number {
  return fs
    .readdirSync(folder, { recursive: true, withFileTypes: true })
    .reduce((sum, each) => sum + (each.isFile() ? fs.statSync(join(each.parentPath, each.name)).size : 0), 0);
}

test("a save that reaches the quota stops, makes no point and frees the space that it used", async (context) => {
  const at = await testFolder(context, { small: "1" });
  const { client, folder } = at;
  await client.save();
  await client.setPolicy({ quotaBytes: 1 << 20 });
  const control = join((await client.store()).repository, "..");
  const before = bytesBelow(control);
  for (let file = 0; file < 30; file++) fs.writeFileSync(join(folder, `file${file}`), randomBytes(1_000_000));
  await assert.rejects(client.save(), (error: Error & { code?: string }) => {
    assert.equal(error.code, "no_space");
    assert.match(error.message, /quota .* is 1 MiB; the save was stopped when it reached the quota/);
    return true;
  });
  assert.equal((await client.history()).save_points.length, 1);
  assert.ok(bytesBelow(control) < before + 100_000, `${bytesBelow(control)} after ${before}`);
  // What was met before is stored again with a larger quota.
  await client.setPolicy({ quotaBytes: 100 << 20 });
  const saved = await client.save();
  assert.equal((await client.verify(saved.save_point_id, { deep: true })).problems.length, 0);
});

test("a save that reaches the quota continues with the space that the policy frees", async (context) => {
  const at = await testFolder(context, { kept: "in all" });
  context.mock.timers.enable({ apis: ["Date"], now: Date.now() - 30 * 86_400_000 });
  await saveNew(at);
  await saveNew(at);
  context.mock.timers.reset();
  await at.client.setPolicy({ quotaBytes: 250_000, retention: { keepLast: 1 } });
  const warnings: string[] = [];
  await saveNew(at, warnings);
  assert.match(warnings.join("\n"), /quota .* 1 point/);
  assert.equal((await at.client.history()).save_points.length, 2);
});

test("a save at the quota removes points by the policy, warns and continues", async (context) => {
  const { at, points } = await atQuota(context, 30);
  await at.client.pin(points[0]!.save_point_id);
  await at.client.setPolicy({ quotaBytes: 320_000, retention: { keepLast: 1 } });
  const warnings: string[] = [];
  const saved = await saveNew(at, warnings);
  const left = (await at.client.history()).save_points.map(({ save_point_id }) => save_point_id);
  assert.deepEqual(left, [saved.save_point_id, points[2]!.save_point_id, points[0]!.save_point_id]);
  assert.match(warnings.join("\n"), /quota .* 1 point/);
});

test("a save at the quota removes no point of the last day", async (context) => {
  const { at } = await atQuota(context, 0.5);
  await at.client.setPolicy({ retention: { keepLast: 1 } });
  await assert.rejects(saveNew(at), hasCode("no_space"));
  assert.equal((await at.client.history()).save_points.length, 3);
});

test("estimateBytes adds up a folder without holes, and only if its file system could exceed the given space", async (context) => {
  const { folder } = await testFolder(context, { a: "x".repeat(10_000), "sub/b": "y".repeat(10_000) });
  fs.truncateSync(join(folder, "sub/b"), 50_000_000);
  assert.equal(estimateBytes(Buffer.from(folder), Number.MAX_SAFE_INTEGER), 0);
  const some = estimateBytes(Buffer.from(folder), 100_000);
  assert.ok(some >= 20_000 && some < 40_000, String(some));
});

test("retentionOf turns a stored policy into cleanup rules, and storedRetention turns them back", () => {
  const stored = { keep_last: 3, keep_undo: { count: 1 }, max_age: "1y", keep_tags: ["a"] };
  const rules = { keepLast: 3, keepUndo: { count: 1 }, maxAge: "1y", keepTags: ["a"] };
  assert.deepEqual([retentionOf(stored), storedRetention(rules)], [rules, stored]);
  // A later version's.
  assert.deepEqual(retentionOf({ ...stored, keep_well: 1 } as typeof stored), rules);
});
