import fs from "node:fs";
import { join } from "node:path";
import type { TreeHolder } from "../../clones/holder.ts";
import { throwIfAborted } from "../../errors.ts";
import { directoryOf } from "../../formats/bytes.ts";
import { nameOf } from "../../fs/linux/exchange-folders.ts";
import { DIRECTORY, openBelow } from "../../fs/linux/open-below.ts";
import { openDirectory, syscalls } from "../../fs/linux/syscalls.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { changingInside } from "../../fs/owner-writes.ts";
import { joinRaw } from "../../fs/paths/safe-path.ts";
import { clearAway, removeNow } from "../../fs/remove-all.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { newArena } from "../../native.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { heldTreeProblem, removeSpareTrees, replaceTree } from "../points/held-trees.ts";
import type { Point } from "../points/point-files.ts";

/**
 * Makes the clones of sealed points again without some entries: the entries are removed from a writable copy, which is
 * then held. A clone that cannot be made again is removed, as the store has its content. A kill leaves the clone or
 * none, and a copy that the next command removes.
 */
export async function makeTreesAgain(
  workspace: Workspace,
  sealed: readonly Point[],
  { paths, call }: { paths: readonly Uint8Array[]; call: WorkspaceCall },
): Promise<void> {
  const { points, engine } = workspace;
  for (const point of sealed) {
    const { sequence, descriptor } = point;
    const { tree } = points.pathsOf(sequence);
    const facts = fs.lstatSync(tree, { throwIfNoEntry: false });
    if (facts === undefined) continue;
    const found = facts.isDirectory() ? entriesIn(tree, paths) : [];
    if (facts.isDirectory() && found.length === 0) continue;
    const { holder } = engine;
    // A link here leads to a tree that earlier builds shared.
    const isOwn = facts.isDirectory() && heldTreeProblem(points, point) === null;
    const canBeMade = isOwn && holder?.type === descriptor.effective_engine;
    if (canBeMade && (await isMadeAgain(workspace, point, { holder, found, call }))) continue;
    for (const left of await removeSpareTrees(points, [sequence]))
      call.onWarning?.(`${left} stays: Cairn did not make this folder; remove it if it has the removed paths`);
  }
}

/** Returns the paths that a tree has. Follows no link. */
function entriesIn(tree: string, paths: readonly Uint8Array[]): Uint8Array[] {
  return paths.filter(
    (path) => inParent(tree, path, (place) => fs.lstatSync(place, { throwIfNoEntry: false })) !== undefined,
  );
}

/** Runs `work` with a path and its open parent directory. Undefined if the parent is missing or a link leads to it. */
function inParent<T>(tree: string, path: Uint8Array, work: (place: Buffer, parent: number) => T): T | undefined {
  const sys = syscalls();
  const root = openDirectory(Buffer.from(tree));
  try {
    const parent = openBelow(sys, root, directoryOf(path), DIRECTORY, newArena(8192));
    if (parent < 0) return undefined;
    try {
      return work(joinRaw(Buffer.from(tree), path), parent);
    } finally {
      fs.closeSync(parent);
    }
  } finally {
    fs.closeSync(root);
  }
}

interface Again {
  holder: TreeHolder;
  found: readonly Uint8Array[];
  call: WorkspaceCall;
}

/** Makes a clone again. Returns false if that failed; then the old clone may be gone. */
async function isMadeAgain(
  { points, found: { control } }: Workspace,
  { sequence }: Point,
  { holder, found, call }: Again,
): Promise<boolean> {
  const { signal } = call;
  const { temporary } = control;
  const work = newWorkDirectory(temporary);
  const copy = join(work, "tree");
  try {
    makeFolder(work);
    await holder.materialise(points.pathsOf(sequence).tree, Buffer.from(copy), { signal });
    for (const path of found)
      inParent(copy, path, (place, parent) =>
        changingInside(syscalls(), parent, () => removeNow(parent, nameOf(place))),
      );
    await replaceTree(points, sequence, async (place) =>
      holder.capture(Buffer.from(copy), place, { signal, temporary }),
    );
    return true;
  } catch {
    throwIfAborted(signal);
    return false;
  } finally {
    await holder.remove(copy).catch(() => undefined);
    clearAway(work);
  }
}
