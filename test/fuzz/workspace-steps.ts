import assert from "node:assert/strict";
import fs from "node:fs";
import { CairnError } from "../../src/errors.ts";
import type { RestoreResult } from "../../src/contract/index.ts";
import { type Entries, type Entry, readEntries } from "../fixtures/folder-state.ts";
import { areSameRules, ignoredBy } from "./ignore-rules.ts";
import type { Step, StepPlace } from "./walk.ts";
import { killed } from "./workspace-kills.ts";
import {
  changesBetween,
  differences,
  notRestoredInPart,
  type OraclePoint,
  savedEntries,
  wrongChanges,
} from "./workspace-oracle.ts";
import { none, removeTree, type WorkspaceWorld } from "./workspace-world.ts";

/** Everything that is done to a workspace, with what must be so afterwards. */

async function save(world: WorkspaceWorld, { chance, note }: StepPlace): Promise<void> {
  const before = world.now();
  const excludes = world.place.sets.has("rules") && chance.oneIn(5) ? [chance.pick(["*.o", "a", "/b", "m*/"])] : [];
  const [skipUnchanged, reread] = [chance.oneIn(4), chance.oneIn(8)];
  const rules = world.rulesNow(before, excludes);
  const entries = savedEntries(before, rules);
  const head = world.pointOf(world.head);
  note(`${before.size - entries.size} ignored${skipUnchanged ? ", skip unchanged" : ""}${reread ? ", reread" : ""}`);
  const saved = await world.client.save({ skipUnchanged, reread, exclude: excludes });
  assert.deepEqual(saved.left_out, []);
  world.assertUntouched(before, "a save");
  if (!saved.made) {
    note("not made");
    assert.ok(skipUnchanged && saved.save_point_id === world.head);
    return none(differences(entries, head!.entries), "no point was made, though");
  }
  assert.equal(saved.parent_id, world.head);
  if (head !== undefined && saved.changes !== null) {
    const changes = [...changesBetween(head.entries, entries).values()];
    const countOf = (kind: string): number => changes.filter(({ change }) => change === kind).length;
    assert.equal(saved.changes.added, countOf("added"), "added");
    assert.equal(saved.changes.removed, countOf("removed"), "removed");
    if (saved.unchanged) assert.equal(changes.length, 0, "unchanged");
    else if (head.isOpaque !== true)
      assert.ok(changes.length > 0 || !areSameRules(head.rules, rules), `changed: ${JSON.stringify(saved.changes)}`);
  }
  world.points.push({ id: saved.save_point_id, entries, rules, kind: "save", pinned: false, tags: [] });
  world.head = saved.save_point_id;
  if (chance.oneIn(4)) await world.assertWritten(world.points.at(-1)!);
}

async function look(world: WorkspaceWorld, { chance }: StepPlace): Promise<void> {
  const head = world.pointOf(world.head);
  if (head === undefined) return;
  const present = world.now();
  const rules = world.rulesNow(present);
  const [status, { entries }] = [await world.client.status(), await world.client.diff("head")];
  // What other rules say than those of then is everybody's change.
  if (areSameRules(rules, head.rules) && head.isOpaque !== true) {
    const seen = savedEntries(present, rules);
    none(wrongChanges(entries, head.entries, seen), "diff head");
    const { added, removed } = status.changes;
    const changes = [...changesBetween(head.entries, seen).values()];
    assert.equal(added, changes.filter(({ change }) => change === "added").length, "added");
    assert.equal(removed, changes.filter(({ change }) => change === "removed").length, "removed");
    const real = changes.filter(({ aspects }) => !["links", "times", "times,links"].includes(aspects.join()));
    if (real.length > 0) assert.equal(status.clean, false);
    if (changes.length === 0) assert.equal(status.clean, true);
  }
  const [one, other] = [chance.pick(world.points), chance.pick(world.points)];
  const between = await world.client.diff(one.id, other.id);
  const said = `diff ${world.nameOf(one.id)} ${world.nameOf(other.id)}`;
  none(wrongChanges(between.entries, one.entries, other.entries), said);
}

function method({ place }: WorkspaceWorld, { chance }: StepPlace): { method?: "exchange" | "entries" } {
  const chosen = place.engines.includes("btrfs-snapshot")
    ? chance.pick(["exchange", "exchange", "exchange", "entries", undefined] as const)
    : chance.pick(["entries", undefined] as const);
  return chosen === undefined ? {} : { method: chosen };
}

