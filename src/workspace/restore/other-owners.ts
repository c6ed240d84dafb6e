import fs from "node:fs";
import { latin1 } from "../../formats/bytes.ts";
import { besideWhich } from "../../formats/sqlite-header.ts";
import { putName, type Syscalls } from "../../fs/linux/syscalls.ts";
import { isOwnId, NO_ID } from "../../fs/linux/user-namespace.ts";
import type { LeftOutEntry } from "../points/left-out.ts";
import type { Plan, PlannedEntry } from "../rules/plan.ts";
import { groupHere, userHere } from "../../fs/users.ts";
import { newArena } from "../../native.ts";

export interface Owned {
  uid: number;
  gid: number;
}

/** An entry that would be replaced by another, and the owner that the other one should have. */
interface Replacement {
  was: Owned;
  /** the staged entry */
  is: Owned;
  wanted: Owned;
}

const PROBE = Buffer.from("owner-probe");

/** Tells whether this process could give an entry back to its former owner after a restore has replaced it. */
export class OtherOwners {
  readonly #sys: Syscalls;
  /** an own directory on the file system of the folder */
  readonly #fd: number;
  readonly #known = new Map<string, boolean>();

  constructor(sys: Syscalls, fd: number) {
    this.#sys = sys;
    this.#fd = fd;
  }

  /**
   * Returns why a replacement would take an entry from its owner or group for good; null if it would not. Compares
   * with the owner that the staged entry got, because containers and network file systems may refuse to set one.
   */
  whyTaken({ was, is, wanted }: Replacement): string | null {
    const isOwnerLost = was.uid !== is.uid && (is.uid !== wanted.uid || !this.#mayGive("uid", was.uid));
    if (isOwnerLost) return lostBy(was.uid);
    const isGroupLost = was.gid !== is.gid && (is.gid !== wanted.gid || !this.#mayGive("gid", was.gid));
    return isGroupLost
      ? `it belongs to ${was.gid === NO_ID ? "a group without an id in this user namespace" : `the group ${named(was.gid, groupHere)}`}, which would lose it${TAKE}`
      : null;
  }

  #mayGive(kind: keyof Owned, id: number): boolean {
    // Nothing can be given to an owner whom this user namespace does not show.
    if (id === NO_ID) return false;
    const key = `${kind} ${id}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const name = newArena(64);
    putName(name, 0, PROBE);
    const fd = this.#sys.open(this.#fd, name, 0, fs.constants.O_CREAT | fs.constants.O_EXCL, 0o600);
    const isGiven = fd >= 0 && this.#sys.fchown(fd, kind === "uid" ? id : NO_ID, kind === "gid" ? id : NO_ID) >= 0;
    if (fd >= 0) this.#sys.close(fd);
    this.#sys.unlink(this.#fd, name, 0, false);
    this.#known.set(key, isGiven);
    return isGiven;
  }
}

const CAP_CHOWN = 1n << 0n;
const CAP_LEASE = 1n << 28n;

/**
 * Lists the entries of a plan that will stay because their owner would lose them, as far as the rights of this process
 * tell: a plan stages nothing.
 */
export function expectedToStay(plan: Plan): LeftOutEntry[] {
  const mayGive = (effectiveRights() & (CAP_CHOWN | CAP_LEASE)) !== 0n;
  // Links give nobody access, and directories are no replacements.
  const isOthers = ({ action, before, after }: PlannedEntry): boolean =>
    action === "update" &&
    ![before?.type, after?.type].includes("dir") &&
    before?.type !== "symlink" &&
    (mayGive ? before?.uid === NO_ID : !isOwnId(before!.uid));
  return Iterator.from(plan)
    .filter(isOthers)
    .map(({ path, before }) => ({ path, reason: "not_permitted" as const, detail: lostBy(before!.uid) }))
    .toArray();
}

/** The process's capabilities; all of them if /proc does not tell. */
export function effectiveRights(): bigint {
  try {
    const line = /^CapEff:\s*([0-9a-f]+)$/m.exec(fs.readFileSync("/proc/self/status", "latin1"));
    return line === null ? -1n : BigInt(`0x${line[1]}`);
  } catch {
    return -1n;
  }
}

function lostBy(uid: number): string {
  const user = uid === NO_ID ? "a user without an id in this user namespace" : `the user ${named(uid, userHere)}`;
  return `it belongs to ${user}, who would lose it${TAKE}`;
}

const TAKE = "; --take-ownership replaces it by a file of this user";

function named(id: number, nameOf: (id: number) => string): string {
  const name = nameOf(id);
  return name === "" ? String(id) : `${name} (${id})`;
}

export const STAYS_WITH_DATABASE = "it belongs to a database of which another file stays";

/** Tells for a path if it is a file that stays, or a database or log of which another file stays. */
export function sharesDatabase(stays: Iterable<Uint8Array>): (path: Uint8Array) => boolean {
  const keys = new Set(Iterator.from(stays).map(keyOf));
  return (path) => keys.has(keyOf(path));
}

function keyOf(path: Uint8Array): string {
  return latin1(besideWhich(path) ?? path);
}
