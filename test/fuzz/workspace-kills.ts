import assert from "node:assert/strict";
import fs from "node:fs";
import { CairnError } from "../../src/errors.ts";
import { cairn } from "../fixtures/command.ts";
import { type Entries, readEntries } from "../fixtures/folder-state.ts";
import type { Chance, StepPlace } from "./walk.ts";
import { differences, notRestored, type OraclePoint, savedEntries, undoEntries } from "./workspace-oracle.ts";
import { none, removeTree, type Target, type WorkspaceWorld } from "./workspace-world.ts";

/** Commands that are killed, and what must be so when the next one has met what they left. */

type Verb = "save" | "seal" | "status" | "restore" | "undo" | "cleanup" | "fork" | "engine";

/** A command whose exit status may say that it did nothing. */
const MAY_REFUSE: readonly Verb[] = ["engine", "cleanup", "undo"];

export async function killed(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const { chance, note } = at;
  const before = world.now();
  const chosen = world.target({ chance, note: () => undefined });
  const verb = chance.pick(verbsFor(world, chosen));
  const point = verb === "undo" ? world.pointOf(world.undo!.id)! : verb === "restore" ? chosen!.point : null;
  const fork = world.placeBeside("fork");
  const args = argumentsOf(verb, { world, at, target: point?.id ?? chosen?.point.id ?? "", fork });
  note(`${verb} ${world.nameOf(chosen?.point.id ?? null)}: ${kill(world, args, { pass: passAt(chance), verb })}`);
  if (chance.oneIn(3)) note(`status: ${kill(world, ["status"], { pass: passAt(chance), verb: "status" })}`);
  await world.reopen();
  await world.client.status();
  await takeOver(world, { before, point, verb });
  if (fs.existsSync(fork)) await endFork(world, { place: fork, point: chosen!.point });
  if (chance.oneIn(2)) await world.assertHealthy(false);
  if (chance.oneIn(3)) await world.assertVerified(true);
}

/** Commands pass from three to some sixty failpoints. */
function passAt(chance: Chance): number {
  return 1 + chance.below(chance.pick([4, 12, 30, 60]));
}

function verbsFor(world: WorkspaceWorld, chosen: Target | null): Verb[] {
  const verbs: Verb[] = ["save", "save", "seal", "status", "engine"];
  if (chosen !== null) verbs.push("restore", "restore", "restore", "restore", "cleanup", "fork");
  const isFresh = world.left !== null && differences(world.now(), world.left).length === 0;
  if (isFresh && world.undo?.paths === null && world.pointOf(world.undo.id)?.isOpaque !== true)
    verbs.push("undo", "undo");
  return verbs;
}

function argumentsOf(
  verb: Verb,
  { world, at, target, fork }: { world: WorkspaceWorld; at: StepPlace; target: string; fork: string },
): string[] {
  const { chance } = at;
  switch (verb) {
    case "restore":
      return [verb, target, ...(chance.oneIn(2) ? ["--method", chance.pick(["exchange", "exchange", "entries"])] : [])];
    case "fork":
      return [verb, target, fork];
    case "engine":
      return [verb, "set", chance.pick(world.place.engines), "--allow", "holders"];
    case "cleanup":
      return [verb, "--keep-last", "3", "--keep-undo", "3", "--keep-undo", "0d"];
    case "save":
    case "seal":
    case "status":
    case "undo":
      return [verb];
  }
}

/** Kills it at that pass of a failpoint; says where that was. */
function kill(
  { folder }: WorkspaceWorld,
  args: readonly string[],
  { pass, verb }: { pass: number; verb: Verb },
): string {
  const done = cairn(["-C", folder, ...args], { failpoint: `#${pass}`, cwd: "/" });
  if (done.killed) return `killed at ${done.failpoints.at(-1)}`;
  const isRefused = MAY_REFUSE.includes(verb) && done.error !== null && done.status !== 1;
  assert.ok(done.status === 0 || isRefused, `${args.join(" ")}: ${done.status} ${done.stdout} ${done.stderr}`);
  return isRefused ? `refused, ${done.error!.code}` : "to its end";
}

/** What was killed came to its end or did nothing: which of the two, and what is in the points that it made. */
async function takeOver(
  world: WorkspaceWorld,
  { before, point, verb }: { before: Entries; point: OraclePoint | null; verb: Verb },
): Promise<void> {
  const now = world.now();
  world.left = null;
  const notOld = differences(now, before);
  const notNew = point === null ? ["it was no restore"] : notRestored(now, point, before);
  if (notOld.length > 0) none(notNew, `neither what it was:\n${notOld.join("\n")}\nnor the target`);
  const { save_points: all, head } = await world.client.history(undefined, 0, { all: true });
  const there = new Set<string>(all.map(({ save_point_id: id }) => id));
  const gone = world.points.filter(({ id }) => !there.has(id));
  if (gone.length > 0) {
    assert.equal(verb, "cleanup");
    for (const { id, pinned } of gone) assert.ok(!pinned && id !== world.head && id !== world.undo?.id);
    world.points = world.points.filter((each) => !gone.includes(each));
  }
  const fresh = all.toReversed().slice(world.points.length);
  for (const { save_point_id: id, cause } of fresh) {
    const kind = ["restore", "undo", "redo"].includes(cause.kind) ? "undo" : "save";
    assert.equal(kind === "undo", point !== null, `a ${verb} made a point of cause ${cause.kind}`);
    const rules = point?.rules ?? world.rulesNow(now);
    const foretold = point === null ? savedEntries(now, rules) : undoEntries(point, before);
    const entries = foretold ?? (await world.written(id));
    world.points.push({ id, entries, rules, kind, pinned: false, tags: [], isOpaque: foretold === null });
    await world.assertWritten(world.points.at(-1)!);
  }
  const possible = [
    world.head,
    ...fresh.map(({ save_point_id: id }) => id),
    ...(notNew.length === 0 ? [point!.id, await world.standsAt(point!.id)] : []),
  ];
  assert.ok(possible.includes(head), `head is ${world.nameOf(head)}`);
  world.head = head;
  const undoes = await undoTarget(world);
  if (undoes === (world.undo?.id ?? null)) return none(notOld, "the folder was restored, and undo does not know it");
  assert.ok(
    notNew.length === 0 && fresh.some(({ save_point_id: id }) => id === undoes),
    `undo goes to ${world.nameOf(undoes)}`,
  );
  world.undo = { id: undoes!, paths: null };
}

/** The point of the state before the last operation that changed something. */
async function undoTarget(world: WorkspaceWorld): Promise<string | null> {
  const { operations } = await world.client.operations();
  return operations.find(({ undo_id: id }) => id !== null)?.undo_id ?? null;
}

/** A fork that a kill has met is a whole workspace, or nothing that is one. */
async function endFork(
  { library }: WorkspaceWorld,
  { place, point }: { place: string; point: OraclePoint },
): Promise<void> {
  try {
    const own = await library.open(place);
    none(differences(readEntries(place), point.entries), "a fork that was killed");
    await own.release({ deletePoints: true });
    await own.close();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "not_a_workspace") throw error;
  }
  removeTree(place);
}
