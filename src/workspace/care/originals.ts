import fs from "node:fs";
import { removeHeldTree } from "../../clones/remove-held.ts";
import { toCairnError } from "../../errors.ts";
import type { Recovery } from "../../formats/records/control.ts";
import { rawPath } from "../../formats/records/record.ts";
import { decodeOriginal } from "../../formats/restic/original.ts";
import { durableRemove } from "../../fs/durable.ts";
import { nameOf, parentOf } from "../../fs/linux/exchange-folders.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { readRecord } from "../place/control-directory.ts";
import { ownerBesidesUs } from "../place/owners.ts";
import { readConvertIntent } from "../points/journals.ts";
import type { Workspace } from "../open/workspace.ts";

/** Original folders from before a conversion or a move onto an image, which stay until the user removes them. */

export const ORIGINAL_PREFIX = ".cairn-original-";

/** True if a conversion gives such a name to an original, for example `.cairn-original-0123456789abcdef`. */
function isOriginalName(name: string): boolean {
  return /^\.cairn-original-[0-9a-f]{16}$/.test(name);
}

/** Returns originals beside this folder, also of other folders. Leaves out the copy of a running conversion. */
export function originalsBeside({ root, found }: Workspace): Buffer[] {
  let copy: string | undefined;
  try {
    copy = readConvertIntent(found.paths.journal)?.name;
  } catch {
    // The finding about the journal reports the error.
  }
  return originalsIn(parentOf(root)).filter((place) => nameOf(place).toString("latin1") !== copy);
}

/**
 * Returns the originals in a folder that conversions and moves onto an image left, also unfinished ones; none if the
 * folder cannot be read.
 */
export function originalsIn(folder: Buffer): Buffer[] {
  try {
    const names = fs.readdirSync(folder, { withFileTypes: true });
    return names
      .filter((each) => each.isDirectory() && isOriginalName(each.name))
      .map(({ name }) => joinRaw(folder, name));
  } catch {
    return [];
  }
}

/**
 * Settles an earlier build's record of an original to remove: finishes a removal that had begun, else the original
 * stays. Returns null if there is no record, or another user owns it.
 */
export async function endOfOriginal({ root, found: { paths } }: Workspace): Promise<Recovery | null> {
  if (!fs.existsSync(paths.original) || ownerBesidesUs(paths.original) !== null) return null;
  let detail = "the original folder, from before the conversion, was removed";
  try {
    const file = readRecord(paths.original, decodeOriginal);
    const recorded = file === null ? root : Buffer.from(rawPath(file));
    // The folder and its original may have been moved together, so the original is also looked for beside the folder.
    // The original is removed only if its name and the recorded inode fit: others may be able to write the record.
    const place = [recorded, joinRaw(parentOf(root), nameOf(recorded))].find((each) => {
      const facts = fs.lstatSync(each, { bigint: true, throwIfNoEntry: false });
      const isOriginal = isOriginalName(nameOf(each).toString("latin1"));
      return isOriginal && facts?.isDirectory() === true && facts.ino.toString() === file?.inode;
    });
    if (place !== undefined && file?.going === true) await removeHeldTree(place);
    else if (place !== undefined) detail = originalStays(place);
  } catch (error) {
    detail = `the original folder, from before the conversion, may still lie beside the folder: ${toCairnError(error).message}`;
  }
  durableRemove(paths.original);
  return conversionEnded("completed", detail);
}

/** Returns the recovery record of a conversion. */
export function conversionEnded(outcome: Recovery["outcome"], detail: string): Recovery {
  return { operation: "convert", outcome, detail, kept: [] };
}

/** Returns a sentence with the path at which an original stays. */
export function originalStays(original: Buffer): string {
  return `the original folder stays in ${printablePath(original)}; remove it when you no longer need it`;
}
