import type { Operation } from "cairnstate/client";

/** The words of operations, and the one that a redo takes back next. */

type Of = Pick<Operation, "kind" | "paths" | "cause">;

const KINDS: Readonly<Record<Operation["kind"], string>> = {
  restore: "Restore",
  rewind: "Rewound to before a turn",
  adopt: "Adoption",
  undo: "Undo",
  redo: "Redo",
};

/** The name of an operation. An adoption makes the whole folder equal to the fork; only a merge has paths. */
export function operationName({ kind, paths, cause }: Of): string {
  if (cause?.["in_part"] === true) return "Took back a turn";
  return kind === "adopt" && paths !== null ? "Merge" : KINDS[kind];
}

const DONE: Readonly<Partial<Record<Operation["kind"], string>>> = {
  restore: "Restored",
  undo: "Undone",
  redo: "Done again",
};

/** Tells that an operation was done, for example `Merged`. */
export function doneName(operation: Of): string {
  if (operation.kind === "adopt") return operation.paths === null ? "Adopted" : "Merged";
  return DONE[operation.kind] ?? operationName(operation);
}

const LOG = /-(?:wal|shm|journal)$/;

/** Returns the paths of an operation that a person knows: without logs of a database, and without folders of other paths. */
export function pathsOf(paths: NonNullable<Operation["paths"]>): string[] {
  const all = paths.map(({ path }) => path);
  const known = new Set(all);
  const isLog = (path: string): boolean => LOG.test(path) && known.has(path.replace(LOG, ""));
  const named = all.filter((path) => !isLog(path));
  return named.filter((path) => !named.some((other) => other.startsWith(`${path}/`)));
}

/** Returns the undo that `redo` takes back next. `operations`: newest first. */
export function undoToRedo<T extends Pick<Operation, "kind">>(operations: readonly T[]): T | null {
  let undone: T[] = [];
  for (const each of operations.toReversed())
    if (each.kind === "undo") undone.push(each);
    else if (each.kind === "redo") undone.pop();
    else undone = [];
  return undone.at(-1) ?? null;
}