async function restore(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const chosen = world.target(at);
  if (chosen === null) return;
  const { point, target } = chosen;
  const before = world.now();
  if (at.chance.oneIn(3)) {
    const plan = await world.client.planRestore({ target });
    assert.equal(plan.restored_to, point.id);
    world.assertUntouched(before, "a plan");
  }
  const done = await world.client.restore({ target, ...method(world, at), onWarning: at.note });
  at.note(done.method);
  await restored(world, done, { point, before });
  if (done.undo_id !== null && at.chance.oneIn(2)) await backAtOnce(world, at, { point, before });
}

/** A whole restore or undo came to its end. */
async function restored(
  world: WorkspaceWorld,
  done: RestoreResult,
  { point, before }: { point: OraclePoint; before: Entries },
): Promise<void> {
  assert.equal(done.restored_to, point.id);
  assert.deepEqual(done.left_out, []);
  world.assertRestored(point, before);
  world.head = await world.standsAt(point.id);
  await world.addUndo(done.undo_id, { before, target: point });
}

/** Undo right after a restore gives back all that was, whatever that restore's rules say. */
async function backAtOnce(
  world: WorkspaceWorld,
  at: StepPlace,
  { point, before }: { point: OraclePoint; before: Entries },
): Promise<void> {
  const [was, between] = [world.pointOf(world.undo!.id)!, world.now()];
  const done = await world.client.undo({ ...method(world, at), onWarning: at.note });
  at.note(`undone, ${done.method}`);
  assert.equal(done.restored_to, was.id);
  assert.deepEqual(done.left_out, []);
  const isMixed = ignoredBy(point.rules, before).size > 0;
  none(differences(world.now(), before, { links: !isMixed, directoryTimes: !isMixed }), "a restore and its undo");
  world.head = await world.standsAt(was.id);
  await world.addUndo(done.undo_id, { before: between, target: was });
  world.left = null;
}

async function undo(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  if ((await world.client.operations()).operations.length === 0) {
    at.note("nothing to undo");
    return assert.rejects(world.client.undo(), { code: "nothing_to_undo" });
  }
  const before = world.now();
  // What an undo keeps of edits is the subject of the walks in `undo.flow.test.ts`.
  if (world.undo === null || world.left === null || differences(before, world.left).length > 0)
    return at.note("edited since");
  const { id, paths } = world.undo;
  const point = world.pointOf(id)!;
  const done = await world.client.undo({ ...method(world, at), onWarning: at.note });
  at.note(`${world.nameOf(id)}, ${done.method}`);
  if (paths === null) await restored(world, done, { point, before });
  else await restoredInPart(world, done, { point, before, paths });
  world.left = null;
}

async function partly(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const chosen = world.target(at);
  if (chosen === null) return;
  const { point, target } = chosen;
  const before = world.now();
  // What the rules leave out cannot be asked for.
  const ignored = ignoredBy(point.rules, before);
  const all = [...new Set([...before.keys(), ...point.entries.keys()])].filter(
    (name) => name !== "" && !ignored.has(name),
  );
  if (all.length === 0) return;
  const paths = Array.from({ length: 1 + at.chance.below(3) }, () => at.chance.pick(all.toSorted()));
  at.note(JSON.stringify(paths));
  const done = await world.client.restore({ target, paths: paths.map((name) => Buffer.from(name, "latin1")) });
  await restoredInPart(world, done, { point, before, paths });
  if (done.undo_id === null || !at.chance.oneIn(2)) return;
  const [was, between] = [world.pointOf(world.undo!.id)!, world.now()];
  const undone = await world.client.undo();
  at.note("undone");
  none(differences(world.now(), before, { directoryTimes: false, links: false }), "a restore of paths and its undo");
  await world.addUndo(undone.undo_id, { before: between, target: was, paths });
  world.left = null;
}

async function restoredInPart(
  world: WorkspaceWorld,
  done: RestoreResult,
  { point, before, paths }: { point: OraclePoint; before: Entries; paths: readonly string[] },
): Promise<void> {
  assert.equal(done.restored_to, point.id);
  assert.deepEqual(done.left_out, []);
  none(notRestoredInPart(world.now(), { target: point, before, paths }), "after a restore of paths");
  await world.addUndo(done.undo_id, { before, target: point, paths });
}

