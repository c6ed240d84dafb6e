import type { SharedLinks } from "./clone-links.ts";

/** What every thread that clones a tree is given. */
export interface CloneTask {
  /** absolute paths of the two folders, raw bytes; the second is empty */
  from: Uint8Array;
  to: Uint8Array;
  /** entries that are left out, by path in latin1 */
  skip: readonly string[];
  /** files in more pieces than this are copied */
  extentLimit: number;
  /** see `bitsOfNewFiles` */
  newBits: number;
  /** note what each entry was cloned from */
  origins: boolean;
  pool: SharedArrayBuffer;
  links: SharedLinks;
}
