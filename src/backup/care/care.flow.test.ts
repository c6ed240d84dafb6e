import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hostname } from "node:os";
import { sealMessage } from "../../crypto/seal.ts";
import { encodeConfig } from "../../formats/restic/config.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { CairnError } from "../../errors.ts";
import { objectIdOf } from "../../ids.ts";
import type { BackupRetention, CopyBackupsResult, SnapshotGrouping } from "../../contract/index.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, damagePack, opened as lastOpened, SCHEMES } from "../testing-far.ts";

const hasRestic = spawnSync("restic", ["version"]).error === undefined;

/** Every byte of it, by real restic where it is installed. */
function resticCheck({ place }: BackupScene): void {
  if (!hasRestic) return;
  const env = { ...process.env, RESTIC_PASSWORD: "correct horse" };
  const args = ["-r", place, "--no-cache", "check", "--read-data"];
  const { status, stdout, stderr } = spawnSync("restic", args, { env, encoding: "utf8" });
  assert.equal(status, 0, `${stdout}${stderr}`);
}

async function rounds(at: BackupScene, count: number): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < count; i++) {
    at.write("a.txt", `round ${i}\n`);
    at.write(`round/${i}`, `of round ${i}\n`.repeat(1000));
    const { snapshot } = await at.client.createBackup(at.repository, { save: true, tags: [`r${i}`] });
    ids.push(snapshot!.snapshot_id);
  }
  return ids;
}

test("an append-only repository accepts backups and refuses to remove anything", async (t) => {
  const at = await backupScene(t, "local");
  const { client, library, options, place } = at;
  const ids = await rounds(at, 2);
  const { access } = at.repository as unknown as OpenedRepository;
  const { keys, id, chunkerPolynomial } = access.repository;
  const config = { version: 2, id, chunker_polynomial: chunkerPolynomial, append_only: true };
  await access.storage.remove("config", "config");
  await access.storage.save("config", "config", sealMessage(keys, encodeConfig(config)));
  const repository = await library.openRepository(options);
  t.after(async () => repository.close());
  const files = (): string[] => readdirSync(place, { recursive: true, encoding: "utf8" }).toSorted();
  const before = files();
  const { removed, prune } = await repository.forget({
    snapshots: [ids[0]!],
    prune: true,
    instant: true,
    dryRun: true,
  });
  assert.deepEqual([removed, prune!.dry_run], [[], true]);
  for (const remove of [
    async () => repository.forget({ snapshots: [ids[0]!] }),
    async () => repository.prune({ instant: true }),
    async () => repository.repairSnapshots({ forget: true }),
  ])
    await assert.rejects(remove, { code: "refused", message: /append-only/, hint: /rustic config/ });
  assert.deepEqual(files(), before);
  at.write("a.txt", "later\n");
  await client.createBackup(repository, { save: true });
  assert.equal((await repository.list()).snapshots.length, 3);
});

/** Puts another time into the repository's only snapshot, as a wrong clock would have made it. Its new id. */
async function redated(at: BackupScene, time: string): Promise<string> {
  const { access } = at.repository as unknown as OpenedRepository;
  const [only] = (await at.repository.list()).snapshots;
  const { original: _none, ...old } = await access.repository.loadSnapshot(only!.snapshot_id as never);
  const id = await access.repository.saveSnapshot({ ...old, time, summary: { ...old.summary, backup_end: time } });
  await access.storage.remove("snapshots", only!.snapshot_id);
  return id;
}

test("the next backup becomes `latest` although an older snapshot is dated in the future", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, root } = at;
  await client.createBackup(repository, { save: true });
  const wrong = await redated(at, "2099-01-01T00:00:00.000Z");
  at.write("a.txt", "later\n");
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  const { snapshot } = await client.createBackup(repository, { save: true, onWarning });
  const { snapshots } = await repository.list({ onWarning });
  assert.deepEqual(
    snapshots.map(({ snapshot_id: id }) => id),
    [wrong, snapshot!.snapshot_id],
  );
  assert.equal(
    warnings.filter((each) => /^snapshot .{8} is dated in the future \(2099/.test(each)).length,
    2,
    warnings.join("\n"),
  );
  assert.equal((await repository.restore("latest", join(root, "back"))).snapshot_id, snapshot!.snapshot_id);
  const { removed } = await repository.forget({ retention: { keepLast: 1 } });
  assert.deepEqual(removed, [wrong]);
});

