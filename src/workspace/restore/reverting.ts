import { rawPath } from "../../formats/records/record.ts";
import { latin1 } from "../../formats/bytes.ts";
import { DATABASE_LABELS } from "../../formats/sqlite-header.ts";
import type { Point } from "../points/point-files.ts";
import type { ExactFields } from "../points/tree-diff.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { Workspace } from "../open/workspace.ts";
import { OperationParts } from "./reverted.ts";

export { isReverting, type OperationKind } from "../points/operation-log.ts";

/** An undo or redo: a restore that changes only entries that an operation changed and that were not edited since. */

/** The operation that an undo or redo reverts. */
export interface Reverted {
  /** the operation changed the entries in which these two points differ */
  changed: { before: Point; after: Point };
  /** the state that the operation left: entries that differ from it were edited since */
  left: Point;
  /** entries that the operation left because its target lacks them */
  keepPresent: boolean;
  /** edited entries are reverted too */
  over: boolean;
  /** databases are reverted through SQLite, even if they were written to since */
  throughSqlite: boolean;
}

/** Reads the points of an operation that is reverted, for the plan. `present`: the folder now. */
export async function operationParts(
  workspace: Workspace,
  { changed, left, keepPresent, over, throughSqlite }: Reverted,
  present: { source: TreeSource; fields: ExactFields["before"] },
): Promise<OperationParts> {
  const state = async (point: Point) => ({
    source: await workspace.source(point),
    fields: (await workspace.manifest(point))?.lossless ?? [],
  });
  const [before, after] = [await state(changed.before), await state(changed.after)];
  const labels = [changed.before, changed.after, left].flatMap(({ descriptor }) => descriptor.labels);
  const isDatabase = ({ label }: { label: string }): boolean => DATABASE_LABELS.has(label);
  const databases = new Set(labels.filter(isDatabase).map((each) => latin1(rawPath(each))));
  const how = { keepPresent, over, throughSqlite, databases };
  return new OperationParts({ before, after, left: await state(left), present, ...how });
}
