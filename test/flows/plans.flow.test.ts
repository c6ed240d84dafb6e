import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { RestorePlan } from "../../src/contract/index.ts";
import { cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { allPointsOf, assertStale, idsOf, stateOf } from "../fixtures/plans.ts";
import { newFolder } from "../fixtures/work.ts";

/** A plan is done exactly as it was shown, or not at all. */

interface Place {
  folder: string;
  write(name: string, content: string): void;
  run(...args: string[]): Outcome;
  plan(...args: string[]): RestorePlan;
}

const LARGE = 3 << 20;

/** A folder with two points; `large` has several chunks. */
function place(): Place {
  const folder = newFolder("plan");
  const write = (name: string, content: string): void => {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), content);
  };
  const run = (...args: string[]): Outcome => cairn(["-C", folder, ...args]);
  write("a", "one");
  write("d/b", "one");
  write("large", "1".repeat(LARGE));
  cairnOk(["save", folder]);
  write("a", "two");
  write("large", Array.from({ length: LARGE / 8 }, (_none, i) => String(i).padStart(8)).join(""));
  write("new", "two");
  cairnOk(["save", folder]);
  return { folder, write, run, plan: (...args) => run(...args, "--plan").data["plan"] as unknown as RestorePlan };
}

const RESTORE = ["restore", "head~1"];

const CHANGES: Readonly<Record<string, (at: Place) => void>> = {
  edit: ({ write }) => write("a", "three"),
  "edit of a large file": ({ folder }) => fs.appendFileSync(path.join(folder, "large"), "more"),
  chmod: ({ folder }) => fs.chmodSync(path.join(folder, "new"), 0o700),
  rename: ({ folder }) => fs.renameSync(path.join(folder, "d/b"), path.join(folder, "d/c")),
  "new file": ({ write }) => write("d/new", "new"),
  "deleted file": ({ folder }) => fs.rmSync(path.join(folder, "new")),
  "chmod of the folder itself": ({ folder }) => fs.chmodSync(folder, 0o700),
  "new point that changes the target": ({ folder, write }) => {
    write("d/b", "two");
    cairnOk(["save", folder]);
  },
};

test("a plan is refused and nothing is done after each change of the folder or of the target", () => {
  const at = place();
  for (const [name, change] of Object.entries(CHANGES)) {
    const { id } = at.plan(...RESTORE);
    change(at);
    const before = stateOf(at.folder);
    const refused = at.run(...RESTORE, "--apply", id);
    assertStale(refused, /./, name);
    assert.deepEqual(stateOf(at.folder), before, name);
    assert.match(refused.error!.hint!, new RegExp(at.plan(...RESTORE).id.slice(0, 8)), name);
  }
  assert.equal(at.run(...RESTORE, "--apply", at.plan(...RESTORE).id).status, 0);
});

const NO_CHANGES: Readonly<Record<string, (at: Place) => void>> = {
  nothing: () => undefined,
  touch: ({ folder }) => fs.utimesSync(path.join(folder, "d/b"), 1, 1),
  "the same content written again": ({ write }) => write("a", "two"),
  "a save that makes no point": ({ folder }) => cairnOk(["save", folder, "--skip-unchanged"]),
};

test("a plan is done as it was shown after changes that are none of its entries", () => {
  const at = place();
  const restore = ["restore", idsOf(at.folder).at(-1)!];
  for (const [name, change] of Object.entries(NO_CHANGES)) {
    const plan = at.plan(...restore);
    change(at);
    const done = at.run(...restore, "--apply", plan.id);
    assert.equal(done.status, 0, name + done.stdout + done.stderr);
    const counts = { create: 0, update: 0, delete: 0, metadata: 0, keep: 0 };
    for (const { action } of plan.entries) counts[action]++;
    const { created, updated, deleted } = done.data["changes"] as Record<string, number>;
    assert.deepEqual([created, updated, deleted], [counts.create, counts.update, counts.delete], name);
    const causes = allPointsOf(at.folder).map(({ cause }) => cause.plan);
    assert.ok(causes.includes(plan.id), `the undo point records the plan: ${name}`);
    cairnOk(["undo", "-C", at.folder]);
  }
});

test("plans of undo and redo are done as shown, and refused after an edit", () => {
  const at = place();
  assert.equal(at.run(...RESTORE).status, 0);
  for (const verb of ["undo", "redo"]) {
    const { id } = at.plan(verb);
    at.write("d/b", verb);
    // The undo does not change this file.
    assert.equal(at.run(verb, "--apply", id).status, 0);
    const other = at.plan(verb === "undo" ? "redo" : "undo");
    at.write("a", `edited ${verb}`);
    assert.equal(at.run(verb === "undo" ? "redo" : "undo", "--apply", other.id).error!.code, "stale_plan");
    at.write("a", verb === "undo" ? "two" : "one");
  }
});