test("forget by rules keeps a snapshot dated in the future without counting it for keepLast", async (t) => {
  const at = await backupScene(t, "local");
  const ids = await rounds(at, 3);
  const { access } = at.repository as unknown as OpenedRepository;
  const { parent: _none, ...old } = await access.repository.loadSnapshot(ids[0] as never);
  const time = "2099-01-01T00:00:00.000Z";
  const wrong = await access.repository.saveSnapshot({ ...old, time, summary: { ...old.summary, backup_end: time } });
  const { groups, removed } = await at.repository.forget({ retention: { keepLast: 1 } });
  assert.deepEqual(removed.toSorted(), ids.slice(0, 2).toSorted());
  assert.deepEqual(
    groups[0]!.snapshots.flatMap(({ snapshot_id: id, reasons }) => (id === wrong ? reasons : [])),
    ["dated in the future"],
  );
});

test("a new snapshot is dated after its parent even if the clock was set back", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository } = at;
  await client.createBackup(repository, { save: true });
  const hour = Date.now() + 3_600_000;
  const ahead = await redated(at, new Date(hour).toISOString());
  at.write("a.txt", "later\n");
  const { snapshot, parent } = await client.createBackup(repository, { save: true });
  assert.deepEqual([parent, snapshot!.created_at], [ahead, new Date(hour + 1).toISOString()]);
  // An older state stays what it is.
  const older = await client.createBackup(repository, { point: "head~1" });
  assert.ok(older.snapshot!.created_at < new Date().toISOString());
});

for (const scheme of SCHEMES) {
  test(`forget and prune on a ${scheme} storage free only content that no kept snapshot needs`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, folder, root } = at;
    const ids = await rounds(at, 6);
    const rules = { retention: { keepLast: 2, keepTags: ["r1"] } };
    const planned = await repository.forget({ ...rules, dryRun: true, prune: true, instant: true });
    assert.deepEqual(planned.removed, []);
    assert.ok(planned.prune!.bytes_freed > 0);
    const done = await repository.forget({ ...rules, prune: true, instant: true });
    assert.deepEqual(done.removed.toSorted(), [ids[0], ids[2], ids[3]].toSorted());
    const reasons = done.groups[0]!.snapshots.find(({ snapshot_id: id }) => id === ids[1])?.reasons;
    assert.deepEqual(reasons, ["tag r1"]);
    assert.ok(done.prune!.bytes_freed > 0 && !done.prune!.postponed);
    const { problems, checked } = await repository.verify();
    assert.deepEqual([problems, checked.snapshots, checked.digests], [[], 3, 3]);
    const target = join(root, "restored");
    await repository.restore("latest", target);
    assert.equal(walkDigests(target).state, walkDigests(folder).state);
    assert.equal((await repository.prune({ instant: true })).bytes_freed, 0);
    resticCheck(at);
    // What is gone is stored again when it is seen again.
    await at.client.createBackup(repository, { point: "head~5" });
    assert.deepEqual((await repository.verify()).problems, []);
  });
}

test("forget with prune loads each index file at most three times", async (t) => {
  const at = await backupScene(t, "far");
  const [first] = await rounds(at, 3);
  const noFolder = join(at.root, "no-folder");
  writeFileSync(noFolder, "");
  const repository = await at.library.openRepository({ ...at.options, env: { XDG_CACHE_HOME: noFolder } });
  t.after(async () => repository.close());
  const { counts } = lastOpened.far!;
  const before = readdirSync(join(at.place, "index")).length;
  const { prune } = await repository.forget({ snapshots: [first!], prune: true, instant: true });
  assert.ok(prune!.repacked_packs > 0 && prune!.bytes_freed > 0, JSON.stringify(prune));
  const after = readdirSync(join(at.place, "index"));
  // Each file for the index, for what lies in which pack, and perhaps to be written anew; then those that are there.
  const loads = counts.get("load index")!;
  assert.ok(loads <= 3 * before + after.length, `${loads} loads of ${before} files, and then ${after.length}`);
});

