import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { BlobIndex } from "../index/blob-index.ts";
import { NearPacks } from "../read/near-packs.ts";
import { BlobSource } from "../read/blob-source.ts";
import { Repository } from "../repository.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import { LocalStorage } from "../storage/local.ts";
import { MemoryStorage } from "../storage/testing-memory.ts";
import type { Storage } from "../storage/storage.ts";
import { PASSWORD, randomFiles, resticCheck, TestArchive, withFolder } from "../testing-archive.ts";
import { runTransfer, type TransferOptions, type TransferResult } from "./transfer.ts";
import { planTransfer, type TransferPlan } from "./transfer-plan.ts";

interface Side {
  repository: Repository;
  storage: Storage;
  temporary: string;
}

async function local(folder: string, name: string): Promise<Side> {
  const temporary = join(folder, `${name}-tmp`);
  const storage = LocalStorage.create(join(folder, name), { temporaryDirectory: temporary });
  return { storage, temporary, repository: await Repository.create(storage, { password: PASSWORD }) };
}

async function memory(folder: string): Promise<Side> {
  const storage = new MemoryStorage();
  const temporary = join(folder, "memory-tmp");
  mkdirSync(temporary, { recursive: true });
  return { storage, temporary, repository: await Repository.create(storage, { password: PASSWORD }) };
}

interface Moved {
  plan: TransferPlan;
  result: TransferResult;
}

async function transfer(
  from: Side,
  to: Side,
  tree: Uint8Array,
  more: Partial<TransferOptions> & { known?: Uint8Array } = {},
): Promise<Moved> {
  const [source, target] = [await BlobIndex.load(from.repository, null), await BlobIndex.load(to.repository, null)];
  const near = new NearPacks(from.storage, join(from.temporary, "near"));
  const reader = new BlobSource({ keys: from.repository.keys, index: source, packs: near });
  const { known, ...options } = more;
  const plan = await planTransfer(source, target, { roots: [tree], readTree: reader.readTree, known });
  const sides = [
    { repository: from.repository, index: source },
    { repository: to.repository, index: target },
  ] as const;
  const result = await runTransfer(...sides, plan, { directory: join(to.temporary, "work"), near, ...options });
  reader.close();
  assert.deepEqual(readdirSync(join(to.temporary, "work")), [], "nothing unfinished is left");
  return { plan, result };
}

async function writeSnapshot(to: Side, tree: Uint8Array): Promise<void> {
  await to.repository.saveSnapshot({
    time: new Date().toISOString(),
    tree: Buffer.from(tree).toString("hex") as never,
    paths: ["/folder"],
    hostname: "test",
    username: "root",
    uid: 0,
    gid: 0,
  });
}

test("a transfer's plan contains every blob once, and the path of the file that each pack begins with", async () => {
  await withFolder(async (folder) => {
    const from = await local(folder, "from");
    const files = randomFiles(20, 500);
    const { tree } = await new TestArchive(from).save({
      ...files,
      zö: Buffer.from("not ASCII, and the last"),
    });
    const { plan } = await transfer(from, await memory(folder), tree);
    assert.deepEqual([plan.dataBlobs, plan.entries.length], [21, new Set(plan.entries).size]);
    assert.deepEqual([...plan.files.values()], [`folder/${Object.keys(files).sort()[0]}`]);
  });
});

test("a transfer copies only the blobs that the target lacks", async () => {
  await withFolder(async (folder) => {
    const [from, to] = [await local(folder, "from"), await local(folder, "to")];
    const archive = new TestArchive(from);
    const files = { ...randomFiles(20, 5000), text: Buffer.from("a line\n".repeat(5000)) };
    const first = await archive.save(files);
    const moved = await transfer(from, to, first.tree);
    assert.deepEqual([moved.plan.dataBlobs, moved.plan.treeBlobs, moved.result.packs], [21, 2, 2]);
    assert.ok(moved.result.packBytes < 130_000, "what was compressed stays so");
    await writeSnapshot(to, first.tree);
    assert.equal((await transfer(from, to, first.tree)).plan.entries.length, 0);
    const second = await archive.save({ ...files, more: Buffer.from("more") });
    const again = await transfer(from, to, second.tree, { known: first.tree });
    assert.deepEqual([again.plan.dataBlobs, again.plan.treeBlobs], [1, 2]);
    await writeSnapshot(to, second.tree);
    resticCheck(join(folder, "to"));
  });
});

