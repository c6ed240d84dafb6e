import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { MoveJob } from "./transfer.ts";
import { temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { moveByThreads } from "./move-by-threads.ts";

test("transfers that wait for a silent server do not keep threads from other work", async (t) => {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  fs.writeFileSync(path.join(root, "file"), randomBytes(100_000));
  await saves.save(root);
  const { repository, index, paths } = saves.store;
  const { promise: silence, reject: cut } = Promise.withResolvers<void>();
  const far = { keys: repository.keys, style: { version: 2 }, storage: { location: "far" } };
  const job: MoveJob = {
    from: { repository, index },
    to: { repository: far as unknown as MoveJob["to"]["repository"], index },
    entries: Uint32Array.from({ length: index.count }, (_, i) => i),
    packs: path.join(paths.repository, "data"),
    directory: temporaryFolder(t),
    signal: undefined,
    onPack: async () => undefined,
    onMoved: async () => silence,
  };
  const transfers = Promise.allSettled(Array.from({ length: 5 }, async () => moveByThreads(job)));
  await sleep(300);
  const taken = takeThreads({ kind: "verify", signal: AbortSignal.timeout(60_000) }).then(giveBackThreads);
  await assert.doesNotReject(taken);
  cut(new Error("the line was cut"));
  for (const each of await transfers) assert.match(String((each as PromiseRejectedResult).reason), /the line was cut/);
});
