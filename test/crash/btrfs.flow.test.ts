import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, SCRATCH, startCairn } from "../fixtures/command.ts";
import { removeFolder } from "../fixtures/engine-clauses.ts";
import { assertFolder, differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, heldPlace, makeHoldable, subvolumesOf, treeOf } from "../fixtures/held-place.ts";
import { type LoopFileSystem, loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeUnsaved } from "../fixtures/two-states.ts";
import { cairnLibrary, pauseFile } from "../fixtures/work.ts";

/** Kills beside other workspaces of the same control directory. Those of one workspace: the engines' contract. */

test("a killed exchange is finished even if another workspace has changed the engine since", async (t) => {
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

/** Without what lets root read everything. */
const LESSER = ["--bounding-set", "--inh-caps"].map((each) => `${each}=-dac_override,-dac_read_search,-fowner`);

test("a second seal by a user who can read more files, if killed, leaves either the old seal or the new one", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const closed = path.join(folder, "closed");
  fs.writeFileSync(closed, "", { mode: 0o600 });
  fs.chownSync(closed, 4711, 4711);
  for (const failpoint of ["seal.intent", "seal.staged", "seal.origins-removed", "seal.committed"]) {
    fs.appendFileSync(closed, "more\n");
    const { save_point_id: id } = await client.save();
    const newest = async (): Promise<boolean> =>
      (await client.history(undefined, 0, { all: true })).save_points[0]!.complete;
    cairnOk(["seal", folder], { prefix: ["setpriv", ...LESSER, "--"] });
    assert.equal(await newest(), false, failpoint);
    assert.ok(cairn(["seal", folder], { failpoint }).killed, failpoint);
    assert.equal(await newest(), failpoint === "seal.committed", failpoint);
    const { data } = cairnOk(["seal", folder]);
    assert.equal(data["sealed"], failpoint === "seal.committed" ? 0 : 1, failpoint);
    assert.equal(await newest(), true, failpoint);
    const shown = cairnOk(["show", `${id}:closed`, "-C", folder]).data["content_b64"] as string;
    assert.deepEqual(Buffer.from(shown, "base64"), fs.readFileSync(closed), failpoint);
    assertHeldTidy(place, failpoint);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("an exchange is finished, and its undo point complete, if a subvolume is made in the displaced folder", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const first = readFolder(folder);
  const { save_point_id: id } = await client.save();
  await client.seal();
  const temporary = path.join(client.controlDirectory, "tmp");
  const restoring = ["-C", folder, "restore", id, "--method", "exchange"];
  for (const how of ["killed", "not killed"]) {
    makeUnsaved(folder);
    const pause = pauseFile();
    const running = startCairn(restoring, { failpoint: `exchange.exchanged${how === "killed" ? "" : `@${pause}`}` });
    if (how === "killed") assert.ok((await running.ended).killed);
    else await running.paused;
    const [displaced] = fs.readdirSync(temporary);
    const inner = path.join(temporary, displaced!, "inner");
    execFileSync("btrfs", ["-q", "subvolume", "create", inner]);
    fs.writeFileSync(path.join(inner, "file"), "in the inner one\n");
    const wanted = readFolder(path.join(temporary, displaced!), { withoutRootTime: true });
    fs.rmSync(pause);
    if (how === "not killed") assert.equal((await running.ended).status, 0);
    assertFolder(folder, first, how);
    cairnOk(["save", folder]);
    assert.deepEqual(fs.readdirSync(temporary), [], how);
    cairnOk(["-C", folder, "undo"]);
    assert.deepEqual(differencesOf(readFolder(folder, { withoutRootTime: true }), wanted), [], how);
    cairnOk(["-C", folder, "restore", id]);
    assertFolder(folder, first, how);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("the next command keeps the displaced folder of a killed exchange if it cannot read all its files", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const { save_point_id: id } = await client.save();
  await client.seal();
  makeUnsaved(folder);
  const restoring = ["-C", folder, "restore", id, "--method", "exchange"];
  assert.ok(cairn(restoring, { failpoint: "exchange.exchanged" }).killed);
  const [displaced] = fs.readdirSync(path.join(client.controlDirectory, "tmp"));
  const inner = path.join(client.controlDirectory, "tmp", displaced!, "inner");
  execFileSync("btrfs", ["-q", "subvolume", "create", inner]);
  fs.writeFileSync(path.join(inner, "closed"), "for its owner\n", { mode: 0o600 });
  fs.chownSync(path.join(inner, "closed"), 4711, 4711);
  cairnOk(["save", folder], { prefix: ["setpriv", ...LESSER, "--"] });
  assert.match(
    (await client.status()).recovered.at(-1)!.detail,
    /some files of the folder before the restore could not be read.*\/kept\/restore-[^/]+\/displaced/,
  );
  const [kept] = fs.readdirSync(path.join(client.controlDirectory, "kept"));
  const closed = path.join(client.controlDirectory, "kept", kept!, "displaced/inner/closed");
  assert.equal(fs.readFileSync(closed, "utf8"), "for its owner\n");
  assert.deepEqual(fs.readdirSync(path.join(client.controlDirectory, "tmp")), []);
  const { findings } = cairnOk(["-C", folder, "doctor"]).data as { findings: { kind: string }[] };
  assert.ok(findings.some(({ kind }) => kind === "kept"));
  const undone = cairn(["-C", folder, "undo"]);
  const left = undone.data["left_out"] as { path: string; reason: string }[];
  assert.deepEqual(
    [undone.status, left.map(({ path: name, reason }) => [name, reason])],
    [10, [["inner/closed", "unreadable"]]],
  );
  assert.ok(fs.existsSync(path.join(folder, "inner")));
});

test("a release, if killed while it deletes held points, leaves the other workspaces whole and no subvolume", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, volume } = place;
  await client.save();
  const other = path.join(volume.root, "other");
  makeHoldable(other, "btrfs-snapshot");
  const second = await (await cairnLibrary()).init(other, { controlDirectory: client.controlDirectory });
  await second.save();
  await second.save();
  const killed = cairn(["release", other, "--delete-points"], { failpoint: "release.workspace-renamed" });
  assert.ok(killed.killed, killed.stderr);
  await client.save();
  assert.deepEqual((await client.verifyAll()).problems, []);
  removeFolder(volume, other);
  assertHeldTidy(place, "released");
});

interface Point {
  save_point_id: string;
  sequence: number;
}

/** The point that a save made. */
function saved(folder: string, ...more: string[]): string {
  const { data } = JSON.parse(cairnOk(["save", folder, "--json", ...more]).stdout) as { data: { save_point: Point } };
  return data.save_point.save_point_id;
}

function history(folder: string): { head: string; points: Point[] } {
  const { stdout } = cairnOk(["-C", folder, "history", "--all", "--json"]);
  const { data } = JSON.parse(stdout) as { data: { head: string; save_points: Point[] } };
  return { head: data.head, points: data.save_points };
}

test("points and restores on btrfs survive a power cut right after their commands have ended", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const volume = place.volume as LoopFileSystem;
  const first = readFolder(folder);
  const id = saved(folder);
  volume.cutPower();
  assert.equal(history(folder).head, id);
  assertFolder(folder, first, "after the first cut");
  cairnOk(["-C", folder, "seal"]);
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  // Too long for the file system's metadata.
  const second = saved(folder, "-m", "long ".repeat(1000));
  volume.cutPower();
  assert.equal(history(folder).head, second);
  cairnOk(["-C", folder, "restore", id, "--method", "exchange"]);
  volume.cutPower();
  assertFolder(folder, first, "restored");
  assert.equal(history(folder).head, id);
  cairnOk(["-C", folder, "undo"]);
  assertFolder(folder, unsaved, "undone");
  assert.equal(history(folder).points.length, 4);
  assert.deepEqual((await client.verifyAll()).problems, []);
  assertHeldTidy(place, "after all");
});

test("a restore leaves no temporary files in the folder if the power fails right after the command has ended", (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  for (const kept of ["elsewhere", "on the same file system"]) {
    const folder = path.join(volume.root, kept.replaceAll(" ", "-"));
    execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
    makeFirst(folder);
    const control = kept === "elsewhere" ? SCRATCH : volume.root;
    cairnOk(["init", folder, "--engine", "copy", "--control-dir", path.join(control, "control-of-restores")]);
    const id = saved(folder);
    makeUnsaved(folder);
    cairnOk(["restore", id, "-C", folder]);
    const wanted = readFolder(folder);
    volume.cutPower();
    assertFolder(folder, wanted, kept);
    cairnOk(["undo", "-C", folder]);
    volume.cutPower();
    const own = fs.readdirSync(folder).filter((name) => name.startsWith(".cairn"));
    assert.deepEqual(own, [], `${kept}, undone`);
    assert.deepEqual(cairnOk(["status", folder]).data["recovered"], [], kept);
    assert.ok(cairn(["restore", id, "-C", folder], { failpoint: "restore.staging-removed" }).killed);
    volume.cutPower();
    cairnOk(["save", folder]);
    assertFolder(folder, wanted, `${kept}, recovered`);
  }
});

test("the claim of a killed save becomes a point only if its tree is the announced snapshot", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { folder } = place;
  const id = saved(folder);
  const killed = (): void => {
    fs.appendFileSync(path.join(folder, "same/kept.txt"), "more");
    const { killed: isKilled, stderr } = cairn(["save", folder], { failpoint: "capture.held" });
    assert.ok(isKilled, stderr);
  };
  killed();
  const [newest, oldest] = history(folder).points;
  assert.equal(oldest?.save_point_id, id);
  assert.equal(history(folder).head, newest?.save_point_id);
  killed();
  const tree = treeOf(place.client, newest!.sequence + 1);
  execFileSync("btrfs", ["-q", "subvolume", "delete", tree]);
  fs.writeFileSync(path.join(folder, "later"), "later");
  execFileSync("btrfs", ["-q", "subvolume", "snapshot", "-r", folder, tree]);
  assert.equal(history(folder).head, newest?.save_point_id);
  cairnOk(["-C", folder, "save"]);
  assert.equal(history(folder).points.length, 3);
  assertHeldTidy(place, "after all");
});

test("recovery of a restore that has changed nothing leaves the folder's own modification time as it was", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { folder } = place;
  const id = saved(folder);
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  const killed = cairn(["-C", folder, "restore", id, "--method", "entries"], { failpoint: "restore.staging-made" });
  assert.ok(killed.killed, killed.stderr);
  assert.ok(fs.readdirSync(folder).some((name) => name.startsWith(".cairn-restore-")));
  cairnOk(["-C", folder, "status"]);
  assertFolder(folder, unsaved, "taken back");
  assertHeldTidy(place, "after all");
});

