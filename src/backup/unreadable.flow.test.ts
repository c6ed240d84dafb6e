import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { CallOptions } from "../contract/index.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { type BackupScene, backupScene, opened } from "./testing-far.ts";

/** Three snapshots, the newest of which cannot be read. */
async function newestCut(t: TestContext): Promise<{ at: BackupScene; ids: string[] }> {
  const at = await backupScene(t, "local");
  const ids: string[] = [];
  for (let round = 0; round < 3; round++) {
    at.write("a.txt", `round ${round}\n`);
    ids.push((await at.client.createBackup(at.repository, { save: true })).snapshot!.snapshot_id);
  }
  cut(at, ids[2]!);
  return { at, ids };
}

function cut({ place }: BackupScene, id: string): void {
  const file = join(place, "snapshots", id);
  chmodSync(file, 0o600);
  truncateSync(file, 100);
}

test("`latest` fails with `damaged` if a snapshot cannot be read, and readable snapshots work by id", async (t) => {
  const { at, ids } = await newestCut(t);
  const { repository, client, root, folder } = at;
  const [, second, third] = ids as [string, string, string];
  const unknown = { code: "damaged", message: new RegExp(third.slice(0, 8)), hint: /its id.*cairn backup forget/ };
  const target = join(root, "restored");
  for (const filter of [{}, { paths: [folder] }, { hosts: ["nobody"] }])
    await assert.rejects(repository.restore("latest", target, { latestOf: filter }), unknown);
  await assert.rejects(client.restoreBackup(repository, "latest"), unknown);
  await assert.rejects(repository.verify({ snapshots: ["latest"] }), unknown);
  await assert.rejects(repository.diff(second, "latest"), unknown);
  assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "round 2\n");
  assert.deepEqual(
    (await repository.list()).damaged.map(({ snapshot_id: id }) => id),
    [third],
  );
  const { snapshot_id: restored, proof } = await repository.restore(second, target);
  assert.deepEqual([restored, proof === null], [second, false]);
  assert.deepEqual((await repository.verify({ snapshots: [second] })).problems, []);
});

test("an unreadable snapshot that is named by its id or a prefix fails with `damaged`", async (t) => {
  const { at, ids } = await newestCut(t);
  const { repository, root } = at;
  for (const word of [ids[2]!, ids[2]!.slice(0, 10)]) {
    const wanted = { code: "damaged", message: /cannot be read/, hint: /cairn backup forget/ };
    await assert.rejects(repository.restore(word, join(root, "restored")), wanted);
    await assert.rejects(repository.cat("snapshot", word), wanted);
    await assert.rejects(repository.verify({ snapshots: [word] }), wanted);
    await assert.rejects(repository.stats({ snapshots: [word] }), wanted);
  }
  await assert.rejects(repository.cat("snapshot", "ffffffffff"), hasCode("not_found"));
  for (const id of ids.slice(0, 2)) cut(at, id);
  await assert.rejects(repository.restore("latest", join(root, "restored")), hasCode("damaged"));
  await assert.rejects(repository.cat("snapshot", "moon"), hasCode("not_found"));
});

test("a restore check reports a failed restore if the newest snapshot cannot be read", async (t) => {
  const { at, ids } = await newestCut(t);
  const { restored, problems } = await at.repository.verify({ restoreCheck: true });
  const found = problems.map(({ kind, object }) => [kind, object]);
  assert.deepEqual(found, [
    ["snapshot_damaged", ids[2]],
    ["restore_failed", ids[2]],
  ]);
  assert.deepEqual(restored, []);
});

test("calls that skip an unreadable snapshot warn of it once", async (t) => {
  const { at, ids } = await newestCut(t);
  const { client, library, repository, options, root } = at;
  const target = await library.initRepository({ ...options, repository: `local:${root}/other`, password: "other" });
  const calls: Record<string, (call: CallOptions) => Promise<unknown>> = {
    create: async (call) => client.createBackup(repository, call),
    stream: async (call) => repository.createFromStream(new Blob(["x"]).stream(), { ...call, filename: "/x" }),
    stats: async (call) => repository.stats({ ...call, snapshots: [ids[0]!] }),
    diff: async (call) => repository.diff(ids[0]!, ids[1]!, call),
    copy: async (call) => repository.copyTo(target, call),
    forget: async (call) => repository.forget({ ...call, retention: { keepLast: 9 } }),
  };
  for (const [name, call] of Object.entries(calls)) {
    const warnings: string[] = [];
    await call({ onWarning: (message) => void warnings.push(message) });
    assert.equal(warnings.length, 1, `${name}: ${warnings.join("\n")}`);
    assert.match(warnings[0]!, new RegExp(`${ids[2]!.slice(0, 8)}.*cannot be read`), name);
  }
  assert.equal(readdirSync(join(at.place, "snapshots")).includes(ids[2]!), true);
  await target.close();
});

