import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeHeaderEntry } from "../../formats/restic/pack-header.ts";
import { arenaOver } from "../../native.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { BlobForwarder, F, FORWARD_WORDS, type ForwardTask } from "./forward.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";

interface Scene {
  task: ForwardTask;
  control: Int32Array;
  packs: FinishedPack[];
  forwarder: BlobForwarder;
  add(bytes: Uint8Array): void;
}

function scene(t: TestContext, more: { directory?: string; index?: BlobIndex } = {}): Scene {
  const directory = mkdtempSync(join(tmpdir(), "cairn-forward-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const control = new Int32Array(new SharedArrayBuffer(FORWARD_WORDS * 4));
  const task: ForwardTask = {
    keys: { encrypt: randomBytes(32), macK: randomBytes(16), macR: randomBytes(16) },
    style: { version: 2 },
    mostWaiting: 8,
    index: (more.index ?? new BlobIndex()).shared,
    directory: more.directory ?? directory,
    control: control.buffer as SharedArrayBuffer,
  };
  const packs: FinishedPack[] = [];
  const forwarder = new BlobForwarder(task, (pack) => void packs.push(pack));
  const add = (bytes: Uint8Array): void =>
    forwarder.add("data", sha256(bytes), 0, {
      arena: arenaOver(bytes),
      offset: 0,
      length: bytes.length,
      plainLength: 0,
    });
  return { task, control, packs, forwarder, add };
}

test("BlobForwarder skips blobs that the other repository has", (t) => {
  const [known, unknown] = [randomBytes(1000), randomBytes(1000)];
  const index = new BlobIndex();
  const header = new ByteWriter(64);
  encodeHeaderEntry(header, { id: sha256(known), type: "data", length: 1032, uncompressedLength: 0 });
  index.addPackHeader(randomBytes(32), header.view());
  const { packs, forwarder, add } = scene(t, { index });
  add(known);
  add(unknown);
  forwarder.finish([]);
  assert.deepEqual(
    packs.map(({ blobs }) => blobs),
    [1],
  );
});

test("BlobForwarder starts no pack while 8 packs wait for their upload", (t) => {
  const { control, packs, forwarder, add } = scene(t);
  add(randomBytes(100));
  control[F.WAITING] = 8;
  add(randomBytes(100));
  forwarder.finish([]);
  assert.deepEqual([packs.length, packs[0]!.blobs, control[F.WAITING]], [1, 2, 9]);
  add(randomBytes(100));
  control[F.WAITING] = 7;
  add(randomBytes(100));
  control[F.STOP] = 1;
  forwarder.finish([]);
  add(randomBytes(100));
  forwarder.finish([]);
  assert.deepEqual(
    packs.map(({ blobs }) => blobs),
    [2, 1],
  );
});

test("BlobForwarder.finish completes the unfinished packs of other threads", (t) => {
  const one = scene(t);
  const other = new BlobForwarder(one.task, () => assert.fail("it has nothing that is complete"));
  const bytes = randomBytes(500);
  other.add("tree", sha256(bytes), 0, { arena: arenaOver(bytes), offset: 0, length: 500, plainLength: 0 });
  one.add(randomBytes(100));
  const tails = other.takeTails();
  assert.equal(tails.length, 1);
  one.forwarder.finish(tails);
  assert.deepEqual(one.packs.map(({ type, blobs }) => `${blobs} ${type}`).toSorted(), ["1 data", "1 tree"]);
  assert.ok(!existsSync(tails[0]!.path));
});

test("BlobForwarder stops forwarding without an error if its folder cannot be written", (t) => {
  const { packs, forwarder, add } = scene(t, { directory: "/nowhere/at/all" });
  for (let i = 0; i < 3; i++) add(randomBytes(300_000));
  assert.deepEqual(forwarder.takeTails(), []);
  forwarder.finish([]);
  assert.equal(packs.length, 0);
});

test("BlobForwarder.abort removes its files", (t) => {
  const { task, packs, forwarder, add } = scene(t);
  for (let i = 0; i < 3; i++) add(randomBytes(300_000));
  assert.equal(readdirSync(task.directory).length, 1);
  forwarder.abort();
  assert.deepEqual([readdirSync(task.directory), packs], [[], []]);
});

test("BlobForwarder stops forwarding without an error if its folder disappears", (t) => {
  const { task, packs, forwarder, add } = scene(t);
  const other = new BlobForwarder(task, () => assert.fail("it has nothing that is complete"));
  const bytes = randomBytes(500);
  other.add("data", sha256(bytes), 0, { arena: arenaOver(bytes), offset: 0, length: 500, plainLength: 0 });
  const tails = other.takeTails();
  add(randomBytes(300_000));
  rmSync(task.directory, { recursive: true });
  forwarder.finish(tails);
  assert.deepEqual(packs, []);
});
