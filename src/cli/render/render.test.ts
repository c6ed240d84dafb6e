import assert from "node:assert/strict";
import { test } from "node:test";
import type {
  CleanupPlan,
  DiffEntry,
  LeftOut,
  Recovered,
  SavePoint,
  StatusResult,
  WhyResult,
} from "../../contract/index.ts";
import { fakeLibrary, ID_A, ID_B, POINT, REASONS, RESTORED } from "../testing-fake-library.ts";
import { renderCleanupPlan, renderCleanupResult, renderDoctor, renderRun } from "./care.ts";
import { renderDatabaseDiff } from "./database.ts";
import { decodeText } from "../../look/text-diff.ts";
import { renderEntryLine, renderSummary, renderTextDiff } from "./diff.ts";
import { renderPoint } from "./listing.ts";
import { formatInstant } from "./format.ts";
import { describeCause, foldSaves, renderHistory, renderWhy } from "./points.ts";
import { renderPlan, renderRestore } from "./restore.ts";
import { describeSchedule } from "./schedule.ts";
import { PLAIN } from "./style.ts";
import { renderStatus } from "./status.ts";

const shorten = (id: string): string => id.slice(0, 8);
const now = Date.parse("2026-11-20T09:15:11.123Z");

const NO_SCHEDULE = {
  last_save_at: null,
  last_backup_at: null,
  last_verify_at: null,
  last_proof_at: null,
  next_at: null,
  runs: [],
  problems: [],
};

async function fakeStatus(changed: Partial<StatusResult>): Promise<string> {
  const client = await fakeLibrary().library.open("/x");
  const status = { ...(await client.status()), ...changed };
  const schedule = { ...NO_SCHEDULE, workspace: status.workspace };
  return renderStatus({ status, schedule, isRun: true, shorten, save: "cairn save", style: PLAIN, now });
}

test("a schedule that nothing runs has no next run, only a time at which work is due", () => {
  const schedule = { last_save_at: "2026-11-20T09:00:00.000Z", next_at: "2026-11-20T10:00:00.000Z" };
  assert.match(describeSchedule(schedule, now), /, next run in 45 minutes$/);
  assert.match(describeSchedule(schedule, now, false), /, due in 45 minutes$/);
});

test("status shows a clean, a changed, an unsaved and a restored folder", async () => {
  assert.match(await fakeStatus({}), /^state +changed since the last save point: 1 added, 2 removed$/m);
  assert.match(await fakeStatus({ clean: true }), /^state +clean$/m);
  const none = { added: 0, modified: 0, removed: 0 };
  assert.match(
    await fakeStatus({ changes: none, not_kept: { count: 3, paths: [] } }),
    /^state +changed since the last save point: 3 entries no longer saved$/m,
  );
  assert.match(
    await fakeStatus({ head: null, latest: null, last_save_at: null }),
    /^state +never saved; to save it: cairn save$/m,
  );
  assert.match(
    await fakeStatus({ detached: true, head: ID_B }),
    /^head +5f6e7d8c, last saved 5 minutes ago \(restored; the latest point is 1a2b3c4d\)$/m,
  );
});

test("status says that the folder is unchanged but its save point is incomplete", async () => {
  const incomplete = {
    count: 12,
    left_out: [{ path: "key", reason: "unreadable" as const, detail: "permission denied" }],
  };
  const text = await fakeStatus({ clean: true, head_incomplete: incomplete });
  assert.match(text, /^state +unchanged since the last save point, which is incomplete$/m);
  assert.match(
    text,
    /^incomplete: 12 entries of the folder could not be recorded in the save point\n {2}key {2}permission denied$/m,
  );
  const torn = { count: 1, left_out: [{ path: "a.db", reason: "changing" as const, detail: "written to" }] };
  const saved = /^incomplete: 1 entry of the folder was saved, but may be torn\n {2}a\.db {2}written to$/m;
  assert.match(await fakeStatus({ clean: true, head_incomplete: torn }), saved);
  assert.match(await fakeStatus({ head_incomplete: incomplete }), /^state +changed since .*: 1 added, 2 removed$/m);
});

