import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { ENOENT, ENOTDIR } from "../../fs/linux/errno.ts";
import { keepsInodes } from "../../fs/linux/mounts.ts";
import { undoOwnerWrites } from "../../fs/owner-writes.ts";
import { quotedPath } from "../../fs/paths/safe-path.ts";
import {
  ATTRIBUTE_MOUNT_ROOT,
  newStatBuffer,
  openDirectory,
  putName,
  signedWide,
  STAT,
  type StatBuffer,
  syscallError,
  syscalls,
  wide,
} from "../../fs/linux/syscalls.ts";
import { type Arena, hasProc, newArena } from "../../native.ts";

const DIRECTORY = fs.constants.O_RDONLY | fs.constants.O_DIRECTORY | fs.constants.O_NOFOLLOW;

/**
 * Opens directories below a held root one name at a time, without following links, and keeps the last one open. All
 * changes of a restore go through this class.
 */
export class HeldDirectories {
  readonly sys = syscalls();
  readonly root: number;
  readonly #name: Arena = newArena(1024);
  readonly #stat: StatBuffer = newStatBuffer();
  #last: { path: string; fd: number } | null = null;

  constructor(root: Uint8Array) {
    this.root = openDirectory(Buffer.from(root));
  }

  /** Returns the parent directory's descriptor and the entry's name. Throws if a part of the path is no directory. */
  parentOf(path: Uint8Array): { fd: number; name: Buffer } {
    const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
    const slash = bytes.lastIndexOf(47);
    return {
      fd: this.open(slash < 0 ? bytes.subarray(0, 0) : bytes.subarray(0, slash)),
      name: bytes.subarray(slash + 1),
    };
  }

  /** Returns a directory's descriptor, valid until the next call. The empty path means the root. */
  open(path: Uint8Array): number {
    const key = Buffer.from(path).toString("latin1");
    if (key === "") return this.root;
    if (this.#last?.path === key) return this.#last.fd;
    let fd = this.root;
    for (const part of key.split("/")) {
      if (part === "" || part === "." || part === "..")
        throw new CairnError("internal", "a path of the plan is outside the workspace");
      putName(this.#name, 0, Buffer.from(part, "latin1"));
      const next = this.sys.open(fd, this.#name, 0, DIRECTORY, 0);
      if (fd !== this.root) this.sys.close(fd);
      if (next < 0) throw syscallError(next, `cannot open the directory ${quotedPath(path)}`);
      fd = next;
    }
    if (this.#last !== null) this.sys.close(this.#last.fd);
    this.#last = { path: key, fd };
    return fd;
  }

  /** Returns the present identity of an entry; null if it does not exist. */
  identity(dirfd: number, name: Uint8Array): Identity | null {
    putName(this.#name, 0, name);
    const { words } = this.#stat;
    const result = this.sys.stat(dirfd, this.#name, 0, this.#stat);
    if (result < 0) {
      if (result === ENOENT || result === ENOTDIR) return null;
      throw syscallError(result, `cannot look at ${quotedPath(name)}`);
    }
    return {
      inode: (BigInt(words[STAT.INO + 1]!) * 4294967296n + BigInt(words[STAT.INO]!)).toString(),
      mode: words[STAT.MODE]! & 0xffff,
      size: wide(words, STAT.SIZE),
      mtimeSec: signedWide(words, STAT.MTIME),
      mtimeNs: words[STAT.MTIME_NS]!,
      ctimeSec: signedWide(words, STAT.CTIME),
      ctimeNs: words[STAT.CTIME_NS]!,
      links: words[STAT.NLINK]!,
    };
  }

  /** The words of the stat result of the last `identity` call. The next call overwrites them. */
  get looked(): Uint32Array {
    return this.#stat.words;
  }

  /** True if another file or folder is mounted over the entry. */
  isMounted(dirfd: number, name: Uint8Array): boolean {
    putName(this.#name, 0, name);
    return (
      this.sys.stat(dirfd, this.#name, 0, this.#stat) === 0 &&
      (this.#stat.words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) !== 0
    );
  }

  /** Closes the kept directory. Needed after that directory may have been removed or replaced. */
  forget(): void {
    if (this.#last !== null) this.sys.close(this.#last.fd);
    this.#last = null;
  }

  /** Sets the mode of a directory that was opened for writing. Does nothing if another process replaced it. */
  closeAgain(path: Uint8Array, mode: number): void {
    try {
      undoOwnerWrites(this.open(path), mode);
    } catch {
      // Another user owns the directory, or the entry is no directory any more.
    } finally {
      this.forget();
    }
  }

  close(): void {
    this.forget();
    fs.closeSync(this.root);
  }
}

/**
 * Returns a path to an open directory that passes no link, if /proc is mounted; else `otherwise`. The path ends in a
 * dot, so a call that refuses links can open it.
 */
export function throughDescriptor(fd: number, otherwise: Buffer): Buffer {
  return hasProc() ? Buffer.from(`/proc/self/fd/${fd}/.`) : otherwise;
}

/**
 * True if an entry is unchanged since it was saved. The change time is ignored for a file with several names, because
 * any of them moves it.
 */
export function sameIdentity(now: Identity, saved: Identity): boolean {
  const isKept = isDirectory(now) || saved.links > 1;
  return (
    now.inode === saved.inode &&
    looksSame(now, saved) &&
    (isKept || (now.ctimeSec === saved.ctimeSec && now.ctimeNs === saved.ctimeNs))
  );
}

/** Compares an entry with its saved facts if its inode number may have changed, as on FUSE or vfat. */
export function looksSame(now: Identity, saved: Identity): boolean {
  return (
    now.mode === saved.mode &&
    (isDirectory(now) || (now.size === saved.size && now.mtimeSec === saved.mtimeSec && now.mtimeNs === saved.mtimeNs))
  );
}

/** Returns how entries of a folder are compared with their saved facts. */
export function comparisonOn(folder: Buffer): (now: Identity, saved: Identity) => boolean {
  return keepsInodes(folder) ? sameIdentity : looksSame;
}

/** Tells if an entry is a directory, by its mode. */
export function isDirectory({ mode }: Pick<Identity, "mode">): boolean {
  return (mode & 0xf000) === 0x4000;
}
