import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { CairnError } from "../../errors.ts";
import { NearPacks } from "../read/near-packs.ts";
import { Repository } from "../repository.ts";
import { SeenSnapshots } from "../seen-snapshots.ts";
import { FaultyStorage } from "../storage/testing-faulty.ts";
import { MemoryStorage } from "../storage/testing-memory.ts";
import { randomFiles, TestArchive, withFolder } from "../testing-archive.ts";
import { planSweep, rootsOf } from "./sweep-plan.ts";

const OPTIONS = { cachePath: null, roots: async () => [] };

/** A repository in memory with one snapshot, whose next list of snapshots is empty. */
async function withShortList(
  run: (repository: Repository, snapshot: string, folder: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const memory = new MemoryStorage();
    const faulty = new FaultyStorage(memory);
    const repository = await Repository.create(faulty, { password: "x" });
    repository.seen = new SeenSnapshots(null);
    mkdirSync(join(folder, "tmp"));
    const { snapshot } = await new TestArchive({ repository, temporary: join(folder, "tmp") }).save(
      randomFiles(2, 300),
    );
    faulty.arm({ operation: "list", kind: "snapshots", fault: "lose" });
    await run(repository, snapshot, folder);
  });
}

test("a sweep names a snapshot that the storage has and does not list", async () => {
  await withShortList(async (repository, snapshot) => {
    const { unlisted, missing, trees } = await rootsOf(repository, OPTIONS);
    assert.deepEqual([unlisted, missing.map(({ id }) => id), trees], [[snapshot], [snapshot], []]);
  });
});

test("a sweep of a repository that lists packs and no snapshot is refused", async () => {
  await withShortList(async (repository, _snapshot, folder) => {
    await assert.rejects(
      planSweep(repository, OPTIONS, new NearPacks(repository.storage, join(folder, "near"))),
      (error) =>
        error instanceof CairnError && error.code === "refused" && /no snapshot would be left/.test(error.message),
    );
  });
});

test("a sweep keeps the packs of a snapshot that a list lacks for the first time", async () => {
  await withShortList(async (repository, _snapshot, folder) => {
    const near = new NearPacks(repository.storage, join(folder, "near"));
    const { live, remove } = await planSweep(repository, { ...OPTIONS, mayBeEmpty: true }, near);
    assert.deepEqual([live.size > 0, remove], [true, []]);
  });
});

test("a sweep frees nothing while a snapshot cannot be read", async () => {
  await withShortList(async (repository) => {
    (repository.storage as FaultyStorage).disarm();
    await repository.storage.save("snapshots", "ab".repeat(32), Buffer.from("damaged"));
    await assert.rejects(
      rootsOf(repository, OPTIONS),
      (error) => error instanceof CairnError && error.code === "damaged" && /snapshot abababab/.test(error.message),
    );
  });
});

test("the snapshots of all hosts count", async () => {
  await withShortList(async (repository, snapshot) => {
    (repository.storage as FaultyStorage).disarm();
    const { tree, ...more } = await repository.loadSnapshot(snapshot);
    for (const host of ["here", "elsewhere"]) await repository.saveSnapshot({ ...more, tree, hostname: host });
    const { trees } = await rootsOf(repository, OPTIONS);
    assert.deepEqual(
      trees.map((root) => Buffer.from(root).toString("hex")),
      [tree, tree, tree],
    );
  });
});