test("status names points whose content is missing", async () => {
  assert.match(await fakeStatus({ missing: [ID_B] }), /^MISSING: the content of 1 point is missing: 5f6e7d8c; /m);
});

const recovered = (minutes: number, more: Partial<Recovered> = {}): Recovered => ({
  at: new Date(now - minutes * 60_000).toISOString(),
  operation: "restore",
  outcome: "rolled_back",
  detail: "2 entries put back",
  kept: [],
  ...more,
});

test("status shows only the latest recovery with its time, and counts earlier ones", async () => {
  const both = [recovered(9, { detail: "old" }), recovered(5, { detail: "one" }), recovered(5, { detail: "other" })];
  const text = await fakeStatus({ recovered: both });
  assert.deepEqual(
    text.split("\n").filter((line) => line.includes("recovered")),
    ["recovered 5 minutes ago: one", "recovered 5 minutes ago: other", "  recovered earlier (1): cairn status --json"],
  );
  assert.doesNotMatch(await fakeStatus({ recovered: [recovered(25 * 60)] }), /recovered/);
});

test("status shows recoveries, processes with open files and ignored entries", async () => {
  const text = await fakeStatus({
    recovered: [recovered(5, { kept: [{ path: "edited.txt" }] })],
    holders: [{ pid: 7, command: "vi", path: "a" }],
    ignored: [{ path: "node_modules" }],
  });
  assert.match(text, /recovered 5 minutes ago: 2 entries put back\n {2}kept as it was found: edited\.txt/);
  assert.match(text, /open for writing a by vi \(7\)/);
  assert.match(text, /ignored: the rules leave out 1 entry\n {2}node_modules/);
});

test("history says if the folder is not based on the latest point", async () => {
  const older = {
    ...POINT,
    save_point_id: ID_B,
    message: "",
    cause: { kind: "command", command: ["npm", "test"], exit_code: 1 },
  };
  const at = formatInstant(POINT.created_at).slice(0, 16);
  const result = { save_points: [POINT, older], undo: null, head: ID_B, latest: ID_A, damaged: [], truncated: true };
  assert.equal(
    await renderHistory({ result, rows: foldSaves(result), empty: "none", shorten, style: PLAIN, now }),
    "   point     saved               stored\n" +
      `   1a2b3c4d  ${at}  1.21 KiB  second  #release\n` +
      `*  5f6e7d8c  ${at}  1.21 KiB  (command npm test, exit 1)  #release\n` +
      "the folder is based on 5f6e7d8c (*), which is not the latest point\n" +
      "… there are more (-n 0 lists all)",
  );
});

test("history folds saves without changes, and shows the undo point above head", async () => {
  const point = (digit: string, more: Partial<SavePoint>): SavePoint => {
    const id = ID_A.replaceAll(/./g, digit) as SavePoint["save_point_id"];
    return { ...POINT, save_point_id: id, message: "", tags: [], ...more };
  };
  const same = { unchanged: true };
  const failed = { unchanged: true, cause: { kind: "command", command: ["make"], exit_code: 2 } };
  const points = [
    ...["1", "2", "3", "4"].map((digit) => point(digit, same)),
    point("5", { message: "head" }),
    point("6", same),
    point("7", { message: "told", ...same }),
    point("8", same),
    point("9", failed),
    point("a", same),
  ];
  const undo = point("b", { cause: { kind: "restore", restored_to: "5f6e7d8c" } });
  const head = points[4]!.save_point_id;
  const result = { save_points: points, undo, head, latest: head, damaged: [], truncated: false };
  const rows = foldSaves(result);
  const lines = async (view: object): Promise<string[]> => {
    const all = await renderHistory({ result, rows, empty: "none", shorten, style: PLAIN, now, ...view });
    return all.split("\n").map((line) => line.replace(/ +(?:[\d: -]{16})  1\.21 KiB/, "").trim());
  };
  assert.deepEqual(await lines({}), [
    "point     saved               stored",
    "(4 saves without a change)",
    "bbbbbbbb  (before a restore)  `cairn undo` goes back to it",
    "*  55555555  head",
    "66666666  (nothing changed)",
    "77777777  told",
    "88888888  (nothing changed)",
    "99999999  (command make, exit 2)",
    "aaaaaaaa  (nothing changed)",
  ]);
  assert.equal((await lines({ rows: rows.slice(0, 1) })).at(-1), "… there are more (-n 0 lists all)");
  const whole = { rows: points.map((each) => [each]), result: { ...result, save_points: [undo, ...points] } };
  const found = (await lines(whole)).filter((line) => line.includes("bbbb") || line.includes("without a change"));
  assert.deepEqual(found, []);
});

