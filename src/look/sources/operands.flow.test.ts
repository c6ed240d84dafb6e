import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test, type TestContext } from "node:test";
import { backupScene, type BackupScene, SCHEMES } from "../../backup/testing-far.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { ownPointsOnly } from "../../workspace/open/siblings.ts";

/** Calls that take operands give one answer for one state, as a folder, a point and a snapshot. */

interface States extends BackupScene {
  first: string;
  snapshot: string;
  ask: { repository: BackupScene["repository"] };
}

/** The folder has changed since its point `first`, of which `snapshot` is the backup. */
async function twoStates(t: TestContext, scheme: "local" | "far"): Promise<States> {
  const scene = await backupScene(t, scheme);
  const { folder, write, client, repository } = scene;
  writeFileSync(join(folder, "large"), randomBytes(3 << 20));
  writeFileSync(join(folder, "larger"), randomBytes(3 << 20));
  write("deep/er/c.txt", "c\n");
  linkSync(join(folder, "a.txt"), join(folder, "deep/a-again"));
  symlinkSync("a.txt", join(folder, "link"));
  const database = new DatabaseSync(join(folder, "deep/rows.db"));
  database.exec(
    "create table t (x); insert into t with recursive n(i) as (values (0) union all select i + 1 from n where i < 40000) select hex(randomblob(20)) from n",
  );
  database.close();
  const { save_point_id: first } = await client.save();
  const { snapshot } = await client.createBackup(repository, { point: first });
  const more = new DatabaseSync(join(folder, "deep/rows.db"));
  more.exec("update t set x = 1 where rowid = 7");
  more.close();
  write("a.txt", "changed\n");
  write("deep/er/new.txt", "new\n");
  writeFileSync(join(folder, "larger"), randomBytes(3 << 20));
  rmSync(join(folder, "many/7"));
  mkdirSync(join(folder, "empty"));
  return { ...scene, first, snapshot: snapshot!.snapshot_id, ask: { repository } };
}

for (const scheme of SCHEMES)
  describe(`a ${scheme} snapshot`, () => {
    test("equals the point that it was made of, although its files and databases are stored otherwise", async (t) => {
      const { client, first, snapshot, ask } = await twoStates(t, scheme);
      const equal = await client.diff(first, "backup:latest", ask);
      assert.deepEqual(equal, { from: first, to: `backup:${snapshot}`, entries: [] });
      assert.deepEqual((await client.diff(`backup:${first}:deep`, `${first}:deep`, ask)).entries, []);
    });

    test("differs from the folder, and from a later point, as its point does", async (t) => {
      const { client, first, snapshot, ask, folder } = await twoStates(t, scheme);
      const { entries: expected } = await client.diff(first);
      const names = expected.map(({ path, change }) => `${change} ${path}`);
      assert.ok(names.includes("modified larger") && names.includes("modified deep/rows.db"), names.join(", "));
      assert.ok(names.includes("removed many/7") && names.includes("added empty"), names.join(", "));
      const withFolder = await client.diff("backup:latest", null, ask);
      assert.deepEqual(withFolder, { from: `backup:${snapshot}`, to: null, entries: expected });
      assert.deepEqual((await client.diff("backup:latest", ".", ask)).entries, expected);
      const { save_point_id: second } = await client.save();
      assert.deepEqual((await client.diff("backup:latest", "latest", ask)).entries, expected);
      const { entries: back } = await client.diff("latest", "backup:latest", ask);
      assert.deepEqual(back, (await client.diff(second, first)).entries);
      const { from, to, entries: below } = await client.diff("backup:latest:deep", `${second}:deep`, ask);
      assert.deepEqual([from, to], [`backup:${snapshot}:deep`, `${second}:deep`]);
      const inDeep = expected.flatMap(({ path, ...rest }) =>
        path.startsWith("deep/") ? [{ path: path.slice("deep/".length), ...rest }] : [],
      );
      assert.deepEqual(below, inDeep);
      const whole = await client.diff(`backup:latest:${folder}/deep`, `${second}:deep`, ask);
      assert.deepEqual(whole, { from, to, entries: below });
      assert.deepEqual((await client.diff(`${first}:deep`, join(folder, "deep"))).entries, inDeep);
      assert.deepEqual((await client.diff(`${first}:deep`)).entries, inDeep);
      const chosen = await client.diff("backup:latest", "latest", { ...ask, paths: ["deep/er"] });
      assert.deepEqual(
        chosen.entries.map(({ path }) => path),
        expected.map(({ path }) => path).filter((path) => path === "deep/er" || path.startsWith("deep/er/")),
      );
    });

    test("gives the same bytes, lines and rows as its point", async (t) => {
      const { client, first, snapshot, ask, folder } = await twoStates(t, scheme);
      const bytesOf = async (target: string | null, path: string, range = {}): Promise<Buffer> => {
        const pieces: Uint8Array[] = [];
        for await (const piece of client.read(target, path, { ...ask, ...range })) pieces.push(piece);
        return Buffer.concat(pieces);
      };
      const large = await bytesOf(first, "large");
      assert.ok((await bytesOf("backup:latest", "large")).equals(large));
      const range = { offset: 2_500_000, length: 70_000 };
      assert.ok((await bytesOf("backup:latest", "large", range)).equals(large.subarray(2_500_000, 2_570_000)));
      assert.equal((await bytesOf("backup:latest:deep", "er/c.txt")).toString(), "c\n");
      assert.equal((await bytesOf(`backup:latest:${folder}/deep`, "er/c.txt")).toString(), "c\n");
      const archive = { archive: "tar" } as const;
      const ofWhole = await bytesOf(`backup:latest:${folder}/deep/er`, "", archive);
      assert.ok(ofWhole.equals(await bytesOf("backup:latest:deep", "er", archive)));
      assert.equal((await bytesOf(join(folder, "deep/er"), "new.txt")).toString(), "new\n");
      assert.ok((await bytesOf("backup:latest", "deep/rows.db")).equals(await bytesOf(first, "deep/rows.db")));
      for (const path of ["nowhere", "deep"])
        await assert.rejects(bytesOf("backup:latest", path), hasCode(path === "deep" ? "conflict" : "not_found"));
      const { from, ...text } = await client.diffText("a.txt", "backup:latest", null, ask);
      assert.equal(from, `backup:${snapshot}`);
      assert.deepEqual({ from: first, ...text }, await client.diffText("a.txt", first));
      const { tables } = await client.diffDatabase("deep/rows.db", "backup:latest", null, ask);
      assert.equal(tables[0]?.changed, 1);
      assert.deepEqual(tables, (await client.diffDatabase("deep/rows.db", first)).tables);
    });
  });

