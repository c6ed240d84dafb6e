import { existsSync } from "node:fs";
import { append } from "../../append.ts";
import type { askDatabases, AskedDatabase, Suspect } from "../../capture/sqlite/without-journal.ts";
import type { Captured, HolderCall, TreeHolder } from "../../clones/holder.ts";
import { toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import { rawPath } from "../../formats/records/record.ts";
import { besideWhich, DATABASE_LABELS, LOCK_BYTE_OFFSET } from "../../formats/sqlite-header.ts";
import { findHolders } from "../../fs/linux/holders.ts";
import { processesWithLocks } from "../../fs/linux/kernel-lock.ts";
import { TICK_MS } from "../../fs/linux/syscalls.ts";
import type { SaveInput } from "./record-point.ts";
import type { Point } from "../points/point-files.ts";
import type { Workspace } from "../open/workspace.ts";
import type { SeenEntries } from "../store/engine.ts";
import { stillDatabases } from "../open/describe.ts";

/** Programs wait at most this long for a save, in milliseconds. */
const BUDGET_MS = 500;
/** Only processes with a lock like SQLite's are searched. */
const HOLDERS_BUDGET_MS = 500;
/** Number of points, from head back, whose databases are looked up. The search ends at the first sealed point. */
const LOOK_BACK = 4;

interface StillCall extends Pick<SaveInput, "databases" | "signal">, Pick<HolderCall, "announce"> {
  holder: TreeHolder;
  from: Buffer;
  /** the snapshot's path */
  tree: string;
}

/** A snapshot, and the paths of its databases below the folder, by the writes to them during the save. */
interface Stilled {
  cloned: Captured;
  /** no program wrote to them meanwhile */
  still: readonly Uint8Array[];
  /** a program was changing them without a journal */
  written: readonly Uint8Array[];
  /** programs changed them meanwhile, with a journal */
  journaled: readonly Uint8Array[];
}

/** A snapshot; `changed`: absolute paths of databases that it may have with half of a transaction. */
interface Attempt extends Pick<Stilled, "cloned" | "still"> {
  asked: readonly AskedDatabase[];
  suspects: readonly Suspect[];
  changed: readonly Uint8Array[];
}

/**
 * Takes a snapshot while no process writes to the folder's databases, if it has several: SQLite commits to several
 * databases with logs at different moments.
 * - A single database needs no lock, unless its file changes meanwhile and the snapshot has no journal of it: a
 *   transaction may have begun and ended between two looks at its locks.
 * - Then a second snapshot is taken while the database is locked.
 */
export async function whileStill(
  workspace: Workspace,
  { databases, signal, holder, from, tree, announce }: StillCall,
  capture: (call: HolderCall) => Promise<Captured>,
): Promise<Stilled> {
  const { engine, root } = workspace;
  if (!holder.atomic || from !== root || databases === "copy" || engine.databases === null)
    return { cloned: await capture({ announce }), still: [], written: [], journaled: [] };
  const own = engine.databases;
  const began = Date.now() - TICK_MS;
  const databasesThere = new KnownDatabases(workspace);
  const captured = async (asked: readonly AskedDatabase[]): Promise<Captured> => {
    let isAsAsked = false;
    // Recovery after a kill knows only the announced descriptor.
    const announceIf = (lastChange: number): void => {
      isAsAsked = databasesThere.areAs(asked, began);
      if (isAsAsked) announce?.(lastChange);
    };
    const isQuiet = suspectsOf(asked).length === 0 && announce !== undefined;
    const cloned = await capture(isQuiet ? { announce: announceIf } : {});
    if (cloned.announced === true && isAsAsked) return cloned;
    failpoint("databases.captured");
    return { ...cloned, announced: false };
  };
  const capturedHeld = async (places: readonly Uint8Array[]): Promise<[Captured, Uint8Array[]]> => {
    const { held, release } = await own.still(places, { budgetMs: BUDGET_MS, signal });
    try {
      // An announced descriptor would call the databases still before that is certain.
      const cloned = await capture({});
      return [cloned, (await release()) ? held.map((i) => places[i]!) : []];
    } finally {
      await release();
      await own.close();
    }
  };
  const attempt = async (asked: readonly AskedDatabase[], places: readonly Uint8Array[]): Promise<Attempt> => {
    const suspects = suspectsOf(asked);
    const [cloned, held] = places.length === 0 ? [await captured(asked), []] : await capturedHeld(places);
    // Nothing has changed since the announcement, at which no program was changing a database.
    if (cloned.announced === true) return { cloned, still: [], asked, suspects: [], changed: [] };
    const after = await databasesThere.ask();
    const look = { root, tree: Buffer.from(tree), began };
    const found = await changedIn(look, { cloned, asked, after, held });
    return { ...found, cloned, asked: after, suspects: [...suspects, ...suspectsOf(after)] };
  };
  const asked = await databasesThere.ask();
  const together = asked.length > 1 && asked.some(({ isUsed }) => isUsed) ? placesOf(asked) : [];
  failpoint("databases.asked");
  let made = await attempt(asked, together);
  if (made.changed.length > 0) {
    await holder.remove(tree);
    failpoint("databases.taken-back");
    made = await attempt(made.asked, distinct([...together, ...made.changed]));
  }
  return settledOf(root, made);
}

/** Sorts the databases that no lock kept still by their writes. */
async function settledOf(root: Buffer, { cloned, still, suspects, changed }: Attempt): Promise<Stilled> {
  const half = placesOf(await halfWritten(suspects));
  const resolved: Uint8Array[] = [];
  if (changed.length > 0) {
    const { showsJournal } = await import("../../capture/sqlite/without-journal.ts");
    const answers = await Promise.all(changed.map(showsJournal));
    for (const [i, place] of changed.entries()) (answers[i] ? resolved : half).push(place);
  }
  return {
    cloned,
    still: below(root, still),
    written: below(root, distinct(half)),
    journaled: below(root, resolved),
  };
}

function distinct(places: readonly Uint8Array[]): Uint8Array[] {
  return [...new Map(places.map((place) => [latin1(place), place])).values()];
}

/**
 * Compares each database before the snapshot, in the snapshot and after the snapshot. A transaction between two looks at
 * the locks changes the file. Returns the changed databases, and the `still` ones: databases that were held, or that were
 * written to since `began` and then compare equal.
 */
async function changedIn(
  { root, tree, began }: { root: Buffer; tree: Buffer; began: number },
  {
    cloned,
    asked,
    after,
    held,
  }: {
    cloned: Captured;
    asked: readonly AskedDatabase[];
    after: readonly AskedDatabase[];
    held: readonly Uint8Array[];
  },
): Promise<Pick<Attempt, "changed" | "still">> {
  const still = [...held];
  const changed: Uint8Array[] = [];
  const torn = cloned.torn.map((path) => joinPath(root, path));
  const places = distinct([...placesOf(asked), ...placesOf(after), ...torn]);
  if (places.length === 0) return { changed, still };
  const { lookInSnapshot } = await import("../../capture/sqlite/without-journal.ts");
  const [isHeld, isSuspect] = [
    new Set(held.map(latin1)),
    new Set(placesOf(suspectsOf([...asked, ...after])).map(latin1)),
  ];
  const [earlier, later] = [asked, after].map((all) => new Map(all.map(({ place, looks }) => [latin1(place), looks])));
  for (const place of places) {
    const key = latin1(place);
    if (isHeld.has(key) || (!earlier!.has(key) && !later!.has(key))) continue;
    const then = lookInSnapshot(joinPath(tree, place.subarray(root.length + 1)));
    if (then === null) continue;
    if (earlier!.get(key) !== then.looks || later!.get(key) !== then.looks) changed.push(place);
    else if (then.changedAt >= began && !isSuspect.has(key)) still.push(place);
  }
  return { changed, still };
}

function suspectsOf(asked: readonly AskedDatabase[]): Suspect[] {
  return asked.flatMap(({ suspect }) => (suspect === null ? [] : [suspect]));
}

function placesOf(databases: readonly { place: Uint8Array }[]): Uint8Array[] {
  return databases.map(({ place }) => place);
}

/** Paths below a folder of databases in it. */
function below(root: Buffer, places: readonly Uint8Array[]): Uint8Array[] {
  return places.map((place) => place.subarray(root.length + 1));
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
  /** Most folders load nothing for it. */
  #askDatabases: typeof askDatabases | null = null;

  constructor(workspace: Workspace) {
    this.#workspace = workspace;
  }

  /** Asks the kernel how programs use the databases now. */
  async ask(): Promise<AskedDatabase[]> {
    const { root, engine } = this.#workspace;
    const { seen } = engine;
    try {
      await this.#look(seen);
      if (this.#paths.size === 0) return [];
      this.#askDatabases ??= (await import("../../capture/sqlite/without-journal.ts")).askDatabases;
      const asked = this.#askDatabases([...this.#paths.values()].map((path) => joinPath(root, path)));
      this.#paths.clear();
      this.#add(below(root, placesOf(asked)));
      if (seen !== null) this.#remember(seen);
      return asked;
    } catch (error) {
      seen?.loseSeen();
      throw error;
    }
  }

  /** True if the databases are as they were when they were asked, long enough after their last change. */
  areAs(asked: readonly AskedDatabase[], began: number): boolean {
    if (asked.length === 0) return true;
    const now = this.#askDatabases!(placesOf(asked));
    const looks = new Map(now.map((each) => [latin1(each.place), each]));
    return asked.every(({ place, looks: then }) => {
      const one = looks.get(latin1(place));
      return one?.suspect === null && one.looks === then && one.changedAt < began;
    });
  }

  async #look(seen: SeenEntries | null): Promise<void> {
    const names = seen?.takeSeen();
    if (seen !== null) this.#add([...seen.databases].map(fromLatin1));
    if (names) return this.#add([...names].map(fromLatin1).flatMap((path) => [path, besideWhich(path) ?? path]));
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
