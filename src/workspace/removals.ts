import fs from "node:fs";
import path from "node:path";
import { removeHeldTree } from "../engines/tree/remove-held.ts";
import { type CairnError, toCairnError } from "../errors.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { quotedPath } from "../fs/safe-path.ts";
import { newWorkDirectory } from "../fs/work-directory.ts";

/** So many trees may wait to be removed; each of them takes room. */
const MOST = 4;

/** Gives what lies at a place another, in a folder named after this process, and returns that; whoever comes after its end removes it. */
export function moveAside(place: string, parent = path.dirname(place)): string {
  const aside = newWorkDirectory(parent);
  makeFolder(aside);
  const doomed = path.join(aside, path.basename(place));
  try {
    fs.renameSync(place, doomed);
  } catch (error) {
    fs.rmdirSync(aside);
    throw error;
  }
  return doomed;
}

function asideOrThere(place: string): string {
  try {
    return moveAside(place);
  } catch {
    return place;
  }
}

/** That something stays which nothing needs, and what removes it. */
export function whyLeft(place: string, { message }: CairnError): string {
  return `${place} could not be removed: ${message}; nothing needs it any more, it only takes room; to remove it: sudo rm -rf ${quotedPath(place)}`;
}

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
   * be said after the call. What cannot be moved aside, on a full disk, is removed at once.
   */
  async add(place: string, onWarning: ((message: string) => void) | undefined): Promise<void> {
    while (this.#pending.size >= MOST) await Promise.race(this.#pending);
    let doomed: string;
    try {
      doomed = moveAside(place);
    } catch {
      return this.now(place, onWarning);
    }
    const removal = this.#removed(doomed)
      .catch((error: unknown) => onWarning?.(whyLeft(doomed, toCairnError(error))))
      .finally(() => this.#pending.delete(removal));
    this.#pending.add(removal);
  }

  /**
   * Removes at once what lies at `place`, if anything does. What cannot be removed is moved aside and told of, so that it
   * hinders nobody; throws `no_space`, which caches may be given up for.
   */
  async now(place: string, onWarning: ((message: string) => void) | undefined): Promise<void> {
    try {
      await this.#remove(place);
    } catch (error) {
      const problem = toCairnError(error);
      if (problem.code === "no_space") throw problem;
      const left = asideOrThere(place);
      onWarning?.(whyLeft(left, problem));
    }
  }

  async #removed(doomed: string): Promise<void> {
    await this.#remove(doomed);
    // It waits for the removal's own end in the file system.
    await fs.promises.rmdir(path.dirname(doomed));
  }

  /** Resolves when none is under way. */
  async settled(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }
}
