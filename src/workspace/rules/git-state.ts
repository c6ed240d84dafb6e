import { append } from "../../append.ts";
import { toCairnError } from "../../errors.ts";
import { comparePaths, latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import {
  gitPart,
  indexKey,
  isObjectCache,
  isWork,
  lastValue,
  logLine,
  logLines,
  symbolicTarget,
  withLost,
  withoutPacked,
} from "./git-files.ts";
import { isSameContent } from "./entry-back.ts";
import { type GitView, GitViews, STASH, type State, TooLarge } from "./git-view.ts";
import type { MadeContents } from "./made-contents.ts";

/**
 * The rule of relative changes for git directories. HEAD, its branch, the index and work in progress go back together,
 * if all of them are as the change left them; other refs go back one by one; reflogs grow, objects never go.
 */

interface GitChange {
  found: State;
  left: State;
  /** why it is not certain whose change this is */
  why?: string;
}

interface GitInput {
  /** newest first */
  changes: readonly GitChange[];
  present: State;
  /** raw paths that may change; null: all */
  paths: readonly Uint8Array[] | null;
  made: MadeContents;
  /** the changes are an operation of Cairn, which may have changed hooks and entries of worktrees */
  isOperation: boolean;
}

/** A decision about an entry of a git directory. `wanted` undefined: the entry stays. `stays`: a reason to tell. */
export interface GitDecision {
  wanted?: TreeNode | null;
  stays?: string;
  /** only a part of git's state goes back */
  isPart?: boolean;
}

const STAYS: GitDecision = {};
const SHORT = 7;

/** Decides what becomes of the entries of all git directories of a folder. */
export class GitRule {
  readonly #input: GitInput;
  readonly #selection: PathSelection;
  readonly #views: GitViews;
  /** by directory, in latin1; null: no git directory */
  readonly #known = new Map<string, GitDirectory | null>();
  /** the git directories that were found, the deepest last */
  #found: { directory: string; git: GitDirectory }[] = [];

  constructor(input: GitInput) {
    this.#input = input;
    this.#selection = new PathSelection(input.paths ?? [""]);
    this.#views = new GitViews();
  }

  /** Looks for git directories at and above a path. Returns the paths that are decided, if any is new. */
  enter(path: Uint8Array): Uint8Array[] {
    const text = latin1(path);
    const decided: Uint8Array[] = [];
    for (let end = text.indexOf("/"); ; end = text.indexOf("/", end + 1)) {
      const directory = end < 0 ? text : text.slice(0, end);
      if (!this.#known.has(directory) && this.#mayBe(directory, end < 0 ? "" : text.slice(end + 1))) {
        const git = this.#open(directory);
        this.#known.set(directory, git);
        if (git !== null) {
          this.#found = [...this.#found, { directory, git }].toSorted(
            (a, b) => a.directory.length - b.directory.length,
          );
          append(decided, git.paths());
        }
      }
      if (end < 0) return decided.toSorted(comparePaths);
    }
  }

  /** Decides about an entry. Undefined: the entry follows the rule of other entries. */
  at(path: Uint8Array, facts: { present: TreeNode | null; isNew: boolean }): GitDecision | undefined {
    if (this.#found.length === 0) return undefined;
    const text = latin1(path);
    const owner = this.#found.findLast(({ directory }) => text === directory || text.startsWith(`${directory}/`));
    return owner?.git.at(text.slice(owner.directory.length + 1), facts);
  }

  /** True for entries of a git directory that need not be listed if they stay: directories, and files that git rewrites. */
  isQuiet(path: Uint8Array, present: TreeNode | null): boolean {
    const text = latin1(path);
    const owner = this.#found.findLast(({ directory }) => text.startsWith(`${directory}/`));
    if (owner === undefined) return false;
    return present?.type === "dir" || gitPart(text.slice(owner.directory.length + 1)) === "quiet";
  }

  /** Names tell, so that other directories are not looked at. */
  #mayBe(directory: string, below: string): boolean {
    if (directory.endsWith(".git") || /^(?:HEAD|objects|refs|packed-refs|logs)(?:\/|$)/.test(below)) return true;
    return this.#found.some(({ directory: outer }) => directory.startsWith(`${outer}/modules/`));
  }

  #open(directory: string): GitDirectory | null {
    const { changes, present } = this.#input;
    const view = (state: State): GitView => this.#views.of(state, directory);
    const isChosen = (name: string): boolean =>
      this.#selection.chosenAt(Buffer.from(`${directory}/${name}`, "latin1")) !== null;
    const own = {
      directory,
      present: view(present),
      changes: changes.map(({ found, left, why }) => ({
        found: view(found),
        left: view(left),
        isUncertain: why !== undefined,
      })),
    };
    if (![own.present, ...own.changes.flatMap(({ found, left }) => [found, left])].some((each) => each.isThere))
      return null;
    return new GitDirectory({ ...this.#input, ...own, isChosen });
  }
}

interface DirectoryInput extends Pick<GitInput, "made" | "isOperation"> {
  directory: string;
  present: GitView;
  changes: readonly { found: GitView; left: GitView; isUncertain: boolean }[];
  isChosen(name: string): boolean;
}

/** Decides about the entries of one git directory. */
class GitDirectory {
  readonly #input: DirectoryInput;
  /** the present, and the states that the changes found */
  readonly #views: readonly GitView[];
  /** by name; in latin1 */
  readonly #decided = new Map<string, GitDecision>();
  /** `entries`: the whole repository was made or removed, and every entry follows the rule of other entries */
  #mode: "git" | "entries" | "stays" = "git";
  /** worktrees beside the folder that were used since the change, by the names of their entries */
  #used = new Set<string>();

  constructor(input: DirectoryInput) {
    this.#input = input;
    this.#views = [input.present, ...input.changes.map(({ found }) => found)];
    try {
      this.#decide();
    } catch (error) {
      if (!(error instanceof TooLarge) && toCairnError(error).code !== "damaged") throw error;
      const why = error instanceof TooLarge ? "a file in it is larger than 64 MiB" : toCairnError(error).message;
      this.#keepAll(`git's state stays as it is, because it cannot be read: ${why}`);
    }
  }

  /** The raw paths that are decided. */
  paths(): Uint8Array[] {
    return [...this.#decided.keys()].map((name) => Buffer.from(`${this.#input.directory}/${name}`, "latin1"));
  }

  at(name: string, { present, isNew }: { present: TreeNode | null; isNew: boolean }): GitDecision | undefined {
    const decided = this.#decided.get(name);
    if (decided !== undefined) return decided;
    if (name === "" || this.#mode === "entries") return undefined;
    if (this.#mode === "stays") return STAYS;
    const part = gitPart(name);
    if (part === "other" || part === "quiet") return undefined;
    if (part === "never") return this.#never(name);
    // A directory that the change made goes when it is empty.
    return part !== "lock" && present?.type === "dir" && isNew ? undefined : STAYS;
  }

  #never(name: string): GitDecision | undefined {
    const [place, worktree] = name.split("/");
    const isUsed = place === "worktrees" && worktree !== undefined && this.#used.has(worktree);
    if (this.#input.isOperation && !isUsed) return undefined;
    if (place === "hooks" && name !== place) return { stays: "hooks of git are never taken back" };
    return STAYS;
  }

  #decide(): void {
    const { present, changes, isChosen } = this.#input;
    const views = [present, ...changes.flatMap(({ found, left }) => [found, left])];
    if (views.some((view) => view.isDirectory("reftable")))
      return this.#keepAll("git's state stays as it is: it keeps its refs in a reftable");
    this.#used = new Set(present.names("worktrees").filter((each) => this.#isUsed(each)));
    const unit = this.#unit();
    const refs = this.#refs(unit);
    if (!views.every((view) => view.isThere)) {
      const isAsLeft = unit.stopped === null && refs.stopped.size === 0;
      this.#decided.clear();
      if (isAsLeft) this.#mode = "entries";
      else this.#keepAll("git's state stays as it is, because it was changed since the repository was made or removed");
      return;
    }
    if (unit.goal !== present) this.#putUnit(unit.goal);
    this.#putRefs(refs);
    this.#putLogs(unit.goal, refs);
    this.#putObjects(unit.goal !== present || refs.moved.length > 0);
    this.#putDirectories();
    if (unit.stopped !== null && ["HEAD", "index", "logs/HEAD"].some((name) => isChosen(name))) this.#noteStopped(unit);
  }

  #keepAll(why: string): void {
    this.#mode = "stays";
    this.#decided.clear();
    this.#decided.set("HEAD", { stays: why });
  }

  /** A worktree of an operation was used since if its HEAD or index is another one than the operation left. */
  #isUsed(worktree: string): boolean {
    const { present, changes, isOperation } = this.#input;
    const left = changes[0]!.left;
    const key = (view: GitView): string => {
      const index = view.text(`worktrees/${worktree}/index`);
      return view.text(`worktrees/${worktree}/HEAD`) + (index === "" ? "" : indexKey(Buffer.from(index, "latin1")));
    };
    return !isOperation || key(present) !== key(left);
  }

  /** Returns the refs that another worktree has checked out. */
  #elsewhere(): Set<string> {
    const { present } = this.#input;
    const names = [...this.#used].flatMap((each) => [
      symbolicTarget(present.text(`worktrees/${each}/HEAD`)) ?? "",
      ...present.busyBranches(`worktrees/${each}/`),
    ]);
    return new Set(names);
  }

  /** Goes back through the changes of HEAD, its branch, the index and work in progress. */
  #unit(): Unit {
    const { present, changes } = this.#input;
    const isSame = (a: GitView, b: GitView, branches: readonly (string | null)[]): boolean =>
      a.head === b.head &&
      branches.every((name) => name === null || a.refs().get(name) === b.refs().get(name)) &&
      a.index() === b.index() &&
      a.workKey() === b.workKey();
    let goal = present;
    let stop: Pick<Unit, "stopped" | "why"> = { stopped: null };
    for (const { found, left, isUncertain } of changes) {
      const branches = [found.branch, left.branch];
      if (isSame(found, left, branches) || isSame(goal, found, branches)) continue;
      const isFree = !this.#areLocked(found, left);
      if (isUncertain || !isFree || !isSame(goal, left, branches)) {
        stop = { stopped: found, why: isFree ? "they were changed since" : "a file locks them" };
        break;
      }
      goal = found;
    }
    if (goal === present) return { goal, ...stop };
    const { branch } = goal;
    const isMoved = branch !== null && goal.refs().get(branch) !== present.refs().get(branch);
    if (isMoved && this.#elsewhere().has(branch))
      return { goal: present, stopped: goal, why: "another worktree has the branch checked out" };
    const { isChosen } = this.#input;
    const isWhole = !isMoved || isChosen(branch) || isChosen("packed-refs");
    if (!isWhole || !this.#unitNames(goal).every((name) => isChosen(name)))
      return { goal: present, stopped: goal, why: "they go back together, and not all of them were chosen" };
    return { goal, ...stop };
  }

  #areLocked(...views: readonly GitView[]): boolean {
    return [this.#input.present, ...views].some((view) => view.isLocked);
  }

  /** Lists the files that differ between the present and the state to which HEAD and the index go. */
  #unitNames(goal: GitView): string[] {
    const { present } = this.#input;
    const names = new Set([...present.work(), ...goal.work()].map(([name]) => name));
    if (goal.index() !== present.index()) names.add("index");
    if (goal.head !== present.head) names.add("HEAD");
    return [...names].filter((name) => !isSameContent(present.node(name), goal.node(name)));
  }

  #putUnit(goal: GitView): void {
    const { present } = this.#input;
    for (const name of this.#unitNames(goal)) this.#put(name, goal.node(name));
    for (const name of present.names("").filter(isWork))
      if (present.isDirectory(name) && !goal.isDirectory(name)) this.#put(name, null);
  }

  /** Goes back through the changes of each ref. */
  #refs({ goal, stopped: unitStopped }: Unit): Refs {
    const { present, isChosen } = this.#input;
    const elsewhere = this.#elsewhere();
    const isStaying = unitStopped !== null && goal === present;
    const own = new Set(isStaying ? [present.branch, ...present.busyBranches()] : []);
    const names = new Set(this.#views.flatMap((view) => [...view.refs().keys()]));
    const refs: Refs = { wanted: new Map(), moved: [], stopped: new Map() };
    for (const name of names) {
      const value = present.ref(name);
      const { view, stopped } = this.#refBack(name);
      let wanted = view.ref(name);
      if (goal !== present && name === goal.branch) wanted = goal.ref(name);
      else if (stopped !== null && !own.has(name)) refs.stopped.set(name, stopped);
      if (wanted !== value || view !== present) {
        const isFree = !own.has(name) && !elsewhere.has(name);
        if (elsewhere.has(name) && wanted !== value) refs.stopped.set(name, view);
        if (!isFree || !(isChosen(name) || isChosen("packed-refs"))) wanted = value;
        else if (name === STASH) this.#putStash(view);
      }
      refs.wanted.set(name, wanted);
    }
    for (const [name, value] of refs.wanted)
      if (value !== "" && !present.refs().has(name) && hasRival(name, refs.wanted)) {
        refs.wanted.set(name, "");
        refs.stopped.set(name, present);
      }
    refs.moved = [...refs.wanted].filter(([name, value]) => value !== present.ref(name));
    return refs;
  }

  #refBack(name: string): { view: GitView; stopped: GitView | null } {
    const { present, changes } = this.#input;
    let view = present;
    for (const { found, left, isUncertain } of changes) {
      const [before, after, now] = [found, left, view].map((each) => each.valueOf(name));
      if (before === after || now === before) continue;
      if (isUncertain || this.#areLocked(found, left) || now !== after) return { view, stopped: found };
      view = found;
    }
    return { view, stopped: null };
  }

  #putStash(view: GitView): void {
    const name = `logs/${STASH}`;
    if (this.#input.present.text(name) !== view.text(name)) this.#put(name, view.node(name));
  }

  #putRefs({ wanted, moved, stopped }: Refs): void {
    const { present, changes, isChosen } = this.#input;
    for (const [name, view] of stopped)
      if (isChosen(name)) this.#decided.set(name, { stays: whyRefStays(name, { present, view }) });
    if (moved.length === 0) return;
    const whole = changes
      .map(({ found }) => found)
      .toReversed()
      .find((view) => isSameRefs(view.refs(), wanted));
    if (whole !== undefined && this.#putSame(whole)) return;
    const dropped = new Set<string>();
    for (const [name, value] of moved) {
      const loose = present.loose().get(name) ?? null;
      if (value !== "") this.#put(name, this.#nodeOf(name, value));
      else {
        if (loose !== null) this.#put(name, null);
        dropped.add(name);
      }
    }
    const packed = present.text("packed-refs");
    const rest = withoutPacked(packed, dropped);
    if (rest !== packed) this.#put("packed-refs", this.#made("packed-refs", rest));
  }

  /** Puts the files of a state in place whose refs are the wanted ones. False if not all of them may change. */
  #putSame(view: GitView): boolean {
    const { present, isChosen } = this.#input;
    const names = [...new Set(["packed-refs", ...present.loose().keys(), ...view.loose().keys()])].filter(
      (name) => !isSameContent(present.node(name), view.node(name)),
    );
    if (!names.every((name) => isChosen(name))) return false;
    for (const name of names) this.#put(name, view.node(name));
    return true;
  }

  #nodeOf(name: string, value: string): TreeNode {
    for (const { found } of this.#input.changes)
      if (found.loose().has(name) && found.text(name).trim() === value) return found.node(name)!;
    return this.#made(name, `${value}\n`);
  }

  #made(name: string, text: string): TreeNode {
    const { present, made } = this.#input;
    const like = present.node(name) ?? present.node("HEAD")!;
    const own = Buffer.from(name.slice(name.lastIndexOf("/") + 1), "latin1");
    return made.node({ ...like, name: own, inode: 0n, deviceId: 0n, links: 1 }, Buffer.from(text, "latin1"));
  }

  /** Adds lines that the changes took away, and one for each value that HEAD and refs get. */
  #putLogs(goal: GitView, { wanted: refs, moved }: Refs): void {
    const { present, isChosen } = this.#input;
    const at = Math.floor(Date.now() / 1000);
    const gone = new Set(moved.flatMap(([name, value]) => (value === "" ? [name] : [])));
    const names = new Set(this.#views.flatMap((view) => [...view.files("logs")].map(([name]) => name)));
    const valueOf = (name: string, values: ReadonlyMap<string, string>): string =>
      values.get(symbolicTarget(values.get(name) ?? "") ?? name) ?? "";
    const heads = [present, goal].map(({ head, branch }, i) =>
      branch === null ? head : valueOf(branch, i === 0 ? present.refs() : refs),
    ) as [string, string];
    for (const name of new Set([...names, "logs/HEAD"])) {
      const ref = name.slice("logs/".length);
      if (ref === STASH || !isChosen(name)) continue;
      if (gone.has(ref)) {
        if (present.node(name) !== null) this.#put(name, null);
        continue;
      }
      const old = logLines(present.text(name));
      let lines = this.#grown(name, old);
      const [before, after] = ref === "HEAD" ? heads : [present.ref(ref), refs.get(ref) ?? ""];
      const add = (from: string, to: string, about: string): void => {
        const zero = "0".repeat((from || to).length);
        lines = [...lines, logLine({ before: from || zero, after: to || zero, at, about })];
      };
      if (ref === "HEAD")
        for (const value of this.#orphans(moved, lines)) {
          add(before, value, "cairn: a ref that went back had this value");
          add(value, before, "cairn: back");
        }
      const isLogged = lines.length > 0 || ref === "HEAD";
      if (before !== after && isLogged && lastValue(lines) !== (after || "0".repeat(before.length)))
        add(before, after, `cairn: back to ${after.slice(0, SHORT) || "no commit"}`);
      if (lines.length !== old.length) this.#put(name, this.#made(name, `${lines.join("\n")}\n`));
    }
  }

  /** Former values of moved refs that no line of a reflog names: git would remove their commits. */
  #orphans(moved: Refs["moved"], lines: readonly string[]): string[] {
    const { present } = this.#input;
    const isNamed = (all: readonly string[], value: string): boolean =>
      all.some((line) => line.slice(0, line.indexOf("\t")).includes(value));
    const values = moved.flatMap(([name, wanted]) => {
      const value = present.ref(name);
      const isCommit = /^[0-9a-f]{40,}$/.test(value) && !name.startsWith("refs/tags/");
      const stays = wanted !== "" && name !== STASH && isNamed(logLines(present.text(`logs/${name}`)), value);
      return isCommit && !stays && !isNamed(lines, value) ? [value] : [];
    });
    return [...new Set(values)];
  }

  #grown(name: string, present: string[]): string[] {
    let lines = present;
    for (const { found, left, isUncertain } of this.#input.changes) {
      if (isUncertain || isSameContent(found.node(name), left.node(name))) continue;
      const before = logLines(found.text(name));
      const known = new Set([...logLines(left.text(name)), ...lines]);
      lines = withLost(
        lines,
        before,
        before.filter((line) => !known.has(line)),
      );
    }
    return lines;
  }

  /** Restores missing objects. If refs move (`areNeeded`): all objects of the earlier states; else the objects that the changes removed. */
  #putObjects(areNeeded: boolean): void {
    const { present, changes } = this.#input;
    for (const { found, left, isUncertain } of changes) {
      if (isUncertain) continue;
      const known = areNeeded ? [present] : [present, left];
      for (const [name, node] of found.lackingIn("objects", known))
        if (!isObjectCache(name) && !this.#decided.has(name)) this.#put(name, node);
      for (const name of found.names("").filter((each) => each.startsWith("sharedindex.")))
        if (known.every((view) => view.node(name) === null)) this.#put(name, found.node(name));
    }
  }

  /** Makes the directories that entries need. */
  #putDirectories(): void {
    const { present } = this.#input;
    for (const [name, { wanted }] of this.#decided) {
      if (wanted === undefined || wanted === null) continue;
      for (let end = name.indexOf("/"); end > 0; end = name.indexOf("/", end + 1)) {
        const directory = name.slice(0, end);
        if (present.isDirectory(directory)) continue;
        const isTaken = present.node(directory) !== null && this.#decided.get(directory)?.wanted !== null;
        if (isTaken && this.#decided.get(directory)?.wanted?.type !== "dir") {
          this.#decided.delete(name);
          break;
        }
        const like = this.#views.find((view) => view.isDirectory(directory))?.node(directory);
        const own = Buffer.from(directory.slice(directory.lastIndexOf("/") + 1), "latin1");
        this.#decided.set(directory, { wanted: like ?? { ...present.node("refs")!, name: own } });
      }
    }
  }

  #put(name: string, node: TreeNode | null): void {
    const now = this.#input.present.node(name);
    // Only the content goes back: somebody may have set a mode since.
    const wanted =
      node !== null && now !== null && node.type === now.type
        ? { ...node, mode: now.mode, uid: now.uid, gid: now.gid, user: now.user, group: now.group, xattrs: now.xattrs }
        : node;
    this.#decided.set(name, { wanted });
  }

  #noteStopped({ goal, stopped, why }: Unit): void {
    const { present } = this.#input;
    const told = `git's HEAD, its branch, the index and work in progress stay together, because ${why}: HEAD is at ${place(present)}, and was at ${place(stopped!)}`;
    if (goal === present) this.#decided.set("HEAD", { stays: told });
    else for (const [name, decision] of this.#decided) this.#decided.set(name, { ...decision, isPart: true });
  }
}

