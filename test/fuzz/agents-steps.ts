import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import type { RestorePlan, RestoreResult } from "../../src/contract/index.ts";
import {
  type Back,
  type Change,
  changedPaths,
  differencesOf,
  type Files,
  intervalsFrom,
  restored,
  slotsOf,
  takenBack,
  textOf,
} from "./agents-model.ts";
import type { AgentsWorld, GitFacts, Operation, Point, Session } from "./agents-world.ts";
import type { Chance, Step, StepPlace } from "./walk.ts";

const NAMES = ["a", "b", "c", "d/a", "d/b", "e/f/a", "e/g", "n/a", "n/b"];
const DIRECTORIES = ["d", "e", "e/f", "n"];
const MODES = [0o644, 0o600, 0o755];

/** Changes something in a folder, as `who`. */
function edit(root: string, who: () => string, { chance, note }: StepPlace): void {
  const at = (name: string): string => path.join(root, name);
  const isThere = (name: string): boolean => fs.lstatSync(at(name), { throwIfNoEntry: false }) !== undefined;
  const there = NAMES.filter((name) => isThere(name));
  const name = chance.pick(NAMES);
  const kind = chance.pick([
    "write",
    "write",
    "write",
    "slot",
    "slot",
    "delete",
    "rename",
    "chmod",
    "chmod",
    "link",
    "directory",
  ]);
  const some = there.length === 0 ? null : chance.pick(there);
  const isFile = some !== null && fs.lstatSync(at(some)).isFile();
  const text = who();
  if (kind === "delete" && some !== null) fs.rmSync(at(some));
  else if (kind === "rename" && some !== null && fs.existsSync(path.dirname(at(name))))
    fs.renameSync(at(some), at(name));
  else if (kind === "chmod" && isFile) fs.chmodSync(at(some), chance.pick(MODES));
  else if (kind === "slot" && isFile) {
    const slots = slotsOf(fs.readFileSync(at(some), "utf8"));
    slots[chance.below(2)] = text;
    fs.writeFileSync(at(some), textOf(slots.map((each) => each ?? "")));
  } else if (kind === "directory") {
    const directory = chance.pick(DIRECTORIES);
    if (!isThere(directory)) fs.mkdirSync(at(directory), { recursive: true });
    else if (chance.oneIn(2)) fs.rmSync(at(directory), { recursive: true });
    else fs.chmodSync(at(directory), chance.pick([0o755, 0o700]));
    note(directory);
  } else {
    fs.mkdirSync(path.dirname(at(name)), { recursive: true });
    if (kind === "link") {
      fs.rmSync(at(name), { force: true });
      fs.symlinkSync(text, at(name));
    } else {
      if (isThere(name) && fs.lstatSync(at(name)).isSymbolicLink()) fs.rmSync(at(name));
      fs.writeFileSync(at(name), textOf([text, chance.oneIn(2) ? "" : text]));
    }
    note(name);
  }
  note(`${text}: ${kind} ${some ?? ""}`);
}

async function event(world: AgentsWorld, { chance, note }: StepPlace): Promise<void> {
  const session = chance.pick(world.sessions);
  const kinds: ("prompt" | "before" | "after" | "stop")[] = [];
  if (session.turn === null || chance.oneIn(8)) kinds.push("prompt");
  if (session.turn !== null) kinds.push("stop");
  if (session.turn !== null && session.tells && session.open.length < 2) kinds.push("before", "before", "before");
  if (session.open.length > 0) kinds.push("after", "after", "after");
  const kind = chance.pick(kinds);
  const how = chance.pick(["late", "fails", ...Array.from({ length: 12 }, () => "in time" as const)] as const);
  let call: number | null = null;
  if (kind === "prompt") {
    session.turn = `turn ${world.next("t")}`;
    session.open = [];
    session.turns.push({ first: world.moments.length, id: session.turn, call: null });
  }
  if (kind === "before") {
    call = Number(world.next("").trim());
    session.open.push(call);
    session.turns.at(-1)!.call ??= world.moments.length;
  }
  if (kind === "after") [call] = session.open.splice(chance.below(session.open.length), 1) as [number];
  note(`${session.name} ${kind} ${call ?? ""} ${how}`);
  await world.hook(session, { kind, call }, how);
  // Calls without an end are interrupted.
  if (kind === "stop") [session.turn, session.open] = [null, []];
}

