import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { PlanEntry, RestorePlan } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, type Outcome } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { btrfsPlace } from "../fixtures/held-place.ts";
import { allPointsOf, assertStale, idsOf, stateOf } from "../fixtures/plans.ts";
import { newFolder } from "../fixtures/work.ts";

/** What comes home of a fork is what the plan showed, or nothing. */

interface Place {
  original: string;
  fork: string;
}

const TEXT = Array.from({ length: 20 }, (_none, i) => `line ${i}\n`);

/** A fork that edited three files, beside an original that changed nothing. */
function place(original = newFolder("home")): Place {
  const fork = `${original}-fork`;
  write(original, "a", "one");
  write(original, "b", "one");
  write(original, "text", TEXT.join(""));
  cairnOk(["save", original]);
  cairnOk(["-C", original, "fork", "head", fork]);
  write(fork, "a", "of the fork");
  write(fork, "new", "of the fork");
  write(fork, "text", TEXT.with(1, "of the fork\n").join(""));
  fs.rmSync(path.join(fork, "b"));
  return { original, fork };
}

function write(folder: string, name: string, content: string): void {
  fs.writeFileSync(path.join(folder, name), content);
}

function adopt({ original, fork }: Place, ...args: string[]): Outcome {
  return cairn(["-C", original, "adopt", fork, ...args]);
}

function planOf(at: Place, ...args: string[]): RestorePlan {
  const planned = adopt(at, ...args, "--plan");
  assert.equal(planned.status, 0, planned.stdout + planned.stderr);
  return planned.data["plan"] as unknown as RestorePlan;
}

function named({ entries }: RestorePlan): string[] {
  return entries.map(({ action, path: name }: PlanEntry) => `${action} ${name}`);
}

const ALL = ["update a", "delete b", "create new", "update text"];

/** Each makes the plan stale. `back` takes a change of the original back; without an option, an edited original has no plan. */
const CHANGES: Readonly<Record<string, { change(at: Place): void; back?(at: Place): void }>> = {
  "an edit in the fork": { change: ({ fork }) => write(fork, "a", "edited") },
  "an edit in the fork of a text that is merged": {
    change: ({ fork }) => write(fork, "text", TEXT.with(1, "edited\n").join("")),
  },
  "a file that the fork has besides": { change: ({ fork }) => write(fork, "besides", "new") },
  "an edit in the fork that is saved": {
    change({ fork }) {
      write(fork, "a", "edited and saved");
      cairnOk(["save", fork]);
    },
  },
  "a mode that the fork sets": { change: ({ fork }) => fs.chmodSync(path.join(fork, "a"), 0o700) },
  "an edit in the original": {
    change: ({ original }) => write(original, "a", "edited"),
    back: ({ original }) => write(original, "a", "one"),
  },
  "an edit in the original of a text that is merged": {
    change: ({ original }) => write(original, "text", TEXT.with(15, "edited\n").join("")),
    back: ({ original }) => write(original, "text", TEXT.join("")),
  },
  "a rename in the original": {
    change: ({ original }) => fs.renameSync(path.join(original, "b"), path.join(original, "c")),
    back: ({ original }) => fs.renameSync(path.join(original, "c"), path.join(original, "b")),
  },
  "a deletion in the fork that comes back": {
    change: ({ original, fork }) =>
      fs.cpSync(path.join(original, "b"), path.join(fork, "b"), { preserveTimestamps: true }),
  },
};

const NO_CHANGES: Readonly<Record<string, (at: Place) => void>> = {
  nothing: () => undefined,
  "a point of the fork": ({ fork }) => cairnOk(["save", fork]),
  "a point of the original": ({ original }) => cairnOk(["save", original]),
  "a touch in the fork": ({ fork }) => fs.utimesSync(path.join(fork, "a"), 1, 1),
  "a touch in the original": ({ original }) => fs.utimesSync(path.join(original, "b"), 1, 1),
};

