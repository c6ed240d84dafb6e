import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { describe, test } from "node:test";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { readBlob } from "../archive/databases/nodes.ts";
import { backupScene, damageBlob, nodeAt, SCHEMES, withNode } from "../backup/testing-far.ts";
import type { OpenedRepository } from "../keep/opened-repository.ts";
import { hasCode } from "../keep/testing-folder.ts";
import { DATA_BLOB } from "../repository/index/blob-index.ts";
import { ownPointsOnly } from "../workspace/open/siblings.ts";

for (const scheme of SCHEMES)
  describe(`a backup in a ${scheme} repository, looked at from its folder`, () => {
    test("lists a page of a folder in the requested order, and gives it as an archive", async (t) => {
      const { client, repository, root, folder } = await backupScene(t, scheme);
      const { snapshot } = await client.createBackup(repository, { save: true });
      const id = snapshot!.snapshot_id;
      const found = await client.showBackup("latest", "many", { repository, sort: "size", reverse: true, limit: 2 });
      assert.deepEqual([found.snapshot.snapshot_id, found.kind], [id, "directory"]);
      assert.deepEqual(
        found.entries.map(({ path }) => path),
        ["many/49", "many/48"],
      );
      const archiveOf = async (target: string, path: string): Promise<Buffer> => {
        const pieces: Uint8Array[] = [];
        for await (const piece of client.read(target, path, { repository, archive: "tar" })) pieces.push(piece);
        return Buffer.concat(pieces);
      };
      const archive = await archiveOf("latest", "deep");
      assert.ok((await archiveOf("backup:latest", "deep")).equals(archive));
      assert.ok((await archiveOf("backup:latest:deep", "")).equals(archive));
      await assert.rejects(archiveOf("backup:latest", "nowhere"), hasCode("not_found"));
      await client.fork("head", join(root, "fork"), { name: "fork" });
      for (const operand of [
        "head:deep",
        "fork:latest:deep",
        join(folder, "deep"),
        `${join(root, "fork")}:latest:deep`,
      ])
        assert.ok((await archiveOf(operand, "")).equals(archive), operand);
      await assert.rejects(archiveOf("head:nowhere", ""), hasCode("not_found"));
      await ownPointsOnly.run(true, async () => {
        await assert.rejects(client.showBackup("latest", "", { repository }), hasCode("permission"));
        for (const operand of ["backup:latest", folder, join(root, "fork")])
          await assert.rejects(archiveOf(operand, "deep"), hasCode("permission"), operand);
        await assert.rejects(archiveOf("fork:latest", "deep"), hasCode("invalid_id"));
      });
    });
  });

test("the backups of a folder are listed without those of others, and one is restored as its plan showed", async (t) => {
  const { client, library, repository, folder, root } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const id = snapshot!.snapshot_id;
  const other = join(root, "other");
  mkdirSync(other);
  await (await library.init(other)).createBackup(repository, { save: true });
  const { snapshots } = await client.listBackups({ repository });
  assert.deepEqual(
    snapshots.map(({ snapshot_id, paths }) => [snapshot_id, paths]),
    [[id, [folder]]],
  );
  writeFileSync(join(folder, "a.txt"), "newer\n");
  writeFileSync(join(folder, "deep/b.txt"), "newer\n");
  const asked = { repository, paths: ["a.txt"] };
  const { plan_id: plan, planned_entries: planned } = await client.restoreFromBackup("latest", {
    ...asked,
    dryRun: true,
  });
  assert.deepEqual(
    planned!.map(({ action, path }) => [action, path]),
    [["update", "a.txt"]],
  );
  assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "newer\n", "a plan changes nothing");
  writeFileSync(join(folder, "a.txt"), "changed after the plan\n");
  await assert.rejects(client.restoreFromBackup("latest", { ...asked, plan: plan! }), hasCode("stale_plan"));
  const { undo_id: undo } = await client.restoreFromBackup(id, asked);
  assert.deepEqual(
    ["a.txt", "deep/b.txt"].map((name) => readFileSync(join(folder, name), "utf8")),
    ["a\n", "newer\n"],
  );
  assert.equal((await client.show(undo!)).save_point.message, `before restore of backup ${id.slice(0, 8)}`);
  const { operations } = await client.operations();
  assert.equal((operations[0]!.cause!["backup"] as { snapshot_id: string }).snapshot_id, id);
  await client.undo({ expected: undo! });
  assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "changed after the plan\n");
  await ownPointsOnly.run(true, async () => {
    await assert.rejects(client.listBackups({ repository }), hasCode("permission"));
    await assert.rejects(client.restoreFromBackup(id, asked), hasCode("permission"));
  });
});

test("an archive of a backup fails if a database cannot be placed at any path", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder } = scene;
  const database = new DatabaseSync(join(folder, "rows.db"));
  database.exec("CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(2000000))");
  database.close();
  const { snapshot } = await client.createBackup(repository, { save: true });
  const opened = repository as OpenedRepository;
  const id = await withNode(
    opened,
    snapshot!.snapshot_id,
    ".cairn/manifest.json",
    async ({ content }, { reader, add }) => {
      const manifest = Buffer.from(await readBlob(reader, content!, DATA_BLOB)).toString();
      const bytes = Buffer.from(manifest.replace(/"file_hashes":\[[^\]]*\]/, '"file_hashes":[]'));
      return { content: add("data", bytes), size: bytes.length };
    },
  );
  const { subtree } = await nodeAt(repository, id, "/.cairn/databases");
  const [stored] = ((await repository.cat("tree", subtree!)).content as { nodes: { subtree: string }[] }).nodes;
  await damageBlob(scene, stored!.subtree);
  for (const pieces of [
    client.read(`backup:${id}`, "", { repository, archive: "tar" }),
    repository.read(id, "", { archive: "tar" }),
  ])
    await assert.rejects(async () => {
      for await (const _ of pieces);
    }, hasCode("damaged"));
});