test("forget refuses rules that would remove all snapshots of a group", async (t) => {
  const at = await backupScene(t, "local");
  const { repository } = at;
  const [id] = await rounds(at, 1);
  await assert.rejects(repository.forget({ retention: { keepTags: ["none"] } }), hasCode("refused"));
  for (const keepLast of [-1, 0.5, Number.NaN])
    await assert.rejects(repository.forget({ retention: { keepLast, keepDaily: 1 } }), hasCode("usage"), `${keepLast}`);
  await assert.rejects(repository.forget({ retention: { keepLast: 0 } }), hasCode("usage"));
  await assert.rejects(repository.forget({}), hasCode("usage"));
  await assert.rejects(repository.forget({ snapshots: ["ffffffff"] }), hasCode("not_found"));
  assert.equal((await repository.list()).snapshots.length, 1);
  const other = await repository.forget({ retention: { keepLast: 1 }, hosts: [`not-${hostname()}`] });
  assert.deepEqual([other.groups, other.removed], [[], []]);
  assert.deepEqual((await repository.forget({ snapshots: [id!.slice(0, 10)] })).removed, [id]);
});

test("the refusal to forget a whole group names the group by the fields of `groupBy`", async (t) => {
  const at = await backupScene(t, "local");
  await rounds(at, 1);
  const { snapshot } = await at.client.createBackup(at.repository, {});
  const [path] = snapshot!.paths;
  const toldOf = async (groupBy?: SnapshotGrouping[]): Promise<string | undefined> => {
    const forgetting = at.repository.forget({ retention: { keepTags: ["none"] }, ...(groupBy && { groupBy }) });
    const error = await forgetting.then(
      () => null,
      (reason: CairnError) => reason,
    );
    return /^the rules keep none of (.*); nothing was removed$/.exec(error!.message)?.[1];
  };
  assert.equal(await toldOf(), `2 snapshots of ${path} on ${hostname()}`);
  assert.equal(await toldOf(["host"]), `2 snapshots on ${hostname()}`);
  assert.equal(await toldOf([]), "2 snapshots");
  assert.equal(await toldOf(["tags"]), "1 snapshot tagged r0");
  const tagged = (await at.repository.list({ tags: [["r0"]] })).snapshots.map(({ snapshot_id: id }) => id);
  await at.repository.forget({ snapshots: tagged });
  assert.equal(await toldOf(["tags"]), "1 snapshot without tags");
});

test("forget removes nothing if another process removed a snapshot that the rules keep", async (t) => {
  const at = await backupScene(t, "local");
  const ids = await rounds(at, 3);
  const { repository: inner } = (at.repository as OpenedRepository).access;
  const list = inner.listSnapshots.bind(inner);
  let lists = 0;
  inner.listSnapshots = async (signal) => {
    const listed = await list(signal);
    if (++lists === 1) rmSync(join(at.place, "snapshots", ids[2]!));
    return listed;
  };
  await assert.rejects(at.repository.forget({ retention: { keepLast: 1 } }), hasCode("stale_plan"));
  const { snapshots } = await at.repository.list();
  assert.deepEqual(snapshots.map(({ snapshot_id: id }) => id).toSorted(), ids.slice(0, 2).toSorted());
  assert.deepEqual((await at.repository.forget({ retention: { keepLast: 1 } })).removed, [ids[0]]);
});

test("prune merges the small packs and index files of many small backups", async (t) => {
  const at = await backupScene(t, "local");
  await rounds(at, 10);
  const files = (): number =>
    readdirSync(join(at.place, "data"), { recursive: true, encoding: "utf8" }).filter((name) => name.length > 60)
      .length + readdirSync(join(at.place, "index")).length;
  const before = files();
  const { merged_packs: packs, merged_indexes: indexes } = await at.repository.prune({ instant: true });
  assert.ok(packs > 8 && indexes > 8, `${packs} packs, ${indexes} indexes`);
  const again = await at.repository.prune({ instant: true });
  assert.deepEqual([again.merged_packs, again.merged_indexes], [0, 0]);
  assert.ok(files() < before / 2, `${before} files became ${files()}`);
  assert.deepEqual((await at.repository.verify()).problems, []);
  resticCheck(at);
});

