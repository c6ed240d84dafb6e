import fs from "node:fs";
import path from "node:path";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import { toCairnError } from "../errors.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";

/** So many trees may wait to be removed; each of them takes room. */
const MOST = 4;

/**
 * Removes trees that nothing needs any more while their owner goes on: the system forgets each entry of one that it has
 * in memory before it is gone, 0.4 s for 100 000 files. A tree lies in a folder named after this process meanwhile, which
 * whoever comes after a kill removes.
 */
export class Removals {
  readonly #remove: (place: string) => Promise<void>;
  readonly #pending = new Set<Promise<void>>();

  constructor(remove: (place: string) => Promise<void> = removeHeldTree) {
    this.#remove = remove;
  }

  /**
   * Takes over what lies at `place`; waits while too many are under way. `onWarning`: why it could not be removed, which may
   * be said after the call. What cannot be moved aside, on a full disk, is removed at once; throws why it cannot be.
   */
  async add(place: string, onWarning: ((message: string) => void) | undefined): Promise<void> {
    while (this.#pending.size >= MOST) await Promise.race(this.#pending);
    const aside = newWorkDirectory(path.dirname(place));
    const doomed = path.join(aside, path.basename(place));
    try {
      fs.mkdirSync(aside, { mode: 0o700 });
      fs.renameSync(place, doomed);
    } catch {
      return this.#remove(place);
    }
    const removal = this.#removed(aside, doomed)
      .catch((error: unknown) => onWarning?.(`${doomed} could not be removed: ${toCairnError(error).message}`))
      .finally(() => this.#pending.delete(removal));
    this.#pending.add(removal);
  }

  async #removed(aside: string, doomed: string): Promise<void> {
    await this.#remove(doomed);
    // It waits for the removal's own end in the file system.
    await fs.promises.rmdir(aside);
  }

  /** Resolves when none is under way. */
  async settled(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }
}
