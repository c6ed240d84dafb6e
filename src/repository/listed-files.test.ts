import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError } from "../errors.ts";
import { encodeLock } from "../formats/restic/lock-file.ts";
import { BlobIndex } from "./index/blob-index.ts";
import { LISTED_AGAIN_MS } from "./listed-files.ts";
import { lookAtLocks } from "./lock-state.ts";
import { acquireLock } from "./locks.ts";
import { NearPacks } from "./read/near-packs.ts";
import { Repository } from "./repository.ts";
import { FaultyStorage } from "./storage/testing-faulty.ts";
import type { FileKind } from "./storage/storage.ts";
import { rootsOf } from "./care/sweep-plan.ts";
import { checkStructure, type Fixture, TestArchive, withRepository } from "./testing-archive.ts";

/** A storage whose list names a file that it does not give: for a moment, for good, or because it was removed meanwhile. */

interface Scene extends Fixture {
  /** The same repository, on a storage with faults. */
  other: Repository;
  faulty: FaultyStorage;
}

async function withFaults(run: (scene: Scene) => Promise<void>): Promise<void> {
  await withRepository(async (fixture) => {
    const faulty = new FaultyStorage(fixture.storage);
    const other = await Repository.open(faulty, { keys: fixture.repository.keys });
    await run({ ...fixture, other, faulty });
  });
}

function lose(faulty: FaultyStorage, kind: FileKind, name: string, times: number): void {
  faulty.arm({ operation: "load", kind, name, fault: "lose", times });
}

const damaged = { code: "damaged" };

describe("files that are listed but missing", () => {
  test("listSnapshots reports a listed but missing snapshot as damaged, and a sweep refuses to run", async () => {
    await withFaults(async ({ other, faulty, ...fixture }) => {
      const archive = new TestArchive(fixture);
      const { snapshot } = await archive.save({ a: randomBytes(100) });
      const { snapshot: second } = await archive.save({ b: randomBytes(100) });
      lose(faulty, "snapshots", snapshot, 100);
      const listing = await other.listSnapshots();
      assert.deepEqual(
        listing.snapshots.map(({ id }) => id),
        [second],
      );
      assert.deepEqual(
        listing.damaged.map(({ name }) => name),
        [snapshot],
      );
      assert.match(listing.damaged[0]!.error.message, /is listed, but was not found when it was read/);
      await assert.rejects(rootsOf(other, { roots: async () => [], cachePath: null }), damaged);
    });
  });

  test("listSnapshots retries a snapshot that is missing for a moment, and skips a removed snapshot", async () => {
    await withFaults(async ({ other, faulty, storage, ...fixture }) => {
      const archive = new TestArchive(fixture);
      const { snapshot } = await archive.save({ a: randomBytes(100) });
      lose(faulty, "snapshots", snapshot, 3);
      assert.deepEqual(
        (await other.listSnapshots()).snapshots.map(({ id }) => id),
        [snapshot],
      );
      const { snapshot: removed } = await archive.save({ b: randomBytes(100) });
      const { snapshots, damaged: lost } = await other.listSnapshots(
        undefined,
        () => void storage.remove("snapshots", removed),
      );
      assert.deepEqual([snapshots.map(({ id }) => id), lost], [[snapshot], []]);
    });
  });

  test("a check reports a listed but missing index file as damaged", async () => {
    await withFaults(async ({ other, faulty, ...fixture }) => {
      await new TestArchive(fixture).save({ a: randomBytes(100) });
      const [{ name } = { name: "" }] = await fixture.storage.list("index");
      await new TestArchive(fixture).save({ b: randomBytes(100) });
      lose(faulty, "index", name, 1000);
      assert.deepEqual(
        (await BlobIndex.load(other, null)).damaged.map((file) => file.name),
        [name],
      );
      const { problems } = await checkStructure(other, { packs: new NearPacks(fixture.storage, "") });
      assert.ok(
        problems.some(({ kind, object }) => kind === "index_damaged" && object === name),
        JSON.stringify(problems),
      );
    });
  });

  test("a listed but missing lock counts as held by an unknown process", async () => {
    await withFaults(async ({ repository, other, faulty }) => {
      const held = await acquireLock(repository, { exclusive: true });
      const [{ name } = { name: "" }] = await faulty.list("locks");
      // As another process sees it.
      const load = faulty.load.bind(faulty);
      faulty.load = async (kind, file, range) => {
        if (file !== name) return load(kind, file, range);
        throw new CairnError("not_found", `no ${kind} ${file}`);
      };
      assert.deepEqual(await lookAtLocks(other), { held: [{ id: name, lock: null }], dead: [], hasExcepted: false });
      await held.release();
      assert.deepEqual((await lookAtLocks(other)).held, []);
    });
  });

  test("lookAtLocks finds a lock whose file is replaced by a refresh during the reading", async () => {
    await withFaults(async ({ repository, other, faulty }) => {
      const lock = { exclusive: true, hostname: "elsewhere", username: "u", pid: 1, uid: 0, gid: 0 };
      const place = async (): Promise<string> =>
        repository.saveUnpacked("locks", encodeLock({ ...lock, time: new Date().toISOString() }));
      let held = await place();
      const load = faulty.load.bind(faulty);
      let refreshes = 1;
      faulty.load = async (kind, name, range) => {
        if (name === held && refreshes-- > 0) {
          const before = held;
          held = await place();
          await repository.storage.remove("locks", before);
        }
        return load(kind, name, range);
      };
      const { held: seen } = await lookAtLocks(other);
      assert.deepEqual(
        seen.map(({ id, lock: read }) => [id, read?.exclusive]),
        [[held, true]],
      );
    });
  });

  test("listSnapshots retries many missing snapshots concurrently", async () => {
    await withFaults(async ({ other, faulty, ...fixture }) => {
      const archive = new TestArchive(fixture);
      for (let i = 0; i < 12; i++) await archive.save({ a: randomBytes(10) });
      const { load, list } = faulty;
      faulty.load = async (kind, name, range) => {
        if (kind === "snapshots") {
          // An answer takes a while, so that those that are asked for together fail together.
          await sleep(10);
          throw new CairnError("not_found", `no ${kind} ${name}`);
        }
        return load.call(faulty, kind, name, range);
      };
      let lists = 0;
      faulty.list = async (kind) => {
        lists++;
        return list.call(faulty, kind);
      };
      const { snapshots, damaged: lost } = await other.listSnapshots();
      assert.deepEqual([snapshots.length, lost.length], [0, 12]);
      assert.ok(lists < 10 * LISTED_AGAIN_MS.length, `${lists} lists`);
    });
  });
});