test("forget keeps the last uploaded snapshot besides the newest one, even if its state is older", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository } = at;
  const [first, second] = await rounds(at, 2);
  await client.restore({ target: "head~1" });
  // What a nightly job does: the folder is as it was, so the point that it stands at is its backup.
  const last = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  const decided = async (retention: BackupRetention): Promise<string[][]> => {
    const { groups } = await repository.forget({ retention, dryRun: true });
    return groups.flatMap(({ snapshots }) =>
      snapshots.filter(({ keep }) => keep).map((each) => [each.snapshot_id, ...each.reasons]),
    );
  };
  const { snapshots } = await repository.list();
  assert.equal(snapshots.at(-1)!.snapshot_id, second, "the newest state");
  const kept = await decided({ keepLast: 1 });
  assert.deepEqual(kept.map(([id]) => id).toSorted(), [second, last].toSorted());
  assert.ok(kept.some(([id, reason]) => id === last && reason === "uploaded last"));
  // Of what has the same content one is enough, and rules that drop the newest drop this one, too.
  await repository.forget({ snapshots: [second!] });
  assert.equal((await decided({ keepLast: 1 })).length, 1);
  assert.deepEqual(await decided({ keepTags: ["r0"] }), [[first, "tag r0"]]);
});

test("copyTo copies each snapshot only once, and restores from the copy equal the original", async (t) => {
  const at = await backupScene(t, "far");
  const { library, repository, folder, root, options } = at;
  const ids = await rounds(at, 3);
  const other = { ...options, repository: `local:${root}/other`, password: "other" };
  const target = await library.initRepository(other);
  const planned = await repository.copyTo(target, { dryRun: true });
  assert.deepEqual([planned.copied.length, (await target.list()).snapshots.length], [3, 0]);
  assert.equal((await repository.copyTo(target, { snapshots: [ids[1]!] })).copied.length, 1);
  const rest = await repository.copyTo(target);
  assert.deepEqual([rest.copied.length, rest.present], [2, 1]);
  assert.deepEqual([(await repository.copyTo(target)).copied, (await target.list()).snapshots.length], [[], 3]);
  const verified = await target.verify();
  assert.deepEqual([verified.problems, verified.checked.digests], [[], 3]);
  await target.restore("latest", join(root, "copied"));
  assert.equal(walkDigests(join(root, "copied")).state, walkDigests(folder).state);
  await assert.rejects(repository.copyTo(repository), hasCode("usage"));
  await target.close();
});

test("copyTo copies a snapshot again if its tags were changed after the first copy", async (t) => {
  const at = await backupScene(t, "local");
  const { library, repository, root, options } = at;
  const [id] = await rounds(at, 1);
  const target = await library.initRepository({ ...options, repository: `local:${root}/other`, password: "other" });
  await repository.copyTo(target);
  const { repository: inner, storage } = (repository as OpenedRepository).access;
  // What `restic tag` does.
  const retag = async (from: string, tags: string[]): Promise<string> => {
    const snapshot = await inner.loadSnapshot(from);
    const tagged = await inner.saveSnapshot({
      ...snapshot,
      tags,
      original: snapshot.original ?? objectIdOf(Buffer.from(id!, "hex")),
    });
    await storage.remove("snapshots", from);
    return tagged;
  };
  const own = (await inner.loadSnapshot(id!)).tags!;
  const tagged = await retag(id!, [...own, "keep"]);
  assert.equal((await repository.copyTo(target)).copied.length, 1);
  assert.deepEqual((await target.list()).snapshots.map(({ tags }) => tags.includes("keep")).sort(), [false, true]);
  const again = await repository.copyTo(target);
  assert.deepEqual([again.copied, again.present], [[], 1]);
  // A tag that went brings nothing anew.
  await retag(tagged, own);
  assert.deepEqual((await repository.copyTo(target)).copied, []);
  await target.close();
});

