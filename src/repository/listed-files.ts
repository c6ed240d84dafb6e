import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, toCairnError } from "../errors.ts";
import { type FileKind, labelOf, type Storage } from "./storage/storage.ts";

/** What is listed and not there is asked for again at once, and after these pauses: a list may be late. */
export const LISTED_AGAIN_MS = [0, 50, 200, 800];

/**
 * Loads files of a kind that a list has named. One that is not there any more is `not_found`, as somebody has removed it;
 * one that a new list names all the same is `damaged`: the storage has it, or will have it again, and does not give it.
 */
export class ListedFiles {
  readonly #storage: Storage;
  readonly #kind: FileKind;
  /** The last list that was asked for here. */
  #names: ReadonlySet<string> | null = null;

  constructor(storage: Storage, kind: FileKind) {
    this.#storage = storage;
    this.#kind = kind;
  }

  async load(name: string): Promise<Uint8Array> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#storage.load(this.#kind, name);
      } catch (error) {
        const known = toCairnError(error);
        if (known.code !== "not_found" || !(await this.#isListed(name))) throw known;
        const pause = LISTED_AGAIN_MS[attempt];
        if (pause === undefined) throw this.#notGiven(name, known);
        if (pause > 0) await sleep(pause);
      }
    }
  }

  /** What is no longer named by a list comes no more; what still is may have gone since. */
  async #isListed(name: string): Promise<boolean> {
    if (this.#names !== null && !this.#names.has(name)) return false;
    this.#names = new Set((await this.#storage.list(this.#kind)).map((file) => file.name));
    return this.#names.has(name);
  }

  #notGiven(name: string, cause: CairnError): CairnError {
    return new CairnError(
      "damaged",
      `${labelOf(this.#kind, name)} is listed, and not there when it is read: ${cause.message}`,
      { cause },
    );
  }
}
