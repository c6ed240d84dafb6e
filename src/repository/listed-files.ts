import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, toCairnError } from "../errors.ts";
import { type FileKind, labelOf, type Storage } from "./storage/storage.ts";

/** Pauses in milliseconds before a listed file that was not found is read again: the list may be out of date. */
export const LISTED_AGAIN_MS = [0, 50, 200, 800];

/**
 * Loads files that a list names. Throws `not_found` if a file was removed, and `damaged` if a fresh list still names a
 * missing file: the storage does not return a file that it says it has.
 */
export class ListedFiles {
  readonly #storage: Storage;
  readonly #kind: FileKind;
  /** The newest list, and the time at which it was asked for. */
  #list: { at: number; names: Promise<ReadonlySet<string>> } | null = null;
  /** End of the waiting for all files together, counted from the first file that was not found. */
  #until: number | null = null;

  constructor(storage: Storage, kind: FileKind) {
    this.#storage = storage;
    this.#kind = kind;
  }

  async load(name: string): Promise<Uint8Array> {
    for (let attempt = 0; ; attempt++) {
      const began = performance.now();
      try {
        return await this.#storage.load(this.#kind, name);
      } catch (error) {
        const known = toCairnError(error);
        if (known.code !== "not_found" || !(await this.#isListed(name, began))) throw known;
        const now = performance.now();
        this.#until ??= now + LISTED_AGAIN_MS.reduce((sum, pause) => sum + pause);
        const pause = LISTED_AGAIN_MS[attempt];
        if (pause === undefined || now > this.#until) throw this.#notGiven(name, known);
        if (pause > 0) await sleep(pause);
      }
    }
  }

  /** Tells whether a fresh list names the file. If not, waiting is useless. */
  async #isListed(name: string, lookedFor: number): Promise<boolean> {
    if (this.#list !== null && !(await this.#list.names).has(name)) return false;
    if (this.#list === null || lookedFor >= this.#list.at) {
      const names = this.#storage.list(this.#kind).then((files) => new Set(files.map((file) => file.name)));
      this.#list = { at: performance.now(), names };
    }
    return (await this.#list.names).has(name);
  }

  #notGiven(name: string, cause: CairnError): CairnError {
    return new CairnError(
      "damaged",
      `${labelOf(this.#kind, name)} is listed, but was not found when it was read: ${cause.message}`,
      { cause, details: { not_given: true } },
    );
  }
}