for (const how of [[], ["--over"], ["--merge"]]) {
  test(`a plan of a fork ${how.join()} is refused and nothing comes home after each change of either side`, () => {
    const shared = place();
    assert.deepEqual(named(planOf(shared, ...how)), ALL);
    for (const [name, { change, back }] of Object.entries(CHANGES)) {
      const at = back !== undefined && how.length === 0 ? place() : shared;
      const before = stateOf(at.original);
      const { id } = planOf(at, ...how);
      assert.deepEqual(stateOf(at.original), before, `a plan changes nothing in the original: ${name}`);
      change(at);
      const changed = stateOf(at.original);
      const refused = adopt(at, ...how, "--apply", id);
      assertStale(refused, /./, name);
      assert.deepEqual(stateOf(at.original), changed, `nothing was changed: ${name}`);
      if (back === undefined || how.length > 0)
        assert.match(refused.error!.hint!, new RegExp(planOf(at, ...how).id.slice(0, 8)), name);
      back?.(at);
    }
    assert.equal(adopt(shared, ...how, "--apply", planOf(shared, ...how).id).status, 0);
  });

  test(`a plan of a fork ${how.join()} is done as it was shown after points and touches of either side`, () => {
    const at = place();
    for (const [name, change] of Object.entries(NO_CHANGES)) {
      const plan = planOf(at, ...how);
      change(at);
      const before = readFolder(at.original, { withoutRootTime: true });
      const done = adopt(at, ...how, "--apply", plan.id);
      assert.equal(done.status, 0, name + done.stdout + done.stderr);
      const { created, updated, deleted } = done.data["changes"] as Record<string, number>;
      assert.deepEqual([created, updated, deleted], [1, 2, 1], name);
      const causes = allPointsOf(at.original).map(({ cause }) => cause.plan);
      assert.ok(causes.includes(plan.id), `the undo point records the plan: ${name}`);
      for (const each of ["a", "new", "text"])
        assert.equal(
          fs.readFileSync(path.join(at.original, each), "utf8"),
          fs.readFileSync(path.join(at.fork, each), "utf8"),
        );
      cairnOk(["undo", "-C", at.original]);
      assert.deepEqual(readFolder(at.original, { withoutRootTime: true }), before, name);
    }
  });
}

test("a plan with --merge shows both sides' work, and applies beside unrelated edits", () => {
  const at = place();
  write(at.original, "text", TEXT.with(15, "of the original\n").join(""));
  assert.deepEqual(adopt(at, "--plan").error?.code, "refused");
  assert.deepEqual(named(planOf(at, "--over")), ALL);
  const plan = planOf(at, "--merge");
  assert.deepEqual(named(plan), ALL);
  write(at.original, "unrelated", "of the original");
  assert.equal(adopt(at, "--merge", "--apply", plan.id).status, 0);
  assert.equal(
    fs.readFileSync(path.join(at.original, "text"), "utf8"),
    TEXT.with(1, "of the fork\n").with(15, "of the original\n").join(""),
  );
  assert.equal(fs.readFileSync(path.join(at.original, "unrelated"), "utf8"), "of the original");
});

test("a plan of a fork ends with the line that applies it", () => {
  const at = place();
  const line = [buildCommand(), "-C", at.original, "adopt", at.fork, "--plan"];
  const { stdout } = spawnSync(process.execPath, line, { encoding: "utf8" });
  const [, id] = /add --apply ([0-9a-f]{32}) in place of --plan\n$/.exec(stdout)!;
  assert.equal(id, planOf(at).id);
});

test("a fork in another control directory has no plan, and nothing is received", () => {
  const { original } = place();
  const other = `${original}-alone`;
  cairnOk(["-C", original, "fork", "head", other, "--standalone"]);
  write(other, "a", "edited");
  const at = { original, fork: other };
  const before = stateOf(at.original);
  for (const how of [["--plan"], ["--apply", "0".repeat(32)]]) {
    const { status, error } = adopt(at, "--over", ...how);
    assert.deepEqual([status, error?.code], [7, "refused"]);
    assert.match(error!.message, /store of its own/);
    assert.deepEqual(stateOf(at.original), before);
  }
});

test("a plan of a restore to another workspace's point is done as shown, and leaves no point if it is refused", () => {
  const at = place();
  cairnOk(["save", at.fork]);
  const [target] = idsOf(at.fork);
  const restore = (...args: string[]): Outcome => cairn(["-C", at.original, "restore", target!, ...args]);
  const { id } = restore("--plan").data["plan"] as unknown as RestorePlan;
  write(at.original, "a", "edited");
  const changed = stateOf(at.original);
  assert.equal(restore("--apply", id).error?.code, "stale_plan");
  assert.deepEqual(stateOf(at.original), changed);
  write(at.original, "a", "one");
  const done = restore("--apply", id);
  assert.equal(done.status, 0, done.stdout + done.stderr);
});

test("btrfs: plans of a fork with --merge, of undo and of redo are done as shown", async (t) => {
  const held = await btrfsPlace(t, () => undefined);
  if (held === null) return;
  await held.client.close();
  const at = place(held.folder);
  const plan = planOf(at, "--merge");
  assert.deepEqual(named(plan), ALL);
  assert.equal(adopt(at, "--merge", "--apply", plan.id).status, 0);
  for (const verb of ["undo", "redo"]) {
    const run = (...args: string[]): Outcome => cairn(["-C", at.original, verb, ...args]);
    const { id } = run("--plan").data["plan"] as unknown as RestorePlan;
    const done = run("--apply", id);
    assert.equal(done.status, 0, done.stdout + done.stderr);
  }
});