/** What the target does not have stays; what it has comes. */
async function keepPresent(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const chosen = world.target(at);
  if (chosen === null) return;
  const { point, target } = chosen;
  const before = world.now();
  const done = await world.client.restore({ target, keepPresent: true });
  assert.ok(
    done.left_out.every(({ reason }) => reason === "keep_present"),
    JSON.stringify(done.left_out),
  );
  const now = world.now();
  const isOfPoint = (name: string): boolean =>
    point.entries.has(name) && now.get(name)?.type === point.entries.get(name)!.type;
  // A directory with something in it that stays is in the way of what is none.
  for (const [name, { type }] of point.entries)
    if (!isOfPoint(name))
      assert.ok(before.get(name)?.type === "dir" && type !== "dir", `${JSON.stringify(name)} did not come`);
  const some = (entries: Entries, which: (name: string) => boolean): Entries =>
    new Map([...entries].filter(([name]) => which(name)));
  const loosely = { directoryTimes: false, links: false };
  none(differences(some(now, isOfPoint), some(point.entries, isOfPoint), loosely), "what came");
  const stays = (name: string): boolean => !point.entries.has(name) && !isBelowOther(name, point.entries, before);
  none(differences(some(now, stays), some(before, stays), loosely), "what was to stay");
  world.head = await world.standsAt(point.id);
  await world.addUndo(done.undo_id, { before, target: point });
  if (done.undo_id === null || !at.chance.oneIn(2)) return;
  const [was, between] = [world.pointOf(world.undo!.id)!, world.now()];
  const undone = await world.client.undo();
  at.note("undone");
  none(differences(world.now(), before, loosely), "a restore that keeps what is there and its undo");
  world.head = await world.standsAt(was.id);
  await world.addUndo(undone.undo_id, { before: between, target: was });
  world.left = null;
}

/** Something that is no directory comes where it lay. */
function isBelowOther(name: string, target: Entries, before: Entries): boolean {
  for (let slash = name.indexOf("/"); slash >= 0; slash = name.indexOf("/", slash + 1)) {
    const way = name.slice(0, slash);
    if (target.has(way) && target.get(way)!.type !== "dir" && before.has(way)) return true;
  }
  return false;
}

async function latest(world: WorkspaceWorld): Promise<void> {
  const before = world.now();
  const done = await world.client.restoreLatest();
  assert.equal(done.restored_to, world.head);
  const head = world.pointOf(world.head);
  if (head === undefined) return;
  world.assertRestored(head, before);
  await world.addUndo(done.undo_id, { before, target: head });
}

async function write(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const chosen = world.target(at);
  if (chosen !== null) await world.assertWritten(chosen.point);
}

async function view(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const chosen = world.target(at);
  if (chosen === null) return;
  const lease = await world.client.view(chosen.target);
  at.note(lease.method);
  none(differences(closed(readEntries(lease.path)), closed(chosen.point.entries)), "a view");
  await world.client.closeView(lease.view_id);
  assert.ok(!fs.existsSync(lease.path));
}

/** A view is for reading: rights are others there, and the mask of an access list with them. */
function closed(entries: Entries): Entries {
  const close = (entry: Entry): Entry => ({
    ...entry,
    mode: 0,
    xattrs: entry.xattrs.replace(/ ?system\.posix_acl_access=\w*/, ""),
  });
  return new Map([...entries].map(([name, entry]) => [name, close(entry)]));
}

async function mark(world: WorkspaceWorld, { chance }: StepPlace): Promise<void> {
  const point = chance.pick(world.points);
  if (point === undefined) return;
  if (chance.oneIn(2)) {
    await (point.pinned ? world.client.unpin(point.id) : world.client.pin(point.id));
    point.pinned = !point.pinned;
    return;
  }
  const tag = chance.pick(["t0", "t1", "ü x"]);
  const has = point.tags.includes(tag);
  await world.client.tag(point.id, has ? { remove: [tag] } : { add: [tag] });
  point.tags = has ? point.tags.filter((each) => each !== tag) : [...point.tags, tag];
}

