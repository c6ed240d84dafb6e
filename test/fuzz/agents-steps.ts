import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import type { RestorePlan, RestoreResult } from "../../src/contract/index.ts";
import {
  type Back,
  type Change,
  changedPaths,
  differencesOf,
  isOfGit,
  ownersIn,
  restored,
  slotsOf,
  takenBack,
  textOf,
} from "./agents-model.ts";
import type { AgentsWorld, EventKind, GitFacts, Moment, Operation, Point, Session, State } from "./agents-world.ts";
import type { Step, StepPlace } from "./walk.ts";

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
    "delete",
    "delete",
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

async function event(world: AgentsWorld, at: StepPlace): Promise<void> {
  const { chance, note } = at;
  const session = chance.pick(world.sessions);
  const kinds: EventKind[] = [];
  if (session.turn === null || chance.oneIn(8)) kinds.push("prompt");
  if (session.turn !== null) kinds.push("stop", "stop", "end");
  if (session.turn !== null && session.tells && session.open.length < 2) kinds.push("before", "before", "before");
  if (session.tells && session.open.length > 0) kinds.push("after", "after", "failure", "batch");
  const kind = chance.pick(kinds);
  const how = chance.pick([
    "late",
    "late",
    "fails",
    "fails",
    ...Array.from({ length: 6 }, () => "in time" as const),
  ] as const);
  const moment = world.moments.length;
  if (kind === "prompt") session.turns.push({ first: moment, id: (session.turn = `turn ${world.next("t")}`) });
  const ended = kind === "after" || kind === "failure" ? chance.pick(session.open) : null;
  const call = kind === "before" ? Number(world.next("").trim()) : (ended?.id ?? null);
  const denied = session.open.filter(() => kind === "batch" && chance.oneIn(3));
  note(`${session.name} ${kind} ${call ?? ""} ${how} ${denied.map(({ id }) => id).join()}`);
  const meanwhile = (): void => edit(world.folder, () => world.next("meanwhile"), at);
  await world.hook(session, { kind, call, denied: denied.flatMap(({ id }) => id ?? []) }, { how, meanwhile });
  const { called, returned } = world.moments.at(-1)!;
  const isEnd = (id: number | null): boolean => (ended === null ? id === null && kind === "stop" : id === ended.id);
  for (const own of session.open.slice()) {
    if (ended !== null ? own !== ended : kind === "before") continue;
    session.open.splice(session.open.indexOf(own), 1);
    if (denied.includes(own)) continue;
    const isSure = isEnd(own.id);
    const from = isSure ? own.from : own.called;
    world.spans.push({ session: session.name, moment: own.moment, from, to: called, isSure });
  }
  if (kind === "before" || (kind === "prompt" && !session.tells))
    session.open.push({ id: call, moment, called, from: returned });
  if (kind === "stop" || kind === "end") session.turn = null;
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
  world.gitTimes.push(world.tick());
  if (kind === "commit") note(world.commit());
  else if (kind === "add") world.run("add", "-A");
  else if (kind === "branch") world.run("branch", world.next("branch").replace(" ", "-"));
  else if (kind === "pack") world.run("pack-refs", "--all");
  else world.run("status");
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

async function facts(world: AgentsWorld): Promise<[unknown, unknown]> {
  const { save_points: points, head } = await world.client.history(undefined, 0, { all: true });
  return [[points.map(({ save_point_id: id }) => id), head], await world.client.operations()];
}

/** Notes a finished operation, if Cairn must have recorded one. */
async function noted(
  world: AgentsWorld,
  { kind, before, done, headBefore }: { kind: string; before: State; done: RestoreResult; headBefore: string | null },
  turns?: Omit<NonNullable<Operation["turns"]>, "at">,
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
    ...(turns && { turns: { ...turns, at: world.tick() } }),
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

/** A turn, or the part of a turn that came after a rewind. */
interface OpenTurn {
  session: Session;
  first: number;
  last: number;
  /** milliseconds */
  after: number;
  events: Moment[];
}

/** Lists the turns that no rewind took back, oldest first. */
function openTurns(world: AgentsWorld): OpenTurn[] {
  const all = world.sessions.flatMap((session) => session.turns.map((turn) => ({ session, ...turn })));
  return all
    .toSorted((a, b) => a.first - b.first)
    .flatMap(({ session, id, first }) => {
      const isOwn = ({ event: of }: Moment): boolean => of?.session === session.name && of.turn === id;
      const back = world.done.findLast(
        ({ turns }) => turns?.session === session.name && first >= turns.first && world.moments[first]!.at < turns.at,
      );
      const after = back?.turns!.at ?? -Infinity;
      const events = world.moments.filter((each) => isOwn(each) && each.at > after);
      if (back !== undefined && !events.some(({ event: of }) => of!.kind === "before")) return [];
      return [{ session, first, last: world.moments.findLastIndex(isOwn), after, events }];
    });
}

/** Lists the changes of a session by the calls between two moments, and those that may be its own, oldest first. */
function changesOf(world: AgentsWorld, now: State, turn: Omit<OpenTurn, "events">): Change[] {
  const { session, first, last, after } = turn;
  // Earlier changes are before every turn, also if the first hook's save was late.
  const begun = world.moments.findIndex(({ event: of }) => of !== undefined);
  const start = world.moments.findLastIndex(({ state }, i) => i <= begun && state !== null);
  const saved = world.moments.slice(start).filter(({ state }) => state !== null);
  return saved.flatMap(({ state, called, returned, isOperation = false }, i) => {
    const { state: left, at } = saved[i + 1] ?? { state: now, at: Infinity };
    if (at <= after) return [];
    const interval = { found: state!, left: left!, since: returned, until: at, isOperation };
    const own: [string, boolean][] = [];
    for (const [path, { of, isSure }] of ownersIn(interval, world.spansUntilNow())) {
      const isOwn = of.some((span) => span.session === session.name && span.moment >= first && span.moment <= last);
      const changedAt = (left!.files.get(path) ?? left!.inGit.get(path))?.at ?? -Infinity;
      if (isOwn && (called > after || changedAt > after)) own.push([path, isSure]);
    }
    return [...Map.groupBy(own, ([, isSure]) => isSure)].map(([isSure, paths]) => {
      return {
        found: state!.files,
        left: left!.files,
        isUncertain: !isSure,
        only: new Set(paths.map(([path]) => path)),
      };
    });
  });
}

/** Returns the exact state before a turn. */
function stateBefore({ events }: OpenTurn): State | null | undefined {
  const isOfCall = ({ event: of }: Moment): boolean => ["before", "after", "failure"].includes(of!.kind);
  const firsts = [events[0]!, ...events.filter(isOfCall).slice(0, 1)];
  return firsts.find(
    ({ state, isLate, isMade, event: of }) =>
      ["prompt", "before"].includes(of!.kind) && state !== null && (isLate !== true || isMade !== true),
  )?.state;
}

/** Returns the turn that a rewind goes back before. Turns that changed nothing are passed over. */
function turnToRewind(
  world: AgentsWorld,
  now: State,
  of: { name: string; session: Session | undefined },
): OpenTurn | undefined {
  let left = Number(of.name);
  let newest = of.session;
  for (const turn of openTurns(world).toReversed()) {
    if (newest !== undefined && turn.session !== newest) continue;
    const isKnown = turn.events.every(({ state }) => state !== null) && stateBefore(turn) !== undefined;
    if (isKnown && changesOf(world, now, turn).length === 0) continue;
    newest = turn.session;
    if (--left === 0) return turn;
  }
  return undefined;
}

async function rewind(world: AgentsWorld, at: StepPlace): Promise<void> {
  const { chance, note } = at;
  const session = chance.oneIn(3) ? undefined : chance.pick(world.sessions);
  const name = chance.pick([undefined, undefined, "1", "2", "3"]);
  const before = world.now();
  const turn = turnToRewind(world, before, { name: name ?? "1", session });
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
  if (turn === undefined) return assert.rejects(world.client.rewind(name, options), { code: "not_found" });
  const { session: own, first } = turn;
  note(`goes before ${own.name} ${turn.events[0]!.event!.turn}`);
  const changes = changesOf(world, before, { ...turn, last: Infinity }).toReversed();
  const start = stateBefore(turn);
  // The state before the turn's first change may do.
  if (start === undefined && over) return;
  if (start === undefined && changes.every(({ isUncertain }) => isUncertain === true))
    return assert.rejects(world.client.rewind(name, options), { code: "not_found" });
  const expected = over
    ? { files: restored(before.files, start!.files), stays: new Set<string>(), mayStay: new Set<string>() }
    : takenBack(before.files, changes, { paths });
  const { head: headBefore } = await world.client.status();
  const done = await verify(
    world,
    {
      before,
      isStrict,
      expected,
      mayName: over,
      run: async (plan) => world.client.rewind(name, { ...options, ...(plan && { plan }) }),
      plan: async () => world.client.planRewind(name, options),
    },
    at,
  );
  if (done === null) return;
  if (!over) assertGitOfOthers(world, { before, turn, paths });
  const isBack = done.undo_id !== null && paths === undefined;
  await noted(world, { kind: "rewind", before, done, headBefore }, isBack ? { session: own.name, first } : undefined);
}

/** No commit of somebody else leaves its branch, and git's state goes as one to a state that the session found. */
function assertGitOfOthers(
  world: AgentsWorld,
  { before, turn, paths }: { before: State; turn: OpenTurn; paths: readonly string[] | undefined },
): void {
  const now = world.now();
  const spans = world.spansUntilNow().filter((span) => span.session === turn.session.name && span.moment >= turn.first);
  const isOwn = (time: number): boolean => spans.some(({ from, to }) => from <= time && time <= to);
  if (paths !== undefined || !world.gitTimes.some(isOwn))
    return world.assertGit(before.git, "a rewind of files, or of calls without git, changed git's state");
  for (const { id, at, branches } of world.commits) {
    if (isOwn(at)) continue;
    const homes = world.homes(id, now.git);
    // A branch that the agent made goes, wherever it is.
    const lost = world.homes(id, before.git).filter((each) => branches.has(each) && !homes.includes(each));
    assert.deepEqual(lost, [], `the commit ${id} left its branch`);
  }
  const found = [before, ...world.moments.slice(turn.first).flatMap(({ state }) => state ?? [])].map(
    ({ git: of }) => of,
  );
  assert.ok(
    found.some(({ unit }) => unit === now.git.unit),
    `HEAD, its branch and the index are not of one state: ${now.git.unit}`,
  );
  for (const [ref, value] of now.git.refs)
    assert.ok(
      found.some(({ refs }) => refs.get(ref) === value),
      `${ref} is at ${value}`,
    );
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
  { name: "event", weight: 20, run: event },
  { name: "agent", weight: 9, run: ofAgent },
  { name: "person", weight: 6, run: ofPerson },
  { name: "git", weight: 4, run: git },
  { name: "save", weight: 2, run: async (world) => world.save({ message: world.next("save") }) },
  {
    name: "daemon",
    weight: 2,
    run: async (world) => world.save({ message: "hourly", skipUnchanged: true, cause: { kind: "schedule" } }),
  },
  { name: "restore", weight: 3, run: restore },
  { name: "rewind", weight: 7, run: rewind },
  { name: "undo", weight: 6, run: async (world, at) => revert(world, at, "undo") },
  { name: "redo", weight: 3, run: async (world, at) => revert(world, at, "redo") },
  { name: "fork", weight: 1, run: fork },
  { name: "edit fork", weight: 1, run: editFork },
  { name: "adopt", weight: 1, run: adopt },
];
