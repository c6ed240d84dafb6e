import fs from "node:fs";
import path from "node:path";
import { append } from "../../append.ts";
import { setDirectory } from "../../archive/write/node-writer.ts";
import { rawPath } from "../../formats/records/record.ts";
import type { DirectoryFacts, PlaceApart, RestoreFile } from "../../formats/records/restore.ts";
import { flushFileSystem } from "../../fs/linux/flush.ts";
import { letOwnerWrite } from "../../fs/owner-writes.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { isAtOrBelow, joinRaw } from "../../fs/paths/safe-path.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";
import { type AppliedSteps, StepRunner } from "./apply.ts";
import { HeldDirectories, throughDescriptor } from "./held-directories.ts";
import { keepWrittenTo } from "./kept-displaced.ts";
import type { Step, Steps } from "../points/steps.ts";
import { isFolderThere } from "../place/control-directory.ts";

/** Finishes restores of earlier versions, which also changed other mounts and subvolumes inside the folder. */

/** Returns the options of a `StepRunner` that continues after a kill. */
export function recovering({ root }: Workspace): { root: Buffer; resuming: boolean; hidesIgnored: () => boolean } {
  return { root, resuming: true, hidesIgnored: () => true };
}

/**
 * Does the steps in other mounts and subvolumes inside the folder (`apart`), in which earlier versions staged. Each
 * place is done and its staging folder removed before the other steps. Returns the other steps, and the entries that
 * stay unchanged.
 */
export async function finishApart(
  workspace: Workspace,
  call: WorkspaceCall,
  intent: RestoreFile,
  steps: Steps,
): Promise<{ rest: Steps; kept: AppliedSteps["kept"] }> {
  let rest = steps;
  const kept: AppliedSteps["kept"] = [];
  await eachApart(workspace.root, intent, steps, async (staging, where) => {
    const isOwn = (step: Step): boolean => step.path.length > where.length && isAtOrBelow(step.path, where);
    const own = Iterator.from(rest).filter(isOwn).toArray();
    rest = Iterator.from(rest)
      .filter((step) => !isOwn(step))
      .toArray();
    if (staging === null) return void append(kept, notDone(workspace.root, own));
    append(kept, new StepRunner({ ...recovering(workspace), staging }).run(own).kept);
    await keepWrittenTo(workspace, call, { undoId: intent.undo_id, staging, steps: own });
    await flushFileSystem(staging);
    removeAll(staging);
  });
  return { rest, kept };
}

/** Opens each place, deepest first, following no link. `work` gets the place's staging folder; null if it has none. */
export async function eachApart(
  root: Buffer,
  { apart = [], staging }: RestoreFile,
  steps: Steps,
  work: (staging: string | null, where: Buffer) => unknown,
): Promise<void> {
  if (apart.length === 0 || !isFolderThere(root)) return;
  const places = apart.map((place) => ({ place, where: Buffer.from(rawPath(place)) }));
  for (const { place, where } of places.toSorted((a, b) => b.where.length - a.where.length)) {
    const held = new HeldDirectories(root);
    try {
      const fd = openOrNull(held, where);
      const own =
        fd === null
          ? null
          : path.join(throughDescriptor(fd, joinRaw(root, where)).toString("utf8"), path.basename(staging));
      const isThere = fd !== null && own !== null && fs.existsSync(own);
      if (isThere) letOwnerWrite(fd);
      await work(isThere ? own : null, where);
      if (isThere) setDirectory(fd, factsAfter(place, steps));
    } finally {
      held.close();
    }
  }
}

function openOrNull(held: HeldDirectories, place: Uint8Array): number | null {
  try {
    return held.open(place);
  } catch {
    // The directory was removed, or is another kind of entry now.
    return null;
  }
}

/** Returns the metadata of a place's directory after the steps: from its `dirmeta` step, else as `place` has it. */
function factsAfter(place: PlaceApart, steps: Steps): DirectoryFacts {
  const where = Buffer.from(rawPath(place));
  const step = Iterator.from(steps).find((each) => each.op === "dirmeta" && where.equals(each.path));
  if (step?.op !== "dirmeta") return place;
  const { mode, uid, gid, mtimeSec, mtimeNs } = step.metadata;
  return { mode, uid, gid, mtime_sec: mtimeSec, mtime_ns: mtimeNs };
}

/** Lists steps whose staging folder is gone, or whose mount is replaced. Leaves out steps whose result is already there. */
function notDone(root: Buffer, steps: readonly Step[]): AppliedSteps["kept"] {
  const detail =
    "the file system that was mounted there when the restore began is not mounted now: mount it and restore again";
  return steps.flatMap((step) => {
    if (step.op !== "put" && step.op !== "remove") return [];
    const now = fs.lstatSync(joinRaw(root, step.path), { bigint: true, throwIfNoEntry: false });
    const isDone = step.op === "put" ? now?.ino.toString() === step.inode : now === undefined;
    return isDone ? [] : [{ path: step.path, reason: "mounted" as const, detail }];
  });
}
