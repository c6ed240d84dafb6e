import assert from "node:assert/strict";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { wornOut } from "../../../test/fixtures/worn-file.ts";
import { decodePackHeader } from "../../formats/restic/pack-header.ts";
import { objectIdOf } from "../../ids.ts";
import { type IndexedPack, loadIndexFile } from "../index/index-set.ts";
import { copyingPacks } from "./pack-copy.ts";
import { PackVerifier } from "../verify/pack-verifier.ts";
import { Repository } from "../repository.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import { type Fixture, PASSWORD, randomFiles, TestArchive, repositoryFor } from "../testing-archive.ts";

const SIZES = { small: 5000, other: 300_000, large: 3 * 1024 * 1024 };

/** A pack of data and one of trees, as an index lists them. */
async function savedPacks({ repository, storage, temporary }: Fixture): Promise<IndexedPack[]> {
  const files = Object.fromEntries(Object.entries(SIZES).map(([name, size]) => [name, randomFiles(1, size)["f0"]!]));
  await new TestArchive({ repository, temporary }).save(files);
  const [index] = await storage.list("index");
  return (await loadIndexFile(repository, index!.name)).packs;
}

function sealedBytes({ storage }: Fixture, { id, blobs }: { id: Uint8Array; blobs: IndexedPack["blobs"] }): string[] {
  const file = readFileSync(storage.localPath("data", objectIdOf(id)));
  return blobs.map(
    ({ id: blob, offset, length }) => `${objectIdOf(blob)} ${file.toString("hex", offset, offset + length)}`,
  );
}

test("PackCopier.copy writes the same sealed bytes of each blob into the new packs", async (t) => {
  const fixture = await repositoryFor(t);
  const { repository, storage } = fixture;
  const packs = await savedPacks(fixture);
  const copied = await copyingPacks(repository, undefined, async (copier) => {
    for (const pack of packs) assert.equal(await copier.copy(objectIdOf(pack.id), pack.blobs), true);
    // Once more: there is nothing left to copy.
    for (const pack of packs) assert.equal(await copier.copy(objectIdOf(pack.id), pack.blobs), true);
  });
  assert.deepEqual(copied.map(({ type }) => type).toSorted(), ["data", "tree"]);
  const verifier = new PackVerifier(repository.keys);
  const before = packs.flatMap((pack) => sealedBytes(fixture, pack));
  const after: string[] = [];
  for (const { id, header, size } of copied) {
    after.push(...sealedBytes(fixture, { id, blobs: decodePackHeader(header) }));
    const descriptor = openSync(storage.localPath("data", objectIdOf(id)), "r");
    assert.deepEqual(verifier.verify({ descriptor, size, id }), []);
    closeSync(descriptor);
  }
  assert.deepEqual(after.toSorted(), before.toSorted());
});

test("PackCopier.copy returns false if a wanted blob is damaged, or the pack is truncated or missing", async (t) => {
  const fixture = await repositoryFor(t);
  const [data] = (await savedPacks(fixture)).filter(({ blobs }) => blobs[0]!.type === "data");
  const name = objectIdOf(data!.id);
  const file = fixture.storage.localPath("data", name);
  const whole = readFileSync(file);
  const last = data!.blobs.at(-1)!;
  const flipped = Buffer.from(whole);
  flipped[last.offset + 40]! ^= 1;
  const copied = await copyingPacks(fixture.repository, undefined, async (copier) => {
    for (const bytes of [flipped, whole.subarray(0, last.offset + 50)]) {
      writeFileSync(file, bytes);
      assert.equal(await copier.copy(name, data!.blobs), false);
    }
    assert.equal(await copier.copy("ab".repeat(32), data!.blobs), false);
    assert.equal(await copier.copy(name, [{ ...last, length: 0xffff_ffff }]), false);
    // What is not wanted may be damaged.
    writeFileSync(file, flipped);
    assert.equal(await copier.copy(name, data!.blobs.slice(0, -1)), true);
  });
  const entries = copied.flatMap(({ header }) => decodePackHeader(header));
  assert.deepEqual(
    entries.map(({ id }) => objectIdOf(id)),
    data!.blobs.slice(0, -1).map(({ id }) => objectIdOf(id)),
  );
  assert.deepEqual(readdirSync(fixture.temporary), []);
});

