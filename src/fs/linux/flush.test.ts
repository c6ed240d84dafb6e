import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { type LoopKind, loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { flushFileSystem, flushing } from "./flush.ts";

const SIZE = 24 << 20;

for (const kind of ["ext4", "xfs", "btrfs"] as LoopKind[]) {
  test(`a file on ${kind} survives a power cut after flushFileSystem`, async (t) => {
    const disk = loopFileSystem(t, kind);
    if (disk === null) return;
    const [folder, file] = [path.join(disk.root, "folder"), path.join(disk.root, "folder/flushed")];
    fs.mkdirSync(folder);
    // Where somebody else on this machine has synced everything just then, there is nothing to wait for.
    for (let tries = 0, others = false; !others; tries++) {
      assert.ok(tries < 5, "nothing else had a turn");
      fs.writeFileSync(file, Buffer.alloc(SIZE, "x"));
      setImmediate(() => (others = true));
      await flushFileSystem(Buffer.from(folder));
    }
    const late = path.join(folder, "late");
    // Somebody else on this machine may sync everything just then.
    for (let tries = 0, isLost = false; !isLost; tries++) {
      assert.ok(tries < 5, "a power cut takes nothing away here");
      fs.writeFileSync(late, Buffer.alloc(SIZE, "y"));
      disk.cutPower();
      assert.equal(fs.readFileSync(file).equals(Buffer.alloc(SIZE, "x")), true);
      isLost = fs.statSync(late, { throwIfNoEntry: false })?.size !== SIZE;
      fs.rmSync(late, { force: true });
    }
  });
}

test("flushFileSystem makes a file durable, and names a missing folder in its error", async (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const file = path.join(disk.root, "flushed");
  fs.writeFileSync(file, "content");
  await flushFileSystem(disk.root);
  disk.cutPower();
  assert.equal(fs.readFileSync(file, "utf8"), "content");
  await assert.rejects(flushFileSystem(path.join(disk.root, "gone")), { code: "not_found", message: /gone/ });
});

test("flushing() writes data to the disk while long work is still running", async (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const file = path.join(disk.root, "early");
  // Several flushes, of which one may take a busy disk longer than the first of these.
  for (const ms of [1500, 15_000]) {
    // Work that fails waits for no disk.
    const failing = flushing(disk.root, async () => {
      fs.writeFileSync(file, "content");
      await sleep(ms);
      throw new Error("enough");
    });
    await assert.rejects(failing, /enough/);
    disk.cutPower();
    if (fs.statSync(file, { throwIfNoEntry: false })?.size === "content".length) break;
  }
  assert.equal(fs.readFileSync(file, "utf8"), "content");
});

for (const pause of [0, 1500])
  test(`flushing() fails if data could not be written to the disk ${pause === 0 ? "at the end of the work" : "during the work"}`, async (t) => {
    const disk = loopFileSystem(t, "ext4", { room: 24 << 20 });
    if (disk === null) return;
    const filling = flushing(disk.root, async () => {
      for (let i = 0; i < 48; i++) fs.writeFileSync(path.join(disk.root, `${i}`), randomBytes(1 << 20));
      await sleep(pause);
    });
    await assert.rejects(filling, {
      code: /^(?:io|no_space)$/,
      message: /could not write earlier data to its disk, and this data is lost: E[A-Z]+$/,
    });
  });

test("flushing() makes a file durable even if its folder was replaced during the work", async (t) => {
  const disk = loopFileSystem(t, "btrfs");
  if (disk === null) return;
  const [folder, file] = [path.join(disk.root, "folder"), path.join(disk.root, "folder/file")];
  fs.mkdirSync(folder);
  const done = await flushing(folder, async () => {
    fs.rmdirSync(folder);
    // Longer than there is between two flushes.
    await sleep(500);
    fs.mkdirSync(folder);
    fs.writeFileSync(file, "content");
    return "done";
  });
  assert.equal(done, "done");
  disk.cutPower();
  assert.equal(fs.readFileSync(file, "utf8"), "content");
});
