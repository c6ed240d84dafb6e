import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { openMessage } from "../../crypto/seal.ts";
import { decodePackHeader } from "../../formats/restic/pack-header.ts";
import { newArena } from "../../native.ts";
import { addBlob, noiseBlob, testPacks, textBlob } from "../testing-packs.ts";

test("a pack consists of blobs, encrypted header and header length, and its name is its SHA-256", () => {
  using scratch = testPacks();
  const writer = scratch.writer();
  const plains = [textBlob(1, 5000), noiseBlob(2, 5000), textBlob(3, 17), Buffer.from("x")];
  const ids = plains.map((plain) => addBlob(writer, plain));
  writer.finish();
  const [pack] = scratch.packs;
  const file = readFileSync(pack!.path);
  assert.equal(scratch.packs.length, 1);
  assert.equal(file.length, pack!.size);
  assert.equal(writer.storedBytes, file.length);
  assert.equal(pack!.blobs, 4);
  assert.deepEqual(Buffer.from(sha256(file)), Buffer.from(pack!.id));
  const headerLength = file.readUInt32LE(file.length - 4);
  const header = openMessage(scratch.keys, file.subarray(file.length - 4 - headerLength, file.length - 4));
  assert.deepEqual(Buffer.from(header), Buffer.from(pack!.header));
  const blobs = decodePackHeader(header);
  assert.deepEqual(
    blobs.map(({ id }) => Buffer.from(id)),
    ids.map((id) => Buffer.from(id)),
  );
  assert.deepEqual(
    blobs.map(({ uncompressedLength }) => uncompressedLength),
    [5000, 0, 0, 0],
  );
  const last = blobs.at(-1)!;
  assert.equal(last.offset + last.length, file.length - 4 - headerLength);
});

test("every entry of a tree pack has the type tree, compressed or not", () => {
  using scratch = testPacks();
  const writer = scratch.writer({ type: "tree" });
  addBlob(writer, textBlob(1, 3000));
  addBlob(writer, noiseBlob(1, 300));
  writer.finish();
  assert.deepEqual(
    decodePackHeader(scratch.packs[0]!.header).map(({ type }) => type),
    ["tree", "tree"],
  );
  assert.equal(scratch.packs[0]!.type, "tree");
});

test("PackWriter closes a pack once it reaches the configured size", () => {
  using scratch = testPacks();
  const writer = scratch.writer({ packSize: 1024 * 1024 });
  for (let number = 0; number < 400; number++) addBlob(writer, noiseBlob(number, 10_000));
  writer.finish();
  assert.equal(scratch.packs.length, 4);
  for (const { size } of scratch.packs.slice(0, -1))
    assert.ok(size >= 1024 * 1024 && size < 1024 * 1024 + 20_000, String(size));
  assert.equal(
    scratch.packs.reduce((sum, { blobs }) => sum + blobs, 0),
    400,
  );
});

test("PackWriter stores blobs larger than the stage between small blobs, compressed and not", () => {
  using scratch = testPacks();
  const writer = scratch.writer();
  const plains = [
    textBlob(1, 100),
    noiseBlob(1, 8 * 1024 * 1024),
    textBlob(2, 4000),
    textBlob(3, 8 * 1024 * 1024),
    noiseBlob(2, 9),
  ];
  for (const plain of plains) addBlob(writer, plain);
  writer.finish();
  const reader = scratch.reader();
  for (const [index, place] of scratch.places().entries()) assert.ok(plains[index]!.equals(reader.view(place)));
  reader.close();
});

test("PackWriter refuses an empty blob, and writes no pack without blobs", () => {
  using scratch = testPacks();
  const writer = scratch.writer();
  assert.throws(() => writer.add(new Uint8Array(32), newArena(10), 0, 0), { code: "internal" });
  writer.finish();
  assert.equal(writer.takeTail(), null);
  assert.deepEqual(scratch.packs, []);
  assert.deepEqual(readdirSync(scratch.directory), []);
});

test("appendTail merges unfinished packs of several writers into one pack", () => {
  using scratch = testPacks();
  const plains: Buffer[] = [];
  const tails = [];
  for (let worker = 0; worker < 3; worker++) {
    const writer = scratch.writer();
    for (let number = 0; number < 20; number++) {
      const plain = textBlob(worker * 100 + number, 1000 + number);
      plains.push(plain);
      addBlob(writer, plain);
    }
    tails.push(writer.takeTail()!);
    assert.equal(writer.takeTail(), null);
  }
  const merged = scratch.writer();
  plains.splice(0, 0, textBlob(999, 5000));
  addBlob(merged, plains[0]!);
  for (const tail of tails) merged.appendTail(tail);
  merged.finish();
  assert.equal(scratch.packs.length, 1);
  assert.equal(scratch.packs[0]!.blobs, 61);
  assert.equal(readdirSync(scratch.directory).length, 1);
  const reader = scratch.reader();
  for (const [index, place] of scratch.places().entries()) assert.ok(plains[index]!.equals(reader.view(place)));
  reader.close();
});

test("PackWriter starts a new pack after takeTail", () => {
  using scratch = testPacks();
  const writer = scratch.writer();
  addBlob(writer, textBlob(1, 500));
  const tail = writer.takeTail()!;
  addBlob(writer, textBlob(2, 500));
  writer.appendTail(tail);
  writer.finish();
  assert.equal(scratch.packs.length, 1);
  assert.equal(scratch.packs[0]!.blobs, 2);
});

test("PackWriter.abort removes the unfinished pack, and later calls throw", () => {
  using scratch = testPacks();
  const writer = scratch.writer();
  for (let number = 0; number < 100; number++) addBlob(writer, noiseBlob(number, 10_000));
  assert.equal(readdirSync(scratch.directory).length, 1);
  writer.abort();
  writer.abort();
  assert.deepEqual(readdirSync(scratch.directory), []);
  assert.throws(() => addBlob(writer, textBlob(1, 10)), { code: "internal" });
});

test("PackWriter writes files with mode 0600", () => {
  using scratch = testPacks();
  const writer = scratch.writer();
  addBlob(writer, textBlob(1, 10));
  writer.finish();
  assert.equal(statSync(scratch.packs[0]!.path).mode & 0o777, 0o600);
});

test("PackWriter throws not_found if the directory is missing", () => {
  using scratch = testPacks();
  const writer = scratch.writer({ directory: join(scratch.directory, "absent") });
  assert.throws(
    () => {
      addBlob(writer, textBlob(1, 10));
      writer.finish();
    },
    { code: "not_found" },
  );
  writer.abort();
});

test("PackWriter throws no_space on a full disk, and abort removes its files", (context) => {
  const mount = mkdtempSync(join(tmpdir(), "cairn-small-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount], { stdio: "ignore" });
  } catch {
    rmSync(mount, { recursive: true });
    context.skip("cannot mount here");
    return;
  }
  try {
    const parent = join(mount, "work");
    mkdirSync(parent);
    using scratch = testPacks(parent);
    const writer = scratch.writer();
    assert.throws(
      () => {
        for (let number = 0; number < 300; number++) addBlob(writer, noiseBlob(number, 10_000));
      },
      { code: "no_space" },
    );
    writer.abort();
    assert.deepEqual(readdirSync(scratch.directory), []);
  } finally {
    execFileSync("umount", [mount]);
    rmSync(mount, { recursive: true });
  }
});
