import { existsSync, lstatSync, readdirSync, realpathSync } from "node:fs";
import { join } from "node:path";
import { CairnError } from "../../errors.ts";
import { isMachineName } from "../../formats/machine/machine.ts";
import { removeUnfinished, unfinishedIn } from "../../fs/work-directory.ts";
import { removeUnusedBlobs, withUnused } from "./blobs.ts";
import { leftOf, removeLeft } from "./life.ts";
import { Machine, sharedFile } from "./machine.ts";

/** Files that killed commands left in a folder of machines. */

/** Leftovers that are removed together. */
export interface Leftovers {
  places: string[];
  /** Bytes on the disk. Extents that another file shares count too. */
  bytes: number;
  /** Removes them as the next command does. Throws `busy` if a process works there by now. */
  remove(): Promise<void>;
}

/**
 * Finds the files of killed commands in a folder of machines: stages of imports and of restored backups, leftovers of
 * saves, clones and restores in a machine's folder, and shared files that no machine needs. Files of a command that runs
 * are not listed: its process, or a lock that it holds, tells that it runs.
 */
export async function leftoversIn(folder: string): Promise<Leftovers[]> {
  if (!existsSync(folder)) return [];
  const root = realpathSync(folder);
  const found = [
    leftovers(
      () => unfinishedIn(root),
      () => removeUnfinished(root),
    ),
  ];
  for (const name of readdirSync(root).filter(isMachineName)) {
    const machine = new Machine(root, name);
    const left = (): string[] => {
      try {
        return lstatSync(machine.folder).isDirectory() ? leftOf(machine) : [];
      } catch {
        // A damaged record is reported by the commands on the machine.
        return [];
      }
    };
    found.push(leftovers(left, async () => removeLeft(machine)));
  }
  if (existsSync(sharedFile(root, "blobs"))) {
    let unused: string[] = [];
    await withUnused(root, (places) => (unused = places));
    found.push(
      leftovers(
        () => unused.filter(existsSync),
        async () => removeUnusedBlobs(root),
      ),
    );
  }
  return found.filter(({ places }) => places.length > 0);
}

function leftovers(left: () => string[], remove: () => void | Promise<void>): Leftovers {
  const places = left();
  return {
    places,
    bytes: places.reduce((sum, place) => sum + bytesOf(place), 0),
    async remove() {
      await remove();
      const [first] = left();
      if (first !== undefined) throw new CairnError("busy", `a process uses ${first}, or it cannot be removed`);
    },
  };
}

/** Bytes that a file or folder takes on its disk; 0 if it is gone. */
function bytesOf(place: string): number {
  const facts = lstatSync(place, { throwIfNoEntry: false });
  if (facts?.isDirectory() !== true) return (facts?.blocks ?? 0) * 512;
  return readdirSync(place).reduce((sum, name) => sum + bytesOf(join(place, name)), 0);
}
