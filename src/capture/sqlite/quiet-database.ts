import fs from "node:fs";
import { append } from "../../append.ts";
import { advice, CairnError, type Hint, option, toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { beside, SIDECARS } from "../../formats/sqlite-header.ts";
import { findHolders, type Holder, type UnknownReason, WHY_UNKNOWN } from "../../fs/linux/holders.ts";
import { kernelLockState, whyLocksAreLocal } from "../../fs/linux/kernel-lock.ts";
import { isLeaseWhole, releaseLease, takeWriteLease } from "../../fs/linux/lease.ts";
import { nameOf, parentOf } from "../../fs/linux/exchange-folders.ts";
import { filesystemKind } from "../../fs/linux/mounts.ts";
import { namesIfThere } from "../../fs/paths/names-in.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { listedNames, printablePath } from "../../fs/paths/safe-path.ts";
import { inFile, logsBeside, readHeader } from "./header.ts";

export { logsBeside } from "./header.ts";

/** A database that cannot be replaced because a process may have it open. */
export interface InUse {
  /** Processes known to have it open; the kernel may know of one that is not visible from here. */
  users: Pick<Holder, "pid" | "command">[];
  /** Reasons why the state is not known; empty: a process has it open. */
  unknown: string[];
}

const ENDINGS = ["", ...SIDECARS];
const HOLDERS_BUDGET_MS = 2_000;
/** A program that only reads the file, such as a search index, closes it soon. */
const TRIES = 5;
const PAUSE_MS = 40;

/**
 * A database that no process has open, by the kernel's write leases on its file and sidecars. A process that opens it
 * meanwhile waits, and gets the file that had the name then: dispose soon. The calling process must not open the files
 * meanwhile.
 */
export class QuietDatabase {
  readonly #leased: readonly number[];

  private constructor(leased: readonly number[]) {
    this.#leased = leased;
  }

  /**
   * Holds the database at an absolute raw path. If the kernel gives no lease, SQLite's locks and the visible processes
   * decide instead.
   */
  static hold(place: Uint8Array): QuietDatabase | InUse {
    for (let tries = 1; ; tries++) {
      const leased: number[] = [];
      let answer: "quiet" | InUse | "open elsewhere" = "open elsewhere";
      try {
        answer = leaseAll(place, leased);
        if (answer === "quiet") return new QuietDatabase(leased);
      } finally {
        if (answer !== "quiet") endAll(leased);
      }
      if (answer !== "open elsewhere") return answer;
      const { users } = usersOf(place, true);
      if (users.length > 0 || tries === TRIES) return { users, unknown: [] };
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
    }
  }

  /** Holds several databases as one; or returns one that is in use. */
  static holdAll(places: readonly Uint8Array[]): QuietDatabase | (InUse & { place: Uint8Array }) {
    const leased: number[] = [];
    let isQuiet = false;
    try {
      for (const place of places) {
        const held = QuietDatabase.hold(place);
        if (!(held instanceof QuietDatabase)) return { ...held, place };
        append(leased, held.#leased);
      }
      isQuiet = true;
      return new QuietDatabase(leased);
    } finally {
      if (!isQuiet) endAll(leased);
    }
  }

  /** True if a process has begun to open the database since it was held; that process would use the file that had the name before. */
  isWanted(): boolean {
    return !this.#leased.every(isLeaseWhole);
  }

  [Symbol.dispose](): void {
    endAll(this.#leased);
  }
}

function endAll(leased: readonly number[]): void {
  for (const fd of leased) {
    releaseLease(fd);
    fs.closeSync(fd);
  }
}

/** Takes a lease on each existing file. */
function leaseAll(place: Uint8Array, leased: number[]): "quiet" | InUse | "open elsewhere" {
  const own = ownDescriptors();
  let isUnknown = false;
  let unshared: string | null = null;
  for (const ending of ENDINGS) {
    const file = beside(place, ending);
    const facts = fs.lstatSync(file, { bigint: true, throwIfNoEntry: false });
    if (facts?.isFile() !== true) continue;
    // Closing a file releases all locks of this process on it.
    if (own.has(`${facts.dev}:${facts.ino}`)) return "open elsewhere";
    const fd = openedFor(file);
    if (typeof fd === "string") {
      if (fd === "EAGAIN") return "open elsewhere";
      isUnknown ||= fd !== "ENOENT";
      continue;
    }
    unshared ??= whyLocksAreLocal(fd, file);
    const lease = takeWriteLease(fd);
    const isLocked = lease === "unknown" && kernelLockState(fd) !== "none";
    if (lease === "taken") leased.push(fd);
    else fs.closeSync(fd);
    if (lease === "open elsewhere" || isLocked) return "open elsewhere";
    isUnknown ||= lease === "unknown";
  }
  // On a network file system, FUSE and overlay a lease is granted though somebody has the file open elsewhere.
  const { place: kind } = filesystemKind(parentOf(Buffer.from(place)));
  if (!isUnknown && unshared === null && (kind === "local" || kind === "memory")) return "quiet";
  const { users, unknown } = usersOf(place, false);
  if (users.length > 0) return { users, unknown: [] };
  const why = [...(unshared === null ? [] : [unshared]), ...unknown.map((each) => WHY_UNKNOWN[each])];
  return why.length === 0 ? "quiet" : { users, unknown: why };
}

/** An open descriptor, or the error's name. */
function openedFor(file: Buffer): number | string {
  try {
    return openRegular(file);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined || code === "EMFILE" || code === "ENFILE") throw error;
    return code;
  }
}

/** Descriptors of regular files that this process has open, by device and inode. */
export function ownDescriptors(): Map<string, number> {
  const own = new Map<string, number>();
  for (const name of namesIfThere("/proc/self/fd")) {
    try {
      const facts = fs.fstatSync(Number(name), { bigint: true });
      if (facts.isFile()) own.set(`${facts.dev}:${facts.ino}`, Number(name));
    } catch {
      // The descriptor that listed the directory is closed by now.
    }
  }
  return own;
}

/** True if another visible process has the index of a database's log open through this mount. */
export function isIndexSharedHere(place: Uint8Array): boolean {
  const index = beside(nameOf(Buffer.from(place)), "-shm");
  const { holders } = findHolders(parentOf(Buffer.from(place)), { budgetMs: HOLDERS_BUDGET_MS });
  return holders.some(({ path }) => index.equals(path));
}

function usersOf(place: Uint8Array, includeSelf: boolean): { users: InUse["users"]; unknown: UnknownReason[] } {
  const folder = parentOf(Buffer.from(place));
  const { holders, unknown } = findHolders(folder, { budgetMs: HOLDERS_BUDGET_MS, includeSelf });
  const names = new Set(ENDINGS.map((ending) => latin1(beside(nameOf(Buffer.from(place)), ending))));
  const users = new Map<number, InUse["users"][0]>();
  for (const { path, pid, command } of holders) if (names.has(latin1(path))) users.set(pid, { pid, command });
  return { users: [...users.values()], unknown };
}

/** Looks into a file as {@link lookInto} does; null if it is not there or cannot be read. */
export function inOpenFile<T>(place: Uint8Array, look: (fd: number) => T, own = ownDescriptors()): T | null {
  const facts = fs.lstatSync(Buffer.from(place), { bigint: true, throwIfNoEntry: false });
  if (facts?.isFile() !== true) return null;
  try {
    return lookInto(place, facts, look, own);
  } catch {
    return null;
  }
}

/** Uses the descriptor in `own` if there is one: closing another descriptor would release this process's locks. */
function lookInto<T>(
  place: Uint8Array,
  { dev, ino }: fs.BigIntStats,
  look: (fd: number) => T,
  own: ReturnType<typeof ownDescriptors>,
): T {
  const open = own.get(`${dev}:${ino}`);
  return open === undefined ? inFile(place, look) : look(open);
}

/** Returns the files (absolute raw paths) that are SQLite databases by their first bytes, or by a log beside them. */
export function databasesAmong(places: Iterable<Uint8Array>): Uint8Array[] {
  let own: ReturnType<typeof ownDescriptors> | null = null;
  return [...places].filter((place) => {
    const facts = fs.lstatSync(Buffer.from(place), { bigint: true, throwIfNoEntry: false });
    // A program that has the log of a removed database open keeps writing to it.
    if (facts === undefined) return fs.existsSync(beside(place, "-shm")) || logsBeside(place).length > 0;
    if (!facts.isFile()) return false;
    own ??= ownDescriptors();
    try {
      return lookInto(place, facts, readHeader, own) !== null || logsBeside(place).length > 0;
    } catch (error) {
      const { code } = toCairnError(error);
      if (code === "not_found") return false;
      return SIDECARS.some((ending) => fs.existsSync(beside(place, ending)));
    }
  });
}

/** Returns the rest of a message after the database's name: which processes have it open, or why that is unknown. */
export function inWords({ users, unknown }: InUse): string {
  if (unknown.length > 0) return `may be open, and Cairn cannot find out: ${unknown.join("; ")}`;
  if (users.length === 0) return "is open in a process that Cairn cannot see, of another user or in another container";
  return `is open in ${listedNames(users.map(({ command, pid }) => `${command} (pid ${pid})`))}`;
}

export const THROUGH = advice`end the programs that use the database, or write the content through SQLite, so that they see it: ${option("throughSqlite")}`;

/** Holds the databases among some absolute raw paths, or throws `refused`. */
export function holdOrRefuse(places: Iterable<Uint8Array>, hint: Hint = THROUGH): QuietDatabase {
  const held = QuietDatabase.holdAll(databasesAmong(places));
  if (held instanceof QuietDatabase) return held;
  throw new CairnError("refused", `the SQLite database ${printablePath(held.place)} ${inWords(held)}`, {
    hint,
    details: { holders: held.users },
  });
}

/**
 * Throws `refused` if SQLite cannot write an image into an existing database: one of them is no database or is
 * encrypted, or a log keeps the page size as it is.
 */
export function requireWritableThrough(image: Uint8Array, target: Uint8Array): void {
  // An empty file is a database without tables.
  if (fs.statSync(Buffer.from(target), { throwIfNoEntry: false })?.size === 0) return;
  const [from, to] = [inFile(image, readHeader), inOpenFile(target, readHeader)];
  const why =
    from === null || to === null
      ? `${from === null ? "what was saved of it" : "its present file"} is no SQLite database, is encrypted or cannot be read`
      : from.page_size !== to.page_size && to.journal_mode === "wal"
        ? `it has pages of ${to.page_size} bytes in WAL mode, and the restored database has pages of ${from.page_size}`
        : null;
  if (why === null) return;
  throw new CairnError("refused", `${printablePath(target)} cannot be written through SQLite: ${why}`, {
    hint: advice`end the programs that have the database open, and restore without ${option("throughSqlite")}`,
  });
}
