import { strict as assert } from "node:assert";
import { createHash, randomBytes } from "node:crypto";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { crc32 } from "node:zlib";
import { countFileCalls } from "../../../test/fixtures/file-calls.ts";
import { CairnError } from "../../errors.ts";
import { ByteWriter } from "../../formats/bytes.ts";
import { encodeHeaderEntry } from "../../formats/restic/pack-header.ts";
import { BlobIndex } from "./blob-index.ts";
import { BlobTable } from "./blob-table.ts";
import { readIndexCache } from "./index-cache.ts";
import { Repository } from "../repository.ts";
import { CountingStorage } from "../storage/testing-counting.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import { randomFiles, sha, TestArchive, repositoryFor } from "../testing-archive.ts";

/** A pack header of `count` blobs that only exists in the index. */
function fakeHeader(count: number, seed: string): { id: Uint8Array; header: Uint8Array } {
  const w = new ByteWriter(count * 41);
  for (let i = 0; i < count; i++) {
    const id = createHash("sha256").update(`${seed}:${i}`).digest();
    encodeHeaderEntry(w, {
      id,
      type: i % 7 === 0 ? "tree" : "data",
      length: 100 + i,
      uncompressedLength: i % 2 === 0 ? 500 : 0,
    });
  }
  return { id: sha(Buffer.from(seed)), header: w.view().slice() };
}

