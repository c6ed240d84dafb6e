import fs from "node:fs";
import { CairnError } from "../../errors.ts";
import type { Identity } from "../../archive/scan/find-record.ts";
import { ENOENT, ENOTDIR } from "../../fs/linux/errno.ts";
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
 * Opens directories below a held root one name at a time, following no link, and keeps the last one open.
 * Everything that a restore changes goes through here.
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

  /** The descriptor of the directory that holds the entry, and the entry's name. Throws when a part is missing or no directory. */
  parentOf(path: Uint8Array): { fd: number; name: Buffer } {
    const bytes = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
    const slash = bytes.lastIndexOf(47);
    return {
      fd: this.open(slash < 0 ? bytes.subarray(0, 0) : bytes.subarray(0, slash)),
      name: bytes.subarray(slash + 1),
    };
  }

  /** A directory's descriptor, valid until the next call; the root's own for the empty path. */
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

  /** Looks at an entry as it is now; null where there is none. */
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

  /** The words of the stat result that the last call of `identity` found; the next one overwrites them. */
  get looked(): Uint32Array {
    return this.#stat.words;
  }

  /** True when another file or folder is mounted over the entry. */
  isMounted(dirfd: number, name: Uint8Array): boolean {
    putName(this.#name, 0, name);
    return (
      this.sys.stat(dirfd, this.#name, 0, this.#stat) === 0 &&
      (this.#stat.words[STAT.ATTRIBUTES]! & ATTRIBUTE_MOUNT_ROOT) !== 0
    );
  }

  /** Forgets the kept directory, after it may have been removed or replaced. */
  forget(): void {
    if (this.#last !== null) this.sys.close(this.#last.fd);
    this.#last = null;
  }

  close(): void {
    this.forget();
    fs.closeSync(this.root);
  }
}

/**
 * Leads to an open directory through no link that somebody may have put there, where there is /proc. Ends in a dot, so that
 * it can be opened where links are refused.
 */
export function throughDescriptor(fd: number, otherwise: Buffer): Buffer {
  return hasProc() ? Buffer.from(`/proc/self/fd/${fd}/.`) : otherwise;
}

/** True when an entry is still the one that was saved, unchanged. The change time of a file with several names moves with any of them. */
export function sameIdentity(now: Identity, saved: Identity): boolean {
  const directory = (now.mode & 0xf000) === 0x4000;
  return (
    sameContent(now, saved) &&
    now.mode === saved.mode &&
    (directory || saved.links > 1 || (now.ctimeSec === saved.ctimeSec && now.ctimeNs === saved.ctimeNs))
  );
}

/** Tells if it is the file that was saved, with the same size and time; being renamed changes neither. */
function sameContent(now: Identity, saved: Identity): boolean {
  const directory = (now.mode & 0xf000) === 0x4000;
  if (now.inode !== saved.inode) return false;
  return directory || (now.size === saved.size && now.mtimeSec === saved.mtimeSec && now.mtimeNs === saved.mtimeNs);
}
