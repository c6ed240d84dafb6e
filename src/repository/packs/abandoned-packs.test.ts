import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { newMasterKeys } from "../../crypto/key-derivation.ts";
import { CairnError } from "../../errors.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { addBlob, noiseBlob, type TestPacks, testPacks } from "../testing-packs.ts";
import { type AbandonedPacksOptions, withAbandonedPacks } from "./abandoned-packs.ts";
import { type FinishedPack, PackWriter } from "./pack-writer.ts";

/** A work directory of a process that has ended. */
function deadDirectory(scratch: TestPacks): string {
  const directory = newWorkDirectory(scratch.directory).replace(`-${process.pid}-`, `-${spawnSync("true").pid}-`);
  mkdirSync(directory);
  return directory;
}

/** Complete packs of some blobs each in a folder. */
function packsIn(directory: string, scratch: TestPacks, blobs: readonly number[][]): FinishedPack[] {
  const packs: FinishedPack[] = [];
  for (const numbers of blobs) {
    const writer = new PackWriter({ type: "data", keys: scratch.keys, directory, onPack: (pack) => packs.push(pack) });
    for (const number of numbers) addBlob(writer, noiseBlob(number, 20_000));
    writer.finish();
  }
  return packs;
}

function optionsOf(scratch: TestPacks, more: Partial<AbandonedPacksOptions> = {}): AbandonedPacksOptions {
  const index = new BlobIndex();
  index.beginSession();
  const { keys, directory: parent } = scratch;
  return { keys, index, parent, directory: newWorkDirectory(parent), signal: undefined, ...more };
}

const claims = (index: BlobIndex, pack: FinishedPack): boolean => index.claim(pack.header, pack.header.length - 32);
const namesOf = (packs: readonly FinishedPack[]): string[] => packs.map(({ id }) => objectIdOf(id)).toSorted();

test("a save reuses complete packs of an ended process, and publishes only packs with content that it needs", async () => {
  using scratch = testPacks();
  const dead = deadDirectory(scratch);
  const [used, unused] = packsIn(dead, scratch, [[1, 2], [3]]);
  writeFileSync(join(dead, "pack-0123456789abcdef01234567"), "unfinished");
  const inode = statSync(used!.path).ino;
  const options = optionsOf(scratch);
  await withAbandonedPacks(options, async () => {
    assert.equal(claims(options.index, used!), false);
    assert.equal(options.index.lookup(used!.header, used!.header.length - 32), -1);
    const [wanted, ...others] = options.index.wantedPacks();
    assert.deepEqual(others, []);
    assert.deepEqual({ ...wanted!, path: used!.path }, { ...used!, id: Buffer.from(used!.id), header: wanted!.header });
    assert.deepEqual(Buffer.from(wanted!.header), Buffer.from(used!.header));
    assert.equal(statSync(wanted!.path).ino, inode);
    return Promise.resolve();
  });
  assert.ok(!existsSync(dead));
  assert.deepEqual(
    readdirSync(options.directory).toSorted(),
    [used!, unused!].map(({ path }) => basename(path)).toSorted(),
  );
  options.index.endSession();
  options.index.beginSession();
  assert.equal(claims(options.index, used!), true, "after the session the blobs are as unknown as before");
});

test("BlobIndex.beginSession without packs keeps the packs of the previous session", async () => {
  using scratch = testPacks();
  const [pack] = packsIn(deadDirectory(scratch), scratch, [[1]]);
  const { index, ...options } = optionsOf(scratch);
  await withAbandonedPacks({ ...options, index }, async () => {
    claims(index, pack!);
    index.beginSession();
    assert.deepEqual(index.wantedPacks(), []);
    assert.equal(claims(index, pack!), false);
    assert.deepEqual(namesOf(index.wantedPacks()), namesOf([pack!]));
    return Promise.resolve();
  });
});

test("a save reuses equal packs of two ended processes once, and no pack with indexed content", async () => {
  using scratch = testPacks();
  const first = packsIn(deadDirectory(scratch), scratch, [[1, 2]]);
  const second = packsIn(deadDirectory(scratch), scratch, [[1, 2]]);
  const known = packsIn(deadDirectory(scratch), scratch, [[9]])[0]!;
  const { index, ...options } = optionsOf(scratch);
  index.addPackHeader(known.id, known.header);
  await withAbandonedPacks({ ...options, index }, async () => {
    for (const pack of [...first, ...second, known]) assert.equal(claims(index, pack), false);
    assert.equal(index.wantedPacks().length, 1);
    return Promise.resolve();
  });
});

