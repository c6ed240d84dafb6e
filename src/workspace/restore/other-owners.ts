import fs from "node:fs";
import { KEEP_ID } from "../../archive/write/node-writer.ts";
import { latin1 } from "../../formats/bytes.ts";
import { besideWhich } from "../../formats/sqlite-header.ts";
import { putName, type Syscalls } from "../../fs/linux/syscalls.ts";
import { groupName, userName } from "../../fs/users.ts";
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
   * Returns why a replacement would take an entry from its owner or group for good; null if it would not. The staged
   * entry shows what the kernel allows, in containers and on network file systems too.
   */
  whyTaken({ was, is, wanted }: Replacement): string | null {
    const isOwnerLost = was.uid !== is.uid && (is.uid !== wanted.uid || !this.#mayGive({ ...was, gid: KEEP_ID }));
    if (isOwnerLost) return `it belongs to the user ${named(was.uid, userName)}, who would lose it${TAKE}`;
    const isGroupLost = was.gid !== is.gid && (is.gid !== wanted.gid || !this.#mayGive({ ...was, uid: KEEP_ID }));
    return isGroupLost ? `it belongs to the group ${named(was.gid, groupName)}, which would lose it${TAKE}` : null;
  }

  #mayGive({ uid, gid }: Owned): boolean {
    const key = `${uid}:${gid}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const name = newArena(64);
    putName(name, 0, PROBE);
    const fd = this.#sys.open(this.#fd, name, 0, fs.constants.O_CREAT | fs.constants.O_EXCL, 0o600);
    const isGiven = fd >= 0 && this.#sys.fchown(fd, uid, gid) >= 0;
    if (fd >= 0) this.#sys.close(fd);
    this.#sys.unlink(this.#fd, name, 0, false);
    this.#known.set(key, isGiven);
    return isGiven;
  }
}

const TAKE = "; --take-ownership replaces it by a file of this user";

function named(id: number, nameOf: (id: number) => string): string {
  const name = nameOf(id);
  return name === "" ? String(id) : `${name} (${id})`;
}

/** Tells for a path if it is a file that stays, or a database or log of which another file stays. */
export function sharesDatabase(stays: Iterable<Uint8Array>): (path: Uint8Array) => boolean {
  const keys = new Set(Iterator.from(stays).map(keyOf));
  return (path) => keys.has(keyOf(path));
}

function keyOf(path: Uint8Array): string {
  return latin1(besideWhich(path) ?? path);
}