test("PackCopier.copy returns false for a pack with a bad sector, and copies other packs", async (t) => {
  const fixture = await repositoryFor(t);
  const packs = await savedPacks(fixture);
  const [data, tree] = ["data", "tree"].map((type) => packs.find(({ blobs }) => blobs[0]!.type === type)!);
  const place = fixture.storage.localPath("data", objectIdOf(data!.id));
  const giveBack = wornOut(place);
  if (giveBack === null) return t.skip("nothing can be mounted");
  assert.throws(() => readFileSync(place), { code: "EIO" });
  const copied = await copyingPacks(fixture.repository, undefined, async (copier) => {
    assert.equal(await copier.copy(objectIdOf(data!.id), data!.blobs), false);
    assert.equal(await copier.copy(objectIdOf(tree!.id), tree!.blobs), true);
  });
  assert.deepEqual(
    copied.map(({ type }) => type),
    ["tree"],
  );
  giveBack();
  assert.deepEqual(readdirSync(fixture.temporary), []);
});

test("PackCopier.copySound copies every blob of a pack whose first read fails with EIO, and no blob of a worn pack", async (t) => {
  const fixture = await repositoryFor(t);
  const { repository, storage } = fixture;
  const packs = await savedPacks(fixture);
  const [data, tree] = ["data", "tree"].map((type) => packs.find(({ blobs }) => blobs[0]!.type === type)!);
  const [worn, other] = [data!, tree!].map(({ id }) => wornOut(storage.localPath("data", objectIdOf(id))));
  if (!worn || !other) return t.skip("nothing can be mounted");
  const load = storage.load.bind(storage);
  storage.load = async (kind, name, ...rest) => {
    if (name === objectIdOf(data!.id)) worn();
    return load(kind, name, ...rest);
  };
  const copied = await copyingPacks(repository, undefined, async (copier) => {
    assert.deepEqual(await copier.copySound(objectIdOf(data!.id), data!.blobs), []);
    assert.deepEqual(await copier.copySound(objectIdOf(tree!.id), tree!.blobs), tree!.blobs);
  });
  other();
  const entries = copied.flatMap(({ header }) => decodePackHeader(header));
  assert.deepEqual(
    entries.map(({ id }) => objectIdOf(id)).toSorted(),
    data!.blobs.map(({ id }) => objectIdOf(id)).toSorted(),
  );
});

test("PackCopier.copy returns false if the pack's blobs do not have the listed ids", async (t) => {
  const fixture = await repositoryFor(t);
  const packs: IndexedPack[] = [];
  for (const prefix of ["a", "b"]) {
    const before = new Set((await fixture.storage.list("index")).map(({ name }) => name));
    await new TestArchive(fixture).save(randomFiles(3, 4096, prefix));
    const [added] = (await fixture.storage.list("index")).filter(({ name }) => !before.has(name));
    const { packs: saved } = await loadIndexFile(fixture.repository, added!.name);
    packs.push(saved.find(({ blobs }) => blobs[0]!.type === "data")!);
  }
  const [one, other] = packs.map(({ id }) => objectIdOf(id));
  const place = fixture.storage.localPath("data", one!);
  writeFileSync(place, readFileSync(fixture.storage.localPath("data", other!)));
  const copied = await copyingPacks(fixture.repository, undefined, async (copier) => {
    assert.equal(await copier.copy(one!, packs[0]!.blobs), false);
  });
  assert.deepEqual(copied, []);
});

test("copyingPacks copies packs of a remote repository and leaves its work directory empty", async (t) => {
  const fixture = await repositoryFor(t);
  const packs = await savedPacks(fixture);
  const far = await Repository.open(new FaultyStorage(fixture.storage), { password: PASSWORD });
  const work = join(fixture.folder, "work");
  const copied = await copyingPacks(
    far,
    () => work,
    async (copier) => {
      for (const pack of packs) assert.equal(await copier.copy(objectIdOf(pack.id), pack.blobs), true);
      // Once more: there is nothing left to copy.
      for (const pack of packs) assert.equal(await copier.copy(objectIdOf(pack.id), pack.blobs), true);
    },
  );
  for (const { id, size } of copied)
    assert.equal(statSync(fixture.storage.localPath("data", objectIdOf(id))).size, size);
  const left = readdirSync(work, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  assert.deepEqual(left, []);
});

test("copyingPacks leaves no unfinished pack if copying fails", async (t) => {
  const fixture = await repositoryFor(t);
  const packs = await savedPacks(fixture);
  const storage = new FaultyStorage(fixture.storage);
  const far = await Repository.open(storage, { password: PASSWORD });
  const work = join(fixture.folder, "work");
  const before = await storage.list("data");
  storage.arm({ operation: "saveFile", kind: "data", fault: "no_space" });
  const copying = copyingPacks(
    far,
    () => work,
    async (copier) => {
      for (const pack of packs) await copier.copy(objectIdOf(pack.id), pack.blobs);
    },
  );
  await assert.rejects(copying);
  assert.deepEqual(await storage.list("data"), before);
  assert.equal(existsSync(work), true);
  const left = readdirSync(work, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  assert.deepEqual(left, []);
});
