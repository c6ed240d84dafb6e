import { strict as assert } from "node:assert";
import { chmodSync, openSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import type { IndexBlob } from "../../formats/restic/pack-header.ts";
import { decodeTree } from "../../formats/restic/tree.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex } from "./blob-index.ts";
import { BlobReader } from "../packs/blob-reader.ts";
import { compact } from "../care/compact.ts";
import { eachIndexFile } from "./index-set.ts";
import { removeSnapshots, runSweep } from "../care/remove.ts";
import { removeUnindexedPacks } from "../care/unindexed-packs.ts";
import { planIndexRepair, runIndexRepair } from "../care/repair.ts";
import { loadPackHeader } from "../packs/pack-read.ts";
import { type Fixture, randomFiles, sha, TestArchive, withRepository } from "../testing-archive.ts";

interface Copy {
  readonly key: string;
  readonly pack: string;
  readonly blob: IndexBlob;
  readonly isSound: boolean;
}

function keyOf({ type, id }: Pick<IndexBlob, "type" | "id">): string {
  return `${type} ${objectIdOf(id)}`;
}

/**
 * Saves that know of each other or do not, killed ones, damage to what another pack has sound, and all that removes packs:
 * after each step something sound is on the disk of whatever the snapshots need. Names of files, and with them which of two
 * copies an index has, are others each time.
 */
class Walk {
  readonly log: string[] = [];
  readonly #fixture: Fixture;
  readonly #pool: Record<string, Uint8Array> = {};
  /** What each snapshot needs. */
  readonly #snapshots = new Map<string, string[]>();
  #seed: number;

  constructor(fixture: Fixture, seed: number) {
    this.#fixture = fixture;
    this.#seed = seed;
    for (let i = 0; i < 12; i++) Object.assign(this.#pool, randomFiles(1, i === 0 ? 400_000 : 300 + i * 300, `p${i}-`));
  }

  async run(steps: number): Promise<void> {
    await this.#save("alone");
    for (let step = 0; step < steps; step++) {
      const done = await this.#step(this.#any(14));
      if (done !== null) await this.#requireAll(done);
    }
    await this.#requireAll(await this.#repair(true));
    const index = await BlobIndex.load(this.#fixture.repository, null);
    for (const key of this.#needed()) assert.ok(index.lookup(Buffer.from(key.slice(5), "hex"), 0) >= 0, key);
  }

  #any(count: number): number {
    this.#seed = (Math.imul(this.#seed, 1_103_515_245) + 12_345) >>> 0;
    return (this.#seed >>> 8) % count;
  }

  /** What was done; null where nothing was. */
  async #step(kind: number): Promise<string | null> {
    if (kind < 4) return this.#save((["beside", "alone", "killed"] as const)[this.#any(3)]!);
    if (kind < 8) return this.#damage();
    if (kind === 8) return this.#forget();
    if (kind < 11) return this.#sweep();
    if (kind === 11) return this.#compact();
    if (kind === 12)
      return `removed ${(await removeUnindexedPacks(this.#fixture.repository)).removed} packs in no index`;
    return this.#repair(this.#any(2) === 0);
  }

  #needed(): Set<string> {
    return new Set([...this.#snapshots.values()].flat());
  }

  async #requireAll(done: string): Promise<void> {
    this.log.push(done);
    const sound = new Set((await this.#copies()).filter(({ isSound }) => isSound).map(({ key }) => key));
    for (const key of this.#needed()) assert.ok(sound.has(key), `${key} is lost after:\n${this.log.join("\n")}`);
  }

  /** By the packs' headers, or by the index where that cannot be read. */
  async #copies(): Promise<Copy[]> {
    const { repository, storage } = this.#fixture;
    const listed = new Map<string, IndexBlob[]>();
    const names = (await storage.list("index")).map(({ name }) => name);
    await eachIndexFile(repository, names, ({ packs }) => {
      for (const pack of packs) listed.set(objectIdOf(pack.id), pack.blobs);
    });
    const copies: Copy[] = [];
    const reader = this.#reader();
    for (const { name: pack, size } of await storage.list("data")) {
      const blobs = await loadPackHeader(repository, pack, size).catch(() => listed.get(pack) ?? []);
      for (const blob of blobs) {
        let isSound = true;
        try {
          reader.view({ ...blob, pack: Buffer.from(pack, "hex") });
        } catch {
          isSound = false;
        }
        copies.push({ key: keyOf(blob), pack, blob, isSound });
      }
    }
    reader.close();
    return copies;
  }

  #reader(): BlobReader {
    const { repository, storage } = this.#fixture;
    return new BlobReader({
      keys: repository.keys,
      openPack: (pack) => openSync(storage.localPath("data", pack), "r"),
    });
  }

  /** `alone`: it knows nothing of what is stored. */
  async #save(how: "beside" | "alone" | "killed"): Promise<string> {
    const { repository, storage } = this.#fixture;
    const files = Object.fromEntries(Object.entries(this.#pool).filter((_, i) => i === 0 || this.#any(2) === 0));
    const before = new Set((await storage.list("index")).map(({ name }) => name));
    const known = how === "beside" ? await BlobIndex.load(repository, null) : null;
    const { tree, snapshot } = await new TestArchive(this.#fixture, known).save(files);
    if (how === "killed") {
      for (const { name } of await storage.list("index")) if (!before.has(name)) await storage.remove("index", name);
      await storage.remove("snapshots", snapshot);
      return "a save was killed";
    }
    const root = keyOf({ type: "tree", id: tree });
    const { pack, blob } = (await this.#copies()).find(({ key, isSound }) => key === root && isSound)!;
    const reader = this.#reader();
    const [inner] = decodeTree(reader.view({ ...blob, pack: Buffer.from(pack, "hex") }));
    reader.close();
    const trees = [root, keyOf({ type: "tree", id: inner!.subtree! })];
    const contents = Object.values(files).map((content) => keyOf({ type: "data", id: sha(content) }));
    this.#snapshots.set(snapshot, [...trees, ...contents]);
    return how === "alone" ? "a save that knew of nothing" : "a save";
  }

  /** Of what other packs have sound: a byte, what is behind a place, or all of a pack. */
  async #damage(): Promise<string | null> {
    const { repository, storage } = this.#fixture;
    const copies = await this.#copies();
    const { pack, blob, key } = copies[this.#any(copies.length)]!;
    const elsewhere = new Set(copies.filter((copy) => copy.isSound && copy.pack !== pack).map((copy) => copy.key));
    if (!elsewhere.has(key)) return null;
    const path = storage.localPath("data", pack);
    const isListed = (await BlobIndex.load(repository, null)).listings(Buffer.from(pack, "hex")) > 0;
    const kept = copies.filter((copy) => copy.pack === pack && !elsewhere.has(copy.key));
    const how = this.#any(6);
    chmodSync(path, 0o600);
    if (how === 0 && kept.length === 0) rmSync(path);
    else if (how === 1 && (isListed || kept.length === 0) && kept.every((copy) => copy.blob.offset < blob.offset))
      truncateSync(path, blob.offset + this.#any(blob.length));
    else {
      const bytes = readFileSync(path);
      const at = blob.offset + this.#any(blob.length);
      // It may be cut before it.
      if (at >= bytes.length) return null;
      bytes[at]! ^= 1;
      writeFileSync(path, bytes);
    }
    return `damage ${how} of ${pack.slice(0, 8)} in ${key}`;
  }

  async #forget(): Promise<string | null> {
    const ids = [...this.#snapshots.keys()];
    const id = ids[this.#any(ids.length)]!;
    if (ids.length < 2) return null;
    await removeSnapshots(this.#fixture.repository, [id]);
    this.#snapshots.delete(id);
    return "a snapshot went";
  }

  async #sweep(): Promise<string> {
    const { repository, folder } = this.#fixture;
    const maxWaste = [0, 0.2, 1][this.#any(3)]!;
    const smallPack = [0, 1024 * 1024][this.#any(2)]!;
    const options = { cachePath: join(folder, "cache"), roots: async () => [] };
    try {
      const swept = await runSweep(repository, { ...options, maxWaste, smallPack });
      return `swept: ${swept.removedPacks}, ${swept.repackedPacks}, ${swept.removedUnindexed}`;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
      return `sweep refused: ${error.message}`;
    }
  }

  async #compact(): Promise<string> {
    const { repository, folder } = this.#fixture;
    const index = await BlobIndex.load(repository, join(folder, "cache"));
    const done = await compact(repository, index, { trigger: 2 + this.#any(3), budgetMs: Infinity });
    return `merged: ${done.mergedIndexes}, ${done.mergedPacks}, ${done.removedUnindexed}`;
  }

  async #repair(isRead: boolean): Promise<string> {
    const { repository } = this.#fixture;
    const damaged = isRead ? (await this.#copies()).filter(({ isSound }) => !isSound) : [];
    const damagedPacks = new Set(damaged.map(({ pack }) => pack));
    const plan = await planIndexRepair(repository, { damagedPacks });
    const { lostBlobs } = await runIndexRepair(repository, plan, { damagedPacks });
    return `repaired: ${plan.drop.length} dropped, ${lostBlobs.length} lost`;
  }
}

for (const seed of [1, 2, 3, 4, 5, 6, 7, 8])
  test(`random sweeps, compactions and repairs lose no blob that has a sound copy (seed ${seed})`, async () => {
    await withRepository(async (fixture) => new Walk(fixture, seed).run(18));
  });