test("a killed seal does not block later saves if the descriptor of its point was damaged since", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  for (const failpoint of ["seal.intent", "seal.staged"]) {
    const id = saved(folder);
    // Head is another, so that only the sealing has to do with the damaged one.
    saved(folder);
    const killed = cairn(["-C", folder, "seal"], { failpoint });
    assert.ok(killed.killed, killed.stderr);
    const { sequence } = history(folder).points.find((point) => point.save_point_id === id)!;
    const descriptor = path.join(path.dirname(treeOf(client, sequence)), "descriptor.json");
    const bytes = fs.readFileSync(descriptor);
    fs.writeFileSync(descriptor, "nonsense");
    saved(folder);
    fs.writeFileSync(descriptor, bytes);
    cairnOk(["-C", folder, "seal"]);
    assert.deepEqual((await client.verifyAll()).problems, []);
  }
});

test("a second release of the same folder finishes a killed release and deletes its snapshots", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { root } = place.volume;
  const self = path.join(root, "self");
  cairnOk(["init", "--self-contained", "--engine", "btrfs-snapshot", self]);
  const folder = path.join(self, "main");
  makeFirst(folder);
  cairnOk(["-C", folder, "save"]);
  const release = ["release", "--delete-points", folder];
  assert.ok(cairn(release, { failpoint: "release.control-renamed" }).killed);
  assert.ok(subvolumesOf(root).some((each) => each.includes(".cairn-tmp-")));
  cairnOk(release);
  assert.deepEqual(fs.readdirSync(self), ["main"]);
  assert.deepEqual(subvolumesOf(root), ["self/main", path.basename(place.folder)]);
});
