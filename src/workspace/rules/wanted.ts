import { hex } from "../../formats/bytes.ts";
import { type RecordedPath, recordPath } from "../../formats/records/record.ts";
import type { Point } from "../points/point-files.ts";

/** The changes of a folder that a caller may want. The steps of a restore ask the change, never for its options. */

interface Options {
  /** raw paths below the root: only entries at and below them change, and directories made for them; absent or null: all */
  paths?: readonly Uint8Array[] | null | undefined;
}

abstract class WantedChange<O extends Options> {
  readonly options: O;

  constructor(options: O) {
    this.options = options;
  }

  get paths(): readonly Uint8Array[] | null {
    return this.options.paths ?? null;
  }

  /** True if the change is of the whole folder: then its own metadata changes too, and head moves. */
  get isOfFolder(): boolean {
    return this.paths === null;
  }

  /** Tells why whole trees cannot change places; null if they can. */
  whyNotWhole(): string | null {
    return this.paths === null ? null : "an exchange cannot restore only some paths";
  }

  /** Returns the paths for the record of the operation; null: all. `own`: the entries that change, if they are not all. */
  recordedPaths(_own: readonly { path: Uint8Array }[] | null): RecordedPath[] | null {
    return this.paths?.map((path) => recordPath(path)) ?? null;
  }

  /** The points that the change reads besides its target: they must be sealed. */
  points(): Point[] {
    return [];
  }

  /** Returns the state that the only change left, if to take that change back leads to the target; else null. */
  leftWhole(): Point | null {
    return null;
  }

  /** Returns the state with which the folder's own metadata is compared; null: with none. */
  leftRoot(_present: Point): Point | null {
    return null;
  }

  /** The paths that may be in neither state, because somebody typed them. */
  get typedPaths(): readonly Uint8Array[] {
    return [];
  }

  /** True if a damaged entry of the target fails the restore; else it is left out. */
  get throwsDamaged(): boolean {
    return false;
  }

  /** True if a directory that is replaced goes with all its entries. */
  get replacesDirectories(): boolean {
    return true;
  }

  /** Returns the options that the operation's record has. */
  recorded(): { keep_present?: true; keep_git?: true } {
    return {};
  }

  /** Returns the paths as a plan's id covers them. */
  protected pathFacts(): string[] | null {
    return this.paths?.map(hex).toSorted() ?? null;
  }
}

/** The options of an absolute change. */
interface AbsoluteOptions extends Options {
  /** entries that the target does not have stay */
  keepPresent?: boolean | undefined;
  /** entries of git stay */
  keepGit?: boolean | undefined;
  /** the paths are known to be in the target or the folder */
  pathsAreThere?: boolean | undefined;
  /** a damaged directory or file throws `damaged`, so that the caller can repair it; else it is left out */
  isWhole?: boolean | undefined;
}

/** The folder, or paths of it, is to become equal to the target. */
export class Absolute extends WantedChange<AbsoluteOptions> {
  readonly isRelative = false;

  withPaths(paths: readonly Uint8Array[] | null): Absolute {
    return new Absolute({ ...this.options, paths });
  }

  /** `isWhole`: a damaged entry of the target fails the restore, so that the caller can repair it. */
  throwing(isWhole: boolean): Absolute {
    return new Absolute({ ...this.options, isWhole });
  }

  withPoints(): Absolute {
    return this;
  }

  /** Returns the change that takes this change back. */
  reverse(changes: readonly PointChange[], merged: RelativeOptions["merged"]): Relative {
    const { keepPresent: keptPresent, keepGit: keptGit } = this.options;
    return new Relative({ paths: this.paths, isOperation: true, changes, keptPresent, keptGit, merged });
  }

  override whyNotWhole(): string | null {
    const { keepPresent, keepGit } = this.options;
    const whyNot = keepPresent === true ? "an exchange cannot keep present entries" : null;
    return super.whyNotWhole() ?? (keepGit === true ? "an exchange cannot keep git's own state" : whyNot);
  }

  override get throwsDamaged(): boolean {
    return this.options.isWhole === true;
  }

  override get replacesDirectories(): boolean {
    return this.options.keepPresent !== true;
  }

  override get typedPaths(): readonly Uint8Array[] {
    return this.options.pathsAreThere === true ? [] : (this.paths ?? []);
  }

  facts(): unknown[] {
    const { keepPresent = false, keepGit = false } = this.options;
    return [this.pathFacts(), keepPresent, keepGit];
  }

