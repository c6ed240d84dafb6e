import assert from "node:assert/strict";
import { test } from "node:test";
import type { ScheduledRun } from "../../formats/records/schedule.ts";
import { agesOf } from "./ages.ts";

const NOW = Date.parse("2026-11-20T00:00:00Z");
const daysAgo = (days: number): string => new Date(NOW - days * 86_400_000).toISOString();
const ID = "1".repeat(32);
const OTHER = "2".repeat(32);
const LIMITS = { save_age_ms: 86_400_000, backup_age_ms: 2 * 86_400_000, proof_age_ms: 8 * 86_400_000 };

function run(kind: string, good: number | null, of: Partial<ScheduledRun> = {}): ScheduledRun {
  const good_at = good === null ? null : daysAgo(good);
  return { kind, repository: "/r", workspace: ID, since: daysAgo(90), ran_at: daysAgo(0), good_at, error: null, ...of };
}

const SERVED = {
  id: ID,
  path: "/w",
  registered_at: daysAgo(40),
  origin_backend: "plain" as const,
  control_directory: "/c",
  subvolume_uuid: null,
  points: 1,
  last_point_at: daysAgo(10),
};

test("ages count a save without changes and both kinds of proof, but no runs of other workspaces", () => {
  const runs = [
    run("save", 0.5, { repository: null }),
    run("backup", 1),
    run("backup", 0, { workspace: OTHER, repository: "/other" }),
    run("restore-check", 7),
    run("verify", 3, { workspace: null }),
    run("verify", 0, { workspace: null, repository: "/other" }),
  ];
  const { ages, reasons } = agesOf(SERVED, { runs, limits: LIMITS, now: NOW });
  assert.deepEqual(
    [ages, reasons],
    [{ last_save_at: daysAgo(0.5), last_backup_at: daysAgo(1), last_proof_at: daysAgo(3), overdue: [] }, []],
  );
});

test("a limit is exceeded if the last good run is older, even if later runs failed", () => {
  const runs = [run("backup", 3, { error: "no" }), run("restore-check", 9)];
  assert.deepEqual(agesOf(SERVED, { runs, limits: LIMITS, now: NOW }).ages.overdue, ["save", "backup", "proof"]);
  const none = { save_age_ms: null, backup_age_ms: null, proof_age_ms: null };
  assert.deepEqual(agesOf(SERVED, { runs, limits: none, now: NOW }).ages.overdue, []);
});

test("a job that never ran is overdue once the workspace is older than the limit", () => {
  const fresh = { ...SERVED, registered_at: daysAgo(0.1), last_point_at: null };
  assert.deepEqual(agesOf(fresh, { runs: [], limits: LIMITS, now: NOW }).ages.overdue, []);
  const old = { ...fresh, registered_at: daysAgo(9) };
  assert.deepEqual(agesOf(old, { runs: [], limits: LIMITS, now: NOW }).ages.overdue, ["save", "backup", "proof"]);
  // A verification proves nothing of a folder that has no backup there.
  const runs = [run("verify", 0, { workspace: null })];
  assert.equal(agesOf(fresh, { runs, limits: LIMITS, now: NOW }).ages.last_proof_at, null);
});

test("a repository without a recent good backup is overdue, even if another repository has one", () => {
  const runs = [run("backup", 0), run("backup", 5, { repository: "/far" })];
  const { ages, reasons } = agesOf(SERVED, {
    runs: [...runs, run("save", 0, { repository: null })],
    limits: { ...LIMITS, proof_age_ms: null },
    now: NOW,
  });
  assert.deepEqual(ages.overdue, ["backup"]);
  assert.equal(ages.last_backup_at, daysAgo(0));
  assert.deepEqual(reasons, [`/w: the last good backup into /far was at ${daysAgo(5)}; the limit is exceeded`]);
  // One that was added just now has its time.
  const added = run("backup", null, { repository: "/far", since: daysAgo(1) });
  assert.deepEqual(agesOf(SERVED, { runs: [run("backup", 0), added], limits: LIMITS, now: NOW }).ages.overdue, [
    "save",
    "proof",
  ]);
});
