import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, readdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { resticCheck } from "../repository/testing-archive.ts";
import { backupScene } from "./testing-far.ts";

/** Puts something else in the place of a file. */
const SHAPES: Record<string, (path: string) => void> = {
  "a link to itself": (path) => symlinkSync(path, path),
  "a pipe": (path) => void execFileSync("mkfifo", [path]),
  "a folder": (path) => mkdirSync(join(path, "x"), { recursive: true }),
};

for (const [shape, put] of Object.entries(SHAPES))
  test(`${shape} named like a key, snapshot, index file or lock is reported, and other calls work`, async (t) => {
    const at = await backupScene(t, "local");
    const { client, repository, place, root } = at;
    const first = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
    at.write("more", "more\n");
    const second = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
    for (const kind of ["keys", "snapshots", "index", "locks", "data/ab"]) {
      mkdirSync(join(place, kind), { recursive: true });
      put(join(place, kind, "ab".repeat(32)));
    }
    const opened = await at.library.openRepository(at.options);
    t.after(async () => opened.close());
    const listed = await opened.list();
    assert.deepEqual(new Set(listed.snapshots.map(({ snapshot_id: id }) => id)), new Set([first, second]));
    assert.deepEqual(
      listed.damaged.map(({ snapshot_id: id }) => id),
      ["ab".repeat(32)],
    );
    assert.deepEqual((await opened.keys()).damaged.length, 1);
    assert.ok((await opened.restore(second, join(root, "to"))).proof !== null);
    at.write("again", "again\n");
    assert.ok((await client.createBackup(opened, { save: true })).snapshot !== null);
    const { problems } = await opened.verify();
    assert.deepEqual(problems.map(({ kind }) => kind).toSorted(), ["index_damaged", "key_damaged", "snapshot_damaged"]);
    await assert.rejects(opened.prune({ instant: true }), { code: "damaged" });
    for (const kind of ["keys", "snapshots", "index"]) rmSync(join(place, kind, "ab".repeat(32)), { recursive: true });
    await opened.prune({ instant: true });
    assert.deepEqual((await opened.verify()).problems, []);
  });

for (const [shape, put] of Object.entries(SHAPES))
  test(`save replaces a cache file by a new one if ${shape} lies at its path`, async (t) => {
    const at = await backupScene(t, "local");
    await at.client.save({ message: "one" });
    const { control_directory: control } = (await at.client.status()).workspace;
    const cache = join(control, "cache");
    const names = readdirSync(cache);
    assert.ok(names.some((name) => name.startsWith("stat-")));
    for (const name of names) {
      rmSync(join(cache, name), { recursive: true });
      put(join(cache, name));
    }
    const client = await at.library.open(at.folder);
    await client.status();
    at.write("more", "more\n");
    const { save_point_id: id } = await client.save({ message: "two" });
    await client.restore({ target: "head~1" });
    await client.restore({ target: id });
    assert.deepEqual((await client.verify(id)).problems, []);
    for (const name of names.filter((each) => each.startsWith("stat-") && !each.endsWith("-indexes")))
      assert.ok(statSync(join(cache, name)).isFile(), name);
  });

test("a repository with .DS_Store, ._x, conflict copies and lost+found works and passes restic's check", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, place, root } = at;
  await client.createBackup(repository, { save: true });
  const strew = (): void => {
    const folders = readdirSync(place, { recursive: true, withFileTypes: true }).filter((each) => each.isDirectory());
    for (const folder of [place, ...folders.map((each) => join(each.parentPath, each.name))]) {
      if (folder.includes("lost+found")) continue;
      writeFileSync(join(folder, ".DS_Store"), "Bud1");
      writeFileSync(join(folder, "desktop.ini"), "[x]");
      mkdirSync(join(folder, "lost+found"), { recursive: true });
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        if (!entry.isFile() || !/^([0-9a-f]{64}|config)$/.test(entry.name)) continue;
        writeFileSync(join(folder, `._${entry.name}`), "AppleDouble");
        copyFileSync(join(folder, entry.name), join(folder, `${entry.name} (Ann's conflicted copy 2026-11-26)`));
        copyFileSync(join(folder, entry.name), join(folder, `${entry.name}.sync-conflict-20261126-120000-ABCDEFG`));
      }
    }
  };
  strew();
  at.write("more", "more\n");
  const { snapshot } = await client.createBackup(repository, { save: true });
  strew();
  assert.equal((await repository.list()).snapshots.length, 2);
  assert.deepEqual((await repository.verify()).problems, []);
  await repository.forget({ retention: { keepLast: 1 }, prune: true, instant: true });
  const opened = await at.library.openRepository(at.options);
  t.after(async () => opened.close());
  assert.ok((await opened.restore(snapshot!.snapshot_id, join(root, "to"))).proof !== null);
  // restic itself fails on a foreign name in its folders of packs.
  for (const each of readdirSync(place, { recursive: true, withFileTypes: true }))
    if (!/^([0-9a-f]{64}|config)$/.test(each.name) && !each.isDirectory()) rmSync(join(each.parentPath, each.name));
  resticCheck(place);
});

test("initRepository accepts a folder that has only lost+found and .DS_Store", async (t) => {
  const at = await backupScene(t, "local");
  const place = join(at.root, "disk");
  mkdirSync(join(place, "lost+found"), { recursive: true });
  writeFileSync(join(place, ".DS_Store"), "Bud1");
  const options = { repository: `local:${place}`, password: "correct horse" };
  const made = await at.library.initRepository(options);
  t.after(async () => made.close());
  assert.ok((await at.client.createBackup(made, { save: true })).snapshot !== null);
});
