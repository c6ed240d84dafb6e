import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, heldPlace, type HeldPlace, pointsDirectory, treeOf } from "../fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { firstOf } from "../fixtures/long.ts";
import { someOf } from "../crash/rounds.ts";

/** What a point's tree of clones still holds is cloned back, and shares its room with it. */

const LARGE = 48 << 20;

function later(ms = 1200): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Bytes of a file system that are in use, once all is written. */
function used(root: string): number {
  execFileSync("sync", ["-f", root]);
  const { bsize, blocks, bfree } = fs.statfsSync(root);
  return (blocks - bfree) * bsize;
}

interface Saved extends HeldPlace {
  id: string;
  state: ReturnType<typeof readFolder>;
}

/** A point with a large file of which no byte can be compressed, sealed; null where it cannot be. */
async function saved(t: TestContext, kind: "xfs" | "btrfs" = "xfs"): Promise<Saved | null> {
  const place = await heldPlace(t, {
    kind,
    engine: "reflink-copy",
    options: { size: 640 << 20 },
    fill: (folder) => {
      makeFirst(folder);
      fs.writeFileSync(path.join(folder, "large"), randomBytes(LARGE));
      for (const name of ["one", "two"]) {
        fs.mkdirSync(path.join(folder, "twins", name), { recursive: true });
        fs.writeFileSync(path.join(folder, "twins", name, "file"), name);
        fs.utimesSync(path.join(folder, "twins", name, "file"), 1e9, 1e9);
      }
    },
  });
  if (place === null) return null;
  const { save_point_id: id } = await place.client.save();
  await place.client.seal();
  return { ...place, id, state: readFolder(place.folder) };
}

for (const kind of firstOf(["xfs", "btrfs"] as const, 1)) {
  test(`on ${kind} a restore clones files from the held tree and uses almost no extra space`, async (t) => {
    const place = await saved(t, kind);
    if (place === null) return;
    const { client, folder, volume, id, state } = place;
    makeSecond(folder);
    fs.rmSync(path.join(folder, "large"));
    const second = readFolder(folder);
    const before = used(volume.root);
    await client.restore({ target: id });
    const grown = used(volume.root) - before;
    assert.ok(grown < LARGE / 4, `${grown} bytes more are in use`);
    assertFolder(folder, state, "given back");
    assert.equal(
      (await client.history(undefined, 0, { all: true })).save_points.find((each) => each.save_point_id === id)!
        .payload_root_hash,
      walkDigests(folder).state,
    );
    assert.equal((await client.status()).clean, true);
    // Written to, it is the folder's own.
    fs.writeFileSync(path.join(folder, "large"), "small");
    await client.undo({ over: true });
    assertFolder(folder, second, "undone");
    assert.deepEqual((await client.verify(id)).problems, []);
    assertHeldTidy(place, "after an undo");
  });

  test(`on ${kind} forks, views and restores elsewhere clone files from the held tree`, async (t) => {
    const place = await saved(t, kind);
    if (place === null) return;
    const { client, folder, volume, id, state } = place;
    const before = used(volume.root);
    const to = path.join(volume.root, "to");
    assert.deepEqual((await client.restore({ target: id, to })).left_out, []);
    const fork = path.join(volume.root, "fork");
    await client.fork(id, fork);
    const view = await client.view(id);
    const part = path.join(volume.root, "part");
    await client.restore({ target: id, to: part, paths: ["large"] });
    const grown = used(volume.root) - before;
    assert.ok(grown < LARGE / 4, `${grown} bytes more are in use`);
    assertFolder(to, state, "elsewhere");
    assertFolder(fork, state, "forked");
    const large = fs.readFileSync(path.join(folder, "large"));
    for (const each of [view.path, part]) assert.deepEqual(fs.readFileSync(path.join(each, "large")), large, each);
    assert.equal(fs.statSync(path.join(view.path, "large")).mode & 0o222, 0);
    await client.closeView(view.view_id);
  });
}

/** Changes a file and sets its times back, to the nanosecond. */
function unseen(file: string, edit: (file: string) => void): void {
  const times = `${file}-times`;
  execFileSync("touch", ["-r", file, times]);
  edit(file);
  execFileSync("touch", ["-r", times, file]);
  fs.rmSync(times);
}

