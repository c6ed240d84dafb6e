import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { arenaOver } from "../../native.ts";
import { sha256 } from "../../crypto/hash.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { PackUploader } from "./pack-uploader.ts";
import { PackWriter } from "./pack-writer.ts";
import { Repository } from "../repository.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import { MemoryStorage } from "../storage/testing-memory.ts";
import type { Storage } from "../storage/storage.ts";
import { noiseBlob } from "../testing-packs.ts";

/** An uploader and what gives it packs of one blob each. */
async function uploading(
  t: TestContext,
  storage: Storage = new MemoryStorage(),
): Promise<{ uploader: PackUploader; directory: string; pack(): void; indexed(): Promise<number> }> {
  const directory = mkdtempSync(join(tmpdir(), "cairn-uploader-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const repository = await Repository.create(storage, { password: "p" });
  const uploader = new PackUploader({ repository, index: new BlobIndex() });
  const writer = new PackWriter({
    type: "data",
    keys: repository.keys,
    directory,
    packSize: 1,
    onPack: (pack) => void uploader.add(pack),
  });
  let packs = 0;
  return {
    uploader,
    directory,
    pack() {
      const blob = noiseBlob(packs++, 100);
      writer.add(sha256(blob), arenaOver(blob), 0, blob.length);
      writer.finish();
    },
    indexed: async () => (await BlobIndex.load(repository, null)).count,
  };
}

test("PackUploader writes an index file after every 64 packs", async (t) => {
  const { uploader, pack, indexed } = await uploading(t);
  for (let i = 0; i < 63; i++) pack();
  await uploader.settle();
  assert.equal(await indexed(), 0);
  pack();
  await uploader.settle();
  assert.deepEqual([await indexed(), uploader.indexes], [64, 1]);
  for (let i = 0; i < 64; i++) pack();
  await uploader.settle();
  assert.deepEqual([await indexed(), uploader.indexes], [128, 2]);
});

test("PackUploader writes an index file 30 seconds after the last one if it has a new pack", async (t) => {
  t.mock.timers.enable({ apis: ["Date"] });
  const { uploader, pack, indexed } = await uploading(t);
  t.mock.timers.tick(30_000);
  await uploader.settle();
  assert.equal(uploader.indexes, 0);
  pack();
  await uploader.settle();
  assert.equal(await indexed(), 1);
  pack();
  t.mock.timers.tick(29_999);
  await uploader.settle();
  assert.equal(await indexed(), 1);
  t.mock.timers.tick(1);
  await uploader.settle();
  assert.deepEqual([await indexed(), uploader.indexes], [2, 2]);
});

for (const how of ["fails", "is given up"] as const)
  test(`PackUploader does not upload waiting packs ${how === "fails" ? "after an upload failed" : "after an abort"}`, async (t) => {
    const storage = new FaultyStorage(new MemoryStorage());
    const { uploader, directory, pack } = await uploading(t, storage);
    if (how === "fails") storage.arm({ operation: "saveFile", fault: "fail" });
    for (let i = 0; i < 10; i++) pack();
    if (how === "fails") await assert.rejects(uploader.checkpoint(), { code: "io" });
    await uploader.abort();
    assert.equal(storage.calls.get("saveFile data"), 4);
    await assert.rejects(uploader.checkpoint());
    assert.deepEqual(readdirSync(directory), []);
  });
