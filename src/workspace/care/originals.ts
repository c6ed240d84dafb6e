import fs from "node:fs";
import { nameOf, parentOf } from "../../fs/linux/exchange-folders.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import type { Workspace } from "../open/workspace.ts";

/** Original folders from before a conversion or a move onto an image, which stay until the user removes them. */

export const ORIGINAL_PREFIX = ".cairn-original-";

/** Returns originals beside this folder, also of other folders. Leaves out the copy of a running conversion. */
export function originalsBeside(workspace: Workspace): Buffer[] {
  let copy: string | undefined;
  try {
    copy = workspace.unfinished("conversion").read()?.name;
  } catch {
    // The finding about the journal reports the error.
  }
  return originalsIn(parentOf(workspace.root)).filter((place) => nameOf(place).toString("latin1") !== copy);
}

/**
 * Returns the originals in a folder that conversions and moves onto an image left, also unfinished ones; none if the
 * folder cannot be read.
 */
export function originalsIn(folder: Buffer): Buffer[] {
  try {
    const names = fs.readdirSync(folder, { withFileTypes: true });
    return names
      .filter((each) => each.isDirectory() && /^\.cairn-original-[0-9a-f]{16}$/.test(each.name))
      .map(({ name }) => joinRaw(folder, name));
  } catch {
    return [];
  }
}

/** Returns a sentence with the path at which an original stays. */
export function originalStays(original: Buffer): string {
  return `the original folder stays in ${printablePath(original)}; remove it when you no longer need it`;
}
