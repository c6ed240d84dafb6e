import assert from "node:assert/strict";
import { linkSync, mkdirSync, readdirSync, readFileSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { CairnError } from "../../errors.ts";
import { acquireLock } from "../../repository/locks.ts";
import type { BackupRepository, PathPattern } from "../../contract/index.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, type BackupScene, damageBlob, nodeAt, SCHEMES, withNode } from "../testing-far.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";

/** Two snapshots; both have `deep/secret.key`, the first also `other.KEY`, the second a second name of the former. */
async function withSecrets({ client, repository, folder, write }: BackupScene): Promise<[string, string]> {
  write("deep/secret.key", "hush ".repeat(100));
  write("other.KEY", "other\n");
  const first = await client.createBackup(repository, { save: true, tags: ["t"] });
  rmSync(join(folder, "other.KEY"));
  linkSync(join(folder, "deep/secret.key"), join(folder, "zz-linked"));
  const second = await client.createBackup(repository, { save: true });
  return [first.snapshot!.snapshot_id, second.snapshot!.snapshot_id];
}

async function idsOf(repository: BackupRepository): Promise<string[]> {
  return (await repository.list()).snapshots.map(({ snapshot_id: id }) => id);
}

async function problemsOf(repository: BackupRepository): Promise<unknown[]> {
  return (await repository.verify()).problems.filter(({ severity }) => severity === "damage");
}

for (const scheme of SCHEMES)
  describe(`paths that rewrite removes from snapshots on a ${scheme} storage`, () => {
    test("entries that rewrite removed are missing from the new snapshots, which list them as taken out", async (t) => {
      const scene = await backupScene(t, scheme);
      const { repository, folder, root } = scene;
      const ids = await withSecrets(scene);
      const paths = (name: string): string => `${folder.slice(1)}/${name}`;
      const planned = await repository.rewrite({ exclude: ["*.key"], forget: true, dryRun: true });
      assert.deepEqual(
        planned.rewritten.map(({ snapshot_id: id, new_id, forgotten, taken_out: out }) => [
          id,
          new_id,
          forgotten,
          out.map(({ path }) => path),
        ]),
        ids.map((id) => [id, null, false, [paths("deep/secret.key")]]),
      );
      assert.deepEqual(await idsOf(repository), ids);
      const exclude: PathPattern[] = [{ pattern: "*.key", ignoreCase: true }];
      const done = await repository.rewrite({ exclude });
      assert.deepEqual(
        done.rewritten[0]!.taken_out.map(({ path }) => path),
        [paths("deep/secret.key"), paths("other.KEY")],
      );
      const made = done.rewritten.map(({ new_id: id }) => id!);
      assert.equal((await idsOf(repository)).length, 4);
      assert.equal((await repository.verify({ snapshots: made })).checked.digests, 2);
      // What was made before is found, and those without it are left alone.
      const again = await repository.rewrite({ exclude, forget: true });
      assert.deepEqual([again.unchanged, again.rewritten.map(({ new_id: id }) => id)], [2, made]);
      assert.ok(again.rewritten.every(({ forgotten }) => forgotten));
      assert.deepEqual((await idsOf(repository)).toSorted(), made.toSorted());
      assert.deepEqual((await repository.list()).snapshots.map(({ tags }) => tags).toSorted(), [
        ["rewrite"],
        ["t", "rewrite"],
      ]);
      await repository.prune({ instant: true, maxUnused: 0 });
      assert.deepEqual(await problemsOf(repository), []);
      assert.deepEqual((await repository.find("secret.key")).found, []);
      const restored = await repository.restore(made[1]!, join(root, "back"));
      assert.deepEqual(
        restored.left_out.map(({ path, reason, detail }) => [path, reason, detail]),
        [["deep/secret.key", "taken_out", "taken out of the snapshot after it was made"]],
      );
      rmSync(join(folder, "deep/secret.key"));
      assert.equal(restored.proof?.state_digest, walkDigests(folder).state);
      assert.equal(restored.proof?.receipt, null);
    });

    test("entries that rewrite removed stay in the folder if a snapshot without them is restored in place", async (t) => {
      const scene = await backupScene(t, scheme);
      const { client, repository, folder, write } = scene;
      await withSecrets(scene);
      const { rewritten } = await repository.rewrite({ exclude: ["deep/secret.key"], forget: true });
      write("a.txt", "changed\n");
      const restored = await client.restoreBackup(repository, rewritten[1]!.new_id!);
      assert.deepEqual(
        restored.left_out.map(({ path, reason }) => [path, reason]),
        [["deep/secret.key", "taken_out"]],
      );
      assert.match(readFileSync(join(folder, "deep/secret.key"), "utf8"), /hush/);
      assert.equal(readFileSync(join(folder, "a.txt"), "utf8"), "a\n");
    });
  });

test("a rewrite pattern with a leading slash is relative to the saved folder", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root, write } = scene;
  mkdirSync(join(folder, "x/deep"), { recursive: true });
  write("x/deep/b.txt", "b\n");
  await client.createBackup(repository, { save: true });
  const { rewritten } = await repository.rewrite({ exclude: ["/deep"], forget: true });
  assert.deepEqual(
    rewritten[0]!.taken_out.map(({ path, kind }) => [path, kind]),
    [[`${folder.slice(1)}/deep`, "directory"]],
  );
  await repository.restore("latest", join(root, "back"));
  assert.deepEqual(readdirSync(join(root, "back")).toSorted(), ["a.txt", "many", "x"]);
  assert.deepEqual(readdirSync(join(root, "back/x/deep")), ["b.txt"]);
  const nothing = await repository.rewrite({ exclude: ["/deep", "manifest.json", "/.cairn"], forget: true });
  assert.deepEqual([nothing.rewritten, nothing.unchanged], [[], 1]);
});