test("operands that mean nothing fail with a hint, and so does a backup without a repository", async (t) => {
  const { client, root } = await backupScene(t, "local");
  await client.save();
  for (const [operand, code] of [
    ["backup:latest", "not_found"],
    ["backup:", "usage"],
    ["rest:https://host/", "usage"],
    [root, "not_a_workspace"],
    ["latest:nowhere", "not_found"],
    ["latest:a.txt", "conflict"],
    [join(root, "missing"), "not_found"],
    ["nothing:a", "invalid_id"],
    [".", "usage"],
  ] as const)
    await assert.rejects(client.diff(operand), hasCode(code), operand);
});

test("a comparison with a backup warns of a workspace called backup, whose folder names its points", async (t) => {
  const { client, root, repository } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const fork = join(root, "backup");
  await client.fork("head", fork);
  writeFileSync(join(fork, "new"), "");
  const warnings: string[] = [];
  const ask = { repository, onWarning: (text: string) => warnings.push(text) };
  assert.deepEqual((await client.diff("latest", "backup:latest", ask)).entries, []);
  assert.match(warnings.join(), /the workspace "backup" are named by its folder: \S+\/backup:latest/);
  const { entries } = await client.diff("latest", fork);
  assert.deepEqual(
    entries.map(({ path }) => path),
    ["new"],
  );
  await client.diff("latest", `${fork}:latest`);
});

test("restore elsewhere writes the folder of a point that an operand names, with the folder's own metadata", async (t) => {
  const { client, root, folder, write } = await backupScene(t, "local");
  write("deep/er/c.txt", "c\n");
  linkSync(join(folder, "a.txt"), join(folder, "deep/a-again"));
  truncateSync(join(folder, "deep/b.txt"), 3 << 20);
  chmodSync(join(folder, "deep"), 0o750);
  utimesSync(join(folder, "deep"), 1000, 1000);
  await client.save();
  await client.fork("head", join(root, "fork"), { name: "fork" });
  const restored = async (target: string, options: { paths?: string[] } = {}): Promise<string> => {
    const to = join(root, `to-${target.replaceAll(/[:/]/g, "-")}-${options.paths?.length ?? 0}`);
    assert.deepEqual((await client.restore({ ...options, target, to })).left_out, []);
    return to;
  };
  for (const target of ["head:deep", "fork:latest:deep", `${join(root, "fork")}:latest:deep`]) {
    const to = await restored(target);
    assert.deepEqual(readdirSync(to).toSorted(), ["a-again", "b.txt", "er"]);
    assert.equal(readFileSync(join(to, "er/c.txt"), "utf8"), "c\n");
    const { mode, mtimeMs } = statSync(to);
    assert.deepEqual([mode & 0o777, mtimeMs], [0o750, 1_000_000]);
    assert.ok(statSync(join(to, "b.txt")).blocks * 512 < 3 << 20, "the holes are those of the file");
  }
  assert.deepEqual(readdirSync(await restored("head:deep", { paths: ["er/c.txt"] })), ["er"]);
  const refused = async (target: string, code: string): Promise<void> =>
    assert.rejects(client.restore({ target, to: join(root, "none") }), hasCode(code));
  await refused("head:deep/b.txt", "conflict");
  await refused("head:none", "not_found");
  await refused(".", "usage");
  await refused(join(root, "fork"), "usage");
  await refused("backup:latest", "usage");
  await ownPointsOnly.run(true, async () => {
    await refused("fork:latest:deep", "invalid_id");
    for (const target of [`${join(root, "fork")}:latest`, join(root, "fork"), "backup:latest"])
      await refused(target, "permission");
  });
});