const ofAgent = (world: AgentsWorld, at: StepPlace): void => {
  const open = world.sessions.filter(({ turn, tells, open: calls }) => turn !== null && (!tells || calls.length > 0));
  const session = open.length > 0 && !at.chance.oneIn(6) ? at.chance.pick(open) : at.chance.pick(world.sessions);
  const count = 1 + at.chance.below(3);
  for (let i = 0; i < count; i++) edit(world.folder, () => world.next(session.name), at);
};

const ofPerson = (world: AgentsWorld, at: StepPlace): void => {
  const count = 1 + at.chance.below(2);
  for (let i = 0; i < count; i++) edit(world.folder, () => world.next("person"), at);
};

function git(world: AgentsWorld, { chance, note }: StepPlace): void {
  const kind = chance.pick(["commit", "commit", "commit", "add", "branch", "status", "pack"]);
  note(kind);
  if (kind === "commit") note(world.commit());
  else if (kind === "add") world.run("add", "-A");
  else if (kind === "branch") world.run("branch", world.next("branch").replace(" ", "-"));
  else if (kind === "pack") world.run("pack-refs", "--all");
  else world.run("status");
}

interface State {
  files: Files;
  git: GitFacts;
}

/** A verb, and what the model expects of it. */
interface Verb {
  before: State;
  run: (plan: string | undefined) => Promise<RestoreResult>;
  plan: (() => Promise<RestorePlan>) | null;
  /** the folder becomes equal to a state: any edit makes a plan stale */
  isWhole?: boolean;
  expected: Back;
  isStrict?: boolean;
  /** everything may be named: `--over` and restores */
  mayName?: boolean;
  /** entries that may be named */
  paths?: ReadonlySet<string>;
}

/** Runs a verb and compares. Returns null if it was refused. */
async function verify(world: AgentsWorld, verb: Verb, { chance, note }: StepPlace): Promise<RestoreResult | null> {
  const { before, expected } = verb;
  let id: string | undefined;
  if (verb.plan !== null && chance.oneIn(3)) {
    ({ id } = await verb.plan());
    world.assertFiles(before.files, "a plan changed the folder");
    if (verb.isWhole === true && chance.oneIn(3)) {
      edit(world.folder, () => world.next("person"), { chance, note });
      const edited = world.now();
      if (changedPaths(before.files, edited.files).size === 0) return null;
      const [history, operations] = await facts(world);
      note("stale");
      await assert.rejects(verb.run(id), { code: "stale_plan" });
      assert.deepEqual(await facts(world), [history, operations]);
      world.assertFiles(edited.files, "a stale plan changed the folder");
      return null;
    }
    note("planned");
  }
  if (verb.isStrict === true && expected.stays.size > 0) {
    const was = await facts(world);
    note("strict");
    await assert.rejects(verb.run(id), { code: "refused" });
    assert.deepEqual(await facts(world), was);
    world.assertFiles(before.files, "a strict rewind changed the folder");
    world.assertGit(before.git, "a strict rewind changed git's state");
    return null;
  }
  let done: RestoreResult;
  try {
    done = await verb.run(id);
  } catch (error) {
    // Something of git would stay.
    const isRefused = verb.isStrict === true && (error as { code: string }).code === "refused";
    if (!isRefused) throw error;
    const { stays } = (error as { details: { stays: { path: string }[] } }).details;
    note(`refused for ${stays.map((each) => each.path).join()}`);
    assert.ok(
      verb.mayName === true || stays.every((each) => isOfGit(each.path) || expected.mayStay.has(each.path)),
      stays.map((each) => each.path).join(),
    );
    world.assertFiles(before.files, "a strict rewind changed the folder");
    return null;
  }
  const left = done.left_out.map((each) => each.path);
  note(
    `${done.undo_id?.slice(0, 8) ?? "nothing"}, left ${JSON.stringify(done.left_out.map((each) => (isOfGit(each.path) ? `${each.path}: ${each.detail}` : each.path)))}`,
  );
  world.assertFiles(expected.files, "the folder is not as the rules say");
  world.fsck();
  if (verb.mayName !== true) {
    for (const each of expected.stays) assert.ok(left.includes(each), `${each} stays and is not named: ${left.join()}`);
    for (const each of left)
      assert.ok(
        isOfGit(each) || expected.stays.has(each) || expected.mayStay.has(each) || verb.paths?.has(each) === true,
        `${each} is named, but does not stay`,
      );
    assert.ok(done.left_out.every(({ reason }) => reason === "changed_since"));
  }
  return done;
}