test("forget with prune removes nothing if a snapshot or an index file cannot be read", async (t) => {
  const { at, ids } = await newestCut(t);
  const { repository, place } = at;
  const unreadable = { code: "damaged", message: /cannot be read/, hint: /cairn backup forget/ };
  const asked = [{ retention: { keepLast: 1 } }, { snapshots: [ids[0]!] }];
  for (const what of asked) {
    await assert.rejects(repository.forget({ ...what, prune: true, instant: true }), unreadable);
    await assert.rejects(repository.forget({ ...what, prune: true, instant: true, dryRun: true }), unreadable);
  }
  await assert.rejects(repository.prune({ instant: true }), unreadable);
  rmSync(join(place, "snapshots", ids[2]!));
  const [index] = readdirSync(join(place, "index"));
  chmodSync(join(place, "index", index!), 0o600);
  truncateSync(join(place, "index", index!), 100);
  rmSync(join(at.root, "cache"), { recursive: true });
  for (const what of asked)
    await assert.rejects(repository.forget({ ...what, prune: true, instant: true }), {
      code: "damaged",
      message: /^index/,
    });
  assert.deepEqual(readdirSync(join(place, "snapshots")).toSorted(), ids.slice(0, 2).toSorted());
});

test("forget reports the removed snapshots if the prune after it fails", async (t) => {
  const { at, ids } = await newestCut(t);
  rmSync(join(at.place, "snapshots", ids[2]!));
  rmSync(join(at.place, "data"), { recursive: true });
  mkdirSync(join(at.place, "data"));
  const gone = {
    code: "damaged",
    message: /^1 snapshot removed, but the prune failed/,
    hint: /^nothing was freed/,
  };
  await assert.rejects(at.repository.forget({ snapshots: [ids[0]!], prune: true, instant: true }), gone);
  assert.deepEqual(readdirSync(join(at.place, "snapshots")), [ids[1]]);
});

test("forget removes an unreadable snapshot that is named by its id", async (t) => {
  const { at, ids } = await newestCut(t);
  const { repository, place } = at;
  const [first, second, third] = ids as [string, string, string];
  const named = { snapshots: [third.slice(0, 10)] };
  const planned = await repository.forget({ ...named, dryRun: true, prune: true, instant: true });
  assert.deepEqual([planned.groups, planned.removed], [[], []]);
  assert.deepEqual(
    planned.unreadable.map(({ snapshot_id: id }) => id),
    [third],
  );
  assert.deepEqual((await repository.forget({ retention: { keepLast: 1 } })).removed, [first]);
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const done = await repository.forget({ ...named, prune: true, instant: true, onWarning });
  assert.deepEqual([done.removed, done.unreadable.length, done.groups, warnings], [[third], 1, [], []]);
  assert.match(done.unreadable[0]!.reason, /SHA-256/);
  assert.deepEqual(readdirSync(join(place, "snapshots")), [second]);
  assert.equal((await repository.verify({ snapshots: ["latest"] })).checked.snapshots, 1);
});

test("a prefix of both a readable and an unreadable snapshot is ambiguous", async (t) => {
  const { at, ids } = await newestCut(t);
  const twin = `${ids[0]!.slice(0, 10)}${"0".repeat(54)}`;
  writeFileSync(join(at.place, "snapshots", twin), "not a snapshot");
  await assert.rejects(at.repository.forget({ snapshots: [twin.slice(0, 10)] }), hasCode("ambiguous"));
  assert.deepEqual((await at.repository.forget({ snapshots: [twin, ids[0]!] })).removed, [ids[0], twin]);
  assert.deepEqual(readdirSync(join(at.place, "snapshots")).toSorted(), ids.slice(1).toSorted());
});

test("forget keeps a snapshot that was damaged only in transit", async (t) => {
  const at = await backupScene(t, "faulty");
  const { snapshot_id: id } = (await at.client.createBackup(at.repository, { save: true })).snapshot!;
  const noFolder = join(at.root, "no-folder");
  writeFileSync(noFolder, "");
  // Without a cache, which would have the snapshot as it was written.
  const repository = await at.library.openRepository({ ...at.options, env: { XDG_CACHE_HOME: noFolder } });
  t.after(async () => repository.close());
  opened.faulty!.arm({ operation: "load", kind: "snapshots", fault: "truncate" });
  await assert.rejects(repository.forget({ snapshots: [id] }), hasCode("stale_plan"));
  assert.deepEqual(readdirSync(join(at.place, "snapshots")), [id]);
});

test("verify reads a remote snapshot anew although the cache has an intact copy", async (t) => {
  const at = await backupScene(t, "far");
  const { repository, client, place } = at;
  const id = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  assert.deepEqual((await repository.verify({ snapshots: [id], restoreCheck: true })).problems, []);
  cut(at, id);
  assert.equal((await repository.list()).damaged.length, 0, `the cache beside ${place} has it`);
  for (const snapshots of [[id], ["latest"]])
    await assert.rejects(repository.verify({ snapshots }), hasCode("damaged"));
  const { restored, problems } = await repository.verify({ restoreCheck: true });
  assert.deepEqual([restored, problems.map(({ kind }) => kind)], [[], ["snapshot_damaged", "restore_failed"]]);
});
