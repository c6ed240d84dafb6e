import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { before, describe, test } from "node:test";
import { makeNode, setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import type { Client } from "../../src/contract/index.ts";
import { SCRATCH } from "../fixtures/command.ts";
import { assertFolder, differencesOf, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { assertNoLeftovers, clientOf, newFolder } from "../fixtures/work.ts";

/** Real restic in our store. What it loses is asserted by name, so that a restic that learns it is noticed. */

const skip = spawnSync("restic", ["version"]).error === undefined ? false : "restic is not installed";
const root = process.geteuid?.() === 0;

function restic(client: Client, ...args: string[]): string {
  const child = spawnSync("restic", args, {
    encoding: "utf8",
    maxBuffer: 256 << 20,
    env: {
      ...process.env,
      RESTIC_REPOSITORY: path.join(client.controlDirectory, "store"),
      RESTIC_PASSWORD_FILE: path.join(client.controlDirectory, "store-password"),
      RESTIC_CACHE_DIR: path.join(SCRATCH, "restic-cache"),
    },
  });
  if (child.status !== 0)
    throw new Error(`restic ${args.join(" ")}: ${child.status}\n${child.stdout}\n${child.stderr}`);
  return child.stdout;
}

interface Snapshot {
  id: string;
  tags?: string[];
  paths: string[];
}

function snapshots(client: Client): Snapshot[] {
  return JSON.parse(restic(client, "snapshots", "--json")) as Snapshot[];
}

/** Every kind of entry, name and metadata that restic gives back. */
function corpus(folder: string): void {
  makeFirst(folder);
  const at = (name: string): string => path.join(folder, name);
  fs.mkdirSync(at("corpus/empty-dir"), { recursive: true });
  fs.writeFileSync(at("corpus/empty"), "");
  for (const mode of [0o4755, 0o2711, 0o1777, 0o400, 0])
    fs.writeFileSync(at(`corpus/mode-${mode.toString(8)}`), `${mode}`);
  for (const mode of [0o4755, 0o2711, 0o1777, 0o400, 0]) fs.chmodSync(at(`corpus/mode-${mode.toString(8)}`), mode);
  for (const name of [
    "new\nline",
    "quote\"'",
    "back\\slash",
    "\u001b[1m",
    "ü",
    "日本",
    "a".repeat(255),
    "-rf",
    "\u2028 <&>",
    "😀",
  ])
    fs.writeFileSync(at(`corpus/${name}`), name);
  fs.writeFileSync(Buffer.concat([Buffer.from(`${at("corpus")}/`), Buffer.from([0xff, 0xfe, 0x41])]), "not UTF-8");
  fs.writeFileSync(at("corpus/large"), randomBytes(3_000_000));
  fs.writeFileSync(at("corpus/times"), "t");
  spawnSync("touch", ["-d", "1969-07-20 20:17:40.123456789Z", at("corpus/times")]);
  fs.symlinkSync("nowhere/at all", at("corpus/dangling"));
  fs.lutimesSync(at("corpus/dangling"), 1, 1_234_567.25);
  setAttribute(at("corpus/times"), "user.text", "value");
  setAttribute(at("corpus/times"), "user.bytes", Buffer.from([0, 255, 1]));
  setAttribute(at("corpus/empty-dir"), "user.dir", "d");
  spawnSync("setfacl", ["-m", "u:1234:rw", at("corpus/empty")]);
  if (root) {
    fs.writeFileSync(at("corpus/owned"), "o");
    fs.chownSync(at("corpus/owned"), 12_345, 54_321);
    makeNode(at("corpus/null"), TYPE.CHARDEV, [1, 3]);
  }
}

function randomBytes(size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let state = 12_345;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

describe("restic in Cairn's store", { skip }, () => {
  let folder: string;
  let client: Client;
  const states = new Map<string, FolderState>();

  before(async () => {
    folder = newFolder("corpus");
    corpus(folder);
    client = await clientOf(folder);
    states.set((await client.save({ message: "first" })).save_point_id, readFolder(folder));
    makeSecond(folder);
    states.set((await client.save({ message: "second", tags: ["kept"] })).save_point_id, readFolder(folder));
  });

  const snapshotOf = (id: string): Snapshot =>
    snapshots(client).find(({ tags }) => tags?.includes(`cairn:${id}`) === true)!;

  test("restic lists a snapshot for every point, and restic check --read-data finds no error", async () => {
    const { save_points: points } = await client.history(undefined, 0, { all: true });
    const listed = snapshots(client);
    assert.equal(listed.length, points.length);
    for (const { save_point_id: id } of points) assert.deepEqual(snapshotOf(id).paths, [folder]);
    restic(client, "check", "--read-data");
  });

  test("restic restores every point identically", () => {
    for (const [id, state] of states) {
      const target = path.join(SCRATCH, `restic-${id}`);
      restic(client, "restore", snapshotOf(id).id, "--target", target, "--include", folder);
      assertFolder(path.join(target, folder), state, id);
      fs.rmSync(target, { recursive: true });
    }
  });

  test("restic restore loses only the known kinds of entries, and cairn restore loses none", async () => {
    const odd = newFolder("odd");
    const at = (name: string): string => path.join(odd, name);
    fs.symlinkSync(Buffer.from([0x61, 0xff, 0x62]), at("raw-target"));
    makeNode(at("pipe-1"), TYPE.PIPE);
    fs.linkSync(at("pipe-1"), at("pipe-2"));
    fs.symlinkSync("t", at("link-1"));
    fs.linkSync(at("link-1"), at("link-2"));
    const hole = fs.openSync(at("sparse"), "w");
    fs.ftruncateSync(hole, 20 << 20);
    fs.writeSync(hole, "end", (20 << 20) - 3);
    fs.closeSync(hole);
    const hasSocket = makeNode(at("socket"), TYPE.SOCKET);
    const own = await clientOf(odd);
    const { save_point_id: id } = await own.save();
    const state = readFolder(odd);
    const target = path.join(SCRATCH, "restic-odd");
    restic(own, "check", "--read-data");
    restic(own, "restore", "latest", "--target", target, "--include", odd);
    const lost = differencesOf(readFolder(path.join(target, odd)), state).map((line) => /"([^"]*)"/.exec(line)![1]);
    assert.deepEqual(lost.toSorted(), ["link-2", "pipe-2", "raw-target", ...(hasSocket ? ["socket"] : [])].toSorted());
    const ours = path.join(SCRATCH, "our-odd");
    await own.restore({ target: id, to: ours });
    assertFolder(ours, state, "ours");
    assert.equal(fs.statSync(path.join(ours, "sparse")).blocks, fs.statSync(at("sparse")).blocks);
    // In place too.
    for (const name of fs.readdirSync(odd)) fs.rmSync(at(name));
    await own.restore({ target: id });
    assertFolder(odd, state, "in place");
    assert.ok(fs.statSync(at("sparse")).blocks <= 16);
  });

  test("restic can back up, forget and prune in the store without damage to points", async () => {
    const other = newFolder("other");
    makeFirst(other);
    restic(client, "backup", other, "--tag", "foreign");
    restic(client, "backup", folder, "--tag", "foreign");
    const { save_point_id: third } = await client.save({ message: "between" });
    restic(client, "forget", "--tag", "foreign", "--keep-last", "1", "--prune");
    assert.deepEqual((await client.verifyAll()).problems, []);
    fs.writeFileSync(path.join(folder, "after"), "after the prune\n");
    const { save_point_id: fourth } = await client.save({ message: "after" });
    assert.deepEqual((await client.verifyAll()).problems, []);
    for (const id of [...states.keys(), third, fourth]) {
      const to = path.join(SCRATCH, `after-${id}`);
      await client.restore({ target: id, to });
      const wanted = states.get(id);
      if (wanted !== undefined) assertFolder(to, wanted, id);
    }
    restic(client, "check", "--read-data");
    assert.ok(snapshots(client).some(({ tags }) => tags?.includes("foreign") === true));
  });

  test("verify reports damage only in the point whose snapshot restic forgot", async () => {
    const { save_points: points } = await client.history(undefined, 0, { all: true });
    const victim = points.find(({ message }) => message === "after")!;
    restic(client, "forget", snapshotOf(victim.save_point_id).id, "--prune");
    const { problems } = await client.verifyAll();
    assert.ok(problems.length > 0);
    for (const { point } of problems)
      assert.ok(point === null || point === victim.save_point_id, JSON.stringify(problems));
    // Content that went is stored again when it is seen again.
    const again = await client.save({ message: "again" });
    assert.deepEqual((await client.verify(again.save_point_id)).problems, []);
    restic(client, "check", "--read-data");
    assertNoLeftoversBut(client, folder);
  });
});

function assertNoLeftoversBut(client: Client, folder: string): void {
  assert.throws(() => assertNoLeftovers(client, folder, ""), /a snapshot for each point/);
}
