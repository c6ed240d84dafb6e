import { existsSync } from "node:fs";
import type { Captured, HolderCall, TreeHolder } from "../../clones/holder.ts";
import { toCairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import { beside, besideWhich, LOCK_BYTE_OFFSET } from "../../formats/sqlite-header.ts";
import { findHolders } from "../../fs/linux/holders.ts";
import { processesWithLocks } from "../../fs/linux/kernel-lock.ts";
import type { SaveInput } from "../save/record-point.ts";
import type { Workspace } from "../workspace.ts";
import { stillDatabases } from "./describe.ts";

/** Programs wait no longer than so for a save, in milliseconds. */
const BUDGET_MS = 500;
const HOLDERS_BUDGET_MS = 50;
/** Points among which one is looked for whose databases are known. */
const LOOK_BACK = 4;

interface StillCall extends Pick<SaveInput, "databases" | "signal">, Pick<HolderCall, "announce"> {
  holder: TreeHolder;
  from: Buffer;
}

/**
 * Takes a snapshot while nobody writes to any of the databases of a folder that has several: SQLite does not commit to
 * databases with a log at one moment. Returns the databases of which that is sure; of one alone it does not matter.
 */
export async function whileStill(
  workspace: Workspace,
  { databases, signal, holder, from, announce }: StillCall,
  capture: (call: HolderCall) => Promise<Captured>,
): Promise<{ cloned: Captured; still: readonly Uint8Array[] }> {
  const { engine, root } = workspace;
  const isAsked = holder.atomic && from === root && databases !== "copy";
  const known = isAsked && engine.databases !== null ? knownDatabases(workspace) : [];
  if (known.length < 2) return { cloned: await capture({ announce }), still: [] };
  const paths = known.map((path) => joinPath(root, path));
  const { held, release } = await engine.databases!.still(paths, { budgetMs: BUDGET_MS, signal });
  try {
    // What is announced would say that they were still before that is sure.
    const cloned = await capture(held.length === 0 ? { announce } : {});
    return { cloned, still: (await release()) ? held.map((i) => known[i]!) : [] };
  } finally {
    await release();
    await engine.databases!.close();
  }
}

/** Raw paths of databases that were in an earlier point, or that a process has open that this one sees. */
function knownDatabases(workspace: Workspace): Uint8Array[] {
  const found = new Map<string, Uint8Array>();
  const add = (path: Uint8Array): void => void found.set(latin1(path), path);
  let point = workspace.byId(workspace.state().head);
  for (let i = 0; i < LOOK_BACK && point !== null; i++) {
    for (const path of stillDatabases(point.descriptor)) add(path);
    for (const label of point.descriptor.labels) if (label.label.endsWith("-consistent")) add(rawPath(label));
    if (point.sealed) break;
    const { parent_id: id } = point.descriptor;
    const [parent] = id === null ? [] : workspace.points.withPrefix(id);
    // A damaged one keeps nobody from a save.
    point = parent === undefined || "problem" in parent ? null : parent;
  }
  const open = openDatabases(workspace.root);
  for (const path of open) add(path);
  // A program in another container is not seen, but the index of a log is there as long as one has the database open.
  const isInUse = (path: Uint8Array): boolean => existsSync(joinPath(workspace.root, beside(path, "-shm")));
  return open.length > 0 || [...found.values()].some(isInUse) ? [...found.values()] : [];
}

/** Files that processes have open which hold a lock such as SQLite's; who asks the kernel's table is spared most processes. */
function openDatabases(root: Buffer): Uint8Array[] {
  const among = processesWithLocks(
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