test("a save removes truncated, changed and empty packs of an ended process instead of reusing them", async () => {
  using scratch = testPacks();
  const dead = deadDirectory(scratch);
  const [cut, flipped, flippedHeader, zeroed, sound] = packsIn(dead, scratch, [[1], [2], [3], [4], [5]]);
  truncateSync(cut!.path, cut!.size - 1);
  for (const [pack, at] of [
    [flipped, 100],
    [flippedHeader, flippedHeader!.size - 20],
  ] as const) {
    const bytes = readFileSync(pack!.path);
    bytes[at]! ^= 1;
    writeFileSync(pack!.path, bytes);
  }
  // As a file system leaves a file whose end was flushed and whose beginning was not.
  const bytes = readFileSync(zeroed!.path);
  writeFileSync(zeroed!.path, bytes.fill(0, 0, 4096));
  const [foreign] = packsIn(dead, { ...scratch, keys: newMasterKeys() }, [[6]]);
  writeFileSync(join(dead, `pack-${"0".repeat(64)}`), "");
  mkdirSync(join(dead, `pack-${"1".repeat(64)}`));
  const { index, ...options } = optionsOf(scratch);
  await withAbandonedPacks({ ...options, index }, async () => {
    for (const pack of [cut, flipped, flippedHeader, zeroed, foreign]) assert.equal(claims(index, pack!), true);
    assert.equal(claims(index, sound!), false);
    assert.deepEqual(namesOf(index.wantedPacks()), namesOf([sound!]));
    return Promise.resolve();
  });
  assert.deepEqual(readdirSync(options.directory), [basename(sound!.path)]);
  assert.ok(!existsSync(dead));
});

test("a save does not reuse packs of a running process", async () => {
  using scratch = testPacks();
  const living = newWorkDirectory(scratch.directory);
  mkdirSync(living);
  const [pack] = packsIn(living, scratch, [[1]]);
  const { index, ...options } = optionsOf(scratch);
  await withAbandonedPacks({ ...options, index }, async () => {
    assert.equal(claims(index, pack!), true);
    return Promise.resolve();
  });
  assert.ok(existsSync(pack!.path));
});

test("the next save reuses the complete packs of an aborted save", async () => {
  using scratch = testPacks();
  const [taken] = packsIn(deadDirectory(scratch), scratch, [[1]]);
  const stopping = new AbortController();
  const stopped = optionsOf(scratch, { signal: stopping.signal });
  let own: FinishedPack[] = [];
  const work = withAbandonedPacks(stopped, async () => {
    own = packsIn(stopped.directory, scratch, [[2]]);
    stopping.abort();
    return Promise.reject(new CairnError("interrupted", "stopped"));
  });
  await assert.rejects(work, { code: "interrupted" });
  assert.ok(!existsSync(stopped.directory));
  const { index, ...options } = optionsOf(scratch);
  await withAbandonedPacks({ ...options, index }, async () => {
    for (const pack of [taken!, ...own]) assert.equal(claims(index, pack), false);
    assert.deepEqual(namesOf(index.wantedPacks()), namesOf([taken!, ...own]));
    return Promise.resolve();
  });
  assert.deepEqual(readdirSync(scratch.directory), [basename(options.directory)]);
});

test("a save on a full disk removes packs of ended processes and starts again", async () => {
  using scratch = testPacks();
  const [pack] = packsIn(deadDirectory(scratch), scratch, [[1]]);
  const { index, ...options } = optionsOf(scratch);
  const tries: boolean[] = [];
  await withAbandonedPacks({ ...options, index }, async (again) => {
    tries.push(again);
    assert.equal(claims(index, pack!), again);
    assert.equal(existsSync(join(options.directory, basename(pack!.path))), !again);
    return again ? Promise.resolve() : Promise.reject(new CairnError("no_space", "full"));
  });
  assert.deepEqual(tries, [false, true]);
  // Without such packs there is nothing to try again with.
  const full = withAbandonedPacks(optionsOf(scratch), async (again) => {
    tries.push(again);
    return Promise.reject(new CairnError("no_space", "full"));
  });
  await assert.rejects(full, { code: "no_space" });
  assert.deepEqual(tries, [false, true, false]);
});
