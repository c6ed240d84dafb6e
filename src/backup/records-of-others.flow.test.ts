import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import type { Snapshot } from "../formats/restic/snapshot.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { backupScene, type BackupScene, damageBlob, nodeAt, SCHEMES, withManifest } from "./testing-far.ts";

/** Snapshots of other programs with a `/.cairn` that a restore of one of ours has put there: the manifest is of another state. */

/** As restic makes them; `paths`: what it was told to back up. */
async function otherProgram(at: BackupScene, paths?: string[]): Promise<string> {
  const opened = at.repository as OpenedRepository;
  const { repository } = opened.access;
  const { snapshot } = await at.client.createBackup(at.repository, { save: true });
  const digest = walkDigests(at.folder).state;
  const wrong = await withManifest(opened, snapshot!.snapshot_id, (text) => text.replace(digest, "ab".repeat(32)));
  const { time, tree, hostname, username, uid, gid, ...made } = await repository.loadSnapshot(wrong);
  const other: Snapshot = { time, tree, paths: paths ?? made.paths, hostname, username, uid, gid };
  const id = await repository.saveSnapshot(other);
  for (const each of [wrong, snapshot!.snapshot_id]) await repository.storage.remove("snapshots", each);
  return id;
}

test("restore and verify take another program's snapshot as it is although its root has Cairn's records", async (t) => {
  for (const scheme of SCHEMES) {
    const at = await backupScene(t, scheme);
    for (const paths of [undefined, ["/elsewhere"]]) {
      const id = await otherProgram(at, paths);
      const { problems, checked } = await at.repository.verify();
      assert.deepEqual([problems, checked.digests], [[], 0]);
      const target = join(at.root, `restored ${paths?.[0]?.length}`);
      const restored = await at.repository.restore(id, target);
      assert.deepEqual([restored.proof, restored.read_again, restored.left_out], [null, true, []]);
      assert.equal(walkDigests(join(target, at.folder)).state, walkDigests(at.folder).state);
      assert.match(readFileSync(join(target, ".cairn/manifest.json"), "utf8"), /(ab){32}/);
      const shown = await at.repository.show(id, "");
      assert.ok(shown.entries.some(({ path }) => path === ".cairn"));
      await (at.repository as OpenedRepository).access.repository.storage.remove("snapshots", id);
    }
  }
});

test("a copy of another program's snapshot with Cairn's records at its root passes verify", async (t) => {
  const [at, to] = [await backupScene(t, "local"), await backupScene(t, "local")];
  await otherProgram(at, ["/elsewhere"]);
  const { copied } = await at.repository.copyTo(to.repository);
  assert.deepEqual((await to.repository.verify()).problems, []);
  const target = join(at.root, "restored");
  await to.repository.restore(copied[0]!.new_id!, target);
  assert.ok(existsSync(join(target, ".cairn/manifest.json")));
});

test("repairSnapshots keeps another program's snapshot without the lost records at its root", async (t) => {
  const at = await backupScene(t, "local");
  const { repository, root } = at;
  const id = await otherProgram(at, [join(at.folder, "a/b/c/d")]);
  const [file, records] = [
    await nodeAt(repository, id, join(at.folder, "a.txt")),
    await nodeAt(repository, id, "/.cairn/manifest.json"),
  ];
  for (const { content } of [file, records]) await damageBlob(at, content![0]!);
  await repository.repair({ what: "packs" });
  const { repaired } = await repository.repairSnapshots();
  const made = repaired[0]!.new_id;
  assert.ok(made !== null, "nothing of it was kept");
  const target = join(root, "restored");
  await repository.restore(made, target);
  const kept = join(target, at.folder);
  assert.deepEqual([existsSync(join(kept, "a.txt")), existsSync(join(kept, "deep"))], [false, true]);
  assert.deepEqual(
    [existsSync(join(target, ".cairn")), existsSync(join(target, ".cairn/manifest.json"))],
    [true, false],
  );
});
