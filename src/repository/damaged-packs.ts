import { rmSync } from "node:fs";
import { dirname } from "node:path";
import { orderedWrite } from "../fs/durable.ts";
import { makeFolder } from "../fs/make-folder.ts";
import { readRegular } from "../fs/regular-file.ts";

const MAX_BYTES = 16 * 1024 * 1024;
const NAME = /^[0-9a-f]{64}$/;

/**
 * The packs of a repository in which a read found damage, in a file of a cache. Writers store content of these packs
 * again. Never fails: without the file only this process remembers, and an unreadable file counts as empty.
 */
export class DamagedPacks {
  readonly #path: string | null;
  /** Names that no file has. */
  #names: ReadonlySet<string> = new Set();

  constructor(path: string | null) {
    this.#path = path;
  }

  /** Returns the remembered names, also of packs that have left the index since. */
  names(): ReadonlySet<string> {
    try {
      if (this.#path !== null)
        return new Set(
          readRegular(this.#path, { limit: MAX_BYTES })
            .toString("latin1")
            .split("\n")
            .filter((name) => NAME.test(name)),
        );
    } catch {
      // Absent, too large or no regular file.
    }
    return this.#names;
  }

  /** Returns the remembered packs that an index lists: a writer must not rely on their content. */
  listedIn(index: { listings: (packId: Uint8Array) => number }): Set<string> {
    return new Set([...this.names()].filter((name) => index.listings(Buffer.from(name, "hex")) > 0));
  }

  /** Remembers damaged packs. `sound`: packs that were read whole without finding damage, or are used no more. */
  learn(damaged: Iterable<string>, sound: Iterable<string> = []): void {
    const before = this.names();
    const names = new Set(before);
    for (const name of sound) names.delete(name);
    for (const name of damaged) names.add(name);
    if (names.size === before.size && before.isSubsetOf(names)) return;
    this.#names = names;
    if (this.#path === null) return;
    try {
      makeFolder(dirname(this.#path));
      if (names.size === 0) rmSync(this.#path, { force: true });
      else orderedWrite(this.#path, Buffer.from(`${[...names].toSorted().join("\n")}\n`));
      this.#names = new Set();
    } catch {
      // Another read finds the damage again.
    }
  }
}