const isOfGit = (name: string): boolean => name === ".git" || name.startsWith(".git/");

async function facts(world: AgentsWorld): Promise<[unknown, unknown]> {
  const { save_points: points, head } = await world.client.history(undefined, 0, { all: true });
  return [[points.map(({ save_point_id: id }) => id), head], await world.client.operations()];
}

/** Notes a finished operation, if Cairn must have recorded one. */
async function noted(
  world: AgentsWorld,
  { kind, before, done, headBefore }: { kind: string; before: State; done: RestoreResult; headBefore: string | null },
  turns?: Operation["turns"],
): Promise<void> {
  await world.noteUndoPoint(before);
  const { head } = await world.client.status();
  const isMove = done.undo_id === null && done.left_out.length === 0 && head !== headBefore;
  if (done.undo_id === null && !isMove) return;
  const left = world.now();
  const changed = changedPaths(before.files, left.files);
  world.done.push({
    kind,
    before,
    left,
    changed,
    only: changed,
    commits: world.commits.length,
    ...(turns && { turns }),
  });
  world.undone = [];
  world.isPartly = null;
}

async function restore(world: AgentsWorld, at: StepPlace): Promise<void> {
  const { chance, note } = at;
  const point = chance.pick(world.points);
  const before = world.now();
  const all = [...new Set([...before.files.keys(), ...point.files.keys()])].toSorted();
  const isWhole = chance.oneIn(3) || all.length === 0;
  const paths = isWhole ? undefined : [chance.pick(all)];
  const keepGit = isWhole && chance.oneIn(2);
  const { head: headBefore } = await world.client.status();
  const options = { target: point.id, ...(paths && { paths }), ...(keepGit ? { keepGit } : {}) };
  note(`${point.id.slice(0, 8)} ${paths?.join() ?? ""} ${keepGit ? "keep git" : ""}`);
  const files = restored(before.files, point.files, paths);
  const done = await verify(
    world,
    {
      before,
      isWhole,
      expected: { files, stays: new Set(), mayStay: new Set() },
      run: async (plan) => world.client.restore({ ...options, ...(plan && { plan }) }),
      plan: async () => world.client.planRestore(options),
    },
    at,
  );
  if (done === null) return;
  if (isWhole && !keepGit) assertPoint(world, point);
  else world.assertGit(before.git, "a restore of files changed git's state");
  await noted(world, { kind: "restore", before, done, headBefore });
}

function assertPoint(world: AgentsWorld, { git: wanted }: Point): void {
  world.assertGit(wanted, "git's state is not the point's");
}

/** The turns that no rewind took back, oldest first. */
function openTurns(world: AgentsWorld): { session: Session; turn: Session["turns"][number] }[] {
  const isBack = (session: string, first: number): boolean =>
    world.done.some(({ turns }) => turns?.session === session && first >= turns.first && first < turns.before);
  return world.sessions
    .flatMap((session) => session.turns.map((turn) => ({ session, turn })))
    .filter(({ session, turn }) => !isBack(session.name, turn.first))
    .toSorted((a, b) => a.turn.first - b.turn.first);
}

