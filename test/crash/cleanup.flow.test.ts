import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { assertNoLeftovers, clientOf, resticCheck } from "../fixtures/work.ts";

async function listed(client: Client): Promise<string[]> {
  const { save_points, damaged } = await client.history(undefined, 0, { all: true });
  assert.deepEqual(damaged, []);
  return save_points.map(({ save_point_id }) => save_point_id).toReversed();
}

/** Leaves so many bytes of a file system free. */
function fillUpTo(file: string, free: number): void {
  const fd = fs.openSync(file, "w");
  const { bavail, bsize } = fs.statfsSync(path.dirname(file));
  const piece = Buffer.alloc(1 << 20, 1);
  for (let left = bavail * bsize - free; left > 0; left -= piece.length)
    fs.writeSync(fd, piece, 0, Math.min(left, piece.length));
  fs.fsyncSync(fd);
  fs.closeSync(fd);
}

/** Null where there is no restic that could tell. */
async function isStored(client: Client, content: string): Promise<boolean | null> {
  const { repository, password_file } = await client.store();
  const id = createHash("sha256").update(content).digest("hex");
  const done = spawnSync("restic", ["-r", repository, "-p", password_file, "--no-cache", "cat", "blob", id]);
  return done.error === undefined ? done.status === 0 : null;
}

test("a cleanup deletes a secret from the store once the disk has space, after a killed removal on a full disk", async (t) => {
  const place = loopFileSystem(t, "ext4");
  if (place === null) return;
  const folder = path.join(place.root, "folder");
  const filler = path.join(place.root, "filler");
  fs.mkdirSync(path.join(folder, "d"), { recursive: true });
  const client = await clientOf(folder);
  const removal = ["committed", "points-removed", "freed"].map((name) => `cleanup.${name}`);
  removal.push("free.snapshots-removed", "free.swept", "unfreed.noted");
  const finishing = ["sweep.index-written", "sweep.packs-durable", "unfreed.note-removed", "cleanup.freed"];
  for (const [n, failpoint] of removal.entries()) {
    const secret = `secret ${n} ${"x".repeat(n)}`;
    for (let i = 0; i < 60; i++) fs.writeFileSync(path.join(folder, "d", `${i}`), randomBytes(10_000));
    fs.writeFileSync(path.join(folder, "d/secret"), secret);
    const { save_point_id: bad } = await client.save();
    fs.rmSync(path.join(folder, "d/secret"));
    await client.save();
    fillUpTo(filler, 400_000);
    const killed = cairn(["cleanup", "drop", bad, "-C", folder], { failpoint });
    assert.deepEqual([killed.killed, killed.failpoints], [true, [failpoint]], killed.stdout + killed.stderr);
    // Without room, by the point's absence alone, nothing would tell of it.
    const tried = cairn(["cleanup", "-C", folder]);
    assert.deepEqual([tried.status, tried.data["complete"]], [10, false], `${failpoint}: ${tried.stdout}`);
    assert.equal((await listed(client)).includes(bad), false, failpoint);
    assert.notEqual(await isStored(client, secret), false, failpoint);
    fs.rmSync(filler);
    const then = finishing[n % finishing.length]!;
    const where = `${failpoint}, then ${then}`;
    assert.equal(cairn(["cleanup", "-C", folder], { failpoint: then }).killed, true, where);
    cairnOk(["cleanup", "-C", folder]);
    assert.notEqual(await isStored(client, secret), true, where);
    assert.deepEqual(fs.readdirSync(path.join(client.controlDirectory, "unfreed")), [], where);
    assertNoLeftovers(client, folder, where);
    assert.deepEqual((await client.verifyAll()).problems, [], where);
  }
  resticCheck(client, "the last cleanup");
});
