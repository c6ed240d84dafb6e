import assert from "node:assert/strict";
import { test } from "node:test";
import type { HistoryDaysResult, Schedule, WorkspaceInfo } from "cairnstate/client";
import {
  alarmsOf,
  damagedOf,
  earliest,
  type Facts,
  growthOf,
  nextRuns,
  overdueOf,
  promptWithoutHook,
  provenAt,
  repositoriesOf,
  shownOf,
  unknownOf,
} from "./facts.ts";

const info = (path: string, more: Partial<WorkspaceInfo> = {}): WorkspaceInfo =>
  ({ path, present: true, points: 1, last_save_at: "2026-11-29T10:00:00.000Z", ...more }) as WorkspaceInfo;

type Run = Schedule["runs"][number];
const run = (kind: Run["kind"], next_at: string, more: Partial<Run> = {}): Run =>
  ({ kind, repository: "/backups", next_at, good_at: null, error: null, failing_since: null, ...more }) as Run;
const scheduled = (runs: readonly Run[], problems: readonly string[] = []): Facts => ({
  schedule: { runs, problems } as unknown as Schedule,
});

test("shownOf puts damaged workspaces first, then missing, then late ones, then by the last save", () => {
  const infos = [
    info("/old", { last_save_at: "2026-11-01T10:00:00.000Z" }),
    info("/new"),
    info("/late", { last_save_at: null }),
    info("/missing", { present: false }),
    info("/damaged", { problem: "not valid JSON" }),
  ];
  const facts = new Map([["/late", scheduled([], ["backup fails"])]]);
  assert.deepEqual(
    shownOf(infos, null, facts).map(({ path }) => path),
    ["/damaged", "/missing", "/late", "/new", "/old"],
  );
});

test("alarmsOf lists problems of the schedule and hooks that fail, but no hooks that work again", () => {
  const failed = (agent: string, over: boolean) => ({ agent, failed: { count: 2, reason: "disk full", over } });
  const facts = { ...scheduled([], ["backup fails"]), hooks: [failed("codex", false), failed("gemini", true)] };
  const all = shownOf([info("/a")], null, new Map([["/a", facts as unknown as Facts]]));
  assert.deepEqual(alarmsOf(all, null), [
    { path: "/a", text: "backup fails" },
    { path: "/a", text: "2 hooks of codex failed: disk full" },
  ]);
});

test("an alarm of a local repository that is not there asks for its disk", () => {
  const error = { code: "not_found", message: "no repository in /backups: it has no config", hint: null };
  const text = `backup into /backups fails since 2026-11-29T10:00:00.000Z: ${error.message}`;
  const hints = (repository: string): (string | undefined)[] => {
    const facts = scheduled([run("backup", "2026-11-29T10:00:00.000Z", { error, repository })], [text]);
    return alarmsOf(shownOf([info("/a")], null, new Map([["/a", facts]])), null).map(({ hint }) => hint);
  };
  assert.deepEqual(hints("/backups"), ["Is the disk with the repository connected and mounted?"]);
  assert.deepEqual(hints("sftp:host:/backups"), [undefined]);
});

test("work that a hook saw before the hooks were removed is no work without hooks", () => {
  const agent = { tool: "codex", covered: false, why: null, last_prompt: "2026-11-29T10:00:00.000Z", problems: [] };
  assert.equal(promptWithoutHook({ ...agent, last_hook_at: "2026-11-29T10:00:01.000Z" }), null);
  assert.equal(promptWithoutHook({ ...agent, last_hook_at: "2026-11-28T10:00:01.000Z" }), agent.last_prompt);
  assert.equal(promptWithoutHook(agent), agent.last_prompt);
});

test("nextRuns lists work on a repository once, and backups for each workspace", () => {
  const runs = [run("verify", "2026-11-29T12:00:00.000Z"), run("backup", "2026-11-29T11:00:00.000Z")];
  const facts = new Map([
    ["/a", scheduled(runs)],
    ["/b", scheduled(runs)],
  ]);
  assert.deepEqual(
    nextRuns(shownOf([info("/a"), info("/b")], null, facts)).map(({ path, kind }) => `${kind} ${path}`),
    ["backup /a", "backup /b", "verify /a"],
  );
});

test("repositoriesOf joins the workspaces of a repository, with the latest times, failing ones first", () => {
  const at = (hour: number): string => `2026-11-29T${hour}:00:00.000Z`;
  const facts = new Map([
    ["/a", scheduled([run("backup", at(20), { good_at: at(10) }), run("verify", at(20), { good_at: at(12) })])],
    ["/b", scheduled([run("backup", at(20), { good_at: at(11) })])],
    ["/c", scheduled([run("backup", at(20), { repository: "/gone", error: { code: "io", message: "", hint: null } })])],
  ]);
  const found = repositoriesOf(shownOf([info("/a"), info("/b"), info("/c")], null, facts));
  assert.deepEqual(
    found.map(({ repository, paths, backed_up_at, verified_at, isFailing }) => [
      repository,
      paths,
      backed_up_at,
      verified_at,
      isFailing,
    ]),
    [
      ["/gone", ["/c"], null, null, true],
      ["/backups", ["/a", "/b"], at(11), at(12), false],
    ],
  );
});