function chooseTurn(
  world: AgentsWorld,
  chance: Chance,
): {
  name: string | undefined;
  session: Session | undefined;
  chosen: ReturnType<typeof openTurns>[number] | undefined;
} {
  const session = chance.oneIn(3) ? undefined : chance.pick(world.sessions);
  const name = chance.pick([undefined, undefined, "1", "2", "3"]);
  const open = openTurns(world).filter((each) => session === undefined || each.session === session);
  const own = open.filter((each) => each.session === open.at(-1)!.session);
  return { name, session, chosen: own.at(-Number(name ?? 1)) };
}

async function rewind(world: AgentsWorld, at: StepPlace): Promise<void> {
  const { chance, note } = at;
  const { name, session, chosen } = chooseTurn(world, chance);
  const before = world.now();
  const over = chance.oneIn(8);
  const isStrict = !over && chance.oneIn(6);
  const paths = !over && chance.oneIn(6) ? [chance.pick(["a", "b", "c", "d", "e"])] : undefined;
  const options = {
    ...(session && { session: session.name }),
    ...(over ? { over } : {}),
    ...(isStrict ? { strict: true } : {}),
    ...(paths && { paths }),
  };
  note(`${name ?? ""} ${JSON.stringify(options)}`);
  if (chosen === undefined) return assert.rejects(world.client.rewind(name, options), { code: "not_found" });
  const { turn, session: own } = chosen;
  const intervals = intervalsFrom(world.moments, turn.first, before.files);
  const isOwn = ({ by }: (typeof intervals)[number]): boolean => typeof by === "object" && by.session === own.name;
  const isChange = (each: (typeof intervals)[number]): boolean =>
    each === intervals.at(-1) ||
    changedPaths(each.found, each.left).size > 0 ||
    !isSameGit(gitAt(world, each.index, before));
  const start =
    stateBefore(world, turn) ?? (over ? undefined : intervals.find((each) => isOwn(each) && isChange(each))?.found);
  note(`goes before ${own.name} ${turn.id}`);
  if (start === undefined) return assert.rejects(world.client.rewind(name, options), { code: "not_found" });
  const changes: Change[] = intervals
    .filter((each) => isOwn(each) || each.by === "uncertain")
    .map((each) => ({ found: each.found, left: each.left, isUncertain: each.by === "uncertain" }))
    .toReversed();
  const expected = over
    ? { files: restored(before.files, start), stays: new Set<string>(), mayStay: new Set<string>() }
    : takenBack(before.files, changes, { paths });
  const moments = world.moments.length;
  const { head: headBefore } = await world.client.status();
  const done = await verify(
    world,
    {
      before,
      isStrict,
      expected,
      // What changed since the last point may have changed before the turn.
      mayName: world.moments[turn.first]!.files === null,
      run: async (plan) => world.client.rewind(name, { ...options, ...(plan && { plan }) }),
      plan: async () => world.client.planRewind(name, options),
    },
    at,
  );
  if (done === null) return;
  if (!over) assertGitOfOthers(world, { before, own, first: turn.first, paths });
  // A rewind that only moved head took nothing back.
  const turns = done.undo_id === null ? undefined : { session: own.name, first: turn.first, before: moments };
  await noted(world, { kind: "rewind", before, done, headBefore }, turns);
}

/** The exact state before a turn. */
function stateBefore({ moments }: AgentsWorld, { first, call }: Session["turns"][number]): Files | undefined {
  const index = [first, ...(call === null ? [] : [call])].find((each) => {
    const { files, isLate, isMade } = moments[each]!;
    return files !== null && (isLate !== true || isMade !== true);
  });
  return index === undefined ? undefined : moments[index]!.files!;
}

