import fs from "node:fs";
import path from "node:path";
import {
  databasesAmong,
  inWords,
  type InUse,
  logsBeside,
  QuietDatabase,
  requireWritableThrough,
} from "../../capture/sqlite/quiet-database.ts";
import { advice, CairnError, option } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import { rawPath } from "../../formats/records/record.ts";
import { beside, besideWhich, DATABASE_LABELS, LOGS, mayBeDatabase, SIDECARS } from "../../formats/sqlite-header.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { clearAway } from "../../fs/remove-all.ts";
import type { Workspace } from "../open/workspace.ts";
import { PackedList } from "../points/packed-list.ts";
import { findNode } from "../points/tree-diff.ts";
import type { Plan, PlannedEntry } from "../rules/plan.ts";
import type { Relative } from "../rules/wanted.ts";
import type { PlannedRestore } from "./planned.ts";
import type { RestoreInput } from "./prepare.ts";

/** Endings of the files that hold a database's content, and of all files that belong to a database. */
const HOLDING = ["", ...LOGS];
const ENDINGS = ["", ...SIDECARS];

/** A database that was written through SQLite. */
export interface WrittenThrough {
  path: Uint8Array;
  /** Hash of the pages that SQLite read again; null if the pages differ from the image. */
  hash: string | null;
}

/**
 * Takes databases that a process has open (this one too) out of a plan: the process would keep the old file, and its
 * log would damage the new one. Writes each in one transaction with `throughSqlite`, or if the operation that is taken
 * back did so; else throws `refused`. Also refuses a log left beside a new database.
 */
export async function besidesOpenDatabases(
  workspace: Workspace,
  input: RestoreInput,
  { plan, target }: Pick<PlannedRestore, "plan" | "target">,
): Promise<{ plan: Plan; written: WrittenThrough[] }> {
  const known = input.change.isRelative ? input.change.options.merged : undefined;
  const open = openDatabases(workspace, plan, known);
  for (const { place, use, isKnown } of open) {
    const isGone = findNode(target, place)?.type !== "file";
    const isThere = fs.existsSync(Buffer.from(joinPath(workspace.root, place)));
    if ((!isKnown && input.throughSqlite !== true) || isGone || !isThere) throw isOpen(place, use, { isGone, isThere });
  }
  const replaced = new Set(open.flatMap(({ place }) => ENDINGS.map((ending) => latin1(beside(place, ending)))));
  const others = new PackedList<PlannedEntry>();
  for (const entry of plan) if (!replaced.has(latin1(entry.path))) others.push(entry);
  requireNoLogsLeft(workspace.root, { plan: others, target });
  if (open.length === 0) return { plan, written: [] };
  const { restoreDatabase } = await import("../../capture/sqlite/databases.ts");
  const scratch = newWorkDirectory(workspace.found.control.temporary);
  fs.mkdirSync(scratch, { recursive: true, mode: 0o700 });
  try {
    const writes = open.map(({ place }, i) => {
      const image = path.join(scratch, String(i));
      for (const ending of HOLDING) {
        const node = findNode(target, beside(place, ending));
        if (node?.type === "file") writePieces(`${image}${ending}`, target.content(node));
      }
      const to = Buffer.from(joinPath(workspace.root, place));
      requireWritableThrough(Buffer.from(image), to);
      return { place, image, to: to.toString() };
    });
    const written: WrittenThrough[] = [];
    const { signal, onWarning, throughSqlite } = input;
    const isOver = throughSqlite === true || (input.change.isRelative && input.change.options.over === true);
    for (const { place: own, image, to } of writes) {
      const each: WrittenThrough = { path: own, hash: null };
      const onHash = (hash: string): void => void (each.hash = hash);
      const expectedNow = isOver ? undefined : known?.get(latin1(own));
      await restoreDatabase(image, { to, throughSqlite: true, expectedNow, onHash, signal, onWarning });
      written.push(each);
      failpoint("restore.through-sqlite");
    }
    return { plan: others, written };
  } finally {
    clearAway(scratch);
  }
}

