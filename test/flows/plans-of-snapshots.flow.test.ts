import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RestoreInPlaceResult } from "../../src/contract/index.ts";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { allPointsOf, assertStale, stateOf } from "../fixtures/plans.ts";
import { newFolder } from "../fixtures/work.ts";

/** A restore of a snapshot in place does what its plan showed, or nothing. */

interface Place {
  folder: string;
  write(name: string, content: string): void;
  restore(...args: string[]): Outcome;
  plan(...args: string[]): RestoreInPlaceResult & { plan_id: string };
  backUp(): void;
}

const LARGE = 3 << 20;

/** A folder whose newest snapshot it does not equal. `isGone`: the workspace lacks the snapshot's point. */
function place(isGone: boolean): Place {
  const folder = newFolder("snapshot");
  const [repository, key] = [`${folder}-repository`, `${folder}-key`];
  const write = (name: string, content: string): void => {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), content);
  };
  const backup = (verb: string, ...args: string[]): Outcome =>
    cairn(["-C", folder, "backup", verb, ...args, "-r", repository, "--password-file", key]);
  const ok = (done: Outcome): Outcome => {
    assert.equal(done.status, 0, done.stdout + done.stderr);
    return done;
  };
  fs.writeFileSync(key, "secret");
  write("a", "one");
  write("d/b", "one");
  write("large", Array.from({ length: LARGE / 8 }, (_none, i) => String(i).padStart(8)).join(""));
  ok(backup("init"));
  ok(backup("create"));
  if (isGone) {
    cairnOk(["release", folder, "--delete-points"]);
    cairnOk(["init", folder]);
  }
  write("a", "two");
  write("large", "1".repeat(LARGE));
  write("new", "two");
  fs.rmSync(path.join(folder, "d/b"));
  const access = ["-r", repository, "--password-file", key];
  const restore = (...args: string[]): Outcome =>
    args.includes("--keep-present")
      ? cairn(["-C", folder, "restore", "backup:latest", ...args, ...access])
      : backup("restore", "latest", "--in-place", ...args);
  return {
    folder,
    write,
    restore,
    plan: (...args) => ok(restore(...args, "--plan")).data as unknown as ReturnType<Place["plan"]>,
    backUp: () => void ok(backup("create")),
  };
}

const CHANGES: Readonly<Record<string, (at: Place) => void>> = {
  "an edit": ({ write }) => write("a", "edited"),
  "an edit of a large file": ({ folder }) => fs.appendFileSync(path.join(folder, "large"), "more"),
  "a mode": ({ folder }) => fs.chmodSync(path.join(folder, "new"), 0o700),
  "the folder's own mode": ({ folder }) => fs.chmodSync(folder, 0o711),
  "a rename": ({ folder }) => fs.renameSync(path.join(folder, "new"), path.join(folder, "newer")),
  "a new file": ({ write }) => write("d/new", "new"),
  "a file that is made as it was": ({ write }) => write("d/b", "one"),
  "a newer snapshot": ({ backUp }) => backUp(),
};

for (const isGone of [false, true])
  test(`${isGone ? "without the snapshot's point, " : ""}a plan of a snapshot is refused after every change`, () => {
    const at = place(isGone);
    for (const [name, change] of Object.entries(CHANGES)) {
      const before = stateOf(at.folder);
      const plan = at.plan();
      assert.deepEqual(stateOf(at.folder), before, "a plan changes nothing");
      change(at);
      const changed = stateOf(at.folder);
      const refused = at.restore("--apply", plan.plan_id);
      assertStale(refused, /./, name);
      assert.deepEqual(stateOf(at.folder), changed, `nothing was changed: ${name}`);
      assert.match(refused.error!.hint!, new RegExp(at.plan().plan_id.slice(0, 8)), name);
    }
  });

const NO_CHANGES: Readonly<Record<string, (at: Place) => void>> = {
  nothing: () => undefined,
  "a touch": ({ folder }) => fs.utimesSync(path.join(folder, "new"), 1, 1),
  "a save point": ({ folder }) => cairnOk(["save", folder]),
};

for (const isGone of [false, true])
  test(`${isGone ? "without the snapshot's point, " : ""}a plan of a snapshot is done as it was shown`, () => {
    const at = place(isGone);
    for (const [how, shown] of [
      [
        ["a", "d"],
        ["a", "d/b"],
      ],
      [["--keep-present"], ["a", "d/b", "large"]],
      [[], ["a", "d/b", "large", "new"]],
    ] as const)
      for (const [name, change] of Object.entries(NO_CHANGES)) {
        const plan = at.plan(...how);
        const named = plan.planned_entries!.filter(({ action }) => action !== "keep").map((each) => each.path);
        assert.deepEqual(named, shown);
        change(at);
        const done = at.restore(...how, "--apply", plan.plan_id);
        assert.deepEqual([done.status, done.data["changes"]], [0, plan.changes], name + done.stdout);
        const causes = allPointsOf(at.folder).map(({ cause }) => cause.plan);
        assert.ok(causes.includes(plan.plan_id), "the undo point records the plan");
        cairnOk(["undo", "-C", at.folder]);
      }
  });

test("a plan with other options is another plan", () => {
  const at = place(false);
  const { plan_id: id } = at.plan("--keep-present");
  const before = stateOf(at.folder);
  for (const how of [[], ["a"]]) assert.equal(at.restore(...how, "--apply", id).error?.code, "stale_plan");
  assert.deepEqual(stateOf(at.folder), before);
});
