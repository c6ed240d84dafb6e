import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { Repository } from "../../repository/repository.ts";
import { MemoryStorage } from "../../repository/storage/testing-memory.ts";
import { OpenRepository } from "../open/open-repository.ts";
import { forgetBackups } from "./forget.ts";

interface Scene {
  access: OpenRepository;
  storage: MemoryStorage;
  /** Saves a snapshot of a state that is `state` days old when it is uploaded on the day `uploaded`. Returns its id. */
  save(state: number, uploaded: number): Promise<ObjectId>;
}

async function scene(t: TestContext): Promise<Scene> {
  const folder = mkdtempSync(join(tmpdir(), "cairn-forget-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const storage = new MemoryStorage();
  const repository = await Repository.create(storage, { password: "x" });
  const options = { repository: "memory", password: "x", env: { XDG_CACHE_HOME: folder, HOME: folder } };
  const access = OpenRepository.over(options, storage, repository);
  const day = (number: number): string => new Date(Date.UTC(2026, 0, number)).toISOString();
  const save = async (state: number, uploaded: number): Promise<ObjectId> =>
    repository.saveSnapshot({
      time: day(state),
      tree: objectIdOf(Buffer.alloc(32, state)),
      paths: ["/folder"],
      hostname: "here",
      username: "ann",
      uid: 0,
      gid: 0,
      summary: { backup_end: day(uploaded) },
    });
  return { access, storage, save };
}

test("rules keep the last upload, too, if it is of an older state than the newest snapshot", async (t) => {
  const { access, save } = await scene(t);
  const [first, newest, last] = [await save(1, 1), await save(9, 9), await save(5, 12)];
  const { removed } = await forgetBackups(access, { retention: { keepLast: 1 } });
  assert.deepEqual(removed, [first]);
  assert.deepEqual(
    (await access.repository.listSnapshots()).snapshots.map(({ id }) => id).toSorted(),
    [newest, last].toSorted(),
  );
});

test("a forget with a plan's id removes nothing if a snapshot was made between the look and the lock", async (t) => {
  const { access, storage, save } = await scene(t);
  await save(1, 1);
  await save(2, 2);
  const rules = { retention: { keepLast: 1 } };
  const { plan_id: plan } = await forgetBackups(access, { ...rules, dryRun: true });
  const original = storage.save.bind(storage);
  let isFirst = true;
  storage.save = async (kind, name, bytes) => {
    await original(kind, name, bytes);
    if (kind !== "locks" || !isFirst) return;
    isFirst = false;
    await save(3, 3);
  };
  await assert.rejects(
    forgetBackups(access, { ...rules, plan: plan! }),
    (error) => error instanceof CairnError && error.code === "stale_plan",
  );
  assert.equal((await access.repository.listSnapshots()).snapshots.length, 3);
});

test("a plan of a forget is stale after each change of the snapshots, and says what would go and stay now", async (t) => {
  const { access, storage, save } = await scene(t);
  const ids = [await save(1, 1), await save(2, 2), await save(3, 3)];
  const rules = { retention: { keepLast: 2 } };
  for (const [change, now] of [
    [async () => save(4, 4), /would remove 2 snapshots \(.* and keep 2 snapshots \(/],
    [async () => storage.remove("snapshots", ids[2]!), /would remove 1 snapshot \(.* and keep 2 snapshots \(/],
    [async () => storage.remove("snapshots", ids[0]!), /would remove no snapshot and keep 2 snapshots \(/],
  ] as const) {
    const { plan_id: plan } = await forgetBackups(access, { ...rules, dryRun: true });
    await change();
    const before = (await access.repository.listSnapshots()).snapshots;
    await assert.rejects(forgetBackups(access, { ...rules, plan: plan! }), { code: "stale_plan", message: now });
    assert.deepEqual((await access.repository.listSnapshots()).snapshots, before);
  }
});
