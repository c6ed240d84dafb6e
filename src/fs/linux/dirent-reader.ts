import fs from "node:fs";
import { EINVAL } from "./errno.ts";

/** Bytes before the name in struct linux_dirent64: d_ino 8, d_off 8, d_reclen 2, d_type 1. */
const HEAD = 19;

interface Pending {
  identity: string;
  entries: fs.Dirent<Buffer>[];
  next: number;
}

/**
 * getdents64(2) over readdir: fills a buffer with the kernel's records, `.` and `..` left out.
 * After the end has been told, the next call begins again, since a descriptor's number may be another directory's by then.
 */
export class DirentReader {
  readonly #pathOf: (fd: number) => Buffer;
  readonly #pending = new Map<number, Pending>();

  /** `pathOf` gives a path by which an open directory can be listed. */
  constructor(pathOf: (fd: number) => Buffer) {
    this.#pathOf = pathOf;
  }

  forget(fd: number): void {
    this.#pending.delete(fd);
  }

  /** Bytes filled from `offset` on, 0 at the end, or minus EINVAL when not even one record fits. Throws what readdir throws. */
  read(fd: number, bytes: Uint8Array, offset: number): number {
    const pending = this.#of(fd);
    if (pending.next === pending.entries.length) {
      this.#pending.delete(fd);
      return 0;
    }
    let at = offset;
    while (pending.next < pending.entries.length) {
      const entry = pending.entries[pending.next]!;
      const length = (HEAD + entry.name.length + 1 + 7) & ~7;
      if (at + length > bytes.length) break;
      put(bytes, at, length, entry);
      at += length;
      pending.next++;
    }
    return at === offset ? EINVAL : at - offset;
  }

  #of(fd: number): Pending {
    const stat = fs.fstatSync(fd, { bigint: true });
    const identity = `${stat.dev}:${stat.ino}`;
    let pending = this.#pending.get(fd);
    if (pending?.identity !== identity) {
      pending = {
        identity,
        entries: fs.readdirSync(this.#pathOf(fd), { encoding: "buffer", withFileTypes: true }),
        next: 0,
      };
      this.#pending.set(fd, pending);
    }
    return pending;
  }
}

function put(bytes: Uint8Array, at: number, length: number, entry: fs.Dirent<Buffer>): void {
  bytes.fill(0, at, at + length);
  // Never zero: that would mean a removed entry.
  bytes[at] = 1;
  bytes[at + 16] = length & 0xff;
  bytes[at + 17] = length >>> 8;
  bytes[at + 18] = typeOf(entry);
  bytes.set(entry.name, at + HEAD);
}

/** d_type of an entry; 0 where the file system does not say. */
function typeOf(entry: fs.Dirent<Buffer>): number {
  if (entry.isFile()) return 8;
  if (entry.isDirectory()) return 4;
  if (entry.isSymbolicLink()) return 10;
  if (entry.isFIFO()) return 1;
  if (entry.isSocket()) return 12;
  if (entry.isCharacterDevice()) return 2;
  if (entry.isBlockDevice()) return 6;
  return 0;
}
