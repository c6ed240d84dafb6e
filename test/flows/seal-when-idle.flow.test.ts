import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout } from "node:timers/promises";
import { lockHolder } from "../../src/fs/lock.ts";
import { controlPaths, workspacePaths } from "../../src/workspace/place/control-layout.ts";
import { cairnLibrary } from "../fixtures/work.ts";
import type { Client } from "../../src/contract/index.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { heldPlace } from "../fixtures/held-place.ts";

async function sealedCount(client: Client): Promise<number> {
  return (await client.history()).save_points.filter(({ sealed }) => sealed).length;
}

test("sealWhenIdle seals points while no call runs, and seals nothing once the client is closed", async (t) => {
  const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  client.sealWhenIdle({ idleMs: 20 });
  await client.save();
  await client.save();
  for (let tries = 0; (await sealedCount(client)) < 2; tries++) {
    assert.ok(tries < 600, "nothing was sealed");
    await setTimeout(100);
  }
  // Calls that come while it seals are not kept waiting for all of it, find nothing locked, and lose nothing.
  for (let i = 0; i < 300; i++) fs.writeFileSync(path.join(folder, `file-${i}`), `${i}`.repeat(1000));
  await client.save();
  await setTimeout(30);
  await client.save({ lockTimeoutMs: 0 });
  await client.close();
  const other = await (await cairnLibrary()).open(folder);
  assert.equal((await other.history()).save_points.length, 4);
  await setTimeout(200);
  assert.equal((await other.history()).save_points[0]!.sealed, false);
  assert.deepEqual((await other.verifyAll()).problems, []);
});

/** Not asked of the client, which would be one more call. */
function isAnySealed({ controlDirectory }: Client): boolean {
  return fs
    .readdirSync(controlDirectory, { recursive: true, encoding: "utf8" })
    .some((name) => path.basename(name) === "seal.json");
}

async function sealedByItself(client: Client): Promise<void> {
  for (let tries = 0; !isAnySealed(client); tries++) {
    assert.ok(tries < 600, "nothing was sealed");
    await setTimeout(100);
  }
}

test("sealWhenIdle seals nothing while a file is read, and seals afterwards", async (t) => {
  const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  fs.writeFileSync(path.join(folder, "long"), Buffer.alloc(3 << 20));
  await client.save();
  const reading = client.read(null, "long")[Symbol.asyncIterator]();
  await reading.next();
  client.sealWhenIdle({ idleMs: 20 });
  await setTimeout(500);
  assert.equal(isAnySealed(client), false);
  while ((await reading.next()).done !== true);
  await sealedByItself(client);
  await client.close();
});

test("sealWhenIdle called during a save seals after the save", async (t) => {
  const place = await heldPlace(t, { kind: "xfs", engine: "reflink-copy", fill: makeFirst });
  if (place === null) return;
  const { client } = place;
  const saving = client.save();
  client.sealWhenIdle({ idleMs: 1 });
  await saving;
  await sealedByItself(client);
  await client.close();
});

test("sealWhenIdle releases the lock if another client waits for it", async (t) => {
  const place = await heldPlace(t, {
    kind: "xfs",
    engine: "reflink-copy",
    fill: makeFirst,
    options: { size: 2 ** 31 },
  });
  if (place === null) return;
  const { client, folder } = place;
  // Takes seconds to be sealed.
  for (let i = 0; i < 4; i++) fs.writeFileSync(path.join(folder, `large-${i}`), randomBytes(100 << 20));
  await client.save();
  const other = await (await cairnLibrary()).open(folder);
  const { lock } = workspacePaths(controlPaths(client.controlDirectory), "main");
  client.sealWhenIdle({ idleMs: 1 });
  for (let tries = 0; lockHolder(lock) === null; tries++) {
    assert.ok(tries < 6000, "nothing was sealed");
    await setTimeout(1);
  }
  await other.save();
  assert.deepEqual(
    (await other.history()).save_points.map(({ sealed }) => sealed),
    [false, false],
  );
  await Promise.all([client.close(), other.close()]);
});
