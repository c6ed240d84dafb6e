import fs from "node:fs";
import { Sha256Stream } from "../../crypto/hash.ts";
import { compareBytes } from "../../formats/bytes.ts";
import { openBelow } from "../../fs/open-below.ts";
import { syscalls } from "../../fs/syscalls.ts";
import { newArena } from "../../native.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import { type BlobIndex, DATA_BLOB } from "../../repository/blob-index.ts";

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = fs.constants;
const WINDOW = 1024 * 1024;

/**
 * Reads files of a folder by the pieces that another program has cut them into: of those a snapshot has only the hashes, and
 * the index their lengths. Close it.
 */
export class CutOtherwise {
  readonly #index: BlobIndex;
  readonly #pace: Pacer;
  readonly #root: number;
  readonly #path = newArena(4096);
  readonly #window = Buffer.allocUnsafe(WINDOW);

  constructor(index: BlobIndex, folder: Buffer, signal: AbortSignal | undefined) {
    this.#index = index;
    this.#pace = newPacer(signal);
    this.#root = fs.openSync(folder, O_RDONLY | O_DIRECTORY);
  }

  close(): void {
    fs.closeSync(this.#root);
  }

  /** Whether a file is one piece after the other (32 bytes of SHA-256 each); null where the index lacks one. No link is followed. */
  async holds(path: Uint8Array, pieces: Uint8Array): Promise<boolean | null> {
    const lengths: number[] = [];
    for (let at = 0; at < pieces.length; at += 32) {
      const entry = this.#index.lookup(pieces, at, DATA_BLOB);
      if (entry < 0) return null;
      lengths.push(this.#index.table.plainLengthOf(entry));
    }
    const fd = openBelow(syscalls(), this.#root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, this.#path);
    // It went, or became something else, since it was read.
    if (fd < 0) return false;
    try {
      for (const [i, length] of lengths.entries()) {
        const hash = await this.#hashNext(fd, length);
        if (hash === null || compareBytes(hash, pieces.subarray(i * 32, i * 32 + 32)) !== 0) return false;
      }
      return fs.readSync(fd, this.#window, 0, 1, null) === 0;
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Null where the file ends before. */
  async #hashNext(fd: number, length: number): Promise<Uint8Array | null> {
    const hash = new Sha256Stream();
    for (let left = length; left > 0;) {
      await this.#pace();
      const count = fs.readSync(fd, this.#window, 0, Math.min(WINDOW, left), null);
      if (count === 0) return null;
      hash.update(this.#window.subarray(0, count));
      left -= count;
    }
    return hash.digest();
  }
}