test("rewrite takes an absolute path if no path below the saved folder matches", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder } = scene;
  await client.createBackup(repository, { save: true });
  const [found] = (await repository.find("b.txt")).found;
  const { rewritten } = await repository.rewrite({ exclude: [found!.path] });
  assert.deepEqual(
    rewritten[0]!.taken_out.map(({ path }) => `/${path}`),
    [`${folder}/deep/b.txt`],
  );
});

test("rewrite removes entries of a tree at two paths only at the paths that the pattern matches", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  for (const name of ["one", "two", "one/two"]) {
    mkdirSync(join(folder, name, "same"), { recursive: true });
    writeFileSync(join(folder, name, "same/x.key"), "k");
    utimesSync(join(folder, name, "same/x.key"), 1, 1);
  }
  const { snapshot } = await client.createBackup(repository, { save: true });
  const takenOut = async (pattern: string): Promise<string[]> => {
    const { rewritten } = await repository.rewrite({
      snapshots: [snapshot!.snapshot_id],
      exclude: [pattern],
      dryRun: true,
    });
    return rewritten.flatMap(({ taken_out: out }) => out.map(({ path }) => path.slice(folder.length)));
  };
  assert.deepEqual(await takenOut("*.key"), ["one/same/x.key", "one/two/same/x.key", "two/same/x.key"]);
  assert.deepEqual(await takenOut("two/same/x.key"), ["one/two/same/x.key", "two/same/x.key"]);
  assert.deepEqual(await takenOut("/one/same"), ["one/same"]);
  const { rewritten } = await repository.rewrite({ exclude: ["/two/same"] });
  await repository.restore(rewritten[0]!.new_id!, join(root, "back"));
  assert.deepEqual(readdirSync(join(root, "back/two")), []);
  assert.deepEqual(readdirSync(join(root, "back/one/two/same")), ["x.key"]);
});

test("rewrite refuses a pattern that matches both a relative and an absolute path", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, write } = scene;
  const again = join(folder, folder);
  mkdirSync(again, { recursive: true });
  write(`${folder.slice(1)}/cache`, "in it\n");
  write("cache", "of it\n");
  await client.createBackup(repository, { save: true });
  await assert.rejects(repository.rewrite({ exclude: [`${folder}/cache`], forget: true }), hasCode("usage"));
  assert.equal((await idsOf(repository)).length, 1);
  const { rewritten } = await repository.rewrite({ exclude: ["cache"], dryRun: true });
  assert.equal(rewritten[0]!.taken_out.length, 2);
});

test("rewrite refuses a pattern that matches everything, or the saved folder itself", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder } = scene;
  await client.createBackup(repository, { save: true });
  for (const exclude of ["/", "//", "*", "**", folder, dirname(folder)])
    await assert.rejects(repository.rewrite({ exclude: [exclude], forget: true }), hasCode("usage"), exclude);
  assert.equal((await idsOf(repository)).length, 1);
  // A name of what leads to the folder is no name in it.
  assert.equal((await repository.rewrite({ exclude: [basename(folder)] })).unchanged, 1);
});

test("rewrite matches absolute paths in a snapshot that another program made", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root } = scene;
  const { snapshot } = await client.createBackup(repository, { save: true });
  const foreign = await withNode(
    repository as OpenedRepository,
    snapshot!.snapshot_id,
    ".cairn/manifest.json",
    async () => ({
      name: Buffer.from("nothing"),
    }),
  );
  const { rewritten } = await repository.rewrite({ snapshots: [foreign], exclude: [`${folder}/deep`] });
  const restored = await repository.restore(rewritten[0]!.new_id!, join(root, "back"));
  assert.deepEqual([restored.left_out, readdirSync(join(root, "back", folder))], [[], ["a.txt", "many"]]);
});

test("rewrite with `forget` only removes a snapshot whose stream matches the pattern", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  async function* bytes(): AsyncIterable<Uint8Array> {
    yield Buffer.from("secret");
  }
  await repository.createFromStream(bytes(), { filename: "dump.sql" });
  const { rewritten } = await repository.rewrite({ exclude: ["*.sql"], forget: true });
  assert.deepEqual(
    rewritten.map(({ new_id: id, forgotten }) => [id, forgotten]),
    [[null, true]],
  );
  assert.deepEqual(await idsOf(repository), []);
});