test("a transfer can read from and write to a storage that is not local", async () => {
  await withFolder(async (folder) => {
    const [from, far, to] = [await local(folder, "from"), await memory(folder), await local(folder, "to")];
    const { tree } = await new TestArchive(from).save(randomFiles(300, 3000));
    await transfer(from, far, tree);
    const { plan } = await transfer(far, to, tree);
    assert.equal(plan.entries.length, 302);
    await writeSnapshot(to, tree);
    resticCheck(join(folder, "to"));
  });
});

test("a transfer throws damaged and copies nothing if a blob is damaged in the source", async () => {
  await withFolder(async (folder) => {
    const [from, to] = [await local(folder, "from"), await local(folder, "to")];
    const { tree } = await new TestArchive(from).save(randomFiles(3, 5000));
    for (const { name, size } of await from.storage.list("data")) {
      if (size < 10_000) continue;
      const path = from.storage.localPath!("data", name);
      const bytes = readFileSync(path);
      bytes[7000] = bytes[7000]! ^ 1;
      writeFileSync(path, bytes);
    }
    await assert.rejects(transfer(from, to, tree), (error) => error instanceof CairnError && error.code === "damaged");
    assert.deepEqual([await to.storage.list("index"), await to.storage.list("data")], [[], []]);
    assert.deepEqual(readdirSync(join(to.temporary, "work")), []);
  });
});

test("a transfer throws an error if the source lacks the tree", async () => {
  await withFolder(async (folder) => {
    const [from, to] = [await local(folder, "from"), await local(folder, "to")];
    const absent = Buffer.alloc(32, 7);
    await assert.rejects(transfer(from, to, absent), /no tree blob 070707070707/);
  });
});

test("an interrupted transfer continues from its last index", async () => {
  await withFolder(async (folder) => {
    const [from, to] = [await local(folder, "from"), await local(folder, "to")];
    const { tree } = await new TestArchive(from).save(randomFiles(8, 17 * 1024 * 1024));
    const stop = new AbortController();
    const storage = new FaultyStorage(to.storage);
    const save = storage.save.bind(storage);
    let indexes = 0;
    storage.save = async (kind, ...rest) => {
      await save(kind, ...rest);
      if (kind === "index" && ++indexes === 2) stop.abort();
    };
    const stopped = { ...to, storage, repository: await Repository.open(storage, { password: PASSWORD }) };
    const cut = transfer(from, stopped, tree, { uploads: { packsPerIndex: 1 }, signal: stop.signal });
    await assert.rejects(cut, (error) => error instanceof CairnError && error.code === "interrupted");
    const known = await BlobIndex.load(to.repository, null);
    assert.ok(known.count >= 2, `${known.count} blobs are indexed`);
    const { plan } = await transfer(from, to, tree);
    assert.equal(plan.dataBlobs, 8 - known.count);
    await writeSnapshot(to, tree);
    resticCheck(join(folder, "to"));
  });
});

test("a transfer throws the error of a failed upload, and a second transfer succeeds", async () => {
  await withFolder(async (folder) => {
    const [from, to] = [await local(folder, "from"), await local(folder, "to")];
    const { tree } = await new TestArchive(from).save(randomFiles(10, 2000));
    const faulty = new FaultyStorage(to.storage, [{ operation: "saveFile", kind: "data", fault: "no_space" }]);
    const broken = { ...to, storage: faulty, repository: await Repository.open(faulty, { password: PASSWORD }) };
    await assert.rejects(transfer(from, broken, tree), (e) => e instanceof CairnError && e.code === "no_space");
    const { result } = await transfer(from, to, tree);
    assert.equal(result.indexes, 1);
    await writeSnapshot(to, tree);
    resticCheck(join(folder, "to"));
  });
});
