import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { removeFolder } from "../fixtures/engine-clauses.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeUnsaved } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary, clientOf, newFolder } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf } from "./rounds.ts";

interface Scene {
  folder: string;
  client: Client;
  state: FolderState;
  /** takes the folder away */
  remove: () => void;
}

/** A folder in its first state, with a point of it. */
async function savedFolder(name: string): Promise<Omit<Scene, "remove">> {
  const folder = newFolder(name);
  makeFirst(folder);
  const client = await clientOf(folder);
  await client.save();
  return { folder, client, state: readFolder(folder) };
}

/** Kills a restore of the missing folder at each pass; the next command leaves it missing or whole, the one after gives it back. */
async function killEverywhere({ folder, client, state, remove }: Scene): Promise<void> {
  const args = ["-C", folder, "restore", "head"];
  remove();
  const names = passesOf(args);
  assertFolder(folder, state, "not killed");
  const outcomes = new Set<string>();
  for (const pass of chosenPasses(names)) {
    remove();
    const where = `killed at ${pass} (${killAt(args, pass) ?? "none"})`;
    const said = cairn(["-C", folder, "status"]);
    const isThere = fs.existsSync(folder);
    outcomes.add(isThere ? "given back" : "missing");
    if (isThere) assertFolder(folder, state, where);
    else assert.equal(said.error?.code, "not_found", `${where}: ${said.stdout}`);
    cairnOk(args);
    assertFolder(folder, state, `${where}, then again`);
    assert.equal((await client.status()).clean, true, where);
    assertNoLeftovers(client, folder, where);
  }
  assert.deepEqual([...outcomes].toSorted(), ["given back", "missing"]);
}

test("a restore of a missing folder, if killed at any step, leaves no folder or a complete one", async () => {
  const { folder, client, state } = await savedFolder("missing");
  const remove = (): void => fs.rmSync(folder, { recursive: true });
  await killEverywhere({ folder, client, state, remove });
});

test("a restore of a missing subvolume, if killed at any step, leaves no subvolume or a complete one", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  const state = readFolder(folder);
  await client.save();
  const remove = (): void => removeFolder(volume, folder);
  await killEverywhere({ folder, client, state, remove });
  assert.ok(isSubvolume(Buffer.from(folder)));
  const { effective_engine: engine } = await client.save();
  assert.equal(engine, "btrfs-snapshot");
});

test("a restore, if killed after its commit, has displaced files in its undo point even if its folder is deleted", async () => {
  const { folder } = await savedFolder("displaced");
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  assert.ok(cairn(["-C", folder, "restore", "head"], { failpoint: "restore.swapped" }).killed);
  fs.rmSync(folder, { recursive: true });
  const [restore] = cairnOk(["-C", folder, "operations"]).data["operations"] as { undo_id: string }[];
  cairnOk(["-C", folder, "restore", restore!.undo_id]);
  assertFolder(folder, unsaved, "undone");
});

test("a restore that was killed before its commit does not block the next restore if its folder was deleted", async () => {
  const { folder, client, state } = await savedFolder("before-commit");
  makeUnsaved(folder);
  for (const failpoint of ["restore.intent", "restore.staging-made", "restore.staged"]) {
    assert.ok(cairn(["-C", folder, "restore", "head"], { failpoint }).killed);
    fs.rmSync(folder, { recursive: true });
    assert.equal(cairn(["-C", folder, "status"]).error?.code, "not_found");
    cairnOk(["-C", folder, "restore", "head"]);
    assertFolder(folder, state, failpoint);
    assertNoLeftovers(client, folder, failpoint);
    makeUnsaved(folder);
  }
});

test("doctor --repair clears a restore that was killed before its commit in a deleted folder with a subvolume", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  const inner = path.join(folder, "same/inner");
  const file = path.join(inner, "file");
  execFileSync("btrfs", ["-q", "subvolume", "create", inner]);
  fs.writeFileSync(file, "saved\n");
  await client.save();
  const state = readFolder(folder);
  for (const failpoint of ["restore.intent", "restore.staging-made", "restore.staged"]) {
    fs.writeFileSync(file, "not saved\n");
    fs.writeFileSync(path.join(folder, "same/kept.txt"), "not saved\n");
    assert.ok(cairn(["-C", folder, "restore", "head"], { failpoint }).killed);
    for (const each of [inner, folder]) removeFolder(volume, each);
    const { findings } = cairn(["-C", folder, "doctor", "--repair"]).data as {
      findings: { kind: string; repaired?: boolean }[];
    };
    assert.equal(findings.find(({ kind }) => kind === "interrupted")?.repaired, true, failpoint);
    cairnOk(["-C", folder, "restore", "head"]);
    assertFolder(folder, state, failpoint);
    assertNoLeftovers(client, folder, failpoint);
    fs.rmSync(inner, { recursive: true });
    execFileSync("btrfs", ["-q", "subvolume", "create", inner]);
  }
});

test("an exchange, if killed after its commit, has displaced files in its undo point even if its folder is deleted", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  await client.save();
  await client.seal();
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  const args = ["-C", folder, "restore", "head", "--method", "exchange"];
  assert.ok(cairn(args, { failpoint: "exchange.exchanged" }).killed);
  removeFolder(volume, folder);
  const [restore] = cairnOk(["-C", folder, "operations"]).data["operations"] as { undo_id: string }[];
  cairnOk(["-C", folder, "restore", restore!.undo_id]);
  assertFolder(folder, unsaved, "undone");
});

