import fs from "node:fs";
import path from "node:path";
import { beginsAsLog, readHeader } from "../../capture/sqlite/header.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { Descriptor } from "../../formats/records/descriptor.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { rawPath } from "../../formats/records/record.ts";
import { beside, besideWhich, LOGS, SIDECARS } from "../../formats/sqlite-header.ts";
import { findHolders, type Holder } from "../../fs/linux/holders.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import type { Workspace } from "../workspace.ts";
import { PackedList } from "./packed-list.ts";
import { findNode, type Plan, type PlannedEntry } from "./plan.ts";
import type { PlannedRestore, RestoreInput } from "./prepare.ts";

/** Endings of the files that hold what a database does; of all that belong to it. */
const HOLDING = ["", ...LOGS];
const ENDINGS = ["", ...SIDECARS];
const DATABASE_LABELS: ReadonlySet<string> = new Set(["transaction-consistent", "crash-consistent", "torn-possible"]);
const HOLDERS_BUDGET_MS = 2_000;
/** The least page; every database is a multiple of it. */
const LEAST_PAGE = 512;

/**
 * Takes databases out of a plan that a process has open, this one too: that would go on with the file that it has, and its log
 * would damage the new one. Throws `refused` unless they are to be written through SQLite, which is done here, each in one
 * transaction: after a kill the others are as they were, and the undo point has them all.
 */
export async function besidesOpenDatabases(
  workspace: Workspace,
  input: RestoreInput,
  { plan, target }: Pick<PlannedRestore, "plan" | "target">,
): Promise<Plan> {
  const open = openDatabases(workspace.root, plan);
  if (open.length === 0) return plan;
  for (const { place, holder } of open) {
    const isGone = findNode(target, place)?.type !== "file";
    if (input.throughSqlite !== true || isGone) throw isOpen(place, holder, isGone);
  }
  const { restoreDatabase } = await import("../../capture/sqlite/databases.ts");
  const scratch = newWorkDirectory(workspace.found.control.temporary);
  fs.mkdirSync(scratch, { recursive: true, mode: 0o700 });
  try {
    for (const [i, { place }] of open.entries()) {
      const image = path.join(scratch, String(i));
      for (const ending of HOLDING) {
        const node = findNode(target, beside(place, ending));
        if (node?.type === "file") writePieces(`${image}${ending}`, target.content(node));
      }
      const to = Buffer.from(joinPath(workspace.root, place)).toString();
      await restoreDatabase(image, { to, throughSqlite: true, signal: input.signal, onWarning: input.onWarning });
      failpoint("restore.through-sqlite");
    }
  } finally {
    fs.rmSync(scratch, { recursive: true, force: true });
  }
  const done = new Set(open.flatMap(({ place }) => ENDINGS.map((ending) => latin1(beside(place, ending)))));
  const others = new PackedList<PlannedEntry>();
  for (const entry of plan) if (!done.has(latin1(entry.path))) others.push(entry);
  return others;
}

function isOpen(place: Uint8Array, { command, pid }: Holder, isGone: boolean): CairnError {
  const what = isGone ? "and the point does not have it" : "which would go on with the file that it has";
  return new CairnError(
    "refused",
    `the SQLite database ${printablePath(place)} is open in ${command} (pid ${pid}), ${what}; nothing was changed`,
    {
      hint: `end it first${isGone ? "" : ", or write the content through SQLite, so that it sees it: --through-sqlite"}`,
      details: { holders: [{ command, pid }], path: printablePath(place) },
    },
  );
}

function openDatabases(root: Buffer, plan: Plan): { place: Uint8Array; holder: Holder }[] {
  const replaced = new Map<string, Uint8Array>();
  for (const entry of plan) {
    const place = databaseOf(entry);
    if (place !== null) replaced.set(latin1(place), place);
  }
  if (replaced.size === 0) return [];
  const { holders } = findHolders(root, { budgetMs: HOLDERS_BUDGET_MS, includeSelf: true });
  const byPath = new Map<string, Holder>(holders.map((holder) => [latin1(holder.path), holder]));
  return [...replaced].flatMap(([own, place]) => {
    const holder = ENDINGS.map((ending) => byPath.get(`${own}${ending}`)).find((each) => each !== undefined);
    return holder !== undefined && isDatabase(joinPath(root, place), holder) ? [{ place, holder }] : [];
  });
}

/** The database that an entry may be, or belong to, that a restore replaces or removes. */
function databaseOf({ path: place, before, action }: PlannedEntry): Uint8Array | null {
  if (before?.type !== "file" || (action !== "update" && action !== "delete")) return null;
  return besideWhich(place) ?? (mayBeDatabase(before) ? place : null);
}

/**
 * Adds what belongs to the databases among the chosen paths: a database without its log lacks what was committed last, and
 * SQLite would apply another's to it. `roots`: of the folder in which they are replaced, and of the point's held tree.
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

/** Throws `refused` where a database would come to lie beside a log that the plan leaves there and the target does not have. */
export function requireNoLogsLeft(root: Buffer, { plan, target }: Pick<PlannedRestore, "plan" | "target">): void {
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
      `${printablePath(log)} holds changes to the database that is there now, would damage the one that the point has, and is to stay; nothing was changed`,
      {
        hint: "move it away first; ignore rules that hide it, and --keep-present, are what lets it stay",
        details: { path: printablePath(log) },
      },
    );
  }
}

/** Endings of the files beside this place that SQLite would apply to a database here. */
export function logsBeside(place: Uint8Array): string[] {
  return LOGS.filter((ending) => startsAsLog(beside(place, ending)));
}

function startsAsLog(place: Buffer): boolean {
  // As a rule none is there.
  if (!fs.existsSync(place)) return false;
  try {
    return inFile(place, beginsAsLog);
  } catch {
    // SQLite, run by the same user, cannot read it either.
    return false;
  }
}

export function mayBeDatabase({ size }: Pick<TreeNode, "size">): boolean {
  return size > 0 && size % LEAST_PAGE === 0;
}

function writePieces(place: string, pieces: Iterable<Uint8Array>): void {
  const fd = fs.openSync(place, "wx", 0o600);
  try {
    for (const piece of pieces) for (let at = 0; at < piece.length;) at += fs.writeSync(fd, piece, at);
  } finally {
    fs.closeSync(fd);
  }
}

/** Reads nothing of a file that this process has open: closing it would give up the locks on it. */
function isDatabase(place: Uint8Array, { pid }: Holder): boolean {
  if (pid === process.pid) return SIDECARS.some((ending) => fs.existsSync(beside(place, ending)));
  try {
    return inFile(place, readHeader) !== null;
  } catch (error) {
    if (toCairnError(error).code === "not_found") return false;
    throw error;
  }
}

function inFile<T>(place: Uint8Array, read: (fd: number) => T): T {
  const fd = openRegular(Buffer.from(place));
  try {
    return read(fd);
  } finally {
    fs.closeSync(fd);
  }
}
