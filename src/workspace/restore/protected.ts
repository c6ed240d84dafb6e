import fs from "node:fs";
import { folderOf, joinPath, latin1 } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { filesystemKind, mountsInside } from "../../fs/linux/mounts.ts";
import type { Workspace } from "../open/workspace.ts";
import { isFolderThere } from "../place/control-directory.ts";
import { neverPart } from "../place/registry.ts";
import { savedWithout } from "../points/left-out.ts";
import type { Protected } from "../rules/plan.ts";
import type { Relative } from "../rules/wanted.ts";

/** The entries of a folder that no restore changes. */

/**
 * Returns a function that tells if a directory lies in another mount or subvolume inside the folder; undefined if the
 * folder can have none.
 */
function placesInside(root: Buffer): ((directory: Uint8Array) => boolean) | undefined {
  if (!isFolderThere(root)) return undefined;
  const mounts = mountsInside(root).map(({ mountPoint }) => latin1(Buffer.from(mountPoint).subarray(root.length + 1)));
  if (mounts.length === 0 && filesystemKind(root).name !== "btrfs") return undefined;
  const device = fs.lstatSync(root).dev;
  const known = new Map([["", false], ...mounts.map((place) => [place, true] as const)]);
  const look = (directory: string): boolean => {
    let isInside = known.get(directory);
    if (isInside === undefined) {
      isInside = look(folderOf(directory)) || isOn(joinPath(root, Buffer.from(directory, "latin1")), device) === false;
      known.set(directory, isInside);
    }
    return isInside;
  };
  return (directory) => look(latin1(directory));
}

/** Tells if a directory is on a device. Null for any other entry, and for a path that is too long for the system. */
function isOn(place: Buffer, device: number): boolean | null {
  try {
    const facts = fs.lstatSync(place);
    return facts.isDirectory() ? facts.dev === device : null;
  } catch {
    return null;
  }
}

/** Returns the entries that no restore of a point with this manifest removes or puts in place. */
export function unknownIn(workspace: Workspace, manifest: Manifest | null): Omit<Protected, "scan"> {
  return {
    isThere: (where) => exists(workspace.root, where),
    isInside: placesInside(workspace.root),
    ...unknownOf(manifest),
    // A restore enters no mount, and a mount that the point left out may not answer.
    never: neverPart(workspace.root, { crossMounts: manifest?.mounts?.entered === true }).map((path) =>
      Buffer.from(path, "latin1"),
    ),
  };
}

function unknownOf(manifest: Manifest | null): Pick<Protected, "omitted" | "partial" | "leftOutMounts"> {
  return {
    omitted: manifest?.omitted ?? [],
    partial: savedWithout(manifest?.labels ?? []),
    leftOutMounts: manifest?.mounts?.leftOut ?? [],
  };
}

/** Returns the facts of every state that a relative change may go back to. */
export async function unknownOfAll(
  workspace: Workspace,
  { options: { changes } }: Relative,
): Promise<Partial<Protected>> {
  const all: ReturnType<typeof unknownOf>[] = [];
  for (const { found } of changes) all.push(unknownOf(await workspace.manifest(found)));
  return {
    omitted: all.flatMap(({ omitted }) => omitted),
    partial: all.flatMap(({ partial }) => partial),
    leftOutMounts: all.flatMap(({ leftOutMounts }) => leftOutMounts),
  };
}

export function exists(root: Uint8Array, where: Uint8Array): boolean {
  try {
    fs.lstatSync(joinPath(root, where));
    return true;
  } catch {
    return false;
  }
}