test("recovery reports a killed restore as rolled back if its folder was deleted with the displaced files", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  await client.save();
  makeUnsaved(folder);
  const unsaved = readFolder(folder);
  const args = ["-C", folder, "restore", "head", "--method", "entries"];
  assert.ok(cairn(args, { failpoint: "restore.swapped" }).killed);
  removeFolder(volume, folder);
  cairnOk(["-C", folder, "restore", "head"]);
  const [recovered] = (await client.status()).recovered;
  const undo = /is the save point ([0-9a-f]{8})$/.exec(recovered?.detail ?? "")?.[1];
  assert.deepEqual([recovered?.outcome, undo !== undefined], ["rolled_back", true]);
  cairnOk(["-C", folder, "restore", undo!]);
  assertFolder(folder, unsaved, "what was there before");
});

test("recovery of a killed restore leaves a folder alone that the user made at the missing folder's path", async () => {
  const { folder, client } = await savedFolder("somebody's");
  for (const failpoint of ["give-back.intent", "give-back.made", "give-back.known"]) {
    fs.rmSync(folder, { recursive: true });
    assert.ok(cairn(["-C", folder, "restore", "head"], { failpoint }).killed, failpoint);
    fs.mkdirSync(folder, { mode: 0o700 });
    cairnOk(["-C", folder, "cleanup", "--keep-last", "9"]);
    assert.deepEqual(fs.readdirSync(folder), [], failpoint);
    assertNoLeftovers(client, folder, failpoint);
  }
});

test("status and cleanup leave a file system alone that is mounted on a folder that a killed restore made", async (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const { folder, client, state } = await savedFolder("mounted");
  fs.rmSync(folder, { recursive: true });
  assert.ok(cairn(["-C", folder, "restore", "head"], { failpoint: "give-back.moved" }).killed);
  execFileSync("mount", ["--bind", volume.root, folder]);
  try {
    cairnOk(["-C", folder, "status"]);
    cairnOk(["-C", folder, "cleanup", "--keep-last", "9"]);
  } finally {
    execFileSync("umount", [folder]);
  }
  cairnOk(["-C", folder, "restore", "head"]);
  assertFolder(folder, state, "given back");
  assertNoLeftovers(client, folder, "mounted");
});

test("commands name a file or link that lies at a missing folder's path, and leave it as it is", async () => {
  const { folder, state } = await savedFolder("taken");
  fs.rmSync(folder, { recursive: true });
  for (const take of [() => fs.symlinkSync("nowhere", folder), () => fs.writeFileSync(folder, "precious")]) {
    take();
    const was = fs.lstatSync(folder, { bigint: true });
    for (const [args, code] of [
      [["restore", "head"], "refused"],
      [["restore", "head", "--plan"], "refused"],
      [["save"], "not_found"],
      [["status"], "not_found"],
      [["diff"], "not_found"],
    ] as const) {
      const { error } = cairn(["-C", folder, ...args]);
      assert.equal(error?.code, code, args.join(" "));
      assert.match(`${error?.message} ${error?.hint}`, /a file that is not a folder lies there/, args.join(" "));
      assert.match(error?.hint ?? "", /move .* away first/, args.join(" "));
    }
    cairnOk(["-C", folder, "cleanup", "--keep-last", "9"]);
    const said = cairn(["-C", folder, "doctor", "--repair"]);
    const { findings } = said.data as { findings: { kind: string }[] };
    assert.deepEqual([said.status, findings.map(({ kind }) => kind)], [6, ["folder"]]);
    assert.equal(fs.lstatSync(folder, { bigint: true }).ctimeNs, was.ctimeNs);
    fs.rmSync(folder);
  }
  cairnOk(["-C", folder, "restore", "head"]);
  assertFolder(folder, state, "given back");
});

test("restore makes a deleted folder again if that is the command's current directory", async () => {
  const { folder, state } = await savedFolder("stood-in");
  const command = `cd '${folder}' && rm -rf '${folder}' && exec "$@"`;
  const done = cairn(["restore", "head"], { prefix: ["sh", "-c", command, "sh"], own: true });
  assert.equal(done.status, 0, done.stdout + done.stderr);
  assert.match(done.stderr, /the current folder no longer exists/);
  assertFolder(folder, state, "given back");
});

test("restore refuses to make a missing folder if the folder's disk is not mounted", async (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const folder = path.join(volume.root, "work");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a"), "one");
  const control = newFolder("control");
  fs.rmdirSync(control);
  const client = await (await cairnLibrary()).init(folder, { controlDirectory: control });
  await client.save();
  volume.unmounted(() => {
    const refused = cairn(["-C", folder, "restore", "head"]);
    assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
    assert.match(refused.error?.hint ?? "", /mount its disk/);
    assert.match(cairn(["-C", folder, "status"]).error?.hint ?? "", /mount its disk/);
    assert.deepEqual(fs.readdirSync(volume.root), []);
  });
  fs.rmSync(folder, { recursive: true });
  cairnOk(["-C", folder, "restore", "head"]);
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "one");
});
