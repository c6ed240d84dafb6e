import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { sealMessage } from "../../crypto/seal.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeHeaderEntry } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { planIndexRepair, runIndexRepair } from "./repair.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import type { Storage } from "../storage/storage.ts";
import { randomFiles, TestArchive, withRepository } from "../testing-archive.ts";

test("a repair does not index a file that is larger than the largest possible pack", async () => {
  await withRepository(async ({ repository, storage, temporary }) => {
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
});
