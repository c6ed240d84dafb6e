import { rawBytes } from "./paths/safe-path.ts";

/**
 * Chosen entries of a tree, each with all entries below it. Raw paths below the root; the empty path is the whole tree.
 */
export class PathSelection {
  /** In latin1. */
  readonly #chosen = new Set<string>();
  readonly #leading = new Set<string>();

  constructor(paths: Iterable<string | Uint8Array>) {
    for (const path of paths) this.add(path);
  }

  add(path: string | Uint8Array): void {
    const text = rawBytes(path).toString("latin1");
    this.#chosen.add(text);
    for (let end = text.lastIndexOf("/"); end > 0; end = text.lastIndexOf("/", end - 1))
      this.#leading.add(text.slice(0, end));
    this.#leading.add("");
  }

  /** Returns `whole` if an entry is chosen, `part` if a chosen entry is below it, else `no`. */
  of(path: Uint8Array): "whole" | "part" | "no" {
    if (this.chosenAt(path) !== null) return "whole";
    return this.leadsOn(path) ? "part" : "no";
  }

  /** The chosen path at or above an entry, in latin1; null if there is none. */
  chosenAt(path: Uint8Array): string | null {
    if (this.#chosen.size === 0) return null;
    const text = rawBytes(path).toString("latin1");
    for (let end = text.length; end > 0; end = text.lastIndexOf("/", end - 1)) {
      const above = text.slice(0, end);
      if (this.#chosen.has(above)) return above;
    }
    return this.#chosen.has("") ? "" : null;
  }

  leadsOn(path: Uint8Array): boolean {
    return this.#leading.has(rawBytes(path).toString("latin1"));
  }
}

/** Returns a function that tells if a raw path is one of `paths` or lies below one. */
export function isAmong(paths: Iterable<string | Uint8Array>): (path: Uint8Array) => boolean {
  const chosen = new PathSelection(paths);
  return (path) => chosen.chosenAt(path) !== null;
}
