import type { Arena } from "../native.ts";
import { newArena } from "../native.ts";
import { rawBytes } from "./paths/safe-path.ts";
import { sameContentStat, type StatBuffer, type Syscalls } from "./linux/syscall-abi.ts";

/** A directory that changes during each listing is listed at least this often and this long. */
const LEAST_LISTINGS = 3;
const LISTING_MS = 50;

const NAME_OFFSET = 19;

/** d_type values of a directory listing; 0 if the file system does not report types. */
export const DT = { UNKNOWN: 0, DIRECTORY: 4 } as const;

/** A NUL-terminated name of an arena. */
export function nameAt(arena: Arena, at: number): Uint8Array {
  return arena.bytes.slice(at, arena.bytes.indexOf(0, at));
}

/**
 * Lists one directory at a time. Names stay NUL-terminated in one reused arena, in raw byte order. The views are valid
 * until the next `read`.
 */
export class DirectoryListing {
  names: Arena = newArena(256 * 1024);
  /** number of entries, without `.` and `..` */
  count = 0;
  /** offset of the i-th name in `names` */
  offsets: number[] = [];
  #words = new Uint16Array(this.names.bytes.buffer);

  /** Reads all entries of an open directory. Returns 0 or minus errno. */
  read(sys: Syscalls, fd: number): number {
    let filled = 0;
    for (;;) {
      if (this.names.bytes.length - filled < 64 * 1024) this.#grow();
      const n = sys.getdents(fd, this.names, filled);
      if (n < 0) return n;
      if (n === 0) break;
      filled += n;
    }
    this.#index(filled);
    return 0;
  }

  /**
   * Opens and lists a directory until it does not change meanwhile. Returns its descriptor or minus errno. On btrfs a
   * listing may miss a renamed entry, even a second listing by the same descriptor. `before` and `after` are the stats
   * around the listing; they differ if the directory keeps changing.
   */
  openSteady(sys: Syscalls, open: () => number, { before, after }: { before: StatBuffer; after: StatBuffer }): number {
    const until = Date.now() + LISTING_MS;
    for (let again = 1; ; again++) {
      const fd = open();
      if (fd < 0) return fd;
      const looked = sys.fstat(fd, before);
      const listed = looked < 0 ? looked : this.read(sys, fd);
      const known = listed < 0 ? listed : sys.fstat(fd, after);
      const isLast = again >= LEAST_LISTINGS && Date.now() > until;
      if (known >= 0 && (isLast || sameContentStat(before.words, after.words))) return fd;
      sys.close(fd);
      if (known < 0) return known;
    }
  }

  /** True if the directory has an entry of this name, which ends with NUL. */
  has(name: Uint8Array): boolean {
    const bytes = this.names.bytes;
    let low = 0;
    let high = this.count - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      const at = this.offsets[middle]!;
      const order = Buffer.compare(name, bytes.subarray(at, at + name.length));
      if (order === 0) return true;
      if (order < 0) high = middle - 1;
      else low = middle + 1;
    }
    return false;
  }

  isDirectory(offset: number): boolean {
    return this.names.bytes[offset - 1] === DT.DIRECTORY;
  }

  inodeOf(offset: number): bigint {
    return rawBytes(this.names.bytes).readBigUInt64LE(offset - NAME_OFFSET);
  }

  /** A name in latin1, the form in which names are compared and stored. */
  nameOf(offset: number): string {
    return rawBytes(nameAt(this.names, offset)).toString("latin1");
  }

  #grow(): void {
    const larger = newArena(this.names.bytes.length * 4);
    larger.bytes.set(this.names.bytes);
    this.names = larger;
    this.#words = new Uint16Array(larger.bytes.buffer);
  }

  #index(filled: number): void {
    const bytes = this.names.bytes;
    const offsets: number[] = [];
    // struct linux_dirent64: d_ino 8, d_off 8, d_reclen 2, d_type 1, d_name
    for (let at = 0; at < filled; at += this.#words[(at + 16) >> 1]!) {
      const name = at + NAME_OFFSET;
      if (bytes[name] === 46 && (bytes[name + 1] === 0 || (bytes[name + 1] === 46 && bytes[name + 2] === 0))) continue;
      offsets.push(name);
    }
    offsets.sort((a, b) => {
      for (;;) {
        const difference = bytes[a]! - bytes[b]!;
        if (difference !== 0) return difference;
        a++;
        b++;
      }
    });
    this.offsets = offsets;
    this.count = offsets.length;
  }
}
