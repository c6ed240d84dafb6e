import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import { sha256 } from "../../crypto/hash.ts";
import { arenaOver } from "../../native.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { BlobForwarder } from "./forward.ts";
import { ForwardedPacks } from "./forwarded-packs.ts";
import { Repository } from "../repository.ts";
import { MemoryStorage } from "../storage/testing-memory.ts";
import { noiseBlob } from "../testing-packs.ts";

/** Uploads and flushes end when they are let. */
class HeldStorage extends MemoryStorage {
  readonly held = { saveFile: 0, sync: 0 };
  #free = Promise.withResolvers<undefined>();

  letGo(): void {
    this.#free.resolve(undefined);
  }

  override async saveFile(...call: Parameters<MemoryStorage["saveFile"]>): Promise<void> {
    this.held.saveFile++;
    await this.#free.promise;
    this.held.saveFile--;
    await super.saveFile(...call);
    // What is flushed next waits again.
    this.#free = Promise.withResolvers();
  }

  override async sync(): Promise<void> {
    this.held.sync++;
    await this.#free.promise;
    this.held.sync--;
  }
}

interface Scene {
  storage: HeldStorage;
  packs: ForwardedPacks;
  directory: string;
  /** Forwards a pack of one blob. */
  pack(): void;
  indexed(): Promise<number>;
}

async function scene(t: TestContext): Promise<Scene> {
  const directory = mkdtempSync(join(tmpdir(), "cairn-forwarded-"));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  t.mock.timers.enable({ apis: ["Date"] });
  const storage = new HeldStorage();
  const repository = await Repository.create(storage, { password: "p" });
  const packs = new ForwardedPacks({ repository, index: new BlobIndex(), directory });
  let made = 0;
  return {
    storage,
    packs,
    directory,
    pack() {
      const forwarder = new BlobForwarder(packs.task, (pack) => packs.onPack(pack, "folder"));
      const blob = noiseBlob(made++, 100);
      const stored = { arena: arenaOver(blob), offset: 0, length: blob.length, plainLength: 0 };
      forwarder.add("data", sha256(blob), 0, stored);
      forwarder.finish([]);
    },
    indexed: async () => (await BlobIndex.load(repository, null)).count,
  };
}

test("an aborted ForwardedPacks writes no index", async (t) => {
  const { storage, packs, pack, indexed } = await scene(t);
  pack();
  // An index is due when it arrives.
  t.mock.timers.tick(30_000);
  assert.equal(storage.held.saveFile, 1);
  const aborted = packs.abort();
  storage.letGo();
  await aborted;
  for (let i = 0; i < 10; i++) await turn();
  storage.letGo();
  for (let i = 0; i < 10; i++) await turn();
  assert.deepEqual([await indexed(), storage.held.sync], [0, 0]);
});

test("ForwardedPacks.finish waits for a running index write", async (t) => {
  const { storage, packs, pack, indexed } = await scene(t);
  pack();
  t.mock.timers.tick(30_000);
  storage.letGo();
  for (let i = 0; i < 10; i++) await turn();
  assert.equal(storage.held.sync, 1, "the index waits for its packs");
  packs.onEnd();
  for (let i = 0; i < 10; i++) await turn();
  assert.equal(storage.held.sync, 1);
  storage.letGo();
  await packs.finish();
  assert.equal(await indexed(), 1);
});

test("ForwardedPacks.clear removes unfinished packs of failed threads", async (t) => {
  const { packs, directory } = await scene(t);
  writeFileSync(join(packs.task.directory, "pack-of-a-thread"), "");
  packs.clear();
  assert.deepEqual(readdirSync(directory), []);
  packs.clear();
});