test("why shows each change of a path and its cause", async () => {
  const change = (save_point: Partial<SavePoint>, more: Partial<WhyResult["changes"][0]>): WhyResult["changes"][0] => ({
    save_point: { ...POINT, tags: [], ...save_point },
    change: "modified",
    kind: "file",
    aspects: [],
    ...more,
  });
  const tool = { message: "", cause: { kind: "tool_call", tool: "bash" } };
  const restored = { message: "before restore of 5f6e7d8c", cause: { kind: "restore", restored_to: ID_B } };
  const changes = [
    change({}, { change: "removed", size_before: 3 }),
    change(restored, { aspects: ["content", "mode", "times"], size_before: 3, size_after: 2048 }),
    change(tool, { aspects: ["mode", "times"], size_before: 3, size_after: 3 }),
    change(tool, { aspects: ["times"], size_before: 3, size_after: 3 }),
    change({ message: "back" }, { aspects: ["content"], size_before: 3, size_after: 4, back_to: ID_B }),
    change({ message: "made" }, { change: "added", size_after: 3 }),
  ];
  const text = await renderWhy({ path: "a", changes, damaged: [], truncated: true }, { shorten, style: PLAIN, now });
  assert.deepEqual(
    text.split("\n").map((line) => line.replace(/^1a2b3c4d {2}[\d: -]{16} {2}/, "").replaceAll(/ {2,}/g, "  ")),
    [
      "removed  second",
      "modified, mode 3 B → 2 KiB  before restore of 5f6e7d8c",
      "mode  (tool_call bash)",
      "times  (tool_call bash)",
      "modified 3 B → 4 B  back as in 5f6e7d8c  back",
      "added 3 B  made",
      "… there are more (-n 0 lists all)",
    ],
  );
  const none = await renderWhy(
    { path: "a", changes: [], damaged: [], truncated: false },
    { shorten, style: PLAIN, now },
  );
  assert.equal(none, "no save point has a");
});

