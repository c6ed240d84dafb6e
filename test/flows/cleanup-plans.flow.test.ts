import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { assertStale, stateOf } from "../fixtures/plans.ts";
import { newFolder } from "../fixtures/work.ts";

/** A cleanup does what its plan showed, or nothing. */

interface Place {
  folder: string;
  /** Of five points, oldest first. */
  ids: string[];
  save(...more: string[]): string;
  run(...args: string[]): Outcome;
}

const SECRET = "sk-live-4f1a";

/** Five points with a file `.env` in the first three, a secret in the cause of the second, and a pin on the first. */
function place(): Place {
  const folder = newFolder("cleanup-plan");
  const run = (...args: string[]): Outcome => cairn(["-C", folder, ...args]);
  let count = 0;
  const save = (...more: string[]): string => {
    fs.writeFileSync(path.join(folder, "a"), String(count++));
    const { save_point: point } = cairnOk(["save", folder, ...more]).data as { save_point: { save_point_id: string } };
    return point.save_point_id;
  };
  fs.writeFileSync(path.join(folder, ".env"), SECRET);
  const cause = ["--cause", JSON.stringify({ kind: "command", command: `deploy ${SECRET}` })];
  const ids = [save(), save(...cause), save()];
  fs.rmSync(path.join(folder, ".env"));
  ids.push(save(), save());
  cairnOk(["-C", folder, "pin", ids[0]!]);
  return { folder, ids, save, run };
}

function planIn({ run }: Place, line: readonly string[]): Record<string, unknown> {
  const { status, data, stderr } = run(...line, "--plan");
  assert.equal(status, 0, stderr);
  return (data["plan"] ?? data) as Record<string, unknown>;
}

type Change = (at: Place) => unknown;

const removes =
  (index: number): Change =>
  ({ run, ids }) =>
    run("cleanup", "drop", "--force", ids[index]!);
const pins: Change = ({ run, ids }) => run("pin", ids[1]!);
const saves: Change = ({ save }) => save();
const savesSecret: Change = ({ folder, save }) => {
  fs.writeFileSync(path.join(folder, ".env"), SECRET);
  save();
};

interface Form {
  line(ids: readonly string[]): string[];
  /** Done one after the other. The message of the plan that became stale matches the pattern; null: the plan holds. */
  steps: Record<string, [Change, RegExp | null]>;
  /** The message if the line is applied again. */
  again: RegExp;
}

const edits: Change = ({ folder }) => fs.writeFileSync(path.join(folder, "a"), "edited");
const seals: Change = ({ run }) => run("seal");