/** No commit of somebody else leaves its branch, and git's state goes as one to a state that the session found. */
function assertGitOfOthers(
  world: AgentsWorld,
  { before, own, first, paths }: { before: State; own: Session; first: number; paths: readonly string[] | undefined },
): void {
  const now = world.now();
  if (paths !== undefined) return world.assertGit(before.git, "a rewind of files changed git's state");
  const intervals = intervalsFrom(world.moments, first, now.files);
  const isOwn = (index: number): boolean => {
    const by = intervals.find((each) => each.index === lastSaved(world, index))?.by;
    return typeof by === "object" && by.session === own.name;
  };
  for (const { id, moment } of world.commits) {
    if (isOwn(moment)) continue;
    const homes = world.homes(id, before.git);
    const lost = homes.filter((each) => !world.homes(id, now.git).includes(each));
    // A branch that only the agent made goes, wherever it is.
    const isTheirs = (name: string): boolean =>
      intervals.some(
        ({ index }) =>
          isOwn(index) &&
          gitAt(world, index, before).found.refs.get(name) === undefined &&
          gitAt(world, index, before).left.refs.get(name) !== undefined,
      );
    assert.deepEqual(
      lost.filter((each) => !isTheirs(each)),
      [],
      `the commit ${id} left its branch`,
    );
  }
  const found = intervals.filter(({ index }) => isOwn(index)).map(({ index }) => gitAt(world, index, before).found);
  assert.ok(
    [before.git, ...found].some(({ unit }) => unit === now.git.unit),
    `HEAD, its branch and the index are not of one state: ${now.git.unit}`,
  );
  for (const [name, value] of now.git.refs)
    assert.ok(
      [before.git, ...found].some(({ refs }) => refs.get(name) === value),
      `${name} is at ${value}`,
    );
  const others = intervals.filter(
    ({ index, by }) => !isOwn(index) && by !== undefined && !isSameGit(gitAt(world, index, before)),
  );
  if (others.length === 0 && found.length > 0) world.assertGit(found[0]!, "only the session changed git's state");
  if (found.length === 0) world.assertGit(before.git, "the session did nothing");
}

function lastSaved({ moments }: AgentsWorld, index: number): number {
  let at = index;
  while (at > 0 && moments[at]!.files === null) at--;
  return at;
}

function gitAt(world: AgentsWorld, index: number, now: State): { found: GitFacts; left: GitFacts } {
  const next = world.moments.findIndex(({ files }, i) => i > index && files !== null);
  // The verb's own undo point is not noted yet.
  return { found: world.git[index]!, left: next < 0 ? now.git : world.git[next]! };
}

function isSameGit({ found, left }: { found: GitFacts; left: GitFacts }): boolean {
  return (
    found.unit === left.unit && JSON.stringify([...found.refs].toSorted()) === JSON.stringify([...left.refs].toSorted())
  );
}

async function revert(world: AgentsWorld, at: StepPlace, verb: "undo" | "redo"): Promise<void> {
  const { chance, note } = at;
  const [from, to] = verb === "undo" ? [world.done, world.undone] : [world.undone, world.done];
  const over = chance.oneIn(5);
  const rest = over && world.isPartly?.verb === verb ? world.isPartly : null;
  const isFinish = rest !== null;
  const top = isFinish ? to.at(-1)! : from.at(-1);
  if (top === undefined) return assert.rejects(world.client[verb]({ over }), { code: "nothing_to_undo" });
  const before = world.now();
  const change = isFinish
    ? { found: rest.goal, left: top.before.files, only: top.changed }
    : { found: top.before.files, left: top.left.files, only: over ? top.changed : top.only };
  const expected = takenBack(before.files, [change], { over });
  note(`${over ? "over " : ""}${isFinish ? "finishes " : ""}the ${top.kind}`);
  const isExact =
    !isFinish &&
    differencesOf(before.files, top.left.files).length === 0 &&
    isSameGit({ found: before.git, left: top.left.git });
  const done = await verify(
    world,
    {
      before,
      expected,
      mayName: over,
      paths: top.changed,
      run: async (plan) => world.client[verb]({ over, ...(plan && { plan }) }),
      plan: async () => (verb === "undo" ? world.client.planUndo({ over }) : world.client.planRedo({ over })),
    },
    at,
  );
  if (done === null) return;
  const left = world.now();
  if (isExact) {
    note("exact");
    world.assertFiles(top.before.files, `right after the ${top.kind}, the ${verb} is not exact`);
    world.assertGit(top.before.git, `right after the ${top.kind}, the ${verb} is not exact`);
    assert.deepEqual(done.left_out, []);
  }
  if (!over) {
    assert.ok(
      [before.git, top.before.git].some(({ unit }) => unit === left.git.unit),
      "HEAD, its branch and the index are not of one state",
    );
    for (const { id } of world.commits.slice(top.commits)) {
      const homes = world.homes(id, before.git);
      assert.deepEqual(
        homes.filter((each) => !world.homes(id, left.git).includes(each)),
        [],
        `the commit ${id} left its branch`,
      );
    }
  }
  await world.noteUndoPoint(before);
  if (isFinish) {
    if (done.undo_id !== null) {
      const changed = top.changed;
      to[to.length - 1] = { ...top, left, only: changed, commits: world.commits.length };
      world.isPartly = null;
    }
    return;
  }
  if (done.undo_id === null && done.left_out.length > 0) return;
  from.pop();
  to.push({ ...top, before, left, only: changedPaths(before.files, left.files), commits: world.commits.length });
  world.isPartly = done.undo_id !== null && done.left_out.length > 0 ? { verb, goal: top.before.files } : null;
}

