import assert from "node:assert/strict";
import fs from "node:fs";
import { after, test } from "node:test";
import type { StatCache } from "../cache/stat-cache.ts";
import { RandomEdits, randomFrom } from "../../workspace/store/testing-edits.ts";
import { assertRestored, assertSame, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import type { ScanResult } from "./scan.ts";
import { FoundDifference } from "./task.ts";

const SEED = Number(process.env["CAIRN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const ROUNDS = Number(process.env["CAIRN_TEST_ROUNDS"] ?? 200);
let failed = true;

after(() => {
  if (failed) process.stderr.write(`incremental.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

test(`scan with a stat cache finds the same state as without it after random edits (seed ${SEED})`, async (t) => {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  const random = randomFrom(SEED);
  const edits = new RandomEdits(root, random);
  for (let i = 0; i < 60; i++) edits.edit();
  for (let round = 0; round < ROUNDS; round++) {
    const before = saves.cache();
    const count = Math.floor(random() * 4);
    for (let i = 0; i < count; i++) edits.edit();
    const where = `seed ${SEED}, round ${round}: ${edits.log.slice(-count - 3).join("; ")}`;
    // Without threads that wait, a small folder is scanned on this one.
    const held = round % 3 === 0 ? await takeThreads({ kind: "scan" }) : [];
    const ended = await endingAtDifference(saves, root, before);
    const cached = await saves.save(root, { request: { reread: round % 25 === 24 }, distrust: round % 10 === 9 });
    giveBackThreads(held);
    const fresh = await saves.look(root);
    assertSame(cached, fresh, where);
    if (ended !== null) assertSame(ended, fresh, where);
    else assert.notDeepEqual(fresh.tree, before?.tree, where);
    assert.equal(Buffer.from(fresh.state).toString("hex"), walkDigests(root).state, where);
    if (round % 5 === 4) assertSame(await saves.look(root, { cache: saves.cache() }), fresh, where);
    if (round % 20 !== 19) continue;
    const target = temporaryFolder(t);
    const written = await saves.write(cached, target);
    assert.deepEqual(written.damaged, [], where);
    const again = await saves.look(target);
    assertRestored(again, fresh, where);
    fs.rmSync(target, { recursive: true });
  }
  failed = false;
});

/** What a look with a cache finds; null where it ended at a difference. */
async function endingAtDifference(saves: TestStore, root: string, cache: StatCache | null): Promise<ScanResult | null> {
  try {
    return await saves.look(root, { cache, quick: cache !== null, request: { untilDifferent: true } });
  } catch (error) {
    if (!(error instanceof FoundDifference)) throw error;
    return null;
  }
}
