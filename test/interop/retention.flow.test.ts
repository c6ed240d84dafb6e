import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { backup, noRestic, type TestRepository, restic, resticRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";
import { someOf } from "../crash/rounds.ts";

/** Days are those of the zone in which restic makes the snapshots and Cairn runs; they begin five hours after those of UTC. */
process.env["TZ"] = "America/New_York";

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

test("forget keeps the same snapshots as restic under each retention rule", { skip: noRestic }, () => {
  const place = resticRepository(2);
  const folder = newFolder("kept");
  fs.writeFileSync(path.join(folder, "file"), "same");
  for (const [i, time] of TIMES.entries())
    restic(place, "backup", "--time", time, "--tag", ["", "a", "a,b"][i % 3]!, folder);
  for (const rule of someOf(RULES)) assertKeepsAlike(place, rule);
});

test("forget selects the same snapshots as restic for each filter", { skip: noRestic }, () => {
  const place = resticRepository(2);
  const [one, other] = ["one", "other"].map((name) => newFolder(name)) as [string, string];
  for (const folder of [one, other]) fs.writeFileSync(path.join(folder, "file"), "same");
  for (const host of ["here", "there"])
    for (const folders of [[one], [other], [one, other], [one, other]])
      restic(place, "backup", "--host", host, "--tag", host, ...folders);
  for (const filter of someOf(
    [
      ["--path", one],
      ["--path", one, "--path", other],
      ["--host", "here", "--path", other, "--path", one],
      ["--host", "here", "--host", "there", "--path", other],
      ["--tag", "here", "--tag", "nowhere"],
      ["--tag", "here,nowhere"],
      ["--path", one, "--group-by", "host"],
      ["--tag", "there", "--group-by", "paths"],
    ],
    5,
  ))
    assertKeepsAlike(place, ["--keep-last", "1", ...filter]);
});

/** Both say of the same snapshots that they stay, and of the same that they go. */
function assertKeepsAlike(place: TestRepository, rule: string[]): void {
  const theirs = (JSON.parse(restic(place, "forget", "--dry-run", ...rule, "--json") || "[]") ?? []) as Record<
    "keep" | "remove",
    { id: string }[] | null
  >[];
  const own = rule.flatMap((word, i) => {
    const period = /^--keep-within-(\w+)$/.exec(word)?.[1];
    if (period !== undefined) return ["--keep-within"];
    const before = /^--keep-within-(\w+)$/.exec(rule[i - 1] ?? "")?.[1];
    return [before === undefined ? word : `${before}:${word}`];
  });
  const ours = backup(place, "forget", "--plan", ...own).data["groups"] as {
    snapshots: { snapshot_id: string; keep: boolean }[];
  }[];
  for (const [word, keep] of [
    ["keep", true],
    ["remove", false],
  ] as const) {
    const ids = ours.flatMap(({ snapshots }) => snapshots.filter((each) => each.keep === keep));
    assert.deepEqual(
      ids.map(({ snapshot_id: id }) => id).toSorted(),
      theirs
        .flatMap((group) => group[word] ?? [])
        .map(({ id }) => id)
        .toSorted(),
      `${word}: ${rule.join(" ")}`,
    );
  }
}
