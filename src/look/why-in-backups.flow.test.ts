import assert from "node:assert/strict";
import { chmodSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { backupScene, damageBlob, nodeAt, SCHEMES } from "../backup/testing-far.ts";
import type { WhyOptions } from "../contract/index.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { ownPointsOnly } from "../workspace/open/siblings.ts";

for (const scheme of SCHEMES)
  describe(`why over backups in a ${scheme} repository`, () => {
    test("lists the snapshots that added, changed and removed a path, newest first", async (t) => {
      const { client, repository, folder, write } = await backupScene(t, scheme);
      const ids: string[] = [];
      const backup = async (): Promise<void> => {
        const { snapshot } = await client.createBackup(repository, { save: true });
        ids.push(snapshot!.snapshot_id);
      };
      await backup();
      write("deep/b.txt", "longer\n");
      await backup();
      write("a.txt", "another file\n");
      await backup();
      chmodSync(join(folder, "deep/b.txt"), 0o600);
      await backup();
      rmSync(join(folder, "deep/b.txt"));
      await backup();
      const told = async (path: string, options: WhyOptions = {}): Promise<unknown[]> => {
        const found = await client.why(path, { in: "backups", repository, ...options });
        assert.deepEqual([found.changes, found.backups?.damaged], [[], []]);
        return found.backups!.changes.map(({ snapshot, change, aspects, size_before: before, size_after: after }) => [
          ids.indexOf(snapshot.snapshot_id),
          change,
          aspects.filter((aspect) => aspect !== "times").join(),
          before ?? null,
          after ?? null,
        ]);
      };
      const expected = [
        [4, "removed", "", 7, null],
        [3, "modified", "mode", 7, 7],
        [1, "modified", "content", 2, 7],
        [0, "added", "", null, 2],
      ];
      assert.deepEqual(await told("deep/b.txt"), expected);
      assert.deepEqual(await told("deep/b.txt", { limit: 2 }), expected.slice(0, 2));
      assert.deepEqual(
        (await told("deep")).map((row) => (row as unknown[]).slice(0, 3)),
        [
          [4, "modified", "content"],
          [3, "modified", "content"],
          [1, "modified", "content"],
          [0, "added", ""],
        ],
      );
      assert.deepEqual(await told("nowhere"), []);
      const all = await client.why("deep/b.txt", { in: "all", repository, limit: 1 });
      assert.deepEqual([all.changes.length, all.truncated], [1, true]);
      assert.deepEqual([all.backups?.changes.length, all.backups?.truncated], [1, true]);
      assert.equal((await client.why("deep/b.txt")).backups, undefined);
    });
  });

test("why over backups names a snapshot in which the path cannot be read, and compares the others", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, write } = scene;
  const ids: string[] = [];
  for (const text of ["one\n", "two\n", "three\n"]) {
    write("deep/b.txt", text);
    ids.push((await client.createBackup(repository, { save: true })).snapshot!.snapshot_id);
  }
  const { subtree } = await nodeAt(repository, ids[1]!, `${folder}/deep`);
  await damageBlob(scene, subtree!);
  const { backups } = await client.why("deep/b.txt", { in: "backups", repository });
  const rows = backups!.changes.map(({ snapshot, change }) => [ids.indexOf(snapshot.snapshot_id), change]);
  assert.deepEqual(rows, [
    [2, "modified"],
    [0, "added"],
  ]);
  const lost = backups!.damaged.map(({ snapshot_id: id, path }) => [ids.indexOf(id), path]);
  assert.deepEqual(lost, [[1, "deep/b.txt"]]);
});

test("why over backups needs a repository, and the rights of the folder's owner", async (t) => {
  const { client } = await backupScene(t, "local");
  await client.save();
  await assert.rejects(client.why("a.txt", { in: "backups" }), hasCode("not_found"));
  await ownPointsOnly.run(true, async () => assert.rejects(client.why("a.txt", { in: "all" }), hasCode("permission")));
});