test("copyTo stores content again that its target has lost", async (t) => {
  const at = await backupScene(t, "far");
  const { library, repository, folder, root, options } = at;
  await rounds(at, 2);
  const place = join(root, "other");
  const target = await library.initRepository({ ...options, repository: `local:${place}`, password: "other" });
  await repository.copyTo(target);
  const warnings: string[] = [];
  const copy = async (): Promise<CopyBackupsResult> =>
    repository.copyTo(target, { onWarning: (message) => void warnings.push(message) });
  assert.deepEqual([(await copy()).added.data_blobs, warnings], [0, []]);
  const pack = damagePack(place, (size) => size >> 1, "largest");
  rmSync(join(place, "data", pack.slice(0, 2), pack));
  const again = await copy();
  assert.deepEqual([again.present, again.added.bytes > 0, warnings.length], [2, true, 1]);
  assert.match(warnings[0]!, /has 1 damaged, missing or cut pack with /);
  assert.deepEqual([(await copy()).added.data_blobs, warnings.length], [0, 1]);
  await target.repair({ what: "index" });
  assert.deepEqual([(await copy()).added.data_blobs, warnings.length], [0, 1]);
  assert.deepEqual((await target.verify()).problems, []);
  await target.restore("latest", join(root, "copied"));
  assert.equal(walkDigests(join(root, "copied")).state, walkDigests(folder).state);
  await target.close();
});

test("addKey, changePassword and removeKey always leave one password that opens the repository", async (t) => {
  const { library, repository, options, place } = await backupScene(t, "local");
  const [first] = (await repository.keys()).keys;
  assert.equal(first?.current, true);
  await repository.addKey("second");
  const opened = await library.openRepository({ ...options, password: "second" });
  const current = (await opened.keys()).keys.find((key) => key.current)!;
  await assert.rejects(opened.removeKey(current.key_id), hasCode("refused"));
  await assert.rejects(opened.removeKey("ffffffff"), hasCode("not_found"));
  await opened.changePassword("third");
  await assert.rejects(library.openRepository({ ...options, password: "second" }), hasCode("wrong_password"));
  const third = await library.openRepository({ ...options, password: "third" });
  assert.equal((await third.removeKey(first!.key_id)).keys.length, 1);
  await assert.rejects(library.openRepository(options), hasCode("wrong_password"));
  // Of the keys that are left one opens nothing, and who has lost their own cannot tell which.
  writeFileSync(join(place, "keys", "ab".repeat(32)), "{}");
  const last = (await third.keys()).keys.find((key) => key.current)!;
  await assert.rejects(repository.removeKey(last.key_id), hasCode("conflict"));
  for (const each of [opened, third]) await each.close();
  // The one who made it changes its password at once: the first one opens it no longer either.
  const fresh = await library.initRepository({ ...options, repository: `${options.repository}-2` });
  await fresh.changePassword("other");
  assert.equal((await fresh.keys()).keys.length, 1);
  await fresh.close();
});

for (const [what, fault, error, opens] of [
  ["loses the new key file", { operation: "save", fault: "lose" }, { code: "not_found" }, "old"],
  ["cannot remove the old key", { operation: "remove", fault: "fail" }, /the password was not changed/, "old"],
  // src/backup/restore/stopped.flow.test.ts has a removal whose answer the caller does not wait for.
  [
    "removes the old key and says nothing",
    { operation: "remove", fault: "late_success" },
    /the new password opens/,
    "new",
  ],
] as const)
  test(`changePassword leaves the ${opens} password and says so if the storage ${what}`, async (t) => {
    const { library, options } = await backupScene(t, "faulty");
    const repository = await library.openRepository(options);
    t.after(async () => repository.close());
    lastOpened.faulty!.arm({ kind: "keys", ...fault });
    await assert.rejects(repository.changePassword("other"), error);
    const [open, closed] = opens === "old" ? [options.password, "other"] : ["other", options.password];
    const again = await library.openRepository({ ...options, password: open });
    assert.equal((await again.keys()).keys.length, 1);
    await again.close();
    await assert.rejects(library.openRepository({ ...options, password: closed }), hasCode("wrong_password"));
  });

