import assert from "node:assert/strict";
import { appendFileSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { SavePointId } from "../ids.ts";
import type { Retention } from "../contract/index.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

test("pin and unpin can be repeated", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  const { save_point_id: id } = await client.save();
  for (let round = 0; round < 2; round++) {
    assert.equal((await client.pin(id.slice(0, 8))).pinned, true);
    assert.equal((await client.pin("head")).pinned, true);
    assert.equal((await client.unpin("head")).pinned, false);
    assert.equal((await client.unpin("latest")).pinned, false);
  }
  await assert.rejects(client.pin("ffffffff"), hasCode("not_found"));
  assert.equal((await client.resolve(id)).descriptor_checksum.length, 64);
});

test("tag adds and removes tags without changing the descriptor", async (t) => {
  const { client } = await testFolder(t, { a: "one" });
  const made = await client.save({ tags: ["first", "first"] });
  assert.deepEqual(made.tags, ["first"]);
  const tagged = await client.tag("head", { add: ["new", "new", "other"], remove: ["first"] });
  assert.deepEqual(tagged.tags, ["new", "other"]);
  assert.equal(tagged.descriptor_checksum, made.descriptor_checksum);
  assert.deepEqual((await client.history()).save_points[0]?.tags, ["new", "other"]);
  assert.deepEqual((await client.tag("head", { remove: ["new", "other"] })).tags, []);
  await assert.rejects(client.tag("head", { remove: ["new"] }), hasCode("not_found"));
  await assert.rejects(client.tag("head", { add: [" "] }), hasCode("usage"));
});

test("store returns the size of the packs, the number of points and a restic command", async (t) => {
  const { client, write } = await testFolder(t, { a: "one", "with space/b": "two" });
  await client.save();
  write("a", "x".repeat(100_000));
  await client.save();
  const { bytes, points, repository, password_file, restic_command } = await client.store();
  const packs = readdirSync(join(repository, "data"), { recursive: true, encoding: "utf8" })
    .map((name) => statSync(join(repository, "data", name)))
    .filter((facts) => facts.isFile());
  assert.equal(
    bytes,
    packs.reduce((sum, { size }) => sum + size, 0),
  );
  assert.equal(points, 2);
  assert.equal(restic_command, `restic -r ${repository} --password-file ${password_file} snapshots`);
  assert.equal(statSync(password_file).mode & 0o777, 0o600);
});

test("shortIds returns ids that are long enough to be unique", async (t) => {
  const { client } = await testFolder(t);
  const { save_point_id: id } = await client.save();
  const twin = `${id.slice(0, 12)}${id[12] === "0" ? "1" : "0"}${id.slice(13)}` as SavePointId;
  assert.deepEqual(await client.shortIds([id]), [id.slice(0, 8)]);
  assert.deepEqual(await client.shortIds([id, twin]), [id.slice(0, 13), twin.slice(0, 13)]);
  assert.deepEqual(await client.shortIds([twin, twin]), [twin.slice(0, 13), twin.slice(0, 13)]);
  assert.deepEqual(await client.shortIds([]), []);
  assert.equal((await client.resolve(id.slice(0, 13))).save_point_id, id);
});

test("shortIds takes the ids of 2000 points from the catalog, without their descriptors", async (t) => {
  const { client } = await testFolder(t);
  const { save_point_id: id } = await client.save();
  const points = join(client.controlDirectory, "workspaces", "main", "points");
  let rows = "";
  for (let sequence = 2; sequence <= 2000; sequence++) {
    const name = String(sequence).padStart(10, "0");
    mkdirSync(join(points, name));
    rows += `${name} ${sequence.toString(16).padStart(8, "0")}${"0".repeat(24)} s\n`;
  }
  appendFileSync(join(client.controlDirectory, "cache", "points-main"), rows);
  const started = performance.now();
  assert.deepEqual(await client.shortIds([id]), [id.slice(0, 8)]);
  assert.ok(performance.now() - started < 20_000);
});

const RETENTION: Retention = {
  keepUndo: { count: 3, within: "12h" },
  keepLast: 0,
  keepWithin: "1y6m",
  keepHourly: 1,
  keepDaily: 2,
  keepWeekly: 3,
  keepMonthly: 4,
  keepYearly: "unlimited",
  keepTags: ["a", "b,c", ""],
  maxBytes: 6,
  maxAge: "90d",
};