test("rewrite refuses an empty list of patterns, and leaves a snapshot with lost content as it is", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, folder, place } = scene;
  const [first] = await withSecrets(scene);
  await assert.rejects(repository.rewrite({ exclude: [] }), hasCode("usage"));
  await assert.rejects(repository.rewrite({ exclude: ["["] }), hasCode("usage"));
  writeFileSync(join(folder, "large"), Buffer.alloc(1000, "l"));
  await scene.client.createBackup(repository, { save: true });
  const blob = (await nodeAt(repository, "latest", `${folder}/large`)).content![0]!;
  await damageBlob(scene, blob);
  await repository.repair({ what: "packs" });
  assert.ok(readdirSync(join(place, "snapshots")).length === 3);
  const { snapshot_id: last } = (await repository.list()).snapshots.at(-1)!;
  const { rewritten, unreadable, lacking } = await repository.rewrite({ exclude: ["secret.key"], forget: true });
  assert.deepEqual([rewritten.length, unreadable, lacking], [2, [], [last]]);
  assert.ok(!(await idsOf(repository)).includes(first));
});

test("patterns of restores and saves may be absolute paths", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, folder, root, write } = scene;
  write("deep/secret.key", "hush");
  await client.createBackup(repository, { save: true });
  await repository.restore("latest", join(root, "one"), { exclude: [`${folder}/deep`] });
  assert.deepEqual(readdirSync(join(root, "one")).toSorted(), ["a.txt", "many"]);
  await repository.restore("latest", join(root, "two"), { include: [`${folder}/deep/*.key`] });
  assert.deepEqual(readdirSync(join(root, "two")), ["deep"]);
  assert.deepEqual(readdirSync(join(root, "two/deep")), ["secret.key"]);
  write("a.txt", "other\n");
  const { snapshot } = await client.createBackup(repository, { save: true, exclude: [`${folder}/deep/secret.key`] });
  const { entries } = await repository.show(snapshot!.snapshot_id, "deep");
  assert.deepEqual(
    entries.map(({ path }) => path),
    ["deep/b.txt"],
  );
});

test("rewrite keeps the tags of a snapshot although an equal snapshot was rewritten before", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  const [first] = await withSecrets(scene);
  const { access } = repository as OpenedRepository;
  const exclude = ["*.key"];
  await repository.rewrite({ snapshots: [first], exclude });
  const { tagged } = await repository.tag({ snapshots: [first], add: ["release"] });
  const old = await access.repository.loadSnapshot(tagged[0]!.new_id!);
  // As a copy there and back leaves them.
  await access.repository.saveSnapshot({ ...old, summary: { backup_end: "2026-01-01T00:00:00Z" } });
  const { rewritten } = await repository.rewrite({ tags: [["release"]], exclude, forget: true });
  assert.equal(new Set(rewritten.map(({ new_id: id }) => id)).size, 2);
  const tags = (await repository.list({ tags: [["rewrite"]] })).snapshots.map((each) => each.tags.join());
  assert.deepEqual(tags.toSorted(), ["t,release,rewrite", "t,release,rewrite", "t,rewrite"]);
});

test("`latest` and retention rules choose the complete original before its rewritten copy", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, repository, write } = scene;
  write("secret.key", "hush");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const whole = snapshot!.snapshot_id;
  await repository.rewrite({ exclude: ["*.key"] });
  assert.deepEqual(
    (await repository.list({ snapshots: ["latest"] })).snapshots.map(({ snapshot_id: id }) => id),
    [whole],
  );
  const { groups } = await repository.forget({ retention: { keepLast: 1 }, dryRun: true });
  assert.deepEqual(
    groups[0]!.snapshots.filter(({ keep }) => keep).map(({ snapshot_id: id }) => id),
    [whole],
  );
  const shown = await repository.show(snapshot!.save_point_id!, "");
  assert.equal(shown.snapshot.snapshot_id, whole);
  // By the point's id it is not known which of them is meant.
  const snapshots = [snapshot!.save_point_id!.slice(0, 12)];
  await assert.rejects(repository.forget({ snapshots }), hasCode("ambiguous"));
  await assert.rejects(repository.tag({ snapshots, add: ["x"] }), hasCode("ambiguous"));
  await assert.rejects(repository.rewrite({ snapshots, exclude: ["a.txt"] }), hasCode("ambiguous"));
});

test("the error of rewrite counts the new snapshots if the old ones could not be removed", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, place } = scene;
  await withSecrets(scene);
  const { access } = repository as OpenedRepository;
  const other = await acquireLock(access.repository, { exclusive: false });
  t.after(async () => other.release());
  await assert.rejects(
    repository.rewrite({ exclude: ["*.key"], forget: true, lockTimeoutMs: 200 }),
    (error: CairnError) => {
      assert.match(error.message, /2 new snapshots made, but not all of the old snapshots were removed/);
      return error.code === "busy";
    },
  );
  assert.equal(readdirSync(join(place, "snapshots")).length, 4);
});