describe("BlobIndex", () => {
  test("BlobIndex.place returns the place of each blob, loaded from index files or from the cache", async (t) => {
    const { repository, folder } = await repositoryFor(t);
    const pack = fakeHeader(1000, "a");
    await repository.saveIndex([pack]);
    const cache = join(folder, "cache");
    const fresh = await BlobIndex.load(repository, cache);
    const again = await BlobIndex.load(repository, cache);
    assert.equal(again.epoch, fresh.epoch);
    for (const index of [fresh, again, BlobIndex.fromShared(again.shared)]) {
      assert.equal(index.count, 1000);
      const id = createHash("sha256").update("a:3").digest();
      const place = index.place(index.lookup(id, 0));
      assert.deepEqual(Buffer.from(place.pack), Buffer.from(pack.id));
      assert.deepEqual(
        { ...place, pack: 0 },
        { pack: 0, offset: 303, length: 103, uncompressedLength: 0, type: "data" },
      );
      assert.equal(index.lookup(id, 0, 1), -1);
      assert.equal(index.lookup(randomBytes(40), 8), -1);
    }
  });

  test("BlobIndex.others returns the second place of a blob that two packs contain", async (t) => {
    const { repository, folder } = await repositoryFor(t);
    const cache = join(folder, "cache");
    const { id: pack, header } = fakeHeader(100, "a");
    const twin = sha(Buffer.from("twin"));
    await repository.saveIndex([{ id: pack, header }]);
    await repository.saveIndex([{ id: twin, header }]);
    const fresh = await BlobIndex.load(repository, cache);
    const again = await BlobIndex.load(repository, cache);
    const shared = BlobIndex.fromShared((await BlobIndex.load(repository, cache)).shared);
    for (const index of [fresh, again, shared]) {
      assert.deepEqual([...index.inSeveralPlaces()].length, 100);
      const entry = index.lookup(createHash("sha256").update("a:3").digest(), 0);
      const [first, others] = [index.place(entry), index.others(entry)];
      assert.deepEqual(others, [{ ...first, pack: others[0]!.pack }]);
      const packs = [first, ...others].map((place) => Buffer.from(place.pack).toString("hex"));
      assert.deepEqual(packs.toSorted(), [pack, twin].map((each) => Buffer.from(each).toString("hex")).toSorted());
      index.prefer(entry, others[0]!);
      assert.deepEqual([index.place(entry), index.others(entry)], [others[0], [first]]);
      const without = index.without(new Set([Buffer.from(others[0]!.pack).toString("hex")]));
      assert.deepEqual([without.count, without.place(without.lookup(index.idOf(entry), 0))], [100, first]);
      assert.equal(index.without(new Set(packs)).count, 0);
      index.unlist(first.pack);
      assert.deepEqual(index.others(entry), []);
    }
  });

  test("BlobIndex.addPackHeader adds the same places as loading the index file", async (t) => {
    const { repository } = await repositoryFor(t);
    const packs = [fakeHeader(9000, "x"), fakeHeader(9000, "y")];
    const own = new BlobIndex();
    for (const pack of packs) own.addPackHeader(pack.id, pack.header);
    const names = await repository.saveIndex(packs);
    assert.equal(names.length, 1);
    const loaded = await BlobIndex.load(repository, null);
    assert.equal(loaded.count, 18_000);
    for (let i = 0; i < 18_000; i += 97) {
      const id = own.idOf(i);
      const type = own.table.typeOf(i);
      assert.deepEqual(own.place(i), loaded.place(loaded.lookup(id, 0, type)));
    }
  });

  test("packs that are added to a copy with derived blobs leave the index as it was", () => {
    const index = new BlobIndex();
    const known = fakeHeader(10, "known");
    index.addPackHeader(known.id, known.header);
    const derived = fakeHeader(10, "derived");
    const all = new BlobIndex();
    all.addPackHeader(derived.id, derived.header);
    const ids = Array.from({ length: 10 }, (_, i) => ({ id: all.idOf(i), type: all.table.typeOf(i), length: 100 }));
    const copy = index.withDerived(ids);
    // The pack has the same blobs again, as that of a copied database.
    copy.addPackHeader(derived.id, derived.header);
    assert.equal(copy.others(10).length, 1);
    assert.deepEqual([...index.inSeveralPlaces()], []);
    const next = fakeHeader(10, "next");
    index.addPackHeader(next.id, next.header);
    for (let entry = 0; entry < 20; entry++) assert.deepEqual(index.others(entry), []);
  });

  test("BlobIndex.load allocates memory once for all index files, even if the storage lists wrong sizes", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    for (let i = 0; i < 8; i++) await repository.saveIndex([fakeHeader(4000, `many-${i}`)]);
    const make = t.mock.method(BlobTable, "make");
    assert.equal((await BlobIndex.load(repository, null)).count, 32_000);
    // An empty one, and one for all.
    assert.equal(make.mock.callCount(), 2);
    const files = await storage.list("index");
    for (const wrong of [0, 1, 2 ** 52]) {
      t.mock.method(storage, "list", async () => files.map(({ name }, i) => ({ name, size: i === 3 ? wrong : 100 })));
      assert.equal((await BlobIndex.load(repository, null)).count, 32_000);
    }
  });

  test("BlobIndex.load reads 8 remote index files at once", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    for (let i = 0; i < 20; i++) await repository.saveIndex([fakeHeader(10, `far-${i}`)]);
    const far = new CountingStorage(storage);
    delete far.localPath;
    let [running, most] = [0, 0];
    const load = far.load.bind(far);
    far.load = async (kind, name, range) => {
      most = Math.max(most, ++running);
      await setImmediate();
      running--;
      return load(kind, name, range);
    };
    const index = await BlobIndex.load(await Repository.open(far, { keys: repository.keys }), null);
    assert.equal(index.count, 200);
    assert.equal(most, 8);
  });

  test("saveIndex splits a large index into files below 8 MiB", async (t) => {
    const { repository } = await repositoryFor(t);
    const packs = Array.from({ length: 12 }, (_, i) => fakeHeader(7000, `p${i}`));
    const names = await repository.saveIndex(packs);
    assert.ok(names.length >= 2);
    for (const name of names) assert.ok((await repository.loadUnpacked("index", name)).length < 8 * 1024 * 1024);
    assert.equal((await BlobIndex.load(repository, null)).count, 84_000);
  });

  test("BlobIndex.load reads new index files in addition to the cache, and rewrites the cache after 16", async (t) => {
    const { repository, folder } = await repositoryFor(t);
    const cache = join(folder, "cache");
    await repository.saveIndex([fakeHeader(10, "first")]);
    const { epoch } = await BlobIndex.load(repository, cache);
    for (let i = 0; i < 20; i++) {
      await repository.saveIndex([fakeHeader(10, `n${i}`)]);
      const index = await BlobIndex.load(repository, cache);
      assert.equal(index.count, 10 * (i + 2));
      assert.equal(index.epoch, epoch);
    }
    assert.equal(readIndexCache(cache, repository.id)!.covered.size, 17);
    assert.deepEqual(readdirSync(folder).sort(), ["cache", "store", "tmp"]);
  });

  test("the epoch of BlobIndex changes only if blobs are gone, not if other index files list the same blobs", async (t) => {
    const { repository, folder } = await repositoryFor(t);
    const cache = join(folder, "cache");
    const [a] = await repository.saveIndex([fakeHeader(10, "a")]);
    const [b] = await repository.saveIndex([fakeHeader(10, "b")]);
    const { epoch } = await BlobIndex.load(repository, cache);
    await repository.saveIndex([fakeHeader(10, "a"), fakeHeader(10, "b")]);
    await repository.storage.remove("index", a!);
    const moved = await BlobIndex.load(repository, cache);
    assert.equal(moved.epoch, epoch);
    for (const { name } of await repository.storage.list("index")) await repository.storage.remove("index", name);
    await repository.saveIndex([fakeHeader(10, "b")]);
    const shrunk = await BlobIndex.load(repository, cache);
    assert.notEqual(shrunk.epoch, epoch);
    assert.equal(shrunk.count, 10);
    assert.equal((await BlobIndex.load(repository, cache)).epoch, shrunk.epoch);
    assert.ok(b);
  });

  test("BlobIndex.load ignores a damaged cache, and succeeds if the cache cannot be written", async (t) => {
    const { repository, folder } = await repositoryFor(t);
    const cache = join(folder, "cache");
    await repository.saveIndex([fakeHeader(500, "a")]);
    await BlobIndex.load(repository, cache);
    const bytes = readFileSync(cache);
    for (let i = 0; i < 40; i++) {
      const copy = Buffer.from(bytes);
      copy[Math.floor((i / 40) * copy.length)]! ^= 1 << (i % 8);
      writeFileSync(cache, copy);
      assert.equal(readIndexCache(cache, repository.id), null, `flip at ${i}/40`);
      writeFileSync(cache, bytes.subarray(0, Math.floor((i / 40) * bytes.length)));
      assert.equal(readIndexCache(cache, repository.id), null, `cut at ${i}/40`);
    }
    const counted = Buffer.from(bytes);
    counted.writeUInt32LE(1, 20);
    counted.writeUInt32LE(crc32(counted.subarray(0, -4)), counted.length - 4);
    writeFileSync(cache, counted);
    assert.equal(readIndexCache(cache, repository.id), null, "a count of other places that does not fit");
    writeFileSync(cache, bytes);
    assert.notEqual(readIndexCache(cache, repository.id), null);
    assert.equal(readIndexCache(cache, "0".repeat(64)), null);
    assert.equal((await BlobIndex.load(repository, join(folder, "absent/cache"))).count, 500);
    rmSync(cache);
  });

  test("BlobIndex.load lists the index files again if one is removed between listing and reading", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    await repository.saveIndex([fakeHeader(10, "a")]);
    const [gone] = await repository.saveIndex([fakeHeader(10, "b")]);
    const faulty = new FaultyStorage(storage);
    const slow = await Repository.open(faulty, { keys: repository.keys });
    const files = await storage.list("index");
    const list = faulty.list.bind(faulty);
    faulty.list = async (kind) => {
      if (kind !== "index") return list(kind);
      faulty.list = list;
      await storage.remove("index", gone!);
      return files;
    };
    assert.equal((await BlobIndex.load(slow, null)).count, 10);
    assert.equal(await new BlobIndex().refresh(slow, { files }), false);
    faulty.arm({ operation: "load", kind: "index", fault: "fail" });
    await assert.rejects(BlobIndex.load(slow, null), (error) => error instanceof CairnError && error.retryable);
  });

  test("BlobIndex.refresh reads new index files, and returns false if a known index file is gone", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const [a] = await repository.saveIndex([fakeHeader(10, "a")]);
    const index = await BlobIndex.load(repository, null);
    await repository.saveIndex([fakeHeader(10, "b")]);
    assert.equal(await index.refresh(repository), true);
    assert.equal(index.count, 20);
    await storage.remove("index", a!);
    assert.equal(await index.refresh(repository), false);
  });

  test("BlobIndex.refresh names a damaged index file only once", async (t) => {
    const { repository, path } = await repositoryFor(t);
    const [bad] = await repository.saveIndex([fakeHeader(10, "a")]);
    writeFileSync(join(path, "index", bad!), "x");
    const index = await BlobIndex.load(repository, null);
    assert.equal(await index.refresh(repository), true);
    assert.deepEqual(
      index.damaged.map(({ name }) => name),
      [bad],
    );
  });

  test("BlobIndex.load names a damaged index file and reads the other index files", async (t) => {
    const { repository, folder, path } = await repositoryFor(t);
    await repository.saveIndex([fakeHeader(10, "a")]);
    const [bad] = await repository.saveIndex([fakeHeader(10, "b")]);
    writeFileSync(join(path, "index", bad!), "x");
    const index = await BlobIndex.load(repository, join(folder, "cache"));
    assert.equal(index.count, 10);
    assert.deepEqual(
      index.damaged.map((d) => d.name),
      [bad],
    );
    assert.deepEqual(
      (await BlobIndex.load(repository, join(folder, "cache"))).damaged.map((d) => d.name),
      [bad],
    );
  });

  test("BlobIndex.claim returns true once for a new blob, separately for data and trees", async (t) => {
    const fixture = await repositoryFor(t);
    const files = randomFiles(3, 100);
    await new TestArchive(fixture).save(files);
    const index = await BlobIndex.load(fixture.repository, null);
    index.beginSession();
    const other = BlobIndex.fromShared(index.shared);
    const known = sha(files["f0"]!);
    const fresh = randomBytes(32);
    assert.equal(index.claim(known, 0), false);
    assert.equal(other.claim(fresh, 0), true);
    assert.equal(index.claim(fresh, 0), false);
    assert.equal(index.claim(fresh, 0, 1), true);
  });

  test("an index cache takes at most 64 bytes a blob, and BlobIndex.load reads no index file that it covers", async (t) => {
    const { repository, folder } = await repositoryFor(t);
    const cache = join(folder, "cache");
    await repository.saveIndex(Array.from({ length: 10 }, (_, i) => fakeHeader(10_000, `p${i}`)));
    const index = await BlobIndex.load(repository, cache);
    assert.equal(index.count, 100_000);
    assert.ok(readFileSync(cache).length <= 64 * 100_000);
    const started = performance.now();
    const calls = countFileCalls(t, () => assert.equal(readIndexCache(cache, repository.id)?.table.count, 100_000));
    t.diagnostic(`cache of 100 000 blobs: ${(performance.now() - started).toFixed(1)} ms`);
    // Its parts, and their pieces of half a MiB.
    assert.ok(calls < 50, `${calls} calls`);
    const counting = new CountingStorage(repository.storage);
    const again = await BlobIndex.load(await Repository.open(counting, { keys: repository.keys }), cache);
    assert.deepEqual([again.count, counting.count("load", "index")], [100_000, 0]);
  });
});
