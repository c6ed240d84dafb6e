import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { subvolumesOf } from "../fixtures/held-place.ts";
import { type LoopFileSystem, loopFileSystem } from "../fixtures/loop-file-system.ts";
import { fillOddly } from "../fixtures/odd-entries.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary } from "../fixtures/work.ts";
import { chosenPasses, killAt, passesOf, random, SEED } from "./rounds.ts";

/** Conversions of plain folders to subvolumes, when they are killed at any step, and what finishes them too. */

let failed = 0;
after(() => {
  if (failed > 0) process.stderr.write(`convert.flow.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

const ALLOW = ["--allow", "holders"];

/** What lies beside the folders of a test. */
function besides(volume: LoopFileSystem): string[] {
  return fs.readdirSync(volume.root).filter((name) => !/^(ws-\d+|\.cairn-control)$/.test(name));
}

function freshFolder(volume: LoopFileSystem, number: number): string {
  const folder = path.join(volume.root, `ws-${number}`);
  fs.mkdirSync(folder);
  makeFirst(folder);
  fillOddly(folder);
  return folder;
}

/** Takes the original away that a conversion has left beside a folder, after a look at it. */
function removeOriginal(volume: LoopFileSystem, state: FolderState, context: string): void {
  const [original, ...more] = besides(volume);
  assert.deepEqual(more, [], `${context}: beside the folder`);
  assert.match(original ?? "", /^\.cairn-original-[0-9a-f]{16}$/, context);
  const place = path.join(volume.root, original!);
  assertFolder(place, state, `${context}: the original`);
  fs.rmSync(place, { recursive: true });
}

function assertDone(volume: LoopFileSystem, client: Client, folder: string, context: string): void {
  assert.deepEqual(besides(volume), [], `${context}: beside the folder`);
  assertNoLeftovers(client, folder, context);
  const journal = path.join(client.controlDirectory, "workspaces/main/journal");
  assert.deepEqual(fs.readdirSync(journal), [], context);
  const plain = subvolumesOf(volume.root).filter((each) => !/\/points\/\d{10}\/tree$/.test(each));
  assert.deepEqual(plain, isSubvolume(folder) ? [path.basename(folder)] : [], `${context}: subvolumes`);
}

/** The workspace with all that it left is gone, so that the next one begins with nothing. */
async function forget(client: Client, folder: string): Promise<void> {
  await client.release({ deletePoints: true });
  if (isSubvolume(folder)) execFileSync("btrfs", ["-q", "subvolume", "delete", folder]);
  else fs.rmSync(folder, { recursive: true });
}

test("a conversion to a subvolume, if killed, even in its recovery, leaves the old or the new folder whole", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  failed++;
  const library = await cairnLibrary();
  const commandOf = (folder: string): string[] => ["engine", "set", "btrfs-snapshot", folder, ...ALLOW];
  const traced = freshFolder(volume, 0);
  const traceable = await library.init(traced);
  await traceable.save();
  const names = passesOf(commandOf(traced));
  assert.ok(names.includes("convert.exchanged") && names.includes("convert.recorded"), names.join(" "));
  await traceable.save();
  removeOriginal(volume, readFolder(traced), "traced");
  await forget(traceable, traced);
  const outcomes = new Map<boolean, number>();
  for (const pass of chosenPasses(names)) {
    const folder = freshFolder(volume, pass);
    const state = readFolder(folder);
    const client = await library.init(folder);
    const { save_point_id: first } = await client.save();
    const kills = [killAt(commandOf(folder), pass)];
    assertFolder(folder, state, `killed at ${kills[0]}`);
    const isNew = isSubvolume(folder);
    outcomes.set(isNew, (outcomes.get(isNew) ?? 0) + 1);
    for (let again = 0; again < pass % 3; again++) {
      kills.push(killAt(["status", folder], 1 + Math.floor(random() * 8)));
      assertFolder(folder, state, `killed at ${kills.join(", then ")}`);
    }
    const where = `killed at ${kills.join(", then ")}`;
    if (pass % 2 === 0) killAt(["save", folder], 1 + Math.floor(random() * 20));
    const warnings: string[] = [];
    const saved = await client.save({ onWarning: (text) => warnings.push(text) });
    assert.deepEqual(warnings, [], where);
    assert.equal(isSubvolume(folder), isNew, where);
    assertFolder(folder, state, where);
    const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
    assert.deepEqual(
      [points.at(-1)!.save_point_id, points[0]!.save_point_id, damaged],
      [first, saved.save_point_id, []],
      where,
    );
    assert.equal(client.engineType, isNew ? "btrfs-snapshot" : "copy", where);
    await client.seal();
    if (isNew) removeOriginal(volume, state, where);
    assertDone(volume, client, folder, where);
    if (pass % 4 === 0) assert.deepEqual((await client.verifyAll()).problems, [], where);
    if (!isNew && pass % 4 === 1) {
      cairnOk(commandOf(folder));
      assertFolder(folder, state, `${where}, then converted`);
      await client.save();
      await client.seal();
      removeOriginal(volume, state, where);
      assertDone(volume, client, folder, `${where}, then converted`);
    }
    await forget(client, folder);
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  failed--;
});

test("a conversion to a plain folder, if killed, leaves the old or the new folder whole, with all its points", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  failed++;
  const library = await cairnLibrary();
  const commandOf = (folder: string): string[] => ["engine", "set", "reflink-copy", folder, "--plain", ...ALLOW];
  const fresh = async (number: number): Promise<{ folder: string; client: Client }> => {
    const folder = path.join(volume.root, `ws-${number}`);
    execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
    makeFirst(folder);
    fillOddly(folder);
    const client = await library.init(folder, { engineType: "btrfs-snapshot" });
    await client.save();
    return { folder, client };
  };
  const removeOld = (state: FolderState, where: string): void => {
    const [original, ...more] = besides(volume);
    assert.deepEqual(more, [], where);
    const place = path.join(volume.root, original!);
    assertFolder(place, state, `${where}: the original`);
    execFileSync("btrfs", ["-q", "subvolume", "delete", place]);
  };
  const traced = await fresh(0);
  const names = passesOf(commandOf(traced.folder));
  assert.equal(isSubvolume(traced.folder), false);
  removeOld(readFolder(traced.folder), "traced");
  await forget(traced.client, traced.folder);
  for (const pass of chosenPasses(names)) {
    const { folder, client } = await fresh(pass);
    const state = readFolder(folder);
    const where = `killed at ${killAt(commandOf(folder), pass)}`;
    assertFolder(folder, state, where);
    const isPlain = !isSubvolume(folder);
    if (pass % 2 === 0) killAt(["status", folder], 1 + Math.floor(random() * 8));
    await client.save();
    assertFolder(folder, state, where);
    assert.equal(isSubvolume(folder), !isPlain, where);
    assert.equal(client.engineType, isPlain ? "reflink-copy" : "btrfs-snapshot", where);
    await client.seal();
    assert.deepEqual((await client.verifyAll()).problems, [], where);
    if (isPlain) removeOld(state, where);
    assertDone(volume, client, folder, where);
    await forget(client, folder);
  }
  failed--;
});

test("init with a conversion, if killed, leaves a workspace or none, and the folder's content unchanged", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  failed++;
  const library = await cairnLibrary();
  const commandOf = (folder: string): string[] => ["init", folder, "--engine", "btrfs-snapshot", ...ALLOW];
  const traced = freshFolder(volume, 0);
  const names = passesOf(commandOf(traced));
  await (await library.open(traced)).save();
  removeOriginal(volume, readFolder(traced), "traced");
  await forget(await library.open(traced), traced);
  for (const pass of chosenPasses(names, 4)) {
    const folder = freshFolder(volume, pass);
    const state = readFolder(folder);
    const where = `init killed at ${killAt(commandOf(folder), pass)}`;
    assertFolder(folder, state, where);
    const client = await library.openOrInit(folder);
    await client.save();
    assertFolder(folder, state, where);
    await client.seal();
    if (isSubvolume(folder)) removeOriginal(volume, state, where);
    assertDone(volume, client, folder, where);
    await forget(client, folder);
  }
  failed--;
});

test("recovery takes a killed conversion back if a program wrote to the original after the exchange", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const library = await cairnLibrary();
  const file = "goes/deep/a";
  const killed = async (number: number): Promise<{ folder: string; client: Client; beside: string }> => {
    const folder = freshFolder(volume, number);
    const client = await library.init(folder);
    await client.save();
    const args = ["engine", "set", "btrfs-snapshot", folder, ...ALLOW];
    assert.ok(cairn(args, { failpoint: "convert.exchanged" }).killed);
    assert.ok(isSubvolume(folder));
    return { folder, client, beside: path.join(volume.root, besides(volume)[0]!) };
  };
  for (const [number, failpoint] of [null, "convert.exchanged-back", "convert.copy-removed"].entries()) {
    const where = `recovery killed at ${failpoint}`;
    const { folder, client, beside } = await killed(number);
    fs.appendFileSync(path.join(beside, file), "late\n");
    if (failpoint !== null) assert.ok(cairn(["status", folder], { failpoint }).killed, where);
    const recovered = (await client.status()).recovered.at(-1);
    if (failpoint !== "convert.copy-removed") assert.equal(recovered?.outcome, "rolled_back", where);
    assert.equal(fs.readFileSync(path.join(folder, file), "utf8"), "a\nlate\n", where);
    assert.equal(isSubvolume(folder), false, where);
    await client.save();
    assertDone(volume, client, folder, where);
    await forget(client, folder);
  }
  const copy = await killed(10);
  const before = readFolder(copy.beside);
  fs.appendFileSync(path.join(copy.folder, file), "into the new one\n");
  assert.equal((await copy.client.status()).recovered.at(-1)?.outcome, "completed");
  await copy.client.save();
  await copy.client.seal();
  assert.equal(fs.readFileSync(path.join(copy.folder, file), "utf8"), "a\ninto the new one\n");
  removeOriginal(volume, before, "written into the copy");
  assertDone(volume, copy.client, copy.folder, "written into the copy");
  await forget(copy.client, copy.folder);
  const both = await killed(11);
  fs.appendFileSync(path.join(both.beside, file), "into the original\n");
  fs.appendFileSync(path.join(both.folder, file), "into the copy\n");
  assert.ok(cairn(["status", both.folder], { failpoint: "convert.exchanged-back" }).killed);
  const detail = (await both.client.status()).recovered.at(-1)?.detail ?? "";
  assert.ok(detail.includes(both.beside), detail);
  assert.equal(fs.readFileSync(path.join(both.folder, file), "utf8"), "a\ninto the original\n");
  assert.equal(fs.readFileSync(path.join(both.beside, file), "utf8"), "a\ninto the copy\n");
});

test("a folder keeps its content if the power fails during or after a conversion", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const library = await cairnLibrary();
  for (const [number, failpoint] of ["convert.known", "convert.exchanged", "convert.recorded", null].entries()) {
    const where = `power cut at ${failpoint ?? "the end"}`;
    const folder = freshFolder(volume, number);
    const client = await library.init(folder);
    await client.save();
    execFileSync("sync", ["-f", folder]);
    const state = readFolder(folder);
    const args = ["engine", "set", "btrfs-snapshot", folder, ...ALLOW];
    // In a process of its own, which the power cut ends too.
    if (failpoint === null) cairnOk(args, { own: true });
    else assert.ok(cairn(args, { failpoint }).killed, where);
    volume.cutPower();
    assertFolder(folder, state, where);
    if (failpoint === null) assert.equal(isSubvolume(folder), true, "what was told is so");
    const again = await library.open(folder);
    // Of a probe, whose removal was not on the disk yet: it goes after an hour.
    for (const left of fs.readdirSync(again.controlDirectory).filter((name) => name.startsWith(".cairn-tmp-")))
      fs.utimesSync(path.join(again.controlDirectory, left), 1e9, 1e9);
    await again.save();
    assertFolder(folder, state, where);
    await again.seal();
    assert.deepEqual((await again.verifyAll()).problems, [], where);
    if (isSubvolume(folder)) removeOriginal(volume, state, where);
    assertDone(volume, again, folder, where);
    await forget(again, folder);
  }
});

test("relocate moves the tree that a killed conversion left beside the folder, and finishes the conversion", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const library = await cairnLibrary();
  const other = path.join(volume.root, "ws-0");
  fs.mkdirSync(other);
  for (const [number, failpoint] of [
    "convert.begun",
    "convert.known",
    "convert.exchanged",
    "convert.engine-set",
  ].entries()) {
    const folder = freshFolder(volume, number + 1);
    const state = readFolder(folder);
    await (await library.init(folder)).save();
    assert.ok(cairn(["engine", "set", "btrfs-snapshot", folder, ...ALLOW], { failpoint }).killed, failpoint);
    const moved = path.join(other, "moved");
    fs.renameSync(folder, moved);
    cairnOk(["relocate", folder, moved]);
    assert.deepEqual(besides(volume), [], `${failpoint}: beside the old place`);
    const client = await library.open(moved);
    await client.save();
    assertFolder(moved, state, failpoint);
    assert.equal(isSubvolume(moved), number > 1, failpoint);
    const beside = fs.readdirSync(other).filter((name) => name !== "moved");
    assert.equal(beside.length, number > 1 ? 1 : 0, `${failpoint}: beside the new place`);
    for (const name of beside) fs.rmSync(path.join(other, name), { recursive: true });
    await forget(client, moved);
  }
});