const TAMPERINGS: readonly { title: string; edit: (tree: string) => void }[] = [
  { title: "is gone", edit: (tree) => fs.rmSync(tree, { recursive: true }) },
  {
    title: "has other content in files whose times were set back",
    edit: (tree) => {
      for (const name of ["large", "same/updated.txt"])
        unseen(path.join(tree, name), (file) => {
          const fd = fs.openSync(file, "r+");
          fs.writeSync(fd, "NEVER", 0);
          fs.closeSync(fd);
        });
    },
  },
  {
    title: "has two folders with files of the same sizes and times swapped",
    edit: (tree) => {
      const at = (name: string): string => path.join(tree, "twins", name);
      fs.renameSync(at("one"), at("away"));
      fs.renameSync(at("two"), at("one"));
      fs.renameSync(at("away"), at("two"));
    },
  },
  {
    title: "has links in the place of files and folders",
    edit: (tree) => {
      fs.writeFileSync(path.join(tree, "../elsewhere"), "NEVER");
      fs.rmSync(path.join(tree, "same/updated.txt"));
      fs.symlinkSync("../../elsewhere", path.join(tree, "same/updated.txt"));
      fs.renameSync(path.join(tree, "goes"), path.join(tree, "away"));
      fs.symlinkSync("away", path.join(tree, "goes"));
    },
  },
];

for (const { title, edit } of someOf(TAMPERINGS, 2)) {
  test(`restore takes content from the store if a held tree ${title}`, async (t) => {
    const place = await saved(t);
    if (place === null) return;
    const { client, folder, volume, id, state } = place;
    later();
    edit(treeOf(client, 1));
    makeSecond(folder);
    for (const name of ["large", "twins"]) fs.rmSync(path.join(folder, name), { recursive: true });
    await client.restore({ target: id });
    assertFolder(folder, state, "given back");
    const to = path.join(volume.root, "to");
    await client.restore({ target: id, to });
    assertFolder(to, state, "elsewhere");
    await client.fork(id, path.join(volume.root, "fork"));
    assertFolder(path.join(volume.root, "fork"), state, "forked");
  });
}

test("a killed restore from clones leaves the old or the new state", async (t) => {
  const place = await saved(t);
  if (place === null) return;
  const { client, folder, id, state } = place;
  makeSecond(folder);
  fs.rmSync(path.join(folder, "large"));
  const second = readFolder(folder);
  for (const [name, wanted] of [
    ["restore.staging-made", second],
    ["restore.staged", second],
    ["restore.committed", state],
  ] as const) {
    const killed = cairn(["restore", id, "-C", folder], { failpoint: name });
    assert.ok(killed.killed, `${name}: ${killed.stderr}`);
    await client.status();
    await client.seal();
    assertFolder(folder, wanted, name);
    for (const place of [
      path.join(client.controlDirectory, "tmp"),
      path.join(path.dirname(pointsDirectory(client)), "journal"),
    ])
      assert.deepEqual(fs.readdirSync(place), [], name);
  }
});

test("a fork or restore --to killed while it makes clones leaves no folder", async (t) => {
  const place = await saved(t);
  if (place === null) return;
  const { client, folder, volume, id, state } = place;
  const to = path.join(volume.root, "to");
  const there = fs.readdirSync(volume.root);
  for (const name of ["write.content-written"])
    for (const call of [
      ["restore", id, "--to", to],
      ["fork", id, to],
    ]) {
      const killed = cairn([...call, "-C", folder], { failpoint: name });
      assert.ok(killed.killed, `${name}: ${killed.stderr}`);
      await client.save({ skipUnchanged: true });
      assert.deepEqual(fs.readdirSync(volume.root), there, `${name} ${call[0]}`);
      assert.deepEqual(fs.readdirSync(path.join(client.controlDirectory, "partial")), [], `${name} ${call[0]}`);
    }
  await client.fork(id, to);
  assertFolder(to, state, "at last");
});

test("an aborted fork leaves no folder", async (t) => {
  const place = await saved(t);
  if (place === null) return;
  const { client, volume, id } = place;
  const abort = new AbortController();
  const stopped = client.fork(id, path.join(volume.root, "stopped"), { signal: abort.signal });
  setTimeout(() => abort.abort(), 10);
  await assert.rejects(stopped, { code: "interrupted" });
  assert.equal(fs.existsSync(path.join(volume.root, "stopped")), false);
  assertHeldTidy(place, "after a fork was stopped");
});