/** Saves, forks the workspace, and makes a folder with one file a workspace with a control directory of its own. */
async function withOthers({ client, root, library, write }: BackupScene) {
  await client.save();
  const [fork, other] = [join(root, "fork"), join(root, "other")];
  await client.fork("head", fork, { name: "fork" });
  write("../other/a.txt", "other\n");
  return { fork, other, opened: await library.init(other) };
}

test("verify reads a point of another workspace in that workspace, and no folder, backup or part of a state", async (t) => {
  const scene = await backupScene(t, "local");
  const { client } = scene;
  const { fork, other, opened } = await withOthers(scene);
  await using _other = opened;
  await opened.save();
  const before = (await client.history()).save_points.length;
  const { checked } = await client.verify("head");
  for (const target of ["fork:latest", `${fork}:head`])
    assert.deepEqual((await client.verify(target)).checked, checked, target);
  assert.deepEqual((await client.verify(`${other}:latest`, { deep: true })).checked, { points: 1, files: 1, bytes: 6 });
  assert.equal((await client.history()).save_points.length, before, "the point was not received");
  const packs = join(opened.controlDirectory, "store/data");
  for (const file of readdirSync(packs, { recursive: true, withFileTypes: true }))
    if (file.isFile()) truncateSync(join(file.parentPath, file.name), 100);
  assert.ok((await client.verify(`${other}:latest`)).problems.length > 0);
  const refused = async (target: string, code: string): Promise<void> =>
    assert.rejects(client.verify(target), hasCode(code));
  for (const target of ["head:deep", "fork:latest:deep", ".", fork, "backup:latest"]) await refused(target, "usage");
  await ownPointsOnly.run(true, async () => {
    await refused("fork:latest", "invalid_id");
    for (const target of [`${other}:latest`, fork, "backup:latest"]) await refused(target, "permission");
  });
});

test("export writes a whole point of another workspace, which the envelope names", async (t) => {
  const scene = await backupScene(t, "local");
  const { client, root } = scene;
  const { fork, other, opened } = await withOthers(scene);
  await using _other = opened;
  const { save_point_id: id } = await opened.save();
  const exported = async (target: string, name: string): Promise<{ name: string; save_point_id: string }> => {
    await client.exportPoint(target, join(root, name));
    const envelope = JSON.parse(readFileSync(join(root, name, "snapshot.json"), "utf8")) as { config: never };
    return envelope.config;
  };
  assert.equal((await exported("fork:latest", "e1")).name, "fork");
  assert.equal((await exported(`${other}:latest`, "e2")).save_point_id, id);
  assert.equal(readFileSync(join(root, "e2/content/a.txt"), "utf8"), "other\n");
  const refused = async (target: string, to: string, code: string): Promise<void> =>
    assert.rejects(client.exportPoint(target, to), hasCode(code));
  for (const target of [".", fork]) await refused(target, join(root, "e3"), "usage");
  for (const place of [other, client.workspacePath()]) await refused(`${other}:latest`, join(place, "e3"), "refused");
  await ownPointsOnly.run(true, async () => {
    await refused("fork:latest", join(root, "e3"), "invalid_id");
    for (const target of [`${other}:latest`, "backup:latest"]) await refused(target, join(root, "e3"), "permission");
  });
});

for (const scheme of SCHEMES)
  test(`export writes a ${scheme} backup, and entries of it, as it writes the point's`, async (t) => {
    const { client, library, root, first, ask } = await twoStates(t, scheme);
    let count = 0;
    const exported = async (target: string, options: object = {}): Promise<object> => {
      const to = join(root, `export-${count++}`);
      const { path, duration_ms: _, ...result } = await client.exportPoint(target, to, { ...ask, ...options });
      const { config, files, entries } = JSON.parse(readFileSync(join(path, "snapshot.json"), "utf8")) as {
        config: { save_point_id: string; path?: string };
        files: object[];
        entries: object[];
      };
      assert.equal(config.save_point_id, first);
      return { result, part: config.path, files: files.map((file) => ({ ...file, allocated: 0 })), entries };
    };
    for (const path of ["", ":deep", ":deep/er/c.txt", ":deep/rows.db", ":link"])
      assert.deepEqual(await exported(`backup:latest${path}`), await exported(`${first}${path}`), path);
    const tar = join(root, "deep.tar");
    const { state_digest: digest } = await client.exportPoint("backup:latest:deep", tar, { ...ask, asTar: true });
    const imported = await library.importDirectory(tar, join(root, "imported"), { isTar: true });
    assert.equal(imported.state_digest, digest);
    assert.equal(readFileSync(join(root, "imported/er/c.txt"), "utf8"), "c\n");
    for (const target of ["backup:latest:nowhere", `${first}:nowhere`, "backup:none"])
      await assert.rejects(client.exportPoint(target, join(root, "none"), ask), hasCode("not_found"), target);
    assert.deepEqual(
      readdirSync(root).filter((name) => name.startsWith(".cairn-tmp-") || name === "none"),
      [],
    );
  });
