import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { cairnOk } from "../fixtures/command.ts";
import { removeFolder } from "../fixtures/engine-clauses.ts";
import { heldPlace, treeOf } from "../fixtures/held-place.ts";
import { makeFirst } from "../fixtures/two-states.ts";

/** Folders of which a snapshot is not the whole. */

function command(args: readonly string[]): void {
  execFileSync(args[0]!, args.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
}

test("a folder with a subvolume inside is saved into the store completely, and forked completely", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  const { save_point_id: before } = await client.save();
  await client.seal();
  const inner = path.join(folder, "same/inner");
  command(["btrfs", "-q", "subvolume", "create", inner]);
  fs.writeFileSync(path.join(inner, "file"), "in the inner one\n");
  const state = readFolder(folder);
  const saved = await client.save();
  assert.deepEqual([saved.engine, saved.effective_engine, saved.sealed], ["btrfs-snapshot", "copy", true]);
  assert.deepEqual(
    saved.degraded.map(({ what, reason }) => [what, reason.includes("same/inner")]),
    [["btrfs-snapshot", true]],
  );
  assert.equal(saved.payload_root_hash, walkDigests(folder).state);
  assert.equal((await client.status()).clean, true);
  const keptText = fs.readFileSync(path.join(folder, "same/kept.txt"), "utf8");
  fs.writeFileSync(path.join(folder, "same/kept.txt"), "edited\n");
  fs.writeFileSync(path.join(inner, "file"), "edited\n");
  const paths = async (target: string): Promise<string[]> =>
    (await client.restore({ target })).left_out.map(({ path: where }) => where);
  assert.deepEqual(await paths(saved.save_point_id), ["same/inner/file"]);
  assert.equal(fs.readFileSync(path.join(folder, "same/kept.txt"), "utf8"), keptText);
  fs.writeFileSync(path.join(inner, "file"), "in the inner one\n");
  // It is a subvolume still, which no point can take away: nothing is renamed across its border.
  const { entries } = await client.planRestore({ target: before });
  assert.deepEqual(
    entries
      .filter(({ path: where }) => where.startsWith("same/inner"))
      .map(({ path: where, action, reason }) => [where, action, reason]),
    [
      ["same/inner", "keep", "mounted"],
      ["same/inner/file", "keep", "mounted"],
    ],
  );
  assert.deepEqual(await paths(before), ["same/inner", "same/inner/file"]);
  assert.equal(fs.readFileSync(path.join(inner, "file"), "utf8"), "in the inner one\n");
  assert.deepEqual(await paths(saved.save_point_id), ["same/inner/file"]);
  const fork = path.join(volume.root, "fork");
  await client.fork(saved.save_point_id, fork);
  assertFolder(fork, state, "forked");
  for (let i = 0; i < 6; i++) command(["btrfs", "-q", "subvolume", "create", path.join(folder, `more-${i}`)]);
  const several = (await client.save()).degraded[0]?.reason ?? "";
  assert.match(several, /more-0, more-1, more-2, more-3, more-4 and 2 more$/);
  for (let i = 0; i < 6; i++) command(["btrfs", "-q", "subvolume", "delete", path.join(folder, `more-${i}`)]);
  // Without it snapshots go on.
  command(["btrfs", "-q", "subvolume", "delete", inner]);
  assert.equal((await client.save()).effective_engine, "btrfs-snapshot");
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a point leaves out a file system mounted in the folder, and later includes the files below the mount", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const inner = path.join(folder, "goes/mounted");
  fs.mkdirSync(inner);
  fs.writeFileSync(path.join(inner, "hidden"), "below the mount\n");
  command(["mount", "-t", "tmpfs", "none", inner]);
  fs.writeFileSync(path.join(inner, "on-it"), "on the mount\n");
  const saved = await client.save();
  assert.equal(saved.effective_engine, "copy");
  assert.match(saved.degraded[0]!.reason, /goes\/mounted/);
  assert.deepEqual(
    saved.left_out.map(({ path: where, reason }) => [where, reason]),
    [["goes/mounted", "mounted"]],
  );
  command(["umount", inner]);
  const state = readFolder(folder);
  const again = await client.save();
  assert.equal(again.effective_engine, "btrfs-snapshot");
  await client.seal();
  const [held] = (await client.history(undefined, 0, { all: true })).save_points;
  assert.equal(held!.payload_root_hash, walkDigests(folder).state);
  await client.restore({ target: again.save_point_id });
  assertFolder(folder, state, "restored");
});

test("a fork of a point without a tree is a subvolume, and its next save makes a snapshot", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  const state = readFolder(folder);
  const { save_point_id: id } = await client.save();
  await client.seal();
  fs.writeFileSync(path.join(folder, "more"), "more");
  await client.save();
  await client.seal();
  removeFolder(volume, treeOf(client, 1));
  for (const standalone of [false, true]) {
    const fork = path.join(volume.root, `fork-${standalone}`);
    await client.fork(id, fork, standalone ? { standalone } : {});
    assertFolder(fork, state, "forked");
    fs.writeFileSync(path.join(fork, "own"), "own");
    const saved = cairnOk(["save", fork]).data["save_point"] as { effective_engine: string };
    assert.equal(saved.effective_engine, "btrfs-snapshot");
  }
});