test("changePassword reports that both passwords open the repository if no key can be removed", async (t) => {
  const { library, options } = await backupScene(t, "local");
  const repository = await library.openRepository(options);
  t.after(async () => repository.close());
  const { storage } = (repository as OpenedRepository).access;
  const remove = storage.remove.bind(storage);
  storage.remove = async (kind, name) => {
    if (kind === "keys") throw new CairnError("permission", "append-only");
    return remove(kind, name);
  };
  const [first] = (await repository.keys()).keys;
  await assert.rejects(repository.changePassword("other"), {
    code: "permission",
    message: /append-only; both passwords open the repository now/,
    hint: new RegExp(`cairn backup key remove ${first!.key_id.slice(0, 8)}`),
  });
  for (const password of [options.password, "other"])
    await (await library.openRepository({ ...options, password })).close();
});

test("forget fails with `busy` while a lock is held, and unlock removes that lock only with `all`", async (t) => {
  const at = await backupScene(t, "local");
  const [first] = await rounds(at, 2);
  const { acquireLock } = await import("../../repository/locks.ts");
  const { OpenedRepository } = await import("../../keep/opened-repository.ts");
  assert.ok(at.repository instanceof OpenedRepository);
  const lock = await acquireLock(at.repository.access.repository, { exclusive: false });
  try {
    await assert.rejects(at.repository.forget({ snapshots: [first!], lockTimeoutMs: 0 }), hasCode("busy"));
    assert.deepEqual((({ removed, held }) => [removed, held])(await at.repository.unlock()), [0, 1]);
    assert.deepEqual((({ removed, held }) => [removed, held])(await at.repository.unlock({ all: true })), [1, 0]);
  } finally {
    await lock.release();
  }
  assert.deepEqual((await at.repository.forget({ snapshots: [first!] })).removed, [first]);
});

test("prune and repair warn if they cannot remove their own lock after their work", async (t) => {
  const at = await backupScene(t, "faulty");
  const { repository, place } = at;
  await rounds(at, 2);
  await repository.forget({ retention: { keepLast: 1 } });
  const warnings: string[] = [];
  const options = { lockTimeoutMs: 0, onWarning: (message: string) => void warnings.push(message) };
  lastOpened.faulty!.arm({ operation: "remove", kind: "locks", fault: "fail" });
  assert.ok((await repository.prune({ ...options, instant: true })).bytes_freed > 0);
  rmSync(join(place, "index", readdirSync(join(place, "index"))[0]!));
  lastOpened.faulty!.arm({ operation: "remove", kind: "locks", fault: "fail" });
  assert.ok((await repository.repair({ ...options, what: "index" })).added_packs.length > 0);
  assert.deepEqual(
    warnings.map((message) => /lock could not be removed/.test(message)),
    [true, true],
  );
});

test("forget, tag and rewrite refuse a named snapshot that the filter does not match", async (t) => {
  const at = await backupScene(t, "local");
  const { repository } = at;
  const [older, newer] = await rounds(at, 2);
  await repository.tag({ snapshots: [older!], set: ["mine"] });
  const ids = async (): Promise<string[]> => (await repository.list()).snapshots.map(({ snapshot_id: id }) => id);
  const before = await ids();
  const mine = { tags: [["mine"]] };
  await assert.rejects(repository.forget({ snapshots: ["latest"], tags: [["nobody's"]] }), hasCode("not_found"));
  await assert.rejects(repository.forget({ snapshots: ["latest"], hosts: ["elsewhere"] }), hasCode("not_found"));
  const named = { snapshots: [newer!], ...mine };
  await assert.rejects(repository.forget(named), hasCode("usage"));
  await assert.rejects(repository.tag({ ...named, add: ["x"] }), hasCode("usage"));
  await assert.rejects(repository.rewrite({ ...named, exclude: ["a.txt"], forget: true }), hasCode("usage"));
  assert.deepEqual(await ids(), before);
  assert.deepEqual((await repository.forget({ snapshots: ["latest"], ...mine })).removed, [before[0]]);
  assert.deepEqual(await ids(), [newer]);
});

test("list and forget warn if the filter matches no snapshot", async (t) => {
  const at = await backupScene(t, "local");
  await rounds(at, 1);
  const warnings: string[] = [];
  const nobodys = { hosts: ["nobody's"], onWarning: (each: string): void => void warnings.push(each) };
  await at.repository.list(nobodys);
  await at.repository.forget({ retention: { keepLast: 1 }, ...nobodys });
  assert.deepEqual(warnings, Array(2).fill("no snapshot fits the filter (of 1 snapshot)"));
});
