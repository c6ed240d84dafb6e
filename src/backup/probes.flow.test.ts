import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { chownSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import type { VerifyBackupOptions, VerifyBackupResult } from "../contract/index.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { checkProbes } from "./open/checks.ts";
import { type BackupScene, backupScene, damagePack, SCHEMES, withManifest, withNode } from "./testing-far.ts";

function makeDatabase(folder: string): DatabaseSync {
  const database = new DatabaseSync(join(folder, "a.db"));
  database.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)");
  return database;
}

const COUNT = 'sqlite3 "$DIR/a.db" "select count(*) from t"';

async function checked(
  { repository, root }: BackupScene,
  options: VerifyBackupOptions = {},
): Promise<VerifyBackupResult> {
  return repository.verify({ quick: true, restoreCheck: true, scratch: join(root, "scratch"), ...options });
}

function kinds({ problems }: VerifyBackupResult): string[][] {
  return problems.map(({ kind, severity }) => [kind, severity]);
}

for (const scheme of SCHEMES)
  test(`a backup keeps the answers of its probes, and a copy restored from a ${scheme} storage gives them again`, async (t) => {
    const scene = await backupScene(t, scheme);
    const { client, repository, folder, root } = scene;
    const open = makeDatabase(folder);
    t.after(() => open.close());
    const probe = [COUNT, 'cat "$DIR/deep/b.txt"; echo in "$DIR"; pwd'];
    const { probes, snapshot } = await client.createBackup(repository, { probe });
    assert.deepEqual(
      probes.map(({ status, output, failure }) => [status, output, failure]),
      [
        [0, "2\n", null],
        [0, "b\nin $DIR\n/\n", null],
      ],
    );
    const { problems, restored } = await checked(scene);
    assert.deepEqual(problems, []);
    assert.deepEqual(
      restored[0]!.probes.map(({ command, equal }) => [command, equal]),
      probe.map((command) => [command, true]),
    );
    assert.deepEqual(readdirSync(join(root, "scratch")), []);
    // The receipts of a check and of a restore say what was asked.
    const receipt = async (path: string): Promise<unknown> =>
      ((await scene.library.verifyReceipt(path)).receipt["probes"] as { equal: unknown }[]).map(({ equal }) => equal);
    const receipts = join(root, "state/cairn/receipts");
    assert.deepEqual(await receipt(join(receipts, readdirSync(receipts).toSorted().at(-1)!)), [true, true]);
    const { proof } = await repository.restore(snapshot!.snapshot_id, join(root, "back"));
    assert.deepEqual(await receipt(proof!.receipt!), [null, null]);
    assert.deepEqual(
      readdirSync(join(root, "back")).toSorted(),
      readdirSync(folder)
        .filter((name) => !name.endsWith("-shm"))
        .toSorted(),
    );
  });

test("a restored copy that answers otherwise is damage, and verify tells both answers", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, root } = scene;
  writeFileSync(join(root, "outside"), "one");
  await client.createBackup(repository, { probe: [`cat ${join(root, "outside")}`] });
  writeFileSync(join(root, "outside"), "two");
  const found = await checked(scene);
  assert.deepEqual(kinds(found), [["probe_differs", "damage"]]);
  assert.match(found.problems[0]!.detail, /prints "two"; before it printed "one"/);
  assert.deepEqual(
    found.restored[0]!.probes.map(({ equal }) => equal),
    [false],
  );
  await assert.rejects(checked(scene, { throwOnDamage: true }), { code: "damaged" });
});

test("verify runs no command that only the repository knows, unless the caller names it", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, root } = scene;
  const probe = [`echo run >> ${join(root, "trace")}`];
  await client.createBackup(repository, { probe });
  // As on another machine.
  rmSync(join(root, "state/cairn/probes"), { recursive: true });
  rmSync(join(root, "trace"));
  const found = await checked(scene);
  assert.deepEqual(kinds(found), [["probe_not_run", "note"]]);
  assert.deepEqual(
    found.restored[0]!.probes.map(({ equal }) => equal),
    [null],
  );
  assert.throws(() => readFileSync(join(root, "trace")), { code: "ENOENT" });
  assert.deepEqual(kinds(await checked(scene, { probe })), []);
  assert.equal(readFileSync(join(root, "trace"), "utf8"), "run\n");
});

