import { existsSync } from "node:fs";
import { append } from "../../append.ts";
import type { AskedDatabase, Suspect } from "../../capture/sqlite/without-journal.ts";
import type { Captured, HolderCall, TreeHolder } from "../../clones/holder.ts";
import { toCairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import { besideWhich, DATABASE_LABELS, LOCK_BYTE_OFFSET } from "../../formats/sqlite-header.ts";
import { findHolders } from "../../fs/linux/holders.ts";
import { processesWithLocks } from "../../fs/linux/kernel-lock.ts";
import type { SaveInput } from "./record-point.ts";
import type { Point } from "../points/point-files.ts";
import type { Workspace } from "../open/workspace.ts";
import type { SeenEntries } from "../store/engine.ts";
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
  if (!holder.atomic || from !== root || databases === "copy" || engine.databases === null)
    return { cloned: await capture({ announce }), still: [], written: [] };
  const databasesThere = new KnownDatabases(workspace);
  const asked = await databasesThere.ask();
  const suspects = suspectsOf(asked);
  // A snapshot as announced has no change since then, also none of a transaction that began since.
  const withWritten = async ({ cloned, still }: Omit<Stilled, "written">): Promise<Stilled> => {
    if (cloned.announced !== true) append(suspects, suspectsOf(await databasesThere.ask()));
    return { cloned, still, written: below(root, await halfWritten(suspects)) };
  };
  if (asked.length < 2 || !asked.some(({ isUsed }) => isUsed))
    return withWritten({ cloned: await capture(suspects.length === 0 ? { announce } : {}), still: [] });
  const { held, release } = await engine.databases.still(placesOf(asked), { budgetMs: BUDGET_MS, signal });
  try {
    // An announced descriptor would call the databases still before that is certain.
    const cloned = await capture(held.length === 0 && suspects.length === 0 ? { announce } : {});
    const still = (await release()) ? held.map((i) => asked[i]!) : [];
    return await withWritten({ cloned, still: below(root, still) });
  } finally {
    await release();
    await engine.databases.close();
  }
}

function suspectsOf(asked: readonly AskedDatabase[]): Suspect[] {
  return asked.flatMap(({ suspect }) => (suspect === null ? [] : [suspect]));
}

function placesOf(databases: readonly { place: Uint8Array }[]): Uint8Array[] {
  return databases.map(({ place }) => place);
}

/** Paths below a folder of databases in it. */
function below(root: Buffer, databases: readonly { place: Uint8Array }[]): Uint8Array[] {
  return placesOf(databases).map((place) => place.subarray(root.length + 1));
}

/** Returns the suspects that had half of a transaction. */
async function halfWritten(suspects: readonly Suspect[]): Promise<Suspect[]> {
  if (suspects.length === 0) return [];
  const { wasHalfWritten } = await import("../../capture/sqlite/without-journal.ts");
  const answers = await Promise.all(suspects.map(wasHalfWritten));
  return suspects.filter((_, i) => answers[i]);
}

/**
 * The databases of a folder that programs may use. A watcher tells entries that programs made or wrote since the last
 * save. Without one, or if it missed any, earlier points and the kernel's table of locks tell: opening the table takes
 * 10 to 30 ms, and delays each lock of the machine.
 */
class KnownDatabases {
  readonly #workspace: Workspace;
  /** Raw paths below the folder, by their latin1: before they are asked also of files that are no databases. */
  readonly #paths = new Map<string, Uint8Array>();
  #isTableRead = false;

  constructor(workspace: Workspace) {
    this.#workspace = workspace;
  }

  /** Asks the kernel how programs use the databases now. */
  async ask(): Promise<AskedDatabase[]> {
    const { root, engine } = this.#workspace;
    const { seen } = engine;
    try {
      await this.#look(seen);
      // Most folders load nothing for it.
      if (this.#paths.size === 0) return [];
      const { askDatabases } = await import("../../capture/sqlite/without-journal.ts");
      const asked = askDatabases([...this.#paths.values()].map((path) => joinPath(root, path)));
      this.#paths.clear();
      this.#add(below(root, asked));
      if (seen !== null) this.#remember(seen);
      return asked;
    } catch (error) {
      seen?.loseSeen();
      throw error;
    }
  }

  async #look(seen: SeenEntries | null): Promise<void> {
    const names = seen?.takeSeen() ?? null;
    if (seen !== null) this.#add([...seen.databases].map(fromLatin1));
    if (names !== null)
      return this.#add([...names].map(fromLatin1).flatMap((path) => [path, besideWhich(path) ?? path]));
    if (this.#isTableRead) return seen?.loseSeen();
    this.#isTableRead = true;
    const locked = openDatabases(this.#workspace.root);
    locked.catch(() => undefined);
    this.#add(databasesOfPoints(this.#workspace));
    this.#add(await locked);
  }

  /** A database that could not be opened now stays known as long as it exists. */
  #remember({ databases }: SeenEntries): void {
    for (const path of databases)
      if (!existsSync(joinPath(this.#workspace.root, fromLatin1(path)))) databases.delete(path);
    for (const path of this.#paths.keys()) databases.add(path);
  }

  #add(paths: Iterable<Uint8Array>): void {
    for (const path of paths) this.#paths.set(latin1(path), path);
  }
}

function fromLatin1(path: string): Buffer {
  return Buffer.from(path, "latin1");
}

/** Returns the databases of the last points: all until a sealed one, which knows also those that no program used. */
function databasesOfPoints(workspace: Workspace): Uint8Array[] {
  const found: Uint8Array[] = [];
  let point = workspace.byId(workspace.state().head);
  for (let i = 0; i < LOOK_BACK && point !== null; i++) {
    const { descriptor, sealed } = point;
    append(found, stillDatabases(descriptor));
    for (const label of descriptor.labels) if (DATABASE_LABELS.has(label.label)) found.push(rawPath(label));
    if (sealed) break;
    point = parentOf(workspace, point);
  }
  return found;
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
