import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { hasCode } from "../keep/testing-folder.ts";
import type { FileKind } from "../repository/storage/storage.ts";
import { backupScene, opened } from "./testing-far.ts";

/** Has calls about packs wait until as many are under way as are `expected`; returns what tells the most that were. */
function held(method: "saveFile" | "load", expected: number): () => number {
  const storage = opened.far! as unknown as Record<string, (...given: unknown[]) => Promise<unknown>>;
  const call = storage[method]!.bind(storage);
  let underWay = 0;
  let most = 0;
  const { promise: full, resolve: fill } = Promise.withResolvers<void>();
  storage[method] = async (...given) => {
    if ((given[0] as FileKind) !== "data") return call(...given);
    most = Math.max(most, ++underWay);
    if (underWay >= expected) fill();
    await full;
    // Those that were begun with it are counted before it ends.
    await new Promise(setImmediate);
    return call(...given).finally(() => underWay--);
  };
  return () => most;
}

for (const jobs of [1, 6])
  test(`backup, stream and verify transfer ${jobs} packs at once with jobs ${jobs}`, async (t) => {
    const { client, library, options, folder, place } = await backupScene(t, "far");
    for (let i = 0; i < 12; i++) writeFileSync(join(folder, `large-${i}`), randomBytes(4 << 20));
    const small = await library.openRepository({ ...options, packSize: 4 << 20 });
    t.after(async () => small.close());
    let most = held("saveFile", jobs);
    await client.createBackup(small, { jobs });
    assert.equal(most(), jobs, "as the folder is saved");
    await library.initRepository({ ...options, repository: `far:${place}-other` });
    const other = await library.openRepository({ ...options, repository: `far:${place}-other`, packSize: 4 << 20 });
    t.after(async () => other.close());
    most = held("saveFile", jobs);
    await client.createBackup(other, { jobs, save: false });
    assert.equal(most(), jobs, "of a point that is there");
    most = held("saveFile", jobs);
    const stream = async function* (): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < 12; i++) yield randomBytes(4 << 20);
    };
    await other.createFromStream(stream(), { jobs });
    assert.equal(most(), jobs, "of a stream");
    const read = await library.openRepository(options);
    t.after(async () => read.close());
    most = held("load", 1);
    assert.deepEqual((await read.verify({ jobs })).problems, []);
    assert.equal(most(), jobs, "of a verification");
  });

test("an invalid number of jobs is a usage error before any work", async (t) => {
  const { client, repository } = await backupScene(t, "local");
  for (const jobs of [0, 65, 1.5]) {
    await assert.rejects(client.createBackup(repository, { jobs }), hasCode("usage"));
    await assert.rejects(repository.verify({ jobs }), hasCode("usage"));
    await assert.rejects(repository.createFromCommand(["true"], { jobs }), hasCode("usage"));
  }
  assert.deepEqual((await repository.list()).snapshots, []);
});
