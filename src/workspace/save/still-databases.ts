import { existsSync } from "node:fs";
import { append } from "../../append.ts";
import type { Suspect } from "../../capture/sqlite/without-journal.ts";
import type { Captured, HolderCall, TreeHolder } from "../../clones/holder.ts";
import { toCairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import { beside, besideWhich, LOCK_BYTE_OFFSET } from "../../formats/sqlite-header.ts";
import { findHolders } from "../../fs/linux/holders.ts";
import { processesWithLocks } from "../../fs/linux/kernel-lock.ts";
import type { SaveInput } from "./record-point.ts";
import type { Point } from "../points/point-files.ts";
import type { Workspace } from "../open/workspace.ts";
import { stillDatabases } from "../open/describe.ts";

/** Programs wait at most this long for a save, in milliseconds. */
const BUDGET_MS = 500;
const HOLDERS_BUDGET_MS = 50;
/** Number of points, from head back, whose databases are looked up. The search ends at the first sealed point. */
const LOOK_BACK = 4;

interface StillCall extends Pick<SaveInput, "databases" | "signal">, Pick<HolderCall, "announce"> {
  holder: TreeHolder;
  from: Buffer;
}

/** A snapshot, with databases that certainly stood still, and databases that a program was changing without a journal. */
interface Stilled {
  cloned: Captured;
  still: readonly Uint8Array[];
  written: readonly Uint8Array[];
}

/**
 * Takes a snapshot while no process writes to the folder's databases, if it has several: SQLite commits to several
 * databases with logs at different moments. A single database needs no lock.
 */
export async function whileStill(
  workspace: Workspace,
  { databases, signal, holder, from, announce }: StillCall,
  capture: (call: HolderCall) => Promise<Captured>,
): Promise<Stilled> {
  const { engine, root } = workspace;
  const isAsked = holder.atomic && from === root && databases !== "copy";
  const { known, isInUse } =
    isAsked && engine.databases !== null ? await knownDatabases(workspace) : { known: [], isInUse: false };
  const paths = known.map((path) => joinPath(root, path));
  const suspects = await suspectsAmong(paths);
  // A snapshot as announced has no change since then, also none of a transaction that began since.
  const withWritten = async ({ cloned, still }: Omit<Stilled, "written">): Promise<Stilled> => {
    if (cloned.announced !== true) append(suspects, await suspectsAmong(paths));
    const written = await halfWritten(suspects);
    return { cloned, still, written: known.filter((_, i) => written.has(paths[i]!)) };
  };
  if (known.length < 2 || !isInUse)
    return withWritten({ cloned: await capture(suspects.length === 0 ? { announce } : {}), still: [] });
  const { held, release } = await engine.databases!.still(paths, { budgetMs: BUDGET_MS, signal });
  try {
    // An announced descriptor would call the databases still before that is certain.
    const cloned = await capture(held.length === 0 && suspects.length === 0 ? { announce } : {});
    return await withWritten({ cloned, still: (await release()) ? held.map((i) => known[i]!) : [] });
  } finally {
    await release();
    await engine.databases!.close();
  }
}

/** Returns databases that a program may be changing without a journal. Most folders load nothing for it. */
async function suspectsAmong(paths: readonly Uint8Array[]): Promise<Suspect[]> {
  if (paths.length === 0) return [];
  return (await import("../../capture/sqlite/without-journal.ts")).suspectsAmong(paths);
}

async function halfWritten(suspects: readonly Suspect[]): Promise<Set<Uint8Array>> {
  if (suspects.length === 0) return new Set();
  const { wasHalfWritten } = await import("../../capture/sqlite/without-journal.ts");
  const answers = await Promise.all(suspects.map(wasHalfWritten));
  return new Set(suspects.flatMap(({ place }, i) => (answers[i] === true ? [place] : [])));
}

/** Returns raw paths of databases that an earlier point has, or that a visible process has open. */
async function knownDatabases(workspace: Workspace): Promise<{ known: Uint8Array[]; isInUse: boolean }> {
  const search = openDatabases(workspace.root);
  search.catch(() => undefined);
  const found = new Map<string, Uint8Array>();
  const add = (path: Uint8Array): void => void found.set(latin1(path), path);
  let point = workspace.byId(workspace.state().head);
  for (let i = 0; i < LOOK_BACK && point !== null; i++) {
    for (const path of stillDatabases(point.descriptor)) add(path);
    for (const label of point.descriptor.labels) if (label.label.endsWith("-consistent")) add(rawPath(label));
    if (point.sealed) break;
    point = parentOf(workspace, point);
  }
  const open = await search;
  for (const path of open) add(path);
  // A program in another container is not visible, but the index of a log exists while it has the database open.
  const isInUse = (path: Uint8Array): boolean => existsSync(joinPath(workspace.root, beside(path, "-shm")));
  const known = [...found.values()];
  return { known, isInUse: open.length > 0 || known.some(isInUse) };
}

/** Returns a point's parent; null also if the parent's record is damaged, so that the save continues. */
function parentOf(workspace: Workspace, { descriptor }: Point): Point | null {
  try {
    return workspace.byId(descriptor.parent_id);
  } catch (error) {
    if (toCairnError(error).code !== "damaged") throw error;
    return null;
  }
}

/** Returns open files with a lock of SQLite's kind. The kernel's table of locks tells which processes to search. */
async function openDatabases(root: Buffer): Promise<Uint8Array[]> {
  const among = await processesWithLocks(
    (start) => (start >= 120 && start <= 128) || (start >= LOCK_BYTE_OFFSET && start < LOCK_BYTE_OFFSET + 512),
  );
  if (among.length === 0) return [];
  try {
    const { holders } = findHolders(root, { budgetMs: HOLDERS_BUDGET_MS, includeSelf: true, among });
    return holders.flatMap(({ path, kind }) => (kind === "open-write" ? [besideWhich(path) ?? path] : []));
  } catch (error) {
    if (toCairnError(error).code === "not_found") return [];
    throw error;
  }
}