test("show prints a point with its complete message", async () => {
  const shown = await renderPoint({ ...POINT, message: "first\nsecond \u001b[2J\n" }, (id) => id, PLAIN);
  const at = shown.findIndex((line) => /^message +first$/.test(line));
  assert.match(shown[at + 1]!, /^ +second \\u001b\[2J$/);
  assert.match(shown[at + 2]!, /^cause/);
});

test("show prints the reason behind each label", async () => {
  const labels = [{ path: "a.db", label: "crash-consistent", reason: "it was copied" } as const];
  const shown = await renderPoint({ ...POINT, labels }, (id) => id, PLAIN);
  assert.ok(shown.some((line) => /^crash-consistent +a\.db: it was copied$/.test(line)));
});

test("describeCause describes a point's cause", () => {
  const told = (cause: typeof POINT.cause): string => describeCause({ ...POINT, cause });
  assert.equal(told({ kind: "restore", restored_to: "5f6e7d8c" }), "before a restore");
  assert.equal(told({ kind: "undo", restored_to: "5f6e7d8c" }), "before an undo");
  assert.equal(told({ kind: "undo", tool: "agent" }), "undo agent");
  assert.equal(told({ kind: "tool_call", tool: "sh" }), "tool_call sh");
  assert.equal(told({ kind: "tool_call" }), "tool_call");
});

test("restore says that there is no save point yet", () => {
  const result = {
    restored_to: null,
    undo_id: null,
    changes: { created: 0, updated: 0, deleted: 0, metadata: 0 },
    left_out: [],
    method: "entries",
    duration_ms: 1,
  } as const;
  assert.equal(
    renderRestore({ result: { ...result, left_out: [], unlinked: [] }, shorten, undo: "cairn undo", style: PLAIN }),
    "there is no save point yet: nothing was restored",
  );
});

test("restore names files that are no longer hard-linked to unrestored names", () => {
  const result = { ...RESTORED, unlinked: [{ path: "a" }, { path: "b\nc" }] };
  const text = renderRestore({ result, shorten, undo: "cairn undo", style: PLAIN });
  assert.match(text, /\n {2}no longer hard-linked to names that were not restored: 2 entries\n {4}a\n {4}b\\nc\n/);
});

const TO_APPLY = "to do exactly this, or nothing: add --apply p in place of --plan";

test("a restore plan lists the changes, or says that nothing would change", () => {
  const plan = {
    id: "p",
    restored_to: ID_A,
    entries: [{ action: "update", kind: "file", path: "a", size: 2048 } as const],
    left_out: [],
    holders: [],
  };
  assert.equal(
    renderPlan(plan, shorten(ID_A), PLAIN),
    `a restore to 1a2b3c4d would change 1 entry: 1 to update\n  ~ a (2 KiB)\n${TO_APPLY}`,
  );
  assert.equal(
    renderPlan({ ...plan, entries: [{ action: "metadata", kind: "directory", path: "" }] }, shorten(ID_A), PLAIN),
    `a restore to 1a2b3c4d would change 1 entry: 1 with other metadata\n  m ./\n${TO_APPLY}`,
  );
  assert.equal(
    renderPlan({ ...plan, entries: [] }, shorten(ID_A), PLAIN),
    "a restore to 1a2b3c4d would change nothing",
  );
});

test("a restore plan names entries that the point lacks, and each kept entry once", () => {
  const left = (path: string): LeftOut => ({ path, reason: "unreadable", detail: "it was not saved" });
  const plan = {
    id: "p",
    restored_to: ID_A,
    entries: [{ action: "keep", kind: "file", path: "a", reason: "unreadable" } as const],
    left_out: [left("a"), left("b")],
    holders: [],
  };
  const lines = ["  left out: 1 entry", "    b: unreadable; it was not saved"];
  const counted = "a restore to 1a2b3c4d would change nothing; 1 entry would stay";
  assert.equal(renderPlan(plan, shorten(ID_A), PLAIN), [counted, "  = a: unreadable", ...lines, TO_APPLY].join("\n"));
  const empty = renderPlan({ ...plan, entries: [], left_out: [left("b")] }, shorten(ID_A), PLAIN);
  assert.equal(empty, ["a restore to 1a2b3c4d would change nothing", ...lines].join("\n"));
});

test("a restore plan counts entries that stay apart from those that change", () => {
  const entries = [
    { action: "create", kind: "file", path: "made" },
    { action: "keep", kind: "file", path: "mine", reason: "changed_since" },
  ] as const;
  const plan = { id: "p", restored_to: ID_A, entries: [...entries], left_out: [], holders: [] };
  const [first] = renderPlan(plan, shorten(ID_A), PLAIN).split("\n");
  assert.equal(first, "a restore to 1a2b3c4d would change 1 entry: 1 to create; 1 entry would stay");
});

test("a rewind without a step claims no state of the folder", () => {
  const changes = { created: 0, updated: 0, deleted: 0, metadata: 0 };
  const turns = [{ turn_id: "1a2b3c4d", prompt: "why?" }];
  const result = { ...RESTORED, undo_id: null, changes, left_out: [], turns };
  const text = renderRestore({ result, shorten, undo: "cairn undo", style: PLAIN });
  assert.match(text, /^nothing to take back\n.*why\?\n {2}nothing had to change/);
});

test("a diff counts a renamed entry as the status does: one added, one removed", () => {
  const all = [{ ...FILE, change: "renamed" } as const, { ...FILE, change: "added" } as const, FILE];
  assert.equal(renderSummary(all), "4 entries: 2 added, 1 removed, 1 modified (1 renamed)");
  assert.equal(renderSummary([FILE]), "1 entry: 1 modified");
});

const FILE: DiffEntry = {
  change: "modified",
  kind: "file",
  path: "a",
  aspects: ["content", "mode"],
  size_before: 1024,
  size_after: 2048,
};

test("renderEntryLine prints an entry of a diff as one line", () => {
  assert.equal(renderEntryLine(FILE, PLAIN), "M a (content, mode)  1 KiB → 2 KiB");
  assert.equal(
    renderEntryLine({ change: "renamed", kind: "directory", path: "b", from_path: "a", aspects: [] }, PLAIN),
    "R a/ → b/",
  );
  assert.equal(
    renderEntryLine({ change: "modified", kind: "directory", path: "", aspects: ["mode", "owner"] }, PLAIN),
    "M ./ (mode, owner)",
  );
  assert.equal(
    renderEntryLine({ change: "not_kept", kind: "directory", path: "modules", aspects: [] }, PLAIN),
    "I modules/ (ignored by a rule now)",
  );
});

test("renderTextDiff counts lines as patch does", () => {
  const [before, after] = ["1\n2\n3\n4\n5\n6\n7\n8\n9\n", "1\n2\n3\n4\nfive\n6\n7\n8\n9\n"].map((text) =>
    Buffer.from(text),
  );
  const both = renderTextDiff({ entry: FILE, before: before ?? null, after: after ?? null }, PLAIN);
  assert.equal(both, "--- a/a\n+++ b/a\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8");
  assert.equal(
    renderTextDiff({ entry: FILE, before: Buffer.from("x"), after: null }, PLAIN),
    "--- a/a\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-x\n\\ No newline at end of file",
  );
  assert.match(
    renderTextDiff({ entry: FILE, before: null, after: Buffer.from("\u001b[2J\r\n") }, PLAIN) ?? "",
    /^\+\\u001b\[2J␍$/m,
  );
});

test("decodeText returns text only for UTF-8 without NUL", () => {
  assert.equal(decodeText(Buffer.from("é")), "é");
  assert.equal(decodeText(Buffer.from([0x61, 0])), null);
  assert.equal(decodeText(Buffer.from([0xff])), null);
  const binary = renderTextDiff({ entry: FILE, before: Buffer.from([0]), after: Buffer.from("x") }, PLAIN);
  assert.equal(binary, "Binary files a/a and b/a differ");
  const odd = renderTextDiff({ entry: { ...FILE, path: "a b" }, before: null, after: Buffer.from("x\n") }, PLAIN);
  assert.equal(odd, "--- /dev/null\n+++ b/a b\t\n@@ -0,0 +1,1 @@\n+x");
});

test("a cleanup plan lists the points to remove, the reasons and the command", () => {
  const plan = {
    id: "c1",
    plan_id: "c1",
    created_at: "",
    protected_save_points: [ID_A],
    protected_by_history: 1,
    candidate_count: 1,
    reclaimable_save_points: [ID_B],
    reclaimable_bytes_estimate: 2048,
    removals_pending: false,
    reasons: [{ save_point_id: ID_B, keep: false, reasons: ["older than 90d"] }],
  } satisfies CleanupPlan;
  assert.equal(
    renderCleanupPlan({ plan, shorten, next: "cairn cleanup --apply c1", style: PLAIN }),
    "1 point to remove, about 2 KiB freed in the store; 1 point to keep\n  drop 5f6e7d8c  older than 90d\nto do exactly this, or nothing: cairn cleanup --apply c1",
  );
  const pending = { ...plan, reclaimable_save_points: [], reasons: [], removals_pending: true };
  assert.match(
    renderCleanupPlan({ plan: pending, shorten, next: "cairn cleanup --apply c1", style: PLAIN }),
    /\n  not done yet: the store still holds content of .*\nto do exactly this, or nothing: cairn cleanup --apply c1$/,
  );
});

test("cleanup says that the freed bytes are those of the store", () => {
  const told = renderCleanupResult({ removed: [ID_A, ID_B], bytes_freed: 0, complete: true, still_held: null }, PLAIN);
  assert.equal(told, "removed 2 points, 0 B freed in the store");
  const partly = renderCleanupResult({ removed: [], bytes_freed: 10, complete: false, still_held: null }, PLAIN);
  assert.match(partly, /^removed 0 points, 10 B freed in the store; not done yet: /);
});

test("doctor shows whether a repair was planned, done or failed", () => {
  const finding = { kind: "index", severity: "damage", detail: "gone", repair: "make it again" } as const;
  const told = (repaired?: boolean): string =>
    renderDoctor(
      {
        healthy: false,
        findings: [repaired === undefined ? finding : { ...finding, repaired }],
        engine: "copy",
        engine_reasons: REASONS,
      },
      PLAIN,
    );
  assert.match(told(), /--repair would: make it again/);
  assert.match(told(true), /repaired: make it again/);
  assert.match(told(false), /could not be repaired: make it again/);
});

test("status shows the engine, and doctor the reasons against better engines", async () => {
  const reasons = [
    { engine: "btrfs-snapshot", chosen: false, reason: "not btrfs" },
    { engine: "reflink-copy", chosen: false, reason: "no clones", hint: "make it with them" },
    { engine: "copy", chosen: true, reason: "works everywhere" },
  ] as const;
  assert.match(await fakeStatus({ engine_reasons: [...reasons] }), /^engine +copy$/m);
  const doctor = (at: number): string =>
    renderDoctor(
      {
        healthy: true,
        findings: [],
        engine: "copy",
        engine_reasons: reasons.map((each, i) => ({ ...each, chosen: i === at })),
      },
      PLAIN,
    );
  assert.equal(
    doctor(1),
    "healthy: no problem found\nengine reflink-copy (no clones)\n  not btrfs-snapshot: not btrfs",
  );
  assert.equal(doctor(0), "healthy: no problem found\nengine btrfs-snapshot (not btrfs)");
});

test("status shows the engine's limitation at the last save", async () => {
  assert.match(
    await fakeStatus({ degraded: [{ what: "btrfs-snapshot", reason: "no subvolume" }] }),
    /^note at the last save, btrfs-snapshot: no subvolume$/m,
  );
});

test("run says that the state after the command was not saved", () => {
  const result = {
    command: ["x"],
    before: POINT,
    after: null,
    exit_code: 143,
    signal: "SIGTERM",
    duration_ms: 1500,
    changes: null,
    after_error: null,
  };
  assert.equal(
    renderRun(result, shorten, PLAIN),
    "SIGTERM after 1.5 s; before: 1a2b3c4d; the state after it was not saved",
  );
});

test("diff --sql prints a line for each definition, table and row", () => {
  const rows = [
    { before: null, after: { id: "4", name: "'mug'" } },
    { before: { id: "3", name: "'cup'" }, after: null },
    { before: { id: "2", name: "'ink'" }, after: { id: "2", name: "'a\u001bb'" } },
  ];
  const text = renderDatabaseDiff(
    {
      path: "app.db",
      from: ID_A,
      to: null,
      schema: [{ type: "index", name: "i", sql_before: null, sql_after: "CREATE INDEX i ON t (a)" }],
      tables: [
        { name: "item", key: ["id"], added: 1, removed: 1, changed: 3, rows },
        { name: "odd", key: ["a"], added: 0, removed: 0, changed: 0, rows: [], problem: "its primary key has changed" },
      ],
    },
    PLAIN,
  );
  assert.deepEqual(text.split("\n"), [
    "A index i",
    "  + CREATE INDEX i ON t (a)",
    "item: 1 added, 1 removed, 3 changed (2 rows not shown)",
    "  + id=4 name='mug'",
    "  - id=3 name='cup'",
    "  ~ id=2  name: 'ink' → 'a\\u001bb'",
    "odd: rows not compared: its primary key has changed",
  ]);
  assert.match(
    renderDatabaseDiff({ path: "app.db", from: ID_A, to: null, schema: [], tables: [] }, PLAIN),
    /^app\.db: no difference$/,
  );
});
