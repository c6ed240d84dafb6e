import assert from "node:assert/strict";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, damagePack, SCHEMES } from "../testing-far.ts";

for (const scheme of SCHEMES) {
  describe(`repair of a repository on a ${scheme} storage`, () => {
    test("the next backup stores content again that was lost with a damaged pack", async (t) => {
      const { client, repository, place, folder, root } = await backupScene(t, scheme);
      await client.createBackup(repository, { save: true });
      const pack = damagePack(place, () => 20, "largest");
      const planned = await repository.repair({ what: "packs", plan: true });
      assert.deepEqual([planned.dropped_packs.map((each) => each.pack), planned.lost_blobs], [[pack], null]);
      const done = await repository.repair({ what: "packs" });
      assert.ok(done.lost_blobs!.length === 1 && done.saved_blobs! > 10, JSON.stringify(done));
      assert.equal((await repository.verify()).problems.filter(({ kind }) => kind === "blob_missing").length, 1);
      const again = await client.createBackup(repository);
      assert.deepEqual([again.unchanged, again.added.data_blobs], [true, 1]);
      assert.deepEqual((await repository.verify()).problems, []);
      await repository.restore("latest", join(root, "mended"));
      assert.equal(walkDigests(join(root, "mended")).state, walkDigests(folder).state);
    });

    test("repair of packs saves the intact blobs of a damaged pack that no index lists", async (t) => {
      const { client, repository, place } = await backupScene(t, scheme);
      await client.createBackup(repository, { save: true });
      const pack = damagePack(place, () => 20, "largest");
      for (const name of readdirSync(join(place, "index"))) rmSync(join(place, "index", name));
      const done = await repository.repair({ what: "packs" });
      assert.deepEqual([done.added_packs.length, done.dropped_packs.map((each) => each.pack)], [1, [pack]]);
      assert.ok(done.lost_blobs!.length === 1 && done.saved_blobs! > 2, JSON.stringify(done));
      const kinds = (await repository.verify()).problems.map(({ kind }) => kind);
      assert.ok(!kinds.includes("pack_damaged") && !kinds.includes("blob_damaged"), kinds.join(" "));
    });

    test("repair of the index builds a lost or damaged index file again from the packs", async (t) => {
      const { client, repository, place } = await backupScene(t, scheme);
      await client.createBackup(repository, { save: true });
      const index = join(place, "index");
      const [name] = readdirSync(index);
      writeFileSync(join(index, name!), "nonsense");
      assert.ok((await repository.verify({ quick: true })).problems.some(({ kind }) => kind === "index_damaged"));
      const done = await repository.repair({ what: "index" });
      assert.deepEqual([done.added_packs.length, done.damaged_indexes], [2, [name]]);
      assert.deepEqual((await repository.verify()).problems, []);
      for (const each of readdirSync(index)) rmSync(join(index, each));
      assert.equal((await repository.repair({ what: "index" })).added_packs.length, 2);
      assert.deepEqual((await repository.verify()).problems, []);
      assert.deepEqual((await repository.repair({ what: "index" })).added_packs, []);
    });
  });
}

test("find lists the snapshots that contain a name, and diff compares two snapshots", async (t) => {
  const { client, repository, folder, write } = await backupScene(t, "far");
  const first = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  write("deep/new.txt", "new\n");
  write("a.txt", "longer than before\n");
  rmSync(join(folder, "many/3"));
  const second = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  const { found } = await repository.find("new.*");
  assert.deepEqual(
    found.map(({ snapshot_id: id, path, size }) => [id, path, size]),
    [[second, `${folder}/deep/new.txt`, 4]],
  );
  assert.equal((await repository.find("B.TXT", { ignoreCase: true })).found.length, 2);
  await assert.rejects(repository.find("1a2b3c4d", { ignoreCase: true, object: "blob" }), hasCode("usage"));
  assert.equal((await repository.find("deep/*.txt", { snapshots: [first] })).found.length, 1);
  assert.deepEqual((await repository.find("*", { limit: 3 })).truncated, true);
  const { entries } = await repository.diff(first, second);
  const changes = entries.filter(({ kind }) => kind === "file").map(({ change, path }) => `${change} ${path}`);
  assert.deepEqual(changes, ["modified a.txt", "added deep/new.txt", "removed many/3"]);
  const stats = await repository.stats();
  assert.deepEqual([stats.snapshots, stats.packs, stats.unindexed_packs], [2, 4, 0]);
  assert.equal(((await repository.cat("snapshot", second)).content as { hostname: string }).hostname.length > 0, true);
  const tree = (await repository.cat("tree", (await repository.list()).snapshots[0]!.tree)).content;
  assert.ok(Array.isArray((tree as { nodes: unknown[] }).nodes));
  const { keys } = await repository.keys();
  assert.doesNotMatch(JSON.stringify(await repository.cat("key", keys[0]!.key_id)), /salt|data/);
  await assert.rejects(repository.cat("moon"), hasCode("usage"));
  await assert.rejects(repository.cat("blob", "ffffffffffff"), hasCode("not_found"));
});
