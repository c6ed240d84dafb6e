import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { linkSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Readable } from "node:stream";
import { THREADS_BESIDE, threadsAreWarm } from "../../threads/threads.ts";
import type { BackupRepository, VerifyBackupResult } from "../../contract/index.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, withTreeOfItself } from "../testing-far.ts";

/**
 * Where all packs are local and are read, one walk through the trees finds what is needed and proves the digests;
 * elsewhere two walks do. Both have to say the same of every repository.
 */

const SNAPSHOTS = 4;

interface Scene extends BackupScene {
  /** The same repository, as if it lay elsewhere. */
  far: BackupRepository;
}

async function scene(t: TestContext): Promise<Scene> {
  const at = await backupScene(t, "local");
  symlinkSync("a.txt", join(at.folder, "link"));
  linkSync(join(at.folder, "a.txt"), join(at.folder, "deep/also-a.txt"));
  at.write("large", "some large file ".repeat(300_000));
  for (let i = 0; i < SNAPSHOTS - 2; i++) {
    at.write(`round/${i}/of`, `of round ${i}\n`.repeat(1000));
    await at.client.createBackup(at.repository, { save: true });
  }
  await at.repository.createFromStream(Readable.from([Buffer.from("what was said\n")]), { filename: "dumps/said" });
  const env = { ...process.env, RESTIC_PASSWORD: "correct horse" };
  const { error, status } = spawnSync("restic", ["-r", at.place, "--no-cache", "backup", at.folder], { env });
  // Without restic one more of ours.
  if (error !== undefined) await at.client.createBackup(at.repository, { save: true });
  else assert.equal(status, 0);
  const far = await at.library.openRepository({ ...at.options, repository: `far:${at.place}` });
  t.after(async () => far.close());
  return { ...at, far };
}

async function assertBothSay({ repository, far }: Scene): Promise<VerifyBackupResult> {
  const [one, two] = [await repository.verify(), await far.verify()];
  const said = ({ checked, problems }: VerifyBackupResult): unknown => ({
    checked: { ...checked, packs: 0, blobs: 0, bytes: 0 },
    problems: problems.map(({ kind, object, losses }) => `${kind} ${object} ${JSON.stringify(losses)}`).toSorted(),
  });
  assert.deepEqual(said(one), said(two));
  return one;
}

function filesOf({ place }: BackupScene, folder: string): string[] {
  const all = readdirSync(join(place, folder), { recursive: true, encoding: "utf8" });
  return all.map((name) => join(place, folder, name)).filter((path) => statSync(path).isFile());
}

test('openRepository with `soon: "verify"` starts the worker threads', async (t) => {
  const at = await backupScene(t, "local");
  await (await at.library.openRepository(at.options)).close();
  assert.equal(threadsAreWarm(1), false);
  const repository = await at.library.openRepository({ ...at.options, soon: "verify" });
  t.after(async () => repository.close());
  assert.equal(threadsAreWarm(THREADS_BESIDE), true);
});

test("verify finds the same trees with one walk as with two", async (t) => {
  const at = await scene(t);
  const { checked, problems } = await assertBothSay(at);
  assert.deepEqual([problems, checked.snapshots], [[], SNAPSHOTS]);
  assert.ok(checked.digests >= SNAPSHOTS - 1 && checked.trees > SNAPSHOTS * 2, JSON.stringify(checked));
});

test("verify names the same lost paths with one walk as with two, for each lost or damaged file", async (t) => {
  const at = await scene(t);
  const kinds = new Set<string>();
  for (const file of [...filesOf(at, "data"), ...filesOf(at, "index")]) {
    const bytes = readFileSync(file);
    rmSync(file);
    for (const { kind } of (await assertBothSay(at)).problems) kinds.add(kind);
    const flipped = Buffer.from(bytes);
    flipped[bytes.length >> 1]! ^= 1;
    writeFileSync(file, flipped);
    for (const { kind } of (await assertBothSay(at)).problems) kinds.add(kind);
    writeFileSync(file, bytes);
  }
  for (const kind of ["blob_missing", "tree_missing", "tree_damaged", "pack_missing", "index_damaged"])
    assert.ok(kinds.has(kind), `${kind} is not among ${[...kinds].join()}`);
  assert.deepEqual((await assertBothSay(at)).problems, []);
});

test("verify names a damaged tree that contains itself, and ends", { timeout: 60_000 }, async (t) => {
  const at = await backupScene(t, "local");
  at.write("around/and/around", "we go\n");
  const { snapshot: made } = await at.client.createBackup(at.repository, { save: true });
  const path = join(at.folder, "around").slice(1);
  const opened = at.repository as unknown as OpenedRepository;
  const { snapshot: snapshot_id, tree } = await withTreeOfItself(opened, made!.snapshot_id, path);
  const named = (await at.repository.verify()).problems.filter(({ object }) => object === tree);
  assert.ok(named.length > 0);
  for (const { kind, losses } of named) {
    assert.match(kind, /^(tree|blob)_damaged$/);
    assert.deepEqual(losses, [{ snapshot_id, path }]);
  }
});
