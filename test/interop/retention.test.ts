import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { backup, noRestic, restic, resticRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** Cairn's days are those of UTC, restic's those of the zone that it runs in. */
process.env["TZ"] = "UTC";

const TIMES = [
  ..."2022-03-01 08:00:00,2025-02-03 08:00:00,2025-12-31 23:00:00,2026-01-01 01:00:00,2026-08-07 08:00:00".split(","),
  ..."2026-09-01 08:00:00,2026-10-30 07:00:00,2026-10-30 07:20:00,2026-11-01 08:00:00,2026-11-02 00:00:01".split(","),
];
const WORDS = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];

/** None that looks as far back as the oldest snapshot: restic's versions do not agree on when that stays. */
const RULES = [
  ...WORDS.map((word) => [`--keep-${word}`, "2"]),
  ["--keep-within", "2m4d"],
  ...WORDS.slice(1).map((word) => [`--keep-within-${word}`, "1y1h"]),
  ["--keep-tag", "b,a"],
  ["--keep-daily", "1", "--keep-within-monthly", "3m", "--keep-tag", ""],
];

test("forget keeps what restic would, whatever its rule", { skip: noRestic }, () => {
  const place = resticRepository(2);
  const folder = newFolder("kept");
  fs.writeFileSync(path.join(folder, "file"), "same");
  for (const [i, time] of TIMES.entries())
    restic(place, "backup", "--time", time, "--tag", ["", "a", "a,b"][i % 3]!, folder);
  for (const rule of RULES) {
    const line = ["forget", "--dry-run", ...rule];
    const [group] = JSON.parse(restic(place, ...line, "--json")) as { keep: { id: string }[] }[];
    const { groups } = backup(place, "forget", "--dry-run", ...rule).data as {
      groups: { snapshots: { snapshot_id: string; keep: boolean }[] }[];
    };
    const kept = groups.flatMap(({ snapshots }) => snapshots.flatMap((each) => (each.keep ? each.snapshot_id : [])));
    assert.deepEqual(kept.sort(), group!.keep.map(({ id }) => id).sort(), rule.join(" "));
  }
});
