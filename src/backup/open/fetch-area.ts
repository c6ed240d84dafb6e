import { randomBytes } from "node:crypto";
import { renameSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { takenBytes } from "../../clones/walk-entries.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { namesIn } from "../../fs/paths/names-in.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { deadWorkDirectories, newWorkDirectory, writtenWithin } from "../../fs/work-directory.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import { LeftPacks } from "../../repository/transfer/left-packs.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import { existingAncestor, requireRoom } from "../../workspace/place/room.ts";
import type { OpenRepository } from "./open-repository.ts";

/** Below the folder of a repository's caches. */
const FOLDER = "fetched";
/** Names of folders of restores that were stopped. A killed restore leaves its folder under its old name. */
const LEFT = /^left-[0-9a-f]{16}$/;
/** Milliseconds for which leftover packs are used; then any restore from a far repository removes them. */
const KEPT_MS = 24 * 3600 * 1000;

/**
 * A folder for the packs that a restore fetches. The packs stay if the restore is killed, stopped or cut off; the next
 * restore from the same repository starts with those that it needs and proves, and removes the rest when it is done.
 */
export class FetchArea {
  readonly #parent: string;
  readonly #directory: string;
  /** Folders of restores that have ended. */
  readonly #left: readonly string[];

  private constructor(parent: string, left: readonly string[]) {
    this.#parent = parent;
    this.#left = left;
    this.#directory = newWorkDirectory(parent);
  }

  /**
   * Runs a restore with such an area; without one if packs are local or no folder can be made. `usesLeft`: use
   * leftovers of earlier restores.
   */
  static async during<T>(
    access: OpenRepository,
    usesLeft: boolean,
    work: (area: FetchArea | null) => Promise<T>,
  ): Promise<T> {
    const area = access.storage.localPath === undefined ? FetchArea.#begin(access.cache, usesLeft) : null;
    try {
      const result = await work(area);
      if (area !== null) area.#end();
      return result;
    } catch (error) {
      if (area !== null) area.#giveUp(error);
      throw error;
    }
  }

  static #begin(cache: string, usesLeft: boolean): FetchArea | null {
    removeOld(dirname(cache));
    const parent = join(cache, FOLDER);
    const area = new FetchArea(parent, usesLeft ? leftIn(parent) : []);
    try {
      makeFolder(area.#directory);
      return area;
    } catch {
      return null;
    }
  }

  near(access: OpenRepository, index: BlobIndex): NearPacks {
    const { keys } = access.repository;
    const take = (pack: string, to: string): boolean => this.#take(pack, to);
    const left = new LeftPacks({ keys, index, names: new Set(this.#left.flatMap(packsIn)), take });
    return new NearPacks(access.storage, this.#directory, left);
  }

  /** Throws `no_space` if there is no room here for `bytes`, and for those of a target on the same file system. */
  async requireRoom(bytes: number, target: { folder: Buffer; bytes: number }): Promise<void> {
    let needed = bytes;
    for (const folder of [this.#directory, ...this.#left]) needed -= await takenBytes(Buffer.from(folder));
    needed = Math.max(needed, 0);
    if (statSync(existingAncestor(target.folder)).dev === statSync(this.#directory).dev) needed += target.bytes;
    requireRoom(this.#parent, needed, {
      hint: "set XDG_CACHE_HOME to another place for fetched packs, or restore only some of the paths",
    });
  }

  #take(pack: string, to: string): boolean {
    for (const folder of this.#left) {
      try {
        renameSync(join(folder, "data", pack.slice(0, 2), pack), to);
        failpoint("fetch-area.taken");
        return true;
      } catch {
        continue;
      }
    }
    return false;
  }

  #end(): void {
    for (const folder of [this.#directory, ...this.#left]) removeAll(folder);
  }

  /** Keeps the packs after an error that a retry may avoid; frees the space of a full disk. */
  #giveUp(error: unknown): void {
    const goesOn = error instanceof CairnError && (error.retryable || error.code === "interrupted");
    if (!goesOn) return removeAll(this.#directory);
    try {
      renameSync(this.#directory, join(this.#parent, `left-${randomBytes(8).toString("hex")}`));
    } catch {
      removeAll(this.#directory);
    }
  }
}

function leftIn(parent: string): string[] {
  const left = namesIn(parent).filter((name) => LEFT.test(name));
  return [...deadWorkDirectories(parent), ...left.map((name) => join(parent, name))];
}

function packsIn(folder: string): string[] {
  const data = join(folder, "data");
  return namesIn(data).flatMap((part) => namesIn(join(data, part)));
}

/**
 * Removes old folders of all repositories below the caches: a restore that is never repeated leaves nothing for good.
 */
function removeOld(repositories: string): void {
  for (const repository of namesIn(repositories))
    for (const folder of leftIn(join(repositories, repository, FOLDER)))
      if (!writtenWithin(Buffer.from(folder), KEPT_MS)) removeAll(folder);
}