async function cleanup(world: WorkspaceWorld, { chance, note }: StepPlace): Promise<void> {
  const keepLast = 2 + chance.below(6);
  const isNeeded = ({ id, pinned }: OraclePoint): boolean => pinned || id === world.head || id === world.undo?.id;
  const free = world.points.filter((point) => !isNeeded(point));
  const one = free.length > 0 && chance.oneIn(3) ? chance.pick(free) : null;
  const keepUndo = { count: 1 + chance.below(4), within: "0d" };
  const options = one === null ? { retention: { keepLast, keepUndo } } : { only: [one.id] };
  const plan = await world.client.previewCleanup(options);
  const going = new Set<string>(plan.reclaimable_save_points);
  const saves = world.points.filter(({ kind }) => kind === "save").slice(-keepLast);
  const stays =
    one === null ? [...world.points.filter(isNeeded), ...saves] : world.points.filter((each) => each !== one);
  for (const { id } of stays) assert.ok(!going.has(id), `${world.nameOf(id)} would go`);
  const { removed } = await world.client.runCleanup({ ...options, plan: plan.plan_id });
  note(`${removed.length} of ${world.points.length}`);
  assert.deepEqual(removed.toSorted(), [...going].toSorted());
  world.points = world.points.filter(({ id }) => !going.has(id));
  if (world.points.length > 0) await world.assertWritten(chance.pick(world.points));
}

async function fork(world: WorkspaceWorld, at: StepPlace): Promise<void> {
  const chosen = world.target(at);
  if (chosen === null) return;
  const { point, target } = chosen;
  const to = world.placeBeside("fork");
  const standalone = at.chance.oneIn(3);
  const done = await world.client.fork(target, to, { standalone });
  at.note(standalone ? "standalone" : "beside");
  assert.deepEqual(done.left_out, []);
  none(differences(readEntries(to), point.entries), "a fork");
  const own = await world.library.open(to);
  const first = readEntries(to);
  fs.writeFileSync(`${to}/of the fork`, "x");
  await own.save();
  const back = await own.restore({ target: "head~1" });
  assert.deepEqual(back.left_out, []);
  // Its rules may leave out what was written.
  const left = readEntries(to);
  left.delete("of the fork");
  none(differences(left, first), "a restore in a fork");
  assert.deepEqual((await own.verifyAll()).problems, []);
  await own.release({ deletePoints: true });
  await own.close();
  removeTree(to);
}

async function setEngine(world: WorkspaceWorld, { chance, note }: StepPlace): Promise<void> {
  const engine = chance.pick(world.place.engines);
  const before = world.now();
  note(engine);
  try {
    await world.client.setEngine(engine, { allow: ["holders"] });
  } catch (error) {
    if (!(error instanceof CairnError) || !["refused", "conflict"].includes(error.code)) throw error;
    note(`${error.code}: ${error.message}`);
  }
  world.assertUntouched(before, "another engine");
}

async function policy(world: WorkspaceWorld, { chance, note }: StepPlace): Promise<void> {
  const keptTrees = chance.pick([0, 1, 2, 100, 100]);
  note(`${keptTrees} trees are kept`);
  await world.client.setPolicy({ keptTrees });
}

async function seal(world: WorkspaceWorld): Promise<void> {
  await world.client.seal();
  for (const { save_point_id: id, sealed, entries } of (await world.client.history(undefined, 0, { all: true }))
    .save_points) {
    assert.ok(sealed);
    assert.equal(entries, world.pointOf(id)!.entries.size - 1);
  }
}

async function relocate(world: WorkspaceWorld): Promise<void> {
  const to = world.placeBeside("moved");
  await world.client.close();
  fs.renameSync(world.folder, to);
  await world.library.relocate(world.folder, to);
  world.folder = to;
  world.client = await world.library.open(to);
}

export const WORKSPACE_STEPS: readonly Step<WorkspaceWorld>[] = [
  { name: "edit", weight: 26, run: (world, at) => world.edit(at) },
  { name: "save", weight: 20, run: save },
  { name: "look", weight: 8, run: look },
  { name: "restore", weight: 15, run: restore },
  { name: "undo", weight: 9, run: undo },
  { name: "restore paths", weight: 9, run: partly },
  { name: "keep present", weight: 3, run: keepPresent },
  { name: "restore latest", weight: 2, run: latest },
  { name: "write", weight: 5, run: write },
  { name: "view", weight: 2, run: view },
  { name: "mark", weight: 3, run: mark },
  { name: "cleanup", weight: 4, run: cleanup },
  { name: "fork", weight: 3, run: fork },
  { name: "engine", weight: 2, run: setEngine },
  { name: "policy", weight: 1, run: policy },
  { name: "seal", weight: 3, run: seal },
  { name: "verify", weight: 2, run: async (world, { chance }) => world.assertVerified(chance.oneIn(2)) },
  { name: "doctor", weight: 2, run: async (world, { chance }) => world.assertHealthy(chance.oneIn(2)) },
  { name: "relocate", weight: 2, run: relocate },
  { name: "reopen", weight: 2, run: async (world) => world.reopen() },
  { name: "kill", weight: 8, run: killed },
];
