import assert from "node:assert/strict";
import { test } from "node:test";
import type { PruneBackupsResult } from "../../../contract/index.ts";
import type { Context } from "../../context.ts";
import { PLAIN } from "../../render/style.ts";
import { renderPrune } from "./prune.ts";

const NOTHING: PruneBackupsResult = {
  location: "/repository",
  repository_id: "0".repeat(64),
  version: 2,
  dry_run: false,
  plan_id: null,
  planned_packs: null,
  removed_packs: 0,
  repacked_packs: 0,
  new_packs: 0,
  merged_packs: 0,
  merged_indexes: 0,
  unindexed_packs: 0,
  bytes_freed: 0,
  marked_packs: 0,
  marked_bytes: 0,
  free_from: null,
  unused_bytes: 0,
  postponed: false,
  missing_snapshots: [],
  damaged_packs: [],
  duration_ms: 1,
};

function told(result: Partial<PruneBackupsResult>): string {
  return renderPrune({ style: PLAIN } as Context, { ...NOTHING, ...result }).join("\n");
}

test("backup prune counts unindexed packs among the removed packs", () => {
  const packs = { removed_packs: 1, unindexed_packs: 18, bytes_freed: 2048 };
  assert.equal(told({ ...packs, dry_run: true }), "would free 2 KiB: 19 packs unused, 0 packs to repack");
  assert.equal(told(packs), "freed 2 KiB: 19 packs removed, 0 packs repacked, 1 ms");
});

test("backup prune counts damaged packs that it keeps", () => {
  for (const dry_run of [true, false])
    assert.match(told({ dry_run, damaged_packs: ["ab"] }), /\n1 damaged pack not changed: see `cairn backup verify`$/);
});

test("backup prune says why it could not delete anything", () => {
  assert.equal(
    told({ postponed: true }),
    "other processes use the repository, or its lists are incomplete: the next prune deletes the rest",
  );
  assert.equal(told({}), "nothing to free");
});

test("backup prune says what is marked and when a later prune frees it", () => {
  const marked = { marked_packs: 2, marked_bytes: 4096, free_from: new Date(Date.now() + 3_600_000).toISOString() };
  assert.match(
    told(marked),
    /^marked 4 KiB in 2 packs that nothing needs: a prune after \S+ \d\d:\d\d frees .*`--instant`/,
  );
  assert.match(told({ ...marked, dry_run: true }), /would free 0 B.*\nwould mark 4 KiB in 2 packs/);
  assert.match(told({ ...marked, free_from: null }), /^marked 4 KiB in 2 packs that nothing needs, `--instant`/);
});
