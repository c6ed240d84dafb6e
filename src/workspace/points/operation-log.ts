import { latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import { isReverting, type Operation, type OperationKind } from "../../formats/records/control.ts";
import type { SavePointId } from "../../ids.ts";

export { isReverting, type OperationKind } from "../../formats/records/control.ts";

/** An operation that `undo` or `redo` can revert. */
export interface Revertible {
  /** kind of the original operation, for example `restore`; never `undo` or `redo` */
  kind: OperationKind;
  at: string;
  /** point of the state to which the operation is reverted */
  before: SavePointId;
  /** point of the state that the operation, its undo or its redo left */
  after: SavePointId;
  /** two points that differ in the entries that the operation changed */
  changed: { before: SavePointId; after: SavePointId; entries?: Operation["changed"] };
  /** entries that the operation, its undo or its redo really changed; absent: all of `changed` */
  only?: Operation["changed"];
  paths: Operation["paths"];
  keepPresent: boolean;
  keepGit: boolean;
  merged?: Operation["merged"];
  /** the operation, its undo or its redo moved only head, from this point */
  headBefore?: SavePointId;
}

/** Operations of a workspace, oldest first: `done` can be undone from its end, `undone` can be redone from its end. */
interface OperationLog {
  done: Revertible[];
  undone: Revertible[];
}

/** Goes through the recorded operations. A new operation clears `undone`. */
export function operationLog(operations: readonly Operation[]): OperationLog {
  const log: OperationLog = { done: [], undone: [] };
  for (const [i, operation] of operations.entries()) {
    const { kind, undo_id: before, restored_to: after, changed: only } = operation;
    if (goesOn(operations[i - 1], operation)) {
      // This undo or redo reverted the entries that the one before it had left.
      delete (kind === "undo" ? log.undone : log.done).at(-1)?.only;
      continue;
    }
    const moved = operation.head_before === undefined ? {} : { headBefore: operation.head_before };
    if (isReverting(kind)) {
      const [from, to] = kind === "undo" ? [log.done, log.undone] : [log.undone, log.done];
      const reverted = from.pop();
      if (reverted === undefined) continue;
      const { only: _only, merged = [], ...rest } = reverted;
      // An undo or redo has hashes of its own of the databases that it wrote.
      const known = [...merged, ...(operation.merged ?? [])];
      to.push({ ...rest, before, after, ...(only && { only }), merged: known, ...moved });
      continue;
    }
    const { at, paths, keep_present: keepPresent = false, keep_git: keepGit = false, merged } = operation;
    log.done.push({
      kind,
      at,
      before,
      after,
      changed: { before, after, ...(only && { entries: only }) },
      ...(only && { only }),
      paths,
      keepPresent,
      keepGit,
      ...(merged && { merged }),
      ...moved,
    });
    log.undone = [];
  }
  return log;
}

/** True if `operation` reverted the rest of the operation that `last`, an undo or redo before it, reverted in part. */
function goesOn(last: Operation | undefined, { kind, undo_id, restored_to }: Operation): boolean {
  return last?.partly === true && last.kind === kind && last.restored_to === restored_to && undo_id !== restored_to;
}

/** Returns the operation whose rest an undo or redo with `over` reverts, as that undo or redo did in part. */
export function operationToFinish(operations: readonly Operation[], kind: "undo" | "redo"): Revertible | undefined {
  const last = operations.at(-1);
  if (last?.kind !== kind || last.partly !== true) return undefined;
  const { done, undone } = operationLog(operations);
  const reverted = (kind === "undo" ? undone : done).at(-1);
  return reverted && { ...reverted, before: reverted.after, after: reverted.before };
}

/** Reads the record of the entries that an operation changed. Null: the point that an entry was left as is gone. */
export function statesOf<P>(
  changed: NonNullable<Operation["changed"]>,
  stateOf: (id: SavePointId | undefined) => P | null,
): Map<string, P> | null {
  const states = new Map<string, P>();
  for (const { left, ...path } of changed) {
    const state = stateOf(left);
    if (state === null) return null;
    states.set(latin1(rawPath(path)), state);
  }
  return states;
}
