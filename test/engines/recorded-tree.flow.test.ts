import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { lookAfter } from "../../src/daemon/health.ts";
import type { ServedWorkspace } from "../../src/formats/records/daemon-state.ts";
import { cairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { type HeldKind, type HeldPlace, heldPlace, type HoldingEngine, treeOf } from "../fixtures/held-place.ts";
import { newFolder } from "../fixtures/work.ts";

/** A held tree counts only if it is the very tree that Cairn made for the point. */

function run(...words: string[]): void {
  execFileSync(words[0]!, words.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
}

const snapshot = (from: string, to: string): void => run("btrfs", "-q", "subvolume", "snapshot", "-r", from, to);
const setWritable = (tree: string, is: boolean): void =>
  run("btrfs", "property", "set", "-ts", tree, "ro", String(!is));
const unmount = (place: string): void => run("umount", "-l", place);

interface Scene {
  place: HeldPlace;
  tree: string;
  /** the tree that Cairn made, which lies beside its place */
  real: string;
  /** a folder that was there before any point */
  older: string;
}

/** Something that lies in a tree's place instead of it. */
interface Variant {
  put(scene: Scene): void;
  /** default: what lies there is removed */
  takeAway?(scene: Scene): void;
}

const ANYWHERE: Record<string, Variant> = {
  nothing: { put: () => undefined },
  "an empty folder": { put: ({ tree }) => fs.mkdirSync(tree) },
  "a folder with a file": {
    put: ({ tree }) => {
      fs.mkdirSync(tree);
      fs.writeFileSync(path.join(tree, "foreign"), "foreign");
    },
  },
  "a copy of all files": { put: ({ tree, real }) => run("cp", "-a", real, tree) },
  "a file": { put: ({ tree }) => fs.writeFileSync(tree, "no folder") },
  "a link to the tree": { put: ({ tree, real }) => fs.symlinkSync(real, tree) },
};

const MOUNTED: Record<string, Variant> = {
  "an older folder, moved here": {
    put: ({ tree, older }) => run("cp", "-a", older, tree),
  },
  "an older folder, mounted here": {
    put: ({ tree, older }) => {
      fs.mkdirSync(tree);
      run("mount", "--bind", older, tree);
    },
    takeAway: ({ tree }) => {
      unmount(tree);
      fs.rmdirSync(tree);
    },
  },
  "another file system": {
    put: ({ tree }) => {
      fs.mkdirSync(tree);
      run("mount", "-t", "tmpfs", "tmpfs", tree);
    },
    takeAway: ({ tree }) => {
      unmount(tree);
      fs.rmdirSync(tree);
    },
  },
};

const ON_BTRFS: Record<string, Variant> = {
  "a subvolume with the same files": {
    put: ({ tree, real }) => {
      run("btrfs", "-q", "subvolume", "create", tree);
      run("cp", "-a", `${real}/.`, tree);
      setWritable(tree, false);
    },
  },
  "a snapshot of the folder as it is": { put: ({ place, tree }) => snapshot(place.folder, tree) },
  "a snapshot of the tree": { put: ({ tree, real }) => snapshot(real, tree) },
  "a writable snapshot of the tree": {
    put: ({ tree, real }) => run("btrfs", "-q", "subvolume", "snapshot", real, tree),
  },
  "a snapshot of another point's tree": { put: ({ place, tree }) => snapshot(treeOf(place.client, 2), tree) },
  "another point's tree, mounted here": {
    put: ({ place, tree }) => {
      fs.mkdirSync(tree);
      run("mount", "--bind", treeOf(place.client, 2), tree);
    },
    takeAway: MOUNTED["an older folder, mounted here"]!.takeAway!,
  },
  "a received copy": {
    put: ({ place, tree, real }) => {
      const into = path.join(place.volume.root, "received");
      fs.mkdirSync(into);
      execFileSync("sh", ["-c", 'btrfs send -q "$1" | btrfs receive -q "$2"', "sh", real, into], { stdio: "pipe" });
      const received = path.join(into, path.basename(real));
      snapshot(received, tree);
      run("btrfs", "-q", "subvolume", "delete", received);
      fs.rmdirSync(into);
    },
  },
  "the tree made writable": {
    put: ({ tree, real }) => {
      fs.renameSync(real, tree);
      setWritable(tree, true);
    },
    takeAway: ({ tree, real }) => {
      setWritable(tree, false);
      fs.renameSync(tree, real);
    },
  },
  "a subvolume of the same UUID on a copy of the file system": {
    put: ({ place, tree, real }) => {
      run("sync");
      const { image } = place.volume as unknown as { image: string };
      run("cp", "--sparse=always", image, `${image}.twin`);
      fs.mkdirSync(tree);
      const inside = path.relative(place.volume.root, real);
      const mounted = spawnSync("mount", ["-o", `loop,subvol=${inside}`, `${image}.twin`, tree], { encoding: "utf8" });
      // Older kernels mount no second file system with one UUID.
      if (mounted.status !== 0) process.stderr.write(`not tried here: ${mounted.stderr}`);
    },
    takeAway: ({ tree }) => {
      spawnSync("umount", ["-l", tree]);
      fs.rmdirSync(tree);
    },
  },
};

/** Times of file systems are rounded by at most so much. */
const ROUNDED_MS = 2_000;

/** Every view calls the point missing, and nothing takes what lies in its place for it. */
async function assertMissing({ place, tree }: Scene, { id, head }: { id: string; head: string }): Promise<void> {
  const { client, volume, folder } = place;
  const before = readFolder(folder);
  const no = path.join(volume.root, "no");
  const damaged = { code: "damaged" };
  await assert.rejects(client.seal(), damaged, "seal");
  const { problems } = await client.verifyAll();
  assert.deepEqual(
    problems.map(({ point }) => point),
    [id],
    "verify",
  );
  assert.equal((await client.verify(id)).problems.length, 1, "verify of the point");
  const { save_points: points } = await client.history(undefined, 0, { all: true });
  const shown = points.find((each) => each.save_point_id === id)!;
  assert.deepEqual([shown.integrity_state, shown.sealed], ["damaged", false], "history");
  assert.deepEqual((await client.status()).missing, [id], "status");
  assert.equal((await client.doctor()).healthy, false, "doctor");
  await assert.rejects(client.restore({ target: id }), damaged, "restore");
  await assert.rejects(client.restore({ target: id, method: "exchange" }), damaged, "restore by exchange");
  await assert.rejects(client.restore({ target: id, to: no }), damaged, "restore elsewhere");
  await assert.rejects(client.diff(id, head), damaged, "diff");
  await assert.rejects(client.show(id), damaged, "show");
  await assert.rejects(client.fork(id, no), damaged, "fork");
  assert.equal(fs.existsSync(no), false);
  assert.equal(fs.existsSync(path.join(path.dirname(tree), "seal.json")), false, "it was never sealed");
  assertFolder(folder, before, "the folder");
}

const COMBINATIONS: [HoldingEngine, HeldKind, Record<string, Variant>][] = [
  ["btrfs-snapshot", "btrfs", { ...ANYWHERE, ...MOUNTED, ...ON_BTRFS }],
  ["reflink-copy", "xfs", { ...ANYWHERE, ...MOUNTED }],
  ["juicefs-clone", "juicefs", ANYWHERE],
];

for (const [engine, kind, variants] of COMBINATIONS)
  for (const build of ["this build", "an earlier build"])
    void describe(`a changed tree that ${engine} of ${build} made`, () => {
      test("a point with another folder in place of its tree is damaged until its own tree is back", async (t) => {
        const place = await heldPlace(t, { kind, engine });
        if (place === null) return;
        const { client, folder } = place;
        const older = path.join(place.volume.root, "older");
        fs.mkdirSync(older);
        fs.writeFileSync(path.join(older, "file"), "one");
        fs.writeFileSync(path.join(folder, "file"), "one");
        const state = readFolder(folder);
        const { save_point_id: id } = await client.save();
        fs.writeFileSync(path.join(folder, "file"), "other");
        const { save_point_id: head } = await client.save();
        const tree = treeOf(client, 1);
        const identity = path.join(path.dirname(tree), "tree-identity");
        assert.match(fs.readlinkSync(identity), /^(subvolume|folder):/);
        if (build === "an earlier build") fs.rmSync(identity);
        // A tree of an earlier build is told by times alone, which some file systems round.
        const made = Date.now();
        await eventually("the clock leaves the moment of the point", () => Date.now() > made + ROUNDED_MS);
        const scene: Scene = { place, tree, real: path.join(path.dirname(tree), "real"), older };
        for (const [name, { put, takeAway }] of Object.entries(variants)) {
          t.diagnostic(name);
          fs.renameSync(tree, scene.real);
          put(scene);
          try {
            await assertMissing(scene, { id, head });
          } catch (error) {
            throw new Error(name, { cause: error });
          } finally {
            if (takeAway !== undefined) takeAway(scene);
            else if (fs.lstatSync(tree, { throwIfNoEntry: false })?.isSymbolicLink() === true) fs.rmSync(tree);
            else if (spawnSync("btrfs", ["-q", "subvolume", "delete", tree]).status !== 0)
              fs.rmSync(tree, { recursive: true, force: true });
          }
          fs.renameSync(scene.real, tree);
          // The inodes of other clones tell of their removal from their place.
          if (engine !== "btrfs-snapshot") continue;
          assert.deepEqual((await client.status()).missing, [], `${name}: once the tree is back`);
        }
        if (engine !== "btrfs-snapshot") return;
        const to = newFolder("given-back");
        await client.restore({ target: id, to });
        assertFolder(to, state, "the real tree gives the point back");
        assert.deepEqual((await client.verifyAll()).problems, []);
      });
    });

test("a snapshot of the same state does not replace a point's tree, and cleanup keeps it aside", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot" });
  if (place === null) return;
  const { client, folder } = place;
  fs.writeFileSync(path.join(folder, "file"), "one");
  const { save_point_id: id } = await client.save();
  const tree = treeOf(client, 1);
  run("btrfs", "-q", "subvolume", "delete", tree);
  snapshot(folder, tree);
  await assert.rejects(client.status(), { code: "damaged" }, "status");
  await assert.rejects(client.restore({ target: id }), { code: "damaged" }, "restore");
  const backup = cairn(["-C", folder, "backup", "create", "--point", id, "-r", newFolder("no-backup")]);
  assert.notEqual(backup.status, 0);
  await client.save();
  const served = { path: folder, control_directory: client.controlDirectory } as ServedWorkspace;
  const health = await lookAfter(served, { open: async () => client, log: () => undefined });
  assert.deepEqual([health.health, health.missing], ["points_missing", [id]]);
  const warnings: string[] = [];
  await client.runCleanup({ only: [id], onWarning: (message) => void warnings.push(message) });
  assert.deepEqual(
    (await client.history()).save_points.map((each) => each.save_point_id === id),
    [false],
  );
  const kept = path.join(client.controlDirectory, "kept");
  const [aside = ""] = fs.readdirSync(kept);
  assert.equal(fs.readFileSync(path.join(kept, aside, "0000000001/tree/file"), "utf8"), "one");
  assert.ok(
    warnings.some((each) => each.includes(aside)),
    warnings.join("\n"),
  );
});
