import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { removeFolder } from "../fixtures/engine-clauses.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, heldPlace, makeHoldable } from "../fixtures/held-place.ts";
import { makeFirst, makeUnsaved } from "../fixtures/two-states.ts";
import { cairnLibrary } from "../fixtures/work.ts";

/** Kills beside other workspaces of the same control directory. Those of one workspace: the engines' contract. */

test("an exchange that was killed is finished when the engine has been changed since by another workspace", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  const first = readFolder(folder);
  const { save_point_id: id } = await client.save();
  await client.seal();
  const fork = path.join(volume.root, "fork");
  await client.fork("head", fork);
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  const args = ["-C", folder, "restore", id, "--method", "exchange"];
  assert.ok(cairn(args, { failpoint: "exchange.exchanged" }).killed);
  assertFolder(folder, first, "exchanged");
  cairnOk(["engine", "set", "copy", fork]);
  cairnOk(["-C", folder, "undo"]);
  assertFolder(folder, unsaved, "undone");
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.deepEqual(fs.readdirSync(path.join(client.controlDirectory, "tmp")), []);
});

test("a workspace of several, killed while its held points are deleted, leaves the others whole and no subvolume", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, volume } = place;
  await client.save();
  const other = path.join(volume.root, "other");
  makeHoldable(other, "btrfs-snapshot");
  const second = await (await cairnLibrary()).adopt(other, { controlDirectory: client.controlDirectory });
  await second.save();
  await second.save();
  const killed = cairn(["release", other, "--delete-points"], { failpoint: "release.workspace-renamed" });
  assert.ok(killed.killed, killed.stderr);
  await client.save();
  assert.deepEqual((await client.verifyAll()).problems, []);
  removeFolder(volume, other);
  assertHeldTidy(place, "released");
});