async function fork(world: AgentsWorld, { chance, note }: StepPlace): Promise<void> {
  if (world.forks.length > 1) return;
  const point = chance.pick(world.points);
  const folder = `${world.folder}-fork-${world.next("").trim()}`;
  note(`${point.id.slice(0, 8)} ${folder}`);
  await world.client.fork(point.id, folder);
  world.forks.push({ folder, base: point.files, count: 0 });
  assert.deepEqual(differencesOf(world.files(folder), point.files), []);
}

function editFork(world: AgentsWorld, at: StepPlace): void {
  if (world.forks.length === 0) return;
  const { folder } = at.chance.pick(world.forks);
  at.note(folder);
  for (let i = 0; i < 3; i++) edit(folder, () => world.next("fork"), at);
}

async function adopt(world: AgentsWorld, at: StepPlace): Promise<void> {
  if (world.forks.length === 0) return;
  const { chance, note } = at;
  const { folder, base } = chance.pick(world.forks);
  const before = world.now();
  const theirs = world.files(folder);
  const { head: headBefore } = await world.client.status();
  const isChanged = changedPaths(before.files, base).size > 0;
  note(folder);
  if (isChanged && chance.oneIn(3)) {
    await assert.rejects(world.client.adoptFork(folder, {}), { code: "refused" });
    world.assertFiles(before.files, "a refused adoption changed the folder");
    await world.noteUndoPoint(before);
    return;
  }
  const expected = takenBack(before.files, [{ found: theirs, left: base }], { merges: true });
  const done = await verify(
    world,
    { before, expected, plan: null, run: async () => world.client.adoptFork(folder, { merge: true }) },
    at,
  );
  assert.ok(isSameGit({ found: before.git, left: world.facts() }), "an adoption of edits changed git's state");
  await noted(world, { kind: "adopt", before, done: done!, headBefore });
}

export const STEPS: readonly Step<AgentsWorld>[] = [
  { name: "event", weight: 14, run: event },
  { name: "agent", weight: 9, run: ofAgent },
  { name: "person", weight: 6, run: ofPerson },
  { name: "git", weight: 4, run: git },
  { name: "save", weight: 2, run: async (world) => world.save({ message: world.next("save") }, { isAsked: true }) },
  {
    name: "daemon",
    weight: 2,
    run: async (world) => world.save({ message: "hourly", skipUnchanged: true, cause: { kind: "schedule" } }, {}),
  },
  { name: "restore", weight: 3, run: restore },
  { name: "rewind", weight: 7, run: rewind },
  { name: "undo", weight: 6, run: async (world, at) => revert(world, at, "undo") },
  { name: "redo", weight: 3, run: async (world, at) => revert(world, at, "redo") },
  { name: "fork", weight: 1, run: fork },
  { name: "edit fork", weight: 1, run: editFork },
  { name: "adopt", weight: 1, run: adopt },
];
