import assert from "node:assert/strict";
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { objectIdOf } from "../../ids.ts";
import { withFolder } from "../testing-archive.ts";
import { CachedStorage } from "./cached.ts";
import { CountingStorage } from "./testing-counting.ts";
import { MemoryStorage } from "./testing-memory.ts";
import { storageContract } from "./storage.contract.ts";

const BYTES = Buffer.from("a snapshot");
const NAME = objectIdOf(sha256(BYTES));

storageContract("cached", (folder) => {
  const cached = new CachedStorage(new MemoryStorage());
  cached.keepIn(join(folder, "kept"));
  return cached;
});

test("CachedStorage loads a snapshot from the storage once, and again if the cached file is damaged", async () => {
  await withFolder(async (folder) => {
    const inner = new CountingStorage(new MemoryStorage());
    await inner.save("snapshots", NAME, BYTES);
    const cached = new CachedStorage(inner);
    cached.keepIn(folder);
    for (let i = 0; i < 3; i++) assert.deepEqual(Buffer.from(await cached.load("snapshots", NAME)), BYTES);
    assert.equal(inner.count("load", "snapshots"), 1);
    writeFileSync(join(folder, NAME), "another snapshot");
    assert.deepEqual(Buffer.from(await cached.load("snapshots", NAME)), BYTES);
    assert.equal(inner.count("load", "snapshots"), 2);
    await cached.withoutCache(async () => cached.load("snapshots", NAME));
    assert.equal(inner.count("load", "snapshots"), 3);
  });
});

test("CachedStorage drops removed snapshots, and never stores a damaged snapshot", async () => {
  await withFolder(async (folder) => {
    const inner = new MemoryStorage();
    const cached = new CachedStorage(inner);
    cached.keepIn(folder);
    await cached.save("snapshots", NAME, BYTES);
    assert.deepEqual(readdirSync(folder), [NAME]);
    await inner.remove("snapshots", NAME);
    assert.deepEqual([await cached.list("snapshots"), readdirSync(folder)], [[], []]);
    const other = "ab".repeat(32);
    await inner.save("snapshots", other, BYTES);
    await cached.load("snapshots", other);
    assert.deepEqual(readdirSync(folder), []);
  });
});

test("CachedStorage works without a cache if the cache folder cannot be created", async () => {
  await withFolder(async (folder) => {
    writeFileSync(join(folder, "file"), "");
    const cached = new CachedStorage(new MemoryStorage());
    cached.keepIn(join(folder, "file", "below"));
    await cached.save("snapshots", NAME, BYTES);
    assert.deepEqual(Buffer.from(await cached.load("snapshots", NAME)), BYTES);
  });
});