test("overdueOf lists runs an hour after they were due and runs that fail, with the time since when", () => {
  const now = Date.parse("2026-11-29T12:00:00.000Z");
  const runs = [
    run("backup", "2026-11-29T10:00:00.000Z"),
    run("verify", "2026-11-29T11:30:00.000Z"),
    run("prune", "2026-11-29T13:00:00.000Z", { failing_since: "2026-11-28T10:00:00.000Z" }),
  ];
  const all = shownOf([info("/a")], null, new Map([["/a", scheduled(runs)]]));
  assert.deepEqual(overdueOf(all, null, null, now), [
    { path: "/a", text: "Backup into /backups: due", since: "2026-11-29T10:00:00.000Z" },
    { path: "/a", text: "Prune of /backups: fails since", since: "2026-11-28T10:00:00.000Z" },
  ]);
});

test("overdueOf says that nothing runs the scheduled work, also if nothing is due yet", () => {
  const runs = [run("save", "2026-11-29T13:00:00.000Z")];
  const all = shownOf([info("/a")], null, new Map([["/a", scheduled(runs)]]));
  const why = "nothing known runs the schedule";
  assert.deepEqual(overdueOf(all, null, why, Date.parse("2026-11-29T12:00:00.000Z")), [
    { path: null, text: why, since: null },
  ]);
  assert.deepEqual(overdueOf(shownOf([info("/b")], null, new Map()), null, why), []);
});

test("damagedOf names the reason of each damaged workspace", () => {
  const all = shownOf([info("/a", { problem: "not valid JSON" }), info("/b")], null, new Map());
  assert.deepEqual(damagedOf(all), [{ path: "/a", text: "not valid JSON", since: null }]);
});

test("repositoriesOf counts the known backups without a proof, and provenAt returns the time of a receipt", () => {
  const owing = (unproven: number, proven_at: string | null) => ({
    debt: [{ repository: "/backups", backups: 3, unproven, proven_at, verified_at: null, backed_up_at: "2026-11-29" }],
  });
  const facts = new Map<string, Facts>([
    ["/a", owing(2, "2026-11-28") as unknown as Facts],
    ["/b", owing(3, null) as unknown as Facts],
  ]);
  const all = shownOf([info("/a"), info("/b")], null, facts);
  const [{ backups, unproven, proven_at: proven } = assert.fail()] = repositoriesOf(all);
  assert.deepEqual([backups, unproven, proven], [6, 5, "2026-11-28"]);
  assert.deepEqual(
    all.map((each) => provenAt(each)),
    ["2026-11-28", null],
  );
});

test("repositoriesOf names the workspace that owes a proof, not one that only has a schedule", () => {
  const debt = (backups: number, unproven: number) =>
    ({
      debt: [{ repository: "/backups", backups, unproven, proven_at: null, verified_at: null, backed_up_at: "" }],
    }) as unknown as Facts;
  const facts = new Map([
    ["/a", scheduled([run("backup", "2026-11-29T12:00:00.000Z")])],
    ["/b", debt(1, 0)],
    ["/c", debt(3, 2)],
    ["/d", debt(1, 1)],
  ]);
  const infos = [...facts.keys()].map((path) => info(path));
  const [{ owing, unproven } = assert.fail()] = repositoriesOf(shownOf(infos, null, facts));
  assert.deepEqual([owing, unproven], ["/c", 3]);
});

test("earliest returns the earliest time and counts the absent ones", () => {
  assert.deepEqual(earliest(["b", null, "a"]), { at: "a", absent: 1 });
  assert.deepEqual(earliest([]), { at: null, absent: 0 });
});

test("growthOf places the days of the last 90 days on the width, and sizes on the largest one", () => {
  const day = (day: string, bytes: number | null) => ({ day, bytes, points: 1, newest: "" });
  const days = [
    day("2026-11-29", 50),
    day("2026-11-25", null),
    day("2026-11-24", 100),
    day("2026-11-19", 25),
    day("2026-01-01", 900),
  ];
  assert.deepEqual(
    growthOf({ days, total: 5, copies_bytes: 0 } as unknown as HistoryDaysResult).map(({ at, height }) => [at, height]),
    [
      [0, 0.25],
      [0.5, 1],
      [1, 0.5],
    ],
  );
  assert.deepEqual(growthOf({ days: [], total: 0, copies_bytes: 0 }), []);
});

test("unknownOf lists folders of which a question was not answered, but no damaged or missing ones", () => {
  const known = { status: { missing: [] }, schedule: { runs: [], problems: [] }, debt: [] } as unknown as Facts;
  const facts = new Map<string, Facts>([
    ["/known", known],
    ["/records", { ...known, debt: null }],
    ["/schedule", { ...known, schedule: null }],
    ["/status", { ...known, status: null }],
    ["/missing", { ...known, status: null }],
    ["/damaged", { ...known, debt: null }],
  ]);
  const infos = [...facts.keys()].map((path) =>
    info(path, { present: path !== "/missing", ...(path === "/damaged" && { problem: "not valid JSON" }) }),
  );
  assert.deepEqual(
    unknownOf(shownOf(infos, null, facts))
      .map(({ path }) => path)
      .toSorted(),
    ["/records", "/schedule", "/status"],
  );
});