  override recorded(): { keep_present?: true; keep_git?: true } {
    const { keepPresent, keepGit } = this.options;
    return { ...(keepPresent ? { keep_present: true } : {}), ...(keepGit ? { keep_git: true } : {}) };
  }
}

/** A change of the folder between two points. */
export interface PointChange {
  /** the state to go back to */
  found: Point;
  /** the state that the change left; null: the present folder */
  left: Point | null;
  /** why it is not certain whose change this is: its entries stay, and are named */
  why?: string;
  /** id of the agent's turn that made the change */
  turn?: string | undefined;
  /** the change was of these paths alone; null or absent: as the whole of which it is a part */
  paths?: readonly Uint8Array[] | null;
  /** the change kept entries that its target lacks */
  keptPresent?: boolean;
  /** two points that differ in the entries of the change; absent: `found` and `left` */
  changed?: { before: Point; after: Point };
  /** by latin1 path, in raw pre-order: the entries of the change, and the state that each was left in (null: the present folder); in place of `changed` */
  entries?: ReadonlyMap<string, Point | null>;
}

/** The options of a relative change. */
interface RelativeOptions extends Options {
  /** newest first */
  changes: readonly PointChange[];
  /** true if an undo or redo takes back an operation of Cairn */
  isOperation?: boolean | undefined;
  /** the change kept entries that its target lacks */
  keptPresent?: boolean | undefined;
  /** the change left git's own state as it was */
  keptGit?: boolean | undefined;
  /** entries that were edited since are taken back too */
  over?: boolean | undefined;
  /** text files that were edited since are merged line by line, if the lines do not overlap */
  merges?: boolean | undefined;
  /** SHA-256 in hex, by latin1 path, of the texts, and of the pages of the databases, that the change left and that no point has */
  merged?: ReadonlyMap<string, string> | undefined;
  /** databases are taken back even if their bytes differ: a restore through SQLite does not write the point's bytes */
  throughSqlite?: boolean | undefined;
}

/** Changes that are to be taken back. */
export class Relative extends WantedChange<RelativeOptions> {
  readonly isRelative = true;

  /** Returns the change that takes this change back. */
  reverse(changes: readonly PointChange[], merged: RelativeOptions["merged"]): Relative {
    return new Relative({ paths: this.paths, isOperation: true, changes, merged });
  }

  override whyNotWhole(): string {
    const edited = "entries were changed since the operation that is reverted, and an exchange would revert them too";
    return super.whyNotWhole() ?? edited;
  }

  override leftWhole(): Point | null {
    const { keptPresent, keptGit, changes } = this.options;
    const [newest, ...older] = changes;
    if (!this.isOfFolder || keptPresent || keptGit || older.length > 0) return null;
    return newest?.entries !== undefined || newest?.why !== undefined ? null : (newest?.left ?? null);
  }

  override leftRoot(present: Point): Point | null {
    return this.options.over ? null : (this.options.changes[0]?.left ?? present);
  }

  /** The record of an undo has the paths of the operation that it reverts. A later undo leaves changes of others alone. */
  override recordedPaths(own: readonly { path: Uint8Array }[] | null): RecordedPath[] | null {
    if (own === null || this.options.isOperation) return super.recordedPaths(own);
    return own.map(({ path }) => recordPath(path));
  }

  /** `nameOf`: names a state that a change found. */
  facts(nameOf: (point: Point) => string): unknown[] {
    const { over = false, changes } = this.options;
    const found = changes.map((each) => [nameOf(each.found), each.left && each.left.descriptor.save_point_id]);
    return [this.pathFacts(), over, found];
  }

  override points(): Point[] {
    return this.options.changes.flatMap(({ found, left, changed, entries }) => [
      found,
      ...(left === null ? [] : [left]),
      ...(changed ? Object.values(changed) : []),
      ...[...new Set(entries?.values())].filter((point) => point !== null),
    ]);
  }

  /** Returns the change with every point replaced by the result of `by`. */
  withPoints(by: (point: Point) => Point): Relative {
    const changes = this.options.changes.map(({ found, left, changed, entries, ...more }) => ({
      ...more,
      ...(entries && { entries: new Map(entries.entries().map(([path, point]) => [path, point && by(point)])) }),
      found: by(found),
      left: left === null ? null : by(left),
      ...(changed && { changed: { before: by(changed.before), after: by(changed.after) } }),
    }));
    return new Relative({ ...this.options, changes });
  }
}
