import fs from "node:fs";
import { removeAll, removeOnly } from "./remove-all.ts";
import { type DirectoryIdentity, identityOf, isSameDirectory } from "./remove-below.ts";
import { printablePath, type RawPath } from "./safe-path.ts";
import { openDirectory } from "./linux/syscalls.ts";

/** Says that something else lies at a place than was made there. */
export function otherFolder(place: RawPath): string {
  return `what lies at ${printablePath(place)} is not the folder that was made there`;
}

/**
 * A folder that was made where others may change names too: held open, so that it is known from whatever they put in its
 * place, also on file systems that number what nobody has open anew.
 */
export class MadeFolder {
  readonly #place: RawPath;
  #fd: number | null = null;

  constructor(place: RawPath) {
    this.#place = place;
  }

  /** Notes that what lies there now is what was made. Throws for what is no directory, and for a link. */
  hold(): void {
    this.letGo();
    this.#fd = openDirectory(this.#place);
  }

  /** Nothing is known of it from here on. */
  letGo(): void {
    if (this.#fd !== null) fs.closeSync(this.#fd);
    this.#fd = null;
  }

  [Symbol.dispose](): void {
    this.letGo();
  }

  /** Null while none is held. */
  identity(): DirectoryIdentity | null {
    return this.#fd === null ? null : identityOf(this.#fd);
  }

  chmod(mode: number): void {
    fs.fchmodSync(this.#fd!, mode);
  }

  /** Tells whether it lies at its place. */
  isThere(): boolean {
    if (this.#fd === null) return false;
    const made = fs.fstatSync(this.#fd, { bigint: true });
    const there = fs.lstatSync(this.#place, { bigint: true, throwIfNoEntry: false });
    return there?.dev === made.dev && there.ino === made.ino;
  }

  /** Removes it with all that is in it; false for another, which stays. While none is held it is whatever lies there. */
  remove(): boolean {
    const made = this.identity();
    if (made !== null) return removeOnly(this.#place, (found) => isSameDirectory(found, made));
    removeAll(this.#place);
    return true;
  }
}