test(
  "verify runs no command that another user may have put into this user's state directory",
  { skip: process.geteuid?.() !== 0 && "needs root" },
  async (t) => {
    const scene = await backupScene(t, "local");
    await scene.client.createBackup(scene.repository, { probe: ["true"] });
    const probes = join(scene.root, "state/cairn/probes");
    for (const place of [probes, join(probes, readdirSync(probes)[0]!)]) {
      chownSync(place, 1234, 1234);
      assert.deepEqual(kinds(await checked(scene)), [["probe_not_run", "note"]]);
      chownSync(place, 0, 0);
    }
    assert.deepEqual(kinds(await checked(scene)), []);
  },
);

test("verify says that it does not ask a copy that no digest proves", async (t) => {
  const scene = await backupScene(t, "local");
  const { snapshot } = await scene.client.createBackup(scene.repository, { probe: ["true"] });
  const opened = scene.repository as OpenedRepository;
  const changed = await withManifest(opened, snapshot!.snapshot_id, (manifest) =>
    manifest.replace(/"state_digest":"[0-9a-f]{64}"/, '"state_digest":null'),
  );
  const { problems, restored } = await checked(scene, { snapshots: [changed] });
  assert.match(problems.map(({ detail }) => detail).join(), /could not be proven equal to the snapshot: true/);
  assert.deepEqual(
    restored[0]!.probes.map(({ equal }) => equal),
    [null],
  );
});

test("verify refuses checks of a snapshot that are longer than their size", async (t) => {
  const scene = await backupScene(t, "local");
  const { snapshot } = await scene.client.createBackup(scene.repository, { probe: ["true"] });
  const opened = scene.repository as OpenedRepository;
  const changed = await withNode(opened, snapshot!.snapshot_id, ".cairn/checks.json", async ({ content }) => ({
    content: Buffer.concat(Array.from({ length: 1000 }, () => content!)),
  }));
  const { problems } = await checked(scene, { snapshots: [changed] });
  assert.match(problems.map(({ detail }) => detail).join(), /checks is longer than its size/);
});

test("a probe gets neither passwords nor the language of its caller, and no program of a relative folder", async (t) => {
  const scene = await backupScene(t, "local");
  const before = { ...process.env };
  t.after(() => (process.env = before));
  Object.assign(process.env, { CAIRN_PASSWORD: "x", AWS_SECRET_ACCESS_KEY: "x", TZ: "Asia/Tokyo", LC_ALL: "de_DE" });
  process.env["PATH"] = `.:tools::${before["PATH"]}`;
  const { probes } = await scene.client.createBackup(scene.repository, { probe: ["env"] });
  const names = probes[0]!.output.split("\n").map((line) => line.split("=")[0]);
  assert.deepEqual(
    names.filter((name) => /PASSWORD|AWS|CAIRN|RESTIC/.test(name!)),
    [],
  );
  assert.match(probes[0]!.output, /^TZ=UTC$/m);
  assert.match(probes[0]!.output, /^LC_ALL=C\.UTF-8$/m);
  assert.match(probes[0]!.output, /^PATH=\//m);
  assert.doesNotMatch(probes[0]!.output, /^PATH=(?:.*:)?(?:\.|tools|):/m);
});

test("a snapshot is made though a probe fails, and the answer tells how", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository } = scene;
  const probe = ["echo some; echo why >&2; exit 4", "head -c 100000 /dev/zero", "no-such-program"];
  const { probes, snapshot } = await client.createBackup(repository, { probe });
  assert.notEqual(snapshot, null);
  assert.deepEqual(
    probes.map(({ status, failure }) => [status, failure?.replace(/: .*/s, "")]),
    [
      [4, "ended with status 4"],
      [null, "printed more than 64 KiB"],
      [127, "ended with status 127"],
    ],
  );
  assert.match(probes[0]!.failure!, /: why$/);
  // A stopped probe has no answer to compare.
  assert.deepEqual(kinds(await checked(scene)), [["probe_not_run", "note"]]);
});

