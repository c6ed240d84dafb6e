import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import { type Arena, newArena } from "../../native.ts";
import { ELOOP, ENAMETOOLONG, ENOTDIR } from "./errno.ts";
import { printablePath } from "../safe-path.ts";
import { syscallError } from "./syscall-error.ts";
import { AT_FDCWD, newStatBuffer, OPEN, STAT, type StatBuffer, type Syscalls, TYPE } from "./syscall-abi.ts";

/** Tells whether what was opened by a path is what lies there, or what somebody had a link lead to meanwhile. */

const SLASH = 0x2f;
const ROOT = Buffer.from("/");
const PATH_ROOM = 4096;
const MOST_LINKS = 40;
/** Flags that open a directory which may be searched and not read. */
/** One more name on the way: may be searched only, and is no link. */
const STEP = fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW | OPEN.PATH;
const THROUGH_DESCRIPTOR = /^\/proc\/self\/fd\/\d+(?:\/[^/]*)?$/;

/**
 * Throws `conflict` where an open directory was reached by its path through a symbolic link that another user may have
 * put there: whoever owns a folder above another can exchange it for a link at any moment. Links of root and of this
 * user in their own folders are followed.
 */
export function requireOwnWay(sys: Syscalls, fd: number, path: string | Buffer): void {
  const bytes = Buffer.from(path as string);
  // One call, in all but a few cases: the kernel's name of it has no link in it.
  if (isNameOf(fd, bytes) || THROUGH_DESCRIPTOR.test(bytes.toString("latin1"))) return;
  const again = new OwnWay(sys).open(bytes);
  if (again < 0) throw syscallError(again, `open ${printablePath(bytes)} name by name`);
  const [one, other] = [fs.fstatSync(fd, { bigint: true }), fs.fstatSync(again, { bigint: true })];
  sys.close(again);
  if (one.dev !== other.dev || one.ino !== other.ino) throw movedAway(bytes);
}

function isNameOf(fd: number, path: Buffer): boolean {
  try {
    return fs.readlinkSync(`/proc/self/fd/${fd}`, { encoding: "buffer" }).equals(path);
  } catch {
    // There is no /proc, or the name is longer than it tells.
    return false;
  }
}

/** Opens a path name by name, each below the one that is held. */
class OwnWay {
  readonly #sys: Syscalls;
  readonly #name: Arena = newArena(PATH_ROOM);
  readonly #target: Arena = newArena(PATH_ROOM);
  readonly #stat: StatBuffer = newStatBuffer();
  readonly #trusted = [0, process.geteuid?.()];

  constructor(sys: Syscalls) {
    this.#sys = sys;
  }

  /** A descriptor, or minus errno. */
  open(path: Buffer): number {
    let fd = this.#step(AT_FDCWD, path[0] === SLASH ? ROOT : Buffer.from("."));
    let rest = namesOf(path);
    for (let links = 0; fd >= 0 && rest.length > 0;) {
      const [name, ...others] = rest;
      let next = this.#step(fd, name!);
      rest = others;
      if (next === ENOTDIR || next === ELOOP) {
        const target = this.#targetOf(fd, { name: name!, path });
        if (target !== null && links++ >= MOST_LINKS) next = ELOOP;
        else if (target !== null) {
          next = this.#step(target[0] === SLASH ? AT_FDCWD : fd, target[0] === SLASH ? ROOT : Buffer.from("."));
          rest = [...namesOf(target), ...others];
        }
      }
      this.#sys.close(fd);
      fd = next;
    }
    return fd;
  }

  #step(fd: number, name: Buffer): number {
    return this.#put(name) ? this.#sys.open(fd, this.#name, 0, STEP, 0) : ENAMETOOLONG;
  }

  /** Null for what is no link. */
  #targetOf(fd: number, { name, path }: { name: Buffer; path: Buffer }): Buffer | null {
    const { words } = this.#stat;
    this.#put(name);
    if (this.#sys.stat(fd, this.#name, 0, this.#stat) < 0 || words[STAT.MODE]! >>> 12 !== TYPE.LINK) return null;
    const owners = [words[STAT.UID]!, fs.fstatSync(fd).uid];
    const length = this.#sys.readlink(fd, this.#name, 0, this.#target);
    if (length <= 0 || length >= PATH_ROOM) return null;
    const other = owners.find((owner) => !this.#trusted.includes(owner));
    if (other !== undefined) {
      this.#sys.close(fd);
      throw ledAway(path, name, other);
    }
    return Buffer.from(this.#target.bytes.slice(0, length));
  }

  #put(name: Buffer): boolean {
    if (name.length >= PATH_ROOM) return false;
    this.#name.bytes.set(name);
    this.#name.bytes[name.length] = 0;
    return true;
  }
}

function namesOf(path: Buffer): Buffer[] {
  const names: Buffer[] = [];
  for (let at = 0; at < path.length;) {
    const slash = path.indexOf(SLASH, at);
    const end = slash < 0 ? path.length : slash;
    if (end > at) names.push(path.subarray(at, end));
    at = end + 1;
  }
  return names;
}

const HINT = "see who may write to the folders above it and works there; then try again";

function ledAway(path: Buffer, link: Buffer, owner: number): CairnError {
  const shown = `the symbolic link ${printablePath(link)}, which is in the hands of the user ${owner}`;
  return new CairnError("conflict", `${printablePath(path)} is reached through ${shown}: it may lead anywhere`, {
    hint: HINT,
  });
}

function movedAway(path: Buffer): CairnError {
  return new CairnError("conflict", `${printablePath(path)} changed its place meanwhile`, { hint: HINT });
}