/** The state to which HEAD, its branch, the index and work in progress go. `stopped`: the next state that they cannot reach. */
interface Unit {
  goal: GitView;
  stopped: GitView | null;
  why?: string;
}

/** Values by name; empty: no such ref. `stopped`: the state to which a ref should have gone. */
interface Refs {
  wanted: Map<string, string>;
  /** those whose wanted value is not the present one */
  moved: [string, string][];
  stopped: Map<string, GitView>;
}

/** For example `1a2b3c4 (main)`. */
function place(view: GitView): string {
  const { branch, head } = view;
  const value = branch === null ? head : view.ref(branch);
  const shown = value.slice(0, SHORT) || "no commit";
  return branch === null ? shown : `${shown} (${branch.replace("refs/heads/", "")})`;
}

function whyRefStays(name: string, { present, view }: { present: GitView; view: GitView }): string {
  const [now, before] = [present, view].map((each) => each.ref(name).slice(0, SHORT));
  const where = now === "" ? "it stays away" : `it stays at ${now}`;
  return `${where}: it was changed since, or another worktree has it checked out; before the change it ${before === "" ? "did not exist" : `was at ${before}`}`;
}

function isSameRefs(refs: ReadonlyMap<string, string>, wanted: ReadonlyMap<string, string>): boolean {
  const own = [...wanted].filter(([, value]) => value !== "");
  return own.length === refs.size && own.every(([name, value]) => refs.get(name) === value);
}

/** True if another ref has the name of a directory of this one, or is below it. */
function hasRival(name: string, refs: ReadonlyMap<string, string>): boolean {
  for (const [other, value] of refs)
    if (value !== "" && (other.startsWith(`${name}/`) || name.startsWith(`${other}/`))) return true;
  return false;
}
