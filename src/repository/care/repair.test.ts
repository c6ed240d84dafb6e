import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import fs, { readFileSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { test } from "node:test";
import { sealMessage } from "../../crypto/seal.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeHeaderEntry } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { planIndexRepair, type RepairResult, runIndexRepair } from "./repair.ts";
import { Repository } from "../repository.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import type { Storage } from "../storage/storage.ts";
import { type Fixture, PASSWORD, randomFiles, TestArchive, repositoryFor } from "../testing-archive.ts";

test("a repair does not index a file that is larger than the largest possible pack", async (t) => {
  const { repository, storage, temporary } = await repositoryFor(t);
  await new TestArchive({ repository, temporary }).save(randomFiles(2, 500));
  for (const { name } of await storage.list("index")) await storage.remove("index", name);
  const length = 0xf000_0000;
  const header = new ByteWriter();
  for (let i = 0; i < 2; i++)
    encodeHeaderEntry(header, { id: randomBytes(32), type: "data", length, uncompressedLength: 0 });
  const sealed = sealMessage(repository.keys, header.copy());
  const end = Buffer.concat([sealed, Buffer.from(Uint32Array.of(sealed.length).buffer)]);
  const huge = { name: objectIdOf(randomBytes(32)), size: 2 * length + end.length };
  const over = new FaultyStorage(storage);
  const load: Storage["load"] = async (kind, name, range) => {
    if (name !== huge.name) return storage.load(kind, name, range);
    const at = range!.offset - 2 * length;
    return end.subarray(at, at + range!.length);
  };
  const list: Storage["list"] = async (kind) => [...(await storage.list(kind)), ...(kind === "data" ? [huge] : [])];
  const mending = repository.over(Object.assign(over, { load, list }));
  const plan = await planIndexRepair(mending);
  assert.deepEqual([plan.add.length, plan.unreadable.map(({ name }) => name)], [2, [huge.name]]);
  await runIndexRepair(mending, plan);
  assert.deepEqual((await BlobIndex.load(repository, null)).damaged, []);
});

/** Saves 20 files and returns the name of their data pack. */
async function dataPack({ repository, storage, temporary }: Fixture): Promise<string> {
  await new TestArchive({ repository, temporary }).save(randomFiles(20, 3000));
  const index = await BlobIndex.load(repository, null);
  const entry = Array.from({ length: index.count }, (_, at) => at).find((at) => index.place(at).type === "data")!;
  const name = objectIdOf(index.place(entry).pack);
  assert.ok((await storage.list("data")).some((file) => file.name === name));
  return name;
}

/** Changes every byte of a file; returns what the file was. */
function spoil(file: string): Buffer {
  const whole = readFileSync(file);
  const spoiled = whole.map((byte) => byte ^ 1);
  fs.chmodSync(file, 0o600);
  writeFileSync(file, spoiled);
  return whole;
}

async function repairOf(
  { repository, folder }: Pick<Fixture, "repository" | "folder">,
  pack: string,
): Promise<RepairResult> {
  const options = { damagedPacks: new Set([pack]), work: () => `${folder}/work` };
  return runIndexRepair(repository, await planIndexRepair(repository, options), options);
}

test("a repair keeps every blob of a sound pack if the first read of the pack gives wrong bytes", async (t) => {
  const fixture = await repositoryFor(t);
  const { storage } = fixture;
  const pack = await dataPack(fixture);
  const whole = spoil(storage.localPath("data", pack));
  const load = storage.load.bind(storage);
  let loads = 0;
  storage.load = async (kind, name, ...rest) => {
    if (name === pack && loads++ === 0) writeFileSync(storage.localPath("data", pack), whole);
    return load(kind, name, ...rest);
  };
  const { savedBlobs, lostBlobs } = await repairOf(fixture, pack);
  assert.deepEqual([savedBlobs, lostBlobs], [20, []]);
  assert.equal(loads, 20);
  assert.ok((await storage.list("data")).every(({ name }) => name !== pack));
});

test("a repair fetches a remote pack whose blobs are all damaged as a whole at most three times, then each blob once", async (t) => {
  const fixture = await repositoryFor(t);
  const { storage, folder } = fixture;
  const pack = await dataPack(fixture);
  spoil(storage.localPath("data", pack));
  const far = new FaultyStorage(storage);
  const repository = await Repository.open(far, { password: PASSWORD });
  far.disarm();
  const { savedBlobs, lostBlobs } = await repairOf({ repository, folder }, pack);
  assert.deepEqual([savedBlobs, lostBlobs.length], [0, 20]);
  assert.equal(far.calls.get("load data"), 3 + 20);
});

test("a repair that cannot write a new pack fails with that error and leaves the damaged pack", async (t) => {
  const fixture = await repositoryFor(t);
  const { storage, temporary } = fixture;
  const pack = await dataPack(fixture);
  const before = await storage.list("data");
  const { writeSync } = fs;
  let fails = 0;
  const failing = (...given: Parameters<typeof writeSync>): number => {
    const isPack = /\/pack-[0-9a-f]+$/.test(fs.readlinkSync(`/proc/self/fd/${given[0]}`));
    if (!isPack || fails++ > 0) return writeSync(...given);
    throw Object.assign(new Error("EIO: i/o error, write"), { code: "EIO", syscall: "write" });
  };
  fs.writeSync = failing as typeof writeSync;
  syncBuiltinESMExports();
  try {
    await assert.rejects(repairOf(fixture, pack), { code: "io", message: /writing a data pack/ });
  } finally {
    fs.writeSync = writeSync;
    syncBuiltinESMExports();
  }
  assert.ok(fails > 0);
  assert.deepEqual(await storage.list("data"), before);
  assert.deepEqual(fs.readdirSync(temporary), []);
});