const FORMS: Record<string, Form> = {
  "by rules": {
    line: () => ["cleanup", "--keep-last", "2"],
    steps: {
      edits: [edits, null],
      seals: [seals, null],
      "a new point": [saves, /remove 3 points .* and keep 3 points \(\w{8}: head, latest, last;/],
      "a pin of a point that goes": [pins, /remove 2 points .* and keep 4 points .*: pinned/],
      "a pin of a point that stays": [({ run, ids }) => run("pin", ids[4]!), null],
      "a removal of a point that goes": [removes(2), /remove 1 point /],
      "two points": [(at) => [saves(at), saves(at)], /remove 2 points .* and keep 5 points /],
      "a removal of a point that stays": [
        ({ run }) => run("cleanup", "drop", "head~1"),
        /remove 1 point .* and keep 5 points /,
      ],
      "a restore": [({ run, ids }) => run("restore", ids[3]!), /: head/],
      "two more points": [(at) => [saves(at), saves(at)], /remove [1-9]/],
    },
    again: /remove 0 points/,
  },
  "by a rule that keeps one": {
    line: () => ["cleanup", "--keep-last", "1"],
    steps: {
      "a new point, and a pin of the point before": [(at) => [at.run("pin", at.ids[4]!), saves(at)], null],
      "a new point": [saves, /remove 4 points /],
    },
    again: /remove 0 points/,
  },
  drop: {
    line: (ids) => ["cleanup", "drop", ids[1]!, ids[2]!],
    steps: {
      edits: [edits, null],
      seals: [seals, null],
      saves: [saves, null],
      "a removal of another point": [removes(0), null],
    },
    again: /no save point/,
  },
  "drop --force": {
    line: (ids) => ["cleanup", "drop", "--force", ids[0]!, ids[1]!],
    steps: {
      edits: [edits, null],
      saves: [saves, null],
      "a pin": [pins, /remove 2 points .*: asked for, pinned; \w{8}: asked for, pinned\)/],
      "a pin removed": [({ run, ids }) => run("unpin", ids[0]!), /asked for, pinned; \w{8}: asked for\)/],
    },
    again: /no save point/,
  },
  "purge --path": {
    line: () => ["cleanup", "purge", "--path", ".env"],
    steps: {
      edits: [edits, null],
      seals: [seals, null],
      saves: [saves, null],
      "a new point with the path": [savesSecret, /paths from 4 points \(/],
      "a removal of a point": [removes(2), /paths from 3 points \(/],
      "a pin": [pins, /paths from 3 points \(/],
    },
    again: /paths from 0 points/,
  },
  "purge --text": {
    line: () => ["cleanup", "purge", "--text", SECRET.slice(0, 9)],
    steps: {
      edits: [edits, null],
      saves: [saves, null],
      "a point with the text in a file": [savesSecret, null],
      "a message with the text": [
        ({ folder }) => cairnOk(["save", folder, "-m", `with ${SECRET}`]),
        /records of 2 points/,
      ],
      "a removal of the point": [removes(1), /records of 1 point /],
    },
    again: /records of 0 points/,
  },
};

/** Asserts that the plan `id` is refused with a message like `names`, and that nothing is done. */
function assertRefused({ folder, run }: Place, [line, id]: [readonly string[], string], names: RegExp): void {
  const before = stateOf(folder);
  assertStale(run(...line, "--apply", id), names);
  assert.deepEqual(stateOf(folder), before);
}

for (const [name, { line: lineOf, steps, again }] of Object.entries(FORMS))
  test(`a plan of a cleanup ${name} holds until a change that it covers, and is done as it was shown`, () => {
    const at = place();
    const line = lineOf(at.ids);
    const control = path.dirname(cairnOk(["-C", at.folder, "store"]).data["repository"] as string);
    let plan = planIn(at, line);
    for (const [step, [change, stale]] of Object.entries(steps)) {
      const id = plan["plan_id"] as string;
      change(at);
      plan = planIn(at, line);
      assert.equal(plan["plan_id"] === id, stale === null, step);
      if (stale !== null) assertRefused(at, [line, id], stale);
    }
    const id = plan["plan_id"] as string;
    // An empty lock file stays.
    const names = (): unknown[] => fs.readdirSync(control, { recursive: true }).filter((each) => each !== "lock");
    const before = names().toSorted();
    const text = execFileSync(process.execPath, [buildCommand(), "-C", at.folder, ...line, "--plan"]);
    assert.deepEqual(names().toSorted(), before);
    const [, words = ""] = /\nto do exactly this, or nothing: cairn (.*)\n$/.exec(text.toString()) ?? [];
    assert.ok(words.includes(`--apply ${id}`), text.toString());
    const { data } = cairnOk(words.split(" "));
    for (const [key, of] of [
      ["reclaimable_save_points", "removed"],
      ["points", "points"],
      ["event_count", "event_count"],
      ["cause_count", "cause_count"],
    ] as const)
      if (plan[key] !== undefined) assert.deepEqual(data[of], plan[key], key);
    assertRefused(at, [line, id], again);
  });

test("a plan of a cleanup drop is refused after a pin, although no plan can be made then", () => {
  const at = place();
  const line = FORMS["drop"]!.line(at.ids);
  const id = planIn(at, line)["plan_id"] as string;
  pins(at);
  assertRefused(at, [line, id], /: \w{8} cannot be removed: it is pinned/);
});

test("a killed cleanup drop --force leaves the point pinned, or the next command removes it", () => {
  const { ids, run, folder } = place();
  const pinned = (): unknown[] =>
    (run("history", "--all").data["save_points"] as { save_point_id: string; pinned: boolean }[])
      .filter((each) => each.pinned)
      .map(({ save_point_id: id }) => id);
  const line = ["-C", folder, "cleanup", "drop", "--force", ids[0]!, "--apply"];
  const { plan } = run("cleanup", "drop", "--force", ids[0]!, "--plan").data as { plan: { plan_id: string } };
  for (const failpoint of ["cleanup.checked", "cleanup.committed"]) {
    assert.deepEqual(pinned(), [ids[0]], failpoint);
    assert.equal(cairn([...line, plan.plan_id], { failpoint }).killed, true, failpoint);
  }
  cairnOk(["save", folder]);
  assert.deepEqual(pinned(), []);
  assert.equal(cairn([...line, plan.plan_id]).error?.code, "stale_plan");
});