test("setPolicy changes only the given settings", async (t) => {
  const { client, library, folder } = await testFolder(t);
  const unset = { retention: null, quota_bytes: null, kept_trees: null };
  assert.deepEqual(await client.policy(), unset);
  assert.deepEqual(await client.setPolicy({ retention: RETENTION }), { ...unset, retention: RETENTION });
  assert.deepEqual(await client.setPolicy({ quotaBytes: 1000 }), { ...unset, retention: RETENTION, quota_bytes: 1000 });
  const whole = { retention: RETENTION, quota_bytes: 1000, kept_trees: 0 };
  assert.deepEqual(await client.setPolicy({ keptTrees: 0 }), whole);
  assert.deepEqual(await (await library.open(folder)).policy(), whole);
  assert.deepEqual(await client.setPolicy({ retention: null }), { ...whole, retention: null });
  assert.deepEqual(await client.setPolicy({ quotaBytes: null }), { ...unset, kept_trees: 0 });
  assert.deepEqual(await client.setPolicy({ keptTrees: 10_000 }), { ...unset, kept_trees: 10_000 });
  assert.deepEqual(await client.setPolicy({ keptTrees: null }), unset);
  await assert.rejects(client.setPolicy({ retention: { keepLast: -1 } }), hasCode("usage"));
  await assert.rejects(client.setPolicy({ retention: { keepWithin: "soon" } }), hasCode("usage"));
  await assert.rejects(client.setPolicy({ quotaBytes: 1.5 }), hasCode("usage"));
  for (const keptTrees of [-1, 1.5, 10_001]) await assert.rejects(client.setPolicy({ keptTrees }), hasCode("usage"));
});

test("setPolicy keeps unknown members, and can replace a damaged policy as a whole", async (t) => {
  const { client } = await testFolder(t);
  await client.setPolicy({ quotaBytes: 7 });
  const file = join(client.controlDirectory, "policy.json");
  const later = { ...(JSON.parse(readFileSync(file, "utf8")) as object), from_later: 1 };
  writeFileSync(file, JSON.stringify(later));
  await client.setPolicy({ retention: { keepLast: 1 } });
  assert.equal((JSON.parse(readFileSync(file, "utf8")) as { from_later: number }).from_later, 1);
  const unset = { retention: null, quota_bytes: null, kept_trees: null };
  for (const damaged of ["{", '{"format":"cairn.policy","version":1,"kept_trees":10001}']) {
    writeFileSync(file, damaged);
    await assert.rejects(client.policy(), hasCode("damaged"));
    await assert.rejects(client.setPolicy({ retention: { keepLast: 1 }, quotaBytes: 1 }), hasCode("damaged"));
    assert.deepEqual(await client.setPolicy({ retention: null }), unset);
  }
  writeFileSync(file, "{");
  const whole = { retention: { keepLast: 1 }, quota_bytes: 1, kept_trees: 2 };
  const edit = { retention: { keepLast: 1 }, quotaBytes: 1, keptTrees: 2 };
  assert.deepEqual(await client.setPolicy(edit), whole);
});

test("policy and setPolicy accept a policy of an earlier version without kept_trees", async (t) => {
  const { client } = await testFolder(t);
  const file = join(client.controlDirectory, "policy.json");
  writeFileSync(file, '{"format":"cairn.policy","version":1,"retention":null,"quota_bytes":7}');
  assert.deepEqual(await client.policy(), { retention: null, quota_bytes: 7, kept_trees: null });
  assert.deepEqual(await client.setPolicy({ keptTrees: 3 }), { retention: null, quota_bytes: 7, kept_trees: 3 });
});

test("init sets the given quota", async (t) => {
  const { library, root } = await testFolder(t);
  const client = await library.init(join(root, "self"), { selfContained: true, quotaBytes: 5000 });
  assert.deepEqual(await client.policy(), { retention: null, quota_bytes: 5000, kept_trees: null });
  await assert.rejects(library.init(join(root, "bad"), { selfContained: true, quotaBytes: -1 }), hasCode("usage"));
});

test("listWorkspaces returns a workspace with its number of points and the size of its store", async (t) => {
  const { client, library, folder } = await testFolder(t, { a: "one" });
  await client.save();
  const [info, ...others] = await library.listWorkspaces();
  assert.deepEqual(others, []);
  assert.deepEqual([info?.path, info?.points, info?.present, info?.name], [folder, 1, true, "main"]);
  assert.ok(info!.store_bytes > 0 && info!.last_save_at !== null);
});

test("save and init refuse a folder in a workspace unless nested is allowed, and later saves need no guard", async (t) => {
  const { library, root, folder } = await testFolder(t, { a: "one" });
  await (await library.open(folder)).save();
  const inner = join(folder, ".git", "inner");
  mkdirSync(inner, { recursive: true });
  await assert.rejects(library.init(inner, { allow: ["git"] }), hasCode("refused"));
  const client = await library.init(inner, { allow: ["git", "nested"] });
  await client.save();
  await client.save();
  await (await library.open(folder)).save();
  await assert.rejects(library.init(join(folder, "self"), { selfContained: true }), hasCode("refused"));
  assert.ok(!readdirSync(folder).includes("self"));
  assert.equal((await library.init(join(folder, "self"), { selfContained: true, allow: ["nested"] })).created, true);
  assert.equal((await library.init(join(root, "beside"), { selfContained: true })).created, true);
});
