import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { Point } from "../points/point-files.ts";
import type { Workspace } from "../open/workspace.ts";
import { comparePaths, latin1 } from "../../formats/bytes.ts";
import { besideWhich, DATABASE_LABELS } from "../../formats/sqlite-header.ts";
import { type DiffAspect, type Difference, exactDifferences, type ExactFields } from "../points/tree-diff.ts";

/** An undo or redo: a restore that changes only entries that an operation changed and that were not edited since. */

interface State {
  source: TreeSource;
  fields: ExactFields["before"];
}

/** The operation that an undo or redo reverts. */
export interface Reverted {
  /** the operation changed the entries in which these two points differ */
  changed: { before: Point; after: Point };
  /** the state that the operation left: entries that differ from it were edited since */
  left: Point;
  /** the operation kept entries that its target lacks */
  keepPresent: boolean;
  /** edited entries are reverted too */
  over: boolean;
  /** databases are reverted even if their bytes changed: a restore through SQLite does not write the point's bytes */
  throughSqlite: boolean;
}

/** The states that tell which entries an undo or redo may change. */
interface RevertedStates extends Pick<Reverted, "keepPresent" | "over" | "throughSqlite"> {
  /** before the operation */
  before: State;
  /** after the operation */
  after: State;
  /** the state after the operation, its undo or its redo */
  left: State;
  present: State;
  /** latin1 paths of the points' databases: a database and its sidecars count as one entry */
  databases: ReadonlySet<string>;
}

/** Reads the points of an operation that is reverted, for the plan. `present`: the folder now. */
export async function operationParts(
  workspace: Workspace,
  { changed, left, ...how }: Reverted,
  present: State,
): Promise<OperationParts> {
  const state = async (point: Point): Promise<State> => ({
    source: await workspace.source(point),
    fields: (await workspace.manifest(point))?.lossless ?? [],
  });
  const [before, after] = [await state(changed.before), await state(changed.after)];
  const labels = [changed.before, changed.after, left].flatMap(({ descriptor }) => descriptor.labels);
  const isDatabase = ({ label }: { label: string }): boolean => DATABASE_LABELS.has(label);
  const databases = new Set(labels.filter(isDatabase).map((each) => latin1(rawPath(each))));
  return new OperationParts({ ...how, before, after, left: await state(left), present, databases });
}

/** `changed` only by the operation, `edited` since then, or `untouched` by the operation. */
export type Part = "changed" | "edited" | "untouched";

/** Aspects that a restore cannot always set, or that change by themselves: a difference in these alone is no edit. */
const NO_EDIT: ReadonlySet<DiffAspect> = new Set(["mode", "owner", "times", "xattrs", "links"]);

/** Tells how an operation changed an entry. Call it in raw pre-order, once for each path. */
export class OperationParts {
  readonly #changed: PathOrder;
  readonly #edited: PathOrder;
  readonly #editedDatabases: ReadonlySet<string>;
  readonly #states: RevertedStates;

  constructor(states: RevertedStates) {
    this.#states = states;
    this.#changed = new PathOrder(differencesOf(states.before, states.after));
    this.#edited = new PathOrder(differencesOf(states.present, states.left));
    this.#editedDatabases = editedDatabases(states);
  }

  /** `difference`: between the present and the target. */
  of(difference: Difference): Part {
    const changed = this.#changed.at(difference.path);
    const edited = this.#edited.at(difference.path);
    if (changed === null || (this.#states.keepPresent && changed.after === null)) return "untouched";
    const database = databaseOf(difference.path, this.#states.databases);
    const isEdited = database === null ? edited !== null && isEdit(edited) : this.#editedDatabases.has(database);
    if (!isEdited) return "changed";
    // The operation set a mode or a time, and the content was edited since.
    if (!isEdit(changed)) return "untouched";
    const { over, throughSqlite } = this.#states;
    if (over || (database !== null && throughSqlite)) return "changed";
    // An entry that already equals its target counts as changed, and so does a directory that stayed for hidden
    // entries.
    return isEdit(difference) ? "edited" : "changed";
  }
}

/** Returns the latin1 path of the database that a file is or belongs to; null if the file belongs to none. */
function databaseOf(path: Uint8Array, databases: RevertedStates["databases"]): string | null {
  const database = latin1(besideWhich(path) ?? path);
  return databases.has(database) ? database : null;
}

/** Returns databases with an edited file. Such a database is kept as a whole: a foreign log would damage it. */
function editedDatabases({ present, left, databases }: RevertedStates): Set<string> {
  const edited = new Set<string>();
  if (databases.size === 0) return edited;
  const all = differencesOf(present, left);
  for (let next = all.next(); next.done !== true; next = all.next()) {
    const database = isEdit(next.value) ? databaseOf(next.value.path, databases) : null;
    if (database !== null) edited.add(database);
  }
  return edited;
}

function isEdit({ before, after, aspects }: Difference): boolean {
  return before === null || after === null || aspects.some((aspect) => !NO_EDIT.has(aspect));
}

function differencesOf(before: State, after: State): Iterator<Difference> {
  const fields = { before: before.fields, after: after.fields };
  // A restore leaves entries alone that are damaged in its target, so the operation did not change them.
  const onDamaged = (): void => undefined;
  return exactDifferences(before.source, after.source, fields, onDamaged)[Symbol.iterator]();
}

/** Looks paths up in differences that come in raw pre-order. */
class PathOrder {
  readonly #items: Iterator<Difference>;
  #next: Difference | null = null;
  #isEnd = false;

  constructor(items: Iterator<Difference>) {
    this.#items = items;
  }

  /** Returns the difference at `path`, or null if there is none. Paths must come in raw pre-order. */
  at(path: Uint8Array): Difference | null {
    while (!this.#isEnd && (this.#next === null || comparePaths(this.#next.path, path) < 0)) {
      const { done, value } = this.#items.next();
      this.#isEnd = done === true;
      this.#next = done === true ? null : value;
    }
    return this.#next !== null && comparePaths(this.#next.path, path) === 0 ? this.#next : null;
  }
}
