import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
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

function stateOf({ folder, run }: Place): unknown {
  const entries = fs.readdirSync(folder).map((name) => [name, fs.readFileSync(path.join(folder, name), "utf8")]);
  return [run("history", "--all").data["save_points"], run("operations").data["operations"], entries];
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
  /** Each makes the plan stale; the message then names the pattern. */
  stale: Record<string, [Change, RegExp]>;
  /** None of these changes the plan. */
  fresh: Record<string, Change>;
}

const edits: Change = ({ folder }) => fs.writeFileSync(path.join(folder, "a"), "edited");
const seals: Change = ({ run }) => run("seal");

const FORMS: Record<string, Form> = {
  "by rules": {
    line: () => ["cleanup", "--keep-last", "2"],
    stale: {
      "a new point": [saves, /remove 3 points .* and keep 3 points \(\w{8}: head, latest, last;/],
      "a pin of a point that goes": [pins, /keep 4 points .*: pinned/],
      "a removal of a point that goes": [removes(1), /remove 1 point /],
      "a removal of a point that stays": [removes(3), /remove 1 point .* keep 3 points /],
      "a restore": [({ run, ids }) => run("restore", ids[2]!), /: head/],
    },
    fresh: { edits, seals, "a pin of a point that stays": ({ run, ids }) => run("pin", ids[3]!) },
  },
  "by a rule that keeps one": {
    line: () => ["cleanup", "--keep-last", "1"],
    stale: { "a new point": [saves, /remove 4 points /] },
    fresh: {
      "a new point, and a pin of the one that it succeeds": (place) => {
        place.run("pin", place.ids[4]!);
        saves(place);
      },
    },
  },
  drop: {
    line: (ids) => ["cleanup", "drop", ids[1]!, ids[2]!],
    stale: {
      "a pin": [pins, /: \w{8} cannot be removed: it is pinned/],
      "a removal": [removes(2), /no save point/],
    },
    fresh: { edits, seals, saves, "a removal of another point": removes(0) },
  },
  "drop --force": {
    line: (ids) => ["cleanup", "drop", "--force", ids[0]!, ids[1]!],
    stale: {
      "a pin": [pins, /remove 2 points .*: asked for, pinned; \w{8}: asked for, pinned\)/],
      "the pin removed": [({ run, ids }) => run("unpin", ids[0]!), /asked for; \w{8}: asked for\)/],
    },
    fresh: { edits, saves },
  },
  "purge --path": {
    line: () => ["cleanup", "purge", "--path", ".env"],
    stale: {
      "a new point with the path": [savesSecret, /paths from 4 points \(/],
      "a removal of a point": [removes(2), /paths from 2 points \(/],
      "a pin": [pins, /paths from 3 points \(/],
      "a removal of the path": [({ run }) => run("cleanup", "purge", "--path", ".env"), /paths from 0 points/],
    },
    fresh: { edits, seals, saves },
  },
  "purge --text": {
    line: () => ["cleanup", "purge", "--text", SECRET.slice(0, 9)],
    stale: {
      "a message with the text": [
        ({ folder }) => cairnOk(["save", folder, "-m", `with ${SECRET}`]),
        /records of 2 points/,
      ],
      "a removal of the point": [removes(1), /records of 0 points/],
    },
    fresh: { edits, saves, "a point with the text in a file": savesSecret },
  },
};

for (const [name, { line, stale, fresh }] of Object.entries(FORMS)) {
  for (const [what, [change, message]] of Object.entries(stale))
    test(`a plan of a cleanup ${name} is refused, and nothing is done, after: ${what}`, () => {
      const at = place();
      const id = planIn(at, line(at.ids))["plan_id"] as string;
      change(at);
      const before = stateOf(at);
      const refused = at.run(...line(at.ids), "--apply", id);
      assert.deepEqual([refused.status, refused.error?.code], [4, "stale_plan"], refused.stdout + refused.stderr);
      assert.match(refused.error!.message, message);
      assert.match(refused.error!.message, /; nothing was changed$/);
      assert.deepEqual(stateOf(at), before);
    });
  for (const [what, change] of Object.entries({ nothing: (() => undefined) as Change, ...fresh }))
    test(`a plan of a cleanup ${name} is done as it was shown after: ${what}`, () => {
      const at = place();
      const plan = planIn(at, line(at.ids));
      const id = plan["plan_id"] as string;
      change(at);
      const done = at.run(...line(at.ids), "--apply", id);
      assert.equal(done.status, 0, done.stdout + done.stderr);
      for (const [key, of] of [
        ["reclaimable_save_points", "removed"],
        ["points", "points"],
        ["event_count", "event_count"],
        ["cause_count", "cause_count"],
      ] as const)
        if (plan[key] !== undefined) assert.deepEqual(done.data[of], plan[key], key);
      // The plan is done: the same line cannot do anything else.
      const again = at.run(...line(at.ids), "--apply", id);
      assert.notEqual(again.status, 0, again.stdout);
    });
}

test("the text of a plan ends with the line that applies it, and the plan is stored nowhere", () => {
  for (const { line } of Object.values(FORMS)) {
    const at = place();
    const control = path.dirname(cairnOk(["-C", at.folder, "store"]).data["repository"] as string);
    // An empty lock file stays.
    const names = (): unknown[] =>
      fs
        .readdirSync(control, { recursive: true })
        .filter((name) => name !== "lock")
        .toSorted();
    const before = names();
    const text = execFileSync(process.execPath, [buildCommand(), "-C", at.folder, ...line(at.ids), "--plan"]);
    assert.deepEqual(names(), before);
    const [, words = ""] = /\nto do exactly this, or nothing: cairn (.*)\n$/.exec(text.toString()) ?? [];
    assert.ok(words.includes(`--apply ${planIn(at, line(at.ids))["plan_id"] as string}`), text.toString());
    cairnOk(words.split(" "));
  }
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
