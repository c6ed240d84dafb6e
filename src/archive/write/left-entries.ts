import fs from "node:fs";
import { hashAt } from "../../crypto/primitives.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { newStatBuffer, putName, signedWide, STAT, type Syscalls, wide } from "../../fs/linux/syscalls.ts";
import { type Arena, newArena } from "../../native.ts";
import { type BlobIndex, DATA_BLOB } from "../../repository/index/blob-index.ts";

const READ = fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK;
const REGULAR = 0x8000;
const OWNER_ALL = 0o700;

/**
 * Sorts the entries that a killed restore left in a folder: keeps a file if its content and metadata are right, as far
 * as a read now can tell; removes every other entry, to be made anew.
 */
export class LeftEntries {
  readonly #sys: Syscalls;
  readonly #index: BlobIndex;
  readonly #name: Arena = newArena(1024);
  readonly #stat = newStatBuffer();
  readonly #hash: Arena = newArena(32);
  #content: Arena = newArena(1024 * 1024);

  constructor(sys: Syscalls, index: BlobIndex) {
    this.#sys = sys;
    this.#index = index;
  }

  /** True if the file exists exactly as wanted; otherwise removes the entry. */
  keeps(dirfd: number, node: TreeNode): boolean {
    if (!this.#isThere(dirfd, node.name)) return false;
    if (this.#isFinished(node) && this.#hasContent(dirfd, node)) return true;
    this.#remove(dirfd);
    return false;
  }

  /** True if a regular file with one name exists, made writable for its owner; otherwise removes the entry. */
  opens(dirfd: number, name: Uint8Array): boolean {
    if (!this.#isThere(dirfd, name)) return false;
    const { words } = this.#stat;
    if ((words[STAT.MODE]! & 0xf000) === REGULAR && words[STAT.NLINK] === 1)
      return this.#sys.chmod(dirfd, this.#name, 0, 0o600) >= 0;
    this.#remove(dirfd);
    return false;
  }

  /** True if a directory exists, made accessible to its owner; otherwise removes the entry. */
  enters(dirfd: number, name: Uint8Array): boolean {
    if (!this.#isThere(dirfd, name)) return false;
    if ((this.#stat.words[STAT.MODE]! & 0xf000) === 0x4000)
      return this.#sys.chmod(dirfd, this.#name, 0, OWNER_ALL) >= 0;
    this.#remove(dirfd);
    return false;
  }

  /** Removes an entry that is not a directory. */
  clear(dirfd: number, name: Uint8Array): void {
    if (this.#isThere(dirfd, name)) this.#remove(dirfd);
  }

  /** Length of a blob's content if an open file has exactly this content at a position; otherwise 0. */
  heldBytes(fd: number, position: number, blob: { ids: Uint8Array; at: number }): number {
    const length = this.#lengthOf(blob.ids, blob.at);
    if (this.#read(fd, position, length) < length) return 0;
    hashAt(this.#content, 0, length, this.#hash, 0);
    return Buffer.compare(this.#hash.bytes, blob.ids.subarray(blob.at, blob.at + 32)) === 0 ? length : 0;
  }

  /** Plain bytes of a blob; 0 if the index lacks it. */
  #lengthOf(ids: Uint8Array, at: number): number {
    const entry = this.#index.lookup(ids, at, DATA_BLOB);
    return entry < 0 ? 0 : this.#index.table.plainLengthOf(entry);
  }

  #isThere(dirfd: number, name: Uint8Array): boolean {
    if (name.length >= this.#name.bytes.length) return false;
    putName(this.#name, 0, name);
    return this.#sys.stat(dirfd, this.#name, 0, this.#stat) >= 0;
  }

  #remove(dirfd: number): void {
    this.#sys.unlink(dirfd, this.#name, 0, false);
  }

  /**
   * True if the file has all of its metadata; times are set last. Refused metadata must be set again to be listed
   * again.
   */
  #isFinished(node: TreeNode): boolean {
    const { words } = this.#stat;
    return (
      (words[STAT.MODE]! & 0xffff) === (REGULAR | node.mode) &&
      words[STAT.NLINK] === 1 &&
      wide(words, STAT.SIZE) === node.size &&
      words[STAT.UID] === node.uid &&
      words[STAT.GID] === node.gid &&
      signedWide(words, STAT.MTIME) === node.mtimeSec &&
      words[STAT.MTIME_NS] === node.mtimeNs &&
      node.xattrs.length === 0
    );
  }

  #hasContent(dirfd: number, { content = new Uint8Array(0), size }: TreeNode): boolean {
    const fd = this.#sys.open(dirfd, this.#name, 0, READ, 0);
    if (fd < 0) return false;
    try {
      let position = 0;
      for (let at = 0; at < content.length; at += 32) {
        const length = this.heldBytes(fd, position, { ids: content, at });
        if (length === 0) return false;
        position += length;
      }
      return position === size;
    } finally {
      this.#sys.close(fd);
    }
  }

  #read(fd: number, position: number, length: number): number {
    if (length > this.#content.bytes.length) this.#content = newArena(length);
    let done = 0;
    while (done < length) {
      const n = this.#sys.read(fd, this.#content, done, length - done, position + done);
      if (n <= 0) break;
      done += n;
    }
    return done;
  }
}
