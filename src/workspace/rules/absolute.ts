import { advice, CairnError, call, word } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { besideWhich } from "../../formats/sqlite-header.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { hintOfTwin, quotedPath, twinOf } from "../../fs/paths/safe-path.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import {
  type Difference,
  exactDifferences,
  type ExactFields,
  NodeFinder,
  type OnDamagedDirectory,
} from "../points/tree-diff.ts";
import { isOfGit } from "./git-files.ts";
import type { Absolute } from "./wanted.ts";
import { type Change, MOUNTED_NOW, MOUNTED_THEN, OF_CONTROL, type Protected } from "./plan.ts";

/** The rule of absolute changes (restore, adopt): the folder, or chosen paths of it, becomes equal to a state. */

/** The two states of an absolute change. */
export interface States {
  /** the folder as it was just saved (or only looked at) */
  present: TreeSource;
  target: TreeSource;
  /** fields that the manifests add to the trees; absent: none */
  fields?: ExactFields;
  /** called for a directory damaged in either state; all of it stays. Absent: the rule throws `damaged` */
  onDamaged?: OnDamagedDirectory | undefined;
  /** called for each difference outside the paths */
  onUnasked?: (difference: Difference) => void;
}

/** Lists the changes that a restore makes to a folder. */
export class AbsoluteRule {
  readonly #rule: Absolute["options"] & States;
  readonly #selection: Selection | null;
  readonly #ofGit: Uint8Array[] = [];

  constructor({ options, paths }: Absolute, states: States) {
    this.#rule = { ...options, ...states };
    this.#selection = paths === null ? null : new Selection(paths, states.target);
  }

  /** Yields each entry that differs, to be changed or kept, in the order of paths by bytes, a directory before its content. */
  *changes(): Generator<Change> {
    const { present, target, keepPresent, fields = { before: [], after: [] }, onDamaged, onUnasked } = this.#rule;
    for (const difference of exactDifferences(present, target, fields, onDamaged)) {
      if (this.#rule.keepGit === true && isOfGit(difference.path)) {
        if (difference.before !== null) this.#ofGit.push(difference.path);
      } else if (this.#selection?.isWanted(difference) === false) onUnasked?.(difference);
      else if (keepPresent !== true) yield difference;
      else if (difference.after !== null) yield this.#besidePresent(difference);
    }
  }

  /** After all changes: entries of git, which stay. */
  staying(): Uint8Array[] {
    return this.#ofGit;
  }

  /** After all changes: throws `not_found` for a typed path that neither state has, with the reason if it was left out. */
  requireSeen(facts: Protected): void {
    if (this.#rule.pathsAreThere === true) return;
    const { present, target } = this.#rule;
    const unknown = new PathSelection(facts.omitted.map(({ path }) => path));
    const sides = [new NodeFinder(present), new NodeFinder(target)];
    for (const path of this.#selection?.unseen() ?? [])
      if (unknown.chosenAt(path) === null && sides.every((side) => side.at(path) === null))
        throw lacksPath(path, whyLeftOut(facts, path));
  }

  /** Keeps a directory that has entries if the target has another kind of entry at its path. */
  #besidePresent(difference: Difference): Change {
    const { before, after } = difference;
    const isKept =
      before?.type === "dir" && after?.type !== "dir" && this.#rule.present.list(before.subtree!).length > 0;
    return isKept ? { ...difference, stays: KEPT_PRESENT } : difference;
  }
}

const KEPT_PRESENT = {
  reason: "keep_present",
  detail: "there is a directory at its path, with entries that --keep-present keeps",
} as const;

/** The paths that a restore is limited to. */
class Selection {
  readonly #paths: readonly Uint8Array[];
  readonly #target: TreeSource;
  readonly #chosen: PathSelection;
  readonly #seen = new Set<string>();
  /** The paths that the target has; looked up when a directory is to be made. */
  #there: PathSelection | null = null;

  constructor(paths: readonly Uint8Array[], target: TreeSource) {
    this.#paths = paths;
    this.#target = target;
    this.#chosen = new PathSelection(paths);
  }

  /** True for a selected entry, and for a directory that a selected entry needs. */
  isWanted({ path, before, after }: Difference): boolean {
    const chosen = this.#chosen.chosenAt(path);
    if (chosen !== null) this.#seen.add(chosen);
    return chosen !== null || (before?.type !== "dir" && after?.type === "dir" && this.#leadsToTarget(path));
  }

  #leadsToTarget(path: Uint8Array): boolean {
    if (!this.#chosen.leadsOn(path)) return false;
    if (this.#there === null) {
      const nodes = new NodeFinder(this.#target);
      this.#there = new PathSelection(this.#paths.filter((each) => nodes.at(each) !== null));
    }
    return this.#there.leadsOn(path);
  }

  unseen(): Uint8Array[] {
    return this.#paths.filter((path) => !this.#seen.has(latin1(path)) && !isSidecar(path, this.#paths));
  }
}

/** Returns the first path that a state lacks; null if the state has all of them. */
export function lackingPath(paths: readonly Uint8Array[], source: TreeSource): Uint8Array | null {
  const nodes = new NodeFinder(source);
  return paths.find((path) => path.length > 0 && nodes.at(path) === null && !isSidecar(path, paths)) ?? null;
}

/** Tells if a path is a sidecar of a database among the paths. A database need not have each sidecar. */
function isSidecar(path: Uint8Array, paths: readonly Uint8Array[]): boolean {
  const database = besideWhich(path);
  return database !== null && paths.some((each) => Buffer.compare(each, database) === 0);
}

/**
 * Throws `not_found` for a path that neither the target nor the folder has, unless the plan would give a reason. Runs
 * before the present is saved, so a mistyped path costs no save.
 */
export function requirePaths(paths: readonly Uint8Array[], target: TreeSource, facts: Omit<Protected, "scan">): void {
  const { isThere, omitted, leftOutMounts, never } = facts;
  const told = new PathSelection([...omitted.map(({ path }) => path), ...leftOutMounts, ...never]);
  const nodes = new NodeFinder(target);
  for (const path of paths)
    if (!isThere(path) && !isSidecar(path, paths) && told.chosenAt(path) === null && nodes.at(path) === null)
      throw lacksPath(
        path,
        null,
        twinOf(path, (each) => isThere(each) || nodes.at(each) !== null),
      );
}

function lacksPath(path: Uint8Array, why: string | null, twin?: Uint8Array): CairnError {
  const said = why === null ? "is neither in the save point nor in the folder" : `is not in the save point: ${why}`;
  return new CairnError("not_found", `${quotedPath(path)} ${said}`, {
    hint:
      twin === undefined
        ? advice`${call("why PATH", "why", word("path"))} lists the save points that changed it`
        : hintOfTwin(twin),
  });
}

/** Tells why the target lacks a path that was in the folder at the save or is there now. Null if neither had it. */
function whyLeftOut({ scan, isThere, never, leftOutMounts }: Protected, path: Uint8Array): string | null {
  const isIn = (paths: readonly Uint8Array[]): boolean => new PathSelection(paths).chosenAt(path) !== null;
  if (isIn(never)) return OF_CONTROL;
  if (isIn(leftOutMounts)) return MOUNTED_THEN;
  if (!isThere(path)) return null;
  if (isIn(scan.notes.mounts)) return `${MOUNTED_NOW}, and the path did not exist at the save`;
  return scan.notes.ignoredCount > 0 ? "the ignore rules of the save left it out" : null;
}