test("an unchanged folder is not asked again, unless its probes changed", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, root, write } = scene;
  const runs = (): number => readFileSync(join(root, "trace"), "utf8").length;
  const probe = [`printf x >> ${join(root, "trace")}`];
  await client.createBackup(repository, { probe });
  const again = await client.createBackup(repository, { probe, skipIfUnchanged: true });
  assert.deepEqual([again.snapshot, again.probes.length, runs()], [null, 1, 1]);
  await client.createBackup(repository, { probe: [...probe, "true"] });
  assert.equal(runs(), 2);
  write("a.txt", "changed");
  const { snapshot } = await client.createBackup(repository, { probe });
  assert.deepEqual([snapshot === null, runs()], [false, 3]);
  assert.deepEqual(kinds(await checked(scene)), []);
});

test("a snapshot whose database is stored by pages has probes, too", async (t) => {
  const scene = await backupScene(t, "local");
  const database = makeDatabase(scene.folder);
  database.exec("CREATE TABLE large (b BLOB); INSERT INTO large VALUES (randomblob(3000000))");
  database.close();
  const { databases, probes } = await scene.client.createBackup(scene.repository, { probe: [COUNT] });
  assert.deepEqual([databases.length, probes[0]!.output], [1, "2\n"]);
  assert.deepEqual(kinds(await checked(scene)), []);
});

test("a snapshot from which paths were taken out has no probes any more", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository } = scene;
  await client.createBackup(repository, { probe: ['ls "$DIR"'] });
  await repository.rewrite({ exclude: ["a.txt"], forget: true });
  const { problems, restored } = await checked(scene);
  assert.deepEqual([problems, restored[0]!.probes], [[], []]);
});

test("a backup warns if its probes ask a copy that lacks a damaged file", async (t) => {
  const { client, repository, folder } = await backupScene(t, "local");
  writeFileSync(join(folder, "large"), randomBytes(1 << 20));
  await client.save();
  const { repository: store } = await client.store();
  damagePack(store, (size) => size >> 1, "largest");
  const warnings: string[] = [];
  const asked = { point: "head", probe: ["true"], onWarning: (text: string) => void warnings.push(text) };
  await assert.rejects(client.createBackup(repository, asked), { code: "damaged" });
  assert.match(warnings.join("\n"), /the probes ask a copy that lacks 1 entry of the save point.*: large/);
});

test("a probe is a command that is not empty", async (t: TestContext) => {
  const { client, repository } = await backupScene(t, "local");
  await assert.rejects(client.createBackup(repository, { probe: [" "] }), { code: "usage" });
});

test("a command or query that would be stored has at most 4096 characters", async (t) => {
  const { client, repository } = await backupScene(t, "local");
  const [most, long] = ["#".repeat(4096), "#".repeat(4097)];
  const tooLong = { code: "usage", message: /text of at most 4096 characters/ };
  const { probes } = await client.createBackup(repository, { probe: [most] });
  assert.equal(probes[0]!.failure, null);
  await assert.rejects(client.createBackup(repository, { probe: [long] }), tooLong);
  await assert.rejects(client.save({ with: ["a=b"], rows: [long] }), tooLong);
  await assert.rejects(client.setHooks({ beforeSave: long }), tooLong);
  await assert.rejects(client.setBackupRepository({ probe: [long] }), tooLong);
  await assert.rejects(client.setBackupRepository({ onFailure: long }), tooLong);
  assert.throws(() => checkProbes([long]), { code: "usage", message: /at most 4096 characters/ });
});
