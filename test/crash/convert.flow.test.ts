import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { isSubvolume } from "../../src/fs/linux/btrfs.ts";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { subvolumesOf } from "../fixtures/held-place.ts";
import { type LoopFileSystem, loopFileSystem } from "../fixtures/loop-file-system.ts";
import { fillOddly } from "../fixtures/odd-entries.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary } from "../fixtures/work.ts";

/** Killed conversions of plain folders to subvolumes that meet writes and moves. Every pass: btrfs-replay.flow.test.ts. */

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
