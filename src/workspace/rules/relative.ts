import { comparePaths, joinPath, latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { beside, besideWhich, DATABASE_LABELS, SIDECARS } from "../../formats/sqlite-header.ts";
import { keepsModes } from "../../fs/linux/mounts.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { isAtOrBelow } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { Workspace } from "../open/workspace.ts";
import type { Point } from "../points/point-files.ts";
import { type Difference, differences, exactDifferences, type OnDamagedDirectory } from "../points/tree-diff.ts";
import { contentOf, EntryBack, isSameContent, type Step } from "./entry-back.ts";
import { isOfGit } from "./git-files.ts";
import { type GitDecision, GitRule } from "./git-state.ts";
import type { State } from "./git-view.ts";

export type { State } from "./git-view.ts";
import type { MadeContents } from "./made-contents.ts";
import { isMerged, type TextMerge } from "./merge-text.ts";
import { OrderedFinder } from "./ordered-finder.ts";
import type { Change } from "./plan.ts";
import type { PointChange, Relative } from "./wanted.ts";

/**
 * The rule of relative changes (undo, redo, rewind): takes changes back, from the newest to the oldest, and nothing else.
 * An aspect of an entry that is as a change left it becomes as the change found it. One that is not stays, and so do its
 * older changes.
 */

interface StateChange {
  found: State;
  left: State;
  why?: string;
  turn?: string | undefined;
  selection: PathSelection | null;
  keptPresent: boolean;
  /** `found` is the target of the whole change */
  leadsToTarget: boolean;
  changed?: { before: State; after: State };
  entries?: ReadonlyMap<string, State>;
}

/** `present`: the folder now. */
interface States {
  present: State;
  onDamaged: OnDamagedDirectory;
  texts: TextMerge | null;
  made: MadeContents;
}

interface Rule extends Omit<Relative["options"], "changes">, States {
  changes: readonly StateChange[];
  paths: readonly Uint8Array[] | null;
  isOperation: boolean;
  /** false if the file system may not keep the mode that an entry is given */
  keepsModes: boolean;
  /** latin1 paths of databases that still have the pages that the newest change wrote through SQLite */
  written: ReadonlySet<string>;
  /** latin1 paths of the points' databases: a database and its sidecars go back together or stay together */
  databases: ReadonlySet<string>;
  root: Buffer;
}

/** Reads the states of the change's points. `target`: the state that the change leads to. */
export async function relativeRule(
  workspace: Workspace,
  change: Relative,
  { target, ...states }: States & { target: Point },
): Promise<RelativeRule> {
  const { root } = workspace;
  const { options, paths } = change;
  const labels = change.points().flatMap(({ descriptor }) => descriptor.labels);
  const isDatabase = ({ label }: { label: string }): boolean => DATABASE_LABELS.has(label);
  const databases = new Set(labels.filter(isDatabase).map((each) => latin1(rawPath(each))));
  return new RelativeRule({
    ...options,
    ...states,
    root,
    paths,
    isOperation: options.isOperation === true,
    keepsModes: keepsModes(root),
    changes: await readStates(workspace, change.options.changes, { target, present: states.present }),
    databases,
    written: await unchangedSince(workspace, databases, options),
  });
}

/** Lists the databases that nobody wrote since the change wrote them through SQLite, whose bytes are in no point. */
async function unchangedSince(
  { root, found }: Workspace,
  databases: ReadonlySet<string>,
  { merged, over = false, throughSqlite = false }: Relative["options"],
): Promise<Set<string>> {
  const unchanged = new Set<string>();
  if (over || throughSqlite) return unchanged;
  for (const [path, hash] of merged ?? []) {
    if (!databases.has(path)) continue;
    const { hashOfDatabase } = await import("../../capture/sqlite/databases.ts");
    const target = Buffer.from(joinPath(root, Buffer.from(path, "latin1")));
    if ((await hashOfDatabase(target, newWorkDirectory(found.control.temporary))) === hash) unchanged.add(path);
  }
  return unchanged;
}

async function readStates(
  workspace: Workspace,
  changes: readonly PointChange[],
  { target, present }: { target: Point; present: State },
): Promise<StateChange[]> {
  const known = new Map<string, State>();
  const state = async (point: Point): Promise<State> => {
    const { save_point_id: id } = point.descriptor;
    const read = known.get(id) ?? {
      source: await workspace.source(point),
      fields: (await workspace.manifest(point))?.lossless ?? [],
    };
    known.set(id, read);
    return read;
  };
  const read: StateChange[] = [];
  for (const { found, left, changed, entries, why, turn, paths = null, keptPresent = false } of changes) {
    const leftIn = new Map<string, State>();
    for (const [path, point] of entries ?? []) leftIn.set(path, point === null ? present : await state(point));
    read.push({
      found: await state(found),
      left: left === null ? present : await state(left),
      ...(why !== undefined && { why }),
      turn,
      selection: paths === null ? null : new PathSelection(paths),
      keptPresent,
      leadsToTarget: found.descriptor.save_point_id === target.descriptor.save_point_id,
      ...(changed && { changed: { before: await state(changed.before), after: await state(changed.after) } }),
      ...(entries && { entries: leftIn }),
    });
  }
  return read;
}

const EDITED = "it was changed after the operation that is reverted, and stays as it is";
const BOTH = "both sides changed it, and it stays as it is here";

/** `detail`: why `stopped` stay. */
interface TakenBack extends Pick<EntryBack, "wanted" | "wantedOf" | "stopped"> {
  detail?: string | undefined;
}

/** A directory of the folder that goes, with the number of its entries that stay. */
interface GoingDirectory {
  path: Uint8Array;
  entries: number;
}

/** Lists the changes that a relative change makes to a folder. */
export class RelativeRule {
  readonly #rule: Rule;
  readonly #present: OrderedFinder;
  readonly #selection: PathSelection | null;
  /** by database: the newest change that cannot be taken back, because the database was edited since */
  readonly #edited: ReadonlyMap<string, number>;
  /** null: entries of git are like others, since all of them go back */
  readonly #git: GitRule | null;
  readonly #going: GoingDirectory[] = [];
  /** by latin1 path: the number of the change whose found state an entry gets, if that state is not the target */
  readonly newer = new Map<string, number>();
  /** Directories above the current entry that the change makes. */
  #made: Uint8Array[] = [];

  constructor(rule: Rule) {
    this.#rule = rule;
    this.#present = new OrderedFinder(rule.present);
    this.#selection = rule.paths === null ? null : new PathSelection(rule.paths);
    this.#git = rule.over ? null : new GitRule({ ...rule, changes: rule.changes.filter(isOfRepositories) });
    this.#edited = rule.over || rule.throughSqlite ? new Map() : editedDatabases(rule);
  }

  /** As `changes` of the absolute rule. */
  *changes(): Generator<Change> {
    const open: GoingDirectory[] = [];
    for (const { path, steps } of this.#entries()) {
      const present = this.#present.at(path);
      const oldest = steps.at(-1) ?? null;
      const git = this.#git?.at(path, { present, isNew: oldest?.found === null });
      if (git?.stays !== undefined) yield staying(path, present, oldest?.found ?? present, git.stays);
      if (git !== undefined && git.wanted === undefined) continue;
      const { wanted, wantedOf, stopped, detail } =
        git === undefined ? this.#takenBack(path, present, steps) : decided(git);
      const change = changeOf(path, present, wanted);
      if (change === null) {
        const isBack = oldest !== null && changeOf(path, present, oldest.found) === null;
        const isStopped = stopped.length > 0 && !isBack && this.#git?.isQuiet(path, present) !== true;
        // The log of an edited database may hold other pages than the file, whose bytes are back.
        if (isStopped || this.#edited.has(latin1(path))) yield staying(path, present, oldest?.found ?? null, detail);
        continue;
      }
      const source = git !== undefined || oldest?.found === null ? null : this.#rule.changes[oldest!.index]!;
      const way = this.#wayTo(change, source);
      if (way === null) {
        yield staying(path, present, wanted);
        continue;
      }
      yield* way;
      while (open.length > 0 && !isAtOrBelow(path, open.at(-1)!.path)) open.pop();
      const goes = wanted === null || (present?.type === "dir" && wanted.type !== "dir");
      if (goes && open.length > 0 && isDirectlyIn(path, open.at(-1)!.path)) open.at(-1)!.entries--;
      if (present?.type === "dir" && wanted?.type !== "dir") {
        const going = { path, entries: this.#rule.present.source.list(present.subtree!).length };
        this.#going.push(going);
        open.push(going);
      }
      if (wanted?.type === "dir" && present?.type !== "dir") this.#made.push(path);
      if (this.#rule.changes[wantedOf]?.leadsToTarget === false) this.newer.set(latin1(path), wantedOf);
      const isUnchosen = this.#selection !== null && this.#selection.chosenAt(path) === null;
      const isWay = isUnchosen || this.#git?.isQuiet(path, present) === true;
      const notAll = stopped.length > 0 ? { edited: stopped, ...(detail && { detail }) } : {};
      yield { ...change, ...notAll, ...(isWay ? { isWay } : {}) };
    }
  }

  /** After all changes: for each directory that cannot go, a path in it. */
  staying(): Uint8Array[] {
    return this.#going.filter(({ entries }) => entries > 0).map(({ path }) => joinPath(path, ANY));
  }

  /** Lists the differences to the states before the changes: other names of a file that comes back may be among them. */
  *besides(): Generator<Difference> {
    const { changes, present, onDamaged } = this.#rule;
    for (const { found } of changes)
      yield* exactDifferences(present.source, found.source, { before: present.fields, after: found.fields }, onDamaged);
  }

  /** Merges the changes: the entries of all of them in raw pre-order, each with its steps, newest first. */
  *#entries(): Generator<{ path: Uint8Array; steps: Step[] }> {
    const { keptPresent = false, keptGit = false } = this.#rule;
    const lists = this.#rule.changes.map((change, index) => new StepList(change, index, this.#rule));
    // The last one comes first.
    let ofGit: Uint8Array[] = [];
    for (;;) {
      const heads = lists.flatMap((list) => (list.head === null ? [] : [list.head.path]));
      if (ofGit.length > 0) heads.push(ofGit.at(-1)!);
      if (heads.length === 0) return;
      const path = heads.reduce((least, each) => (comparePaths(each, least) < 0 ? each : least));
      const decided = (keptGit ? undefined : this.#git?.enter(path)) ?? [];
      if (decided.length > 0) {
        // Entries of git may come before the first one that differs.
        ofGit = [...ofGit, ...decided].toSorted((a, b) => comparePaths(b, a));
        continue;
      }
      const isDecided = ofGit.length > 0 && comparePaths(ofGit.at(-1)!, path) === 0;
      if (isDecided) ofGit.pop();
      const steps = lists.flatMap((list) => list.take(path) ?? []);
      const own = steps.filter((each) => {
        const of = this.#rule.changes[each.index]!;
        return (each.left !== null || !(keptPresent || of.keptPresent)) && isSelected(of.selection, path, [each]);
      });
      if (keptGit && isOfGit(path)) continue;
      if (isDecided || (own.length > 0 && isSelected(this.#selection, path, own))) yield { path, steps: own };
    }
  }

  /** Takes the steps back, each aspect for itself. `stopped`: aspects that were edited since. */
  #takenBack(path: Uint8Array, present: TreeNode | null, steps: readonly Step[]): TakenBack {
    const { over = false, throughSqlite = false, databases, written, keepsModes } = this.#rule;
    const database = databaseOf(path, databases);
    const isWritten = database !== null && written.has(database);
    const isSidecar = isWritten && database !== latin1(path) && steps.every(({ index }) => index === 0);
    if (over || isSidecar || (database !== null && throughSqlite))
      return { wanted: steps.at(-1)!.found, wantedOf: steps.at(-1)!.index, stopped: [] };
    const first = database === null ? undefined : this.#edited.get(database);
    const entry = new EntryBack(present, keepsModes);
    const isKnown = isWritten ? present?.type === "file" : this.#isAsMerged(path, present);
    let stop: number | undefined;
    for (const each of steps) {
      const isLeft = isKnown && each.index === 0 && each.left !== null;
      const step = isLeft ? { ...each, left: { ...each.left!, ...contentOf(present!) } } : each;
      const isEdited = first !== undefined && step.index >= first;
      if (isEdited || this.#rule.changes[step.index]!.why !== undefined) entry.stopAt(step);
      else entry.takeBack(step);
      if (entry.stopped.length > 0) stop ??= step.index;
    }
    if (database === null && this.#rule.texts !== null) entry.merge(path, steps[0]!, this.#rule.texts);
    const { wanted, wantedOf, stopped } = entry;
    return { wanted, wantedOf, stopped, detail: stop === undefined ? undefined : this.#whyStopped(stop, wantedOf) };
  }

  /** Tells why an entry stays at the step that stopped it. `reached`: the last change that was taken back. */
  #whyStopped(stop: number, reached: number): string | undefined {
    const { why, turn } = this.#rule.changes[stop]!;
    if (why !== undefined) return `${why}, and stays as it is`;
    if (turn === undefined) return this.#rule.merges === true ? BOTH : undefined;
    const back = this.#rule.changes[reached]?.turn;
    return back === undefined
      ? `it was edited after the turn ${turn}, and stays as it is`
      : `it was edited between the turns ${turn} and ${back}, and is as it was before ${back}`;
  }

  /** Tells if a file still is the text that the change merged. */
  #isAsMerged(path: Uint8Array, present: TreeNode | null): boolean {
    const known = this.#rule.merged?.get(latin1(path));
    return known !== undefined && present?.type === "file" && isMerged(joinPath(this.#rule.root, path), known);
  }

  /**
   * Returns the directories to make again for an entry that comes back; they were removed since. Null if something else
   * lies at a directory's path.
   */
  #wayTo({ path, after }: Difference, change: StateChange | null): Change[] | null {
    this.#made = this.#made.filter((each) => isAtOrBelow(path, each));
    if (after === null || change === null) return [];
    const way: Change[] = [];
    for (let end = path.indexOf(SLASH); end > 0; end = path.indexOf(SLASH, end + 1)) {
      const above = path.subarray(0, end);
      if (this.#made.some((each) => comparePaths(each, above) === 0)) continue;
      const present = this.#present.at(above);
      if (present?.type === "dir") continue;
      const found = new OrderedFinder(change.found).at(above);
      if (present !== null || found?.type !== "dir") return null;
      way.push({ path: above, before: null, after: found, aspects: [] });
    }
    for (const each of way) this.#made.push(each.path);
    return way;
  }
}

/** True if a change may have files of git: the change lists no entries, or one of its entries is git's. */
const isOfRepositories = ({ entries }: StateChange): boolean =>
  entries === undefined || Iterator.from(entries.keys()).some((path) => isOfGit(Buffer.from(path, "latin1")));

const SLASH = 0x2f;
const ANY = Buffer.from("*");

function isDirectlyIn(path: Uint8Array, directory: Uint8Array): boolean {
  return path.lastIndexOf(SLASH) === directory.length && isAtOrBelow(path, directory);
}

function changeOf(path: Uint8Array, before: TreeNode | null, after: TreeNode | null): Difference | null {
  if (before === null && after === null) return null;
  const aspects = before === null || after === null ? [] : differences(before, after);
  return before !== null && after !== null && aspects.length === 0 ? null : { path, before, after, aspects };
}

function staying(path: Uint8Array, before: TreeNode | null, after: TreeNode | null, detail = EDITED): Change {
  const aspects = before === null || after === null ? [] : differences(before, after);
  return { path, before, after, aspects, stays: { reason: "changed_since", detail } };
}

function decided({ wanted = null, isPart = false }: GitDecision): TakenBack {
  return { wanted, wantedOf: Infinity, stopped: isPart ? ["content"] : [] };
}

/** True for chosen entries, and for folders that were made or removed for them. */
function isSelected(selection: PathSelection | null, path: Uint8Array, steps: readonly Step[]): boolean {
  if (selection === null || selection.chosenAt(path) !== null) return true;
  const isMade = steps.every(({ found, left }) => (found?.type === "dir") !== (left?.type === "dir"));
  return isMade && selection.leadsOn(path);
}

/** The steps of one change, in raw pre-order. */
class StepList {
  readonly #differences: Iterator<Difference>;
  readonly #sides: { found: OrderedFinder; left: LeftFinder } | null;
  readonly #index: number;
  /** True if a listed entry goes back although the change itself left it as it was. */
  readonly #over: boolean;
  head: Difference | null = null;

  constructor(change: StateChange, index: number, { onDamaged, over = false }: Pick<Rule, "onDamaged" | "over">) {
    const { found, left, changed, entries } = change;
    const { before, after } = changed ?? { before: found, after: left };
    const fields = { before: before.fields, after: after.fields };
    // An entry that is damaged in a state stays, and is named; an operation left entries alone that its target has damaged.
    const noteOwn: OnDamagedDirectory = (path, error) => {
      if (changed === undefined || isDamagedIn(found, path)) onDamaged(path, error);
    };
    const all =
      entries === undefined ? exactDifferences(before.source, after.source, fields, noteOwn) : named(entries.keys());
    this.#differences = all[Symbol.iterator]();
    const isListed = changed !== undefined || entries !== undefined;
    this.#sides = isListed ? { found: new OrderedFinder(found), left: new LeftFinder(change) } : null;
    this.#index = index;
    this.#over = over && entries !== undefined;
    this.#advance();
  }

  /** Returns the step at `path` if the next one is there, and went from one state to another. */
  take(path: Uint8Array): Step | null {
    const { head } = this;
    if (head === null || comparePaths(head.path, path) !== 0) return null;
    this.#advance();
    if (this.#sides === null) return { index: this.#index, found: head.before, left: head.after };
    const [found, left] = [this.#sides.found.at(path), this.#sides.left.at(path)];
    return changeOf(path, found, left) === null && !this.#over ? null : { index: this.#index, found, left };
  }

  #advance(): void {
    const { done, value } = this.#differences.next();
    this.head = done === true ? null : value;
  }
}

function isDamagedIn(state: State, path: Uint8Array): boolean {
  const node = new OrderedFinder(state).at(path);
  try {
    if (node?.type === "dir") state.source.list(node.subtree!);
    return false;
  } catch {
    return true;
  }
}

function* named(paths: Iterable<string>): Generator<Difference> {
  for (const path of paths) yield { path: Buffer.from(path, "latin1"), before: null, after: null, aspects: [] };
}

/** Finds the nodes that a change left. */
class LeftFinder {
  readonly #change: StateChange;
  readonly #finders = new Map<State, OrderedFinder>();

  constructor(change: StateChange) {
    this.#change = change;
  }

  at(path: Uint8Array): TreeNode | null {
    const state = this.#change.entries?.get(latin1(path)) ?? this.#change.left;
    const finder = this.#finders.get(state) ?? new OrderedFinder(state);
    this.#finders.set(state, finder);
    return finder.at(path);
  }
}

/** Returns the latin1 path of the database that a file is or belongs to; null if the file belongs to none. */
function databaseOf(path: Uint8Array, databases: ReadonlySet<string>): string | null {
  if (databases.size === 0) return null;
  const database = latin1(besideWhich(path) ?? path);
  return databases.has(database) ? database : null;
}

/** Finds the databases that were edited after a change: a database without its own log would be damaged. */
function editedDatabases({ databases, written, changes, present }: Rule): Map<string, number> {
  const edited = new Map<string, number>();
  for (const database of databases) {
    const path = Buffer.from(database, "latin1");
    const members = [path, ...SIDECARS.map((ending) => beside(path, ending))];
    const nodesOf = (finder: Pick<OrderedFinder, "at">): (TreeNode | null)[] => members.map((each) => finder.at(each));
    let now = nodesOf(new OrderedFinder(present));
    for (const [index, change] of changes.entries()) {
      const { found, why } = change;
      const [before, after] = [nodesOf(new OrderedFinder(found)), nodesOf(new LeftFinder(change))];
      if (areSame(before, after) || areSame(now, before)) continue;
      const isLeft = areSame(now, after) || (index === 0 && written.has(database));
      if (why !== undefined || !isLeft) {
        edited.set(database, index);
        break;
      }
      now = before;
    }
  }
  return edited;
}

function areSame(some: readonly (TreeNode | null)[], others: readonly (TreeNode | null)[]): boolean {
  return some.every((node, i) => isSameContent(node, others[i]!));
}