function isOpen(place: Uint8Array, use: InUse, { isGone, isThere }: { isGone: boolean; isThere: boolean }): CairnError {
  const shown = printablePath(place);
  const what = isGone ? ", and the point does not have it" : ", which would keep using the old file";
  const isKnown = use.unknown.length === 0;
  const end = isKnown
    ? "end that process first"
    : "make sure that no program uses it, then move it away with its -wal, -shm and -journal";
  const through = advice`, or write the content through SQLite, so that the process sees it: ${option("throughSqlite")}`;
  return new CairnError(
    "refused",
    `the SQLite database ${shown} ${inWords(use)}${isKnown ? what : ""}; nothing was changed`,
    { hint: advice`${end}${isGone || !isThere ? "" : through}`, details: { holders: use.users, path: shown } },
  );
}

/** Lists databases in use, and `known` ones, which are written through SQLite even if no process has them open. */
function openDatabases(
  { root }: Workspace,
  plan: Plan,
  known: Relative["options"]["merged"],
): { place: Uint8Array; use: InUse; isKnown: boolean }[] {
  const replaced = new Map<string, Uint8Array>();
  for (const entry of plan) {
    const place = databaseOf(entry);
    if (place !== null) replaced.set(latin1(place), place);
  }
  const full = [...replaced.values()].map((place) => joinPath(root, place));
  return databasesAmong(full).flatMap((file) => {
    const use = QuietDatabase.hold(file);
    const place = file.subarray(root.length + 1);
    const isKnown = known?.has(latin1(place)) === true;
    if (!(use instanceof QuietDatabase)) return [{ place, use, isKnown }];
    use[Symbol.dispose]();
    return isKnown && fs.existsSync(Buffer.from(file)) ? [{ place, use: { users: [], unknown: [] }, isKnown }] : [];
  });
}

/** Returns the database that a plan's entry may be or belong to, if the plan makes, replaces or removes the entry. */
function databaseOf({ path: place, before, after, action }: PlannedEntry): Uint8Array | null {
  // A removed database may still have an open log.
  const file = action === "create" ? after : action === "update" || action === "delete" ? before : null;
  if (file?.type !== "file") return null;
  return besideWhich(place) ?? (mayBeDatabase(file) ? place : null);
}

/**
 * Adds the sidecars of databases among the chosen paths: a database without its log lacks the last commits, and SQLite
 * would apply a foreign log. `roots`: the folder, and the point's held tree.
 */
export function withSidecars(
  roots: readonly Buffer[],
  { labels }: Pick<Descriptor, "labels">,
  paths: readonly Uint8Array[] | null,
): readonly Uint8Array[] | null {
  if (paths === null) return null;
  const known = new Set(labels.flatMap((each) => (DATABASE_LABELS.has(each.label) ? [latin1(rawPath(each))] : [])));
  return paths.flatMap((place) =>
    known.has(latin1(place)) || roots.some((root) => logsBeside(joinPath(root, place)).length > 0)
      ? [place, ...SIDECARS.map((ending) => beside(place, ending))]
      : [place],
  );
}

/** Throws `refused` if a database would come to lie beside a log that the plan leaves there and the target lacks. */
function requireNoLogsLeft(root: Buffer, { plan, target }: Pick<PlannedRestore, "plan" | "target">): void {
  let planned: Set<string> | null = null;
  for (const { path: place, action, after } of plan) {
    if ((action !== "create" && action !== "update") || after?.type !== "file" || !mayBeDatabase(after)) continue;
    const logs = logsBeside(joinPath(root, place)).map((ending) => beside(place, ending));
    if (logs.length === 0) continue;
    planned ??= new Set(Iterator.from(plan).flatMap((each) => (each.action === "keep" ? [] : [latin1(each.path)])));
    const log = logs.find((each) => !planned!.has(latin1(each)) && findNode(target, each)?.type !== "file");
    if (log === undefined) continue;
    throw new CairnError(
      "refused",
      `${printablePath(log)} holds changes of the present database and would damage the restored one, but the restore may not remove this log; nothing was changed`,
      {
        hint: advice`open the database once with a program that uses it, or move the database and its log away together: no program has it open. Ignore rules or ${option("keepPresent")} keep the log`,
        details: { path: printablePath(log) },
      },
    );
  }
}

function writePieces(place: string, pieces: Iterable<Uint8Array>): void {
  const fd = fs.openSync(place, "wx", 0o600);
  try {
    for (const piece of pieces) for (let at = 0; at < piece.length;) at += fs.writeSync(fd, piece, at);
  } finally {
    fs.closeSync(fd);
  }
}
