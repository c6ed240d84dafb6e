import { statSync } from "node:fs";
import { CairnError, type ErrorCode, reworded, toCairnError } from "../errors.ts";
import type { ControlFile } from "../formats/control.ts";
import { rawPath } from "../formats/record.ts";
import { displayPath, printablePath, shellPath } from "../fs/safe-path.ts";
import { type PlacedWorkspace, readControl, readWorkspace } from "./control-directory.ts";
import { type FoundWorkspace, hasOtherRoot, liesBeside } from "./find-workspace.ts";
import { controlOf, listRegistered, listSelfContained } from "./registry.ts";
import { isReleased } from "./released.ts";

/** A workspace that was found earlier, as its records are now: others may have moved, released or replaced it since. */

/**
 * The same workspace with what is recorded of it now. Throws `conflict` when its folder lies elsewhere or its control
 * directory is another one's, `not_found` when that is gone, `not_a_workspace` when it was released; with the new path
 * in the details, where that is known.
 */
export function foundAgain(found: FoundWorkspace): FoundWorkspace {
  const controlFile = requireSameControl(found);
  const workspace = requireStillKept(found);
  return { ...found, controlFile, workspace, rootChanged: hasOtherRoot(workspace, found.folder) };
}

/** Its control directory's file as it is now; for what concerns no workspace of it. Throws `conflict`, `not_found`. */
export function requireSameControl(found: FoundWorkspace): ControlFile {
  const now = readControl(found.control);
  if (now === null) throw controlGone(found);
  if (now.id !== found.controlFile.id) throw controlReplaced(found);
  return now;
}

/** Its record as it is now; for whoever has waited for its lock. Throws like `foundAgain`. */
export function requireStillKept(found: FoundWorkspace): PlacedWorkspace {
  const { control, folder, workspace: then } = found;
  const now = readWorkspace(control, then.name);
  if (now === null) throw readControl(control) === null ? controlGone(found) : removed(found);
  if (now.id !== then.id) throw controlReplaced(found);
  if (!isSamePlace(found, now)) throw moved(found, Buffer.from(rawPath(now)));
  if (isReleased(now) && !isReleased(then)) {
    throw new CairnError("not_a_workspace", `${printablePath(folder)} was released, and is kept no more`, {
      hint: `\`cairn save ${shellPath(folder)}\` keeps it again, with the points that it had`,
    });
  }
  return now;
}

/** What one file of a control directory seems to be when the whole has gone away. */
const SEEN_WITHOUT_CONTROL: readonly ErrorCode[] = ["damaged", "not_found", "conflict", "io"];

/** The failure of work in a workspace, which is another where its control directory has gone away, e.g. was unmounted. */
export function unlessControlIsGone(found: FoundWorkspace, error: unknown): unknown {
  if (!SEEN_WITHOUT_CONTROL.includes(toCairnError(error).code)) return error;
  try {
    if (statSync(found.control.file, { throwIfNoEntry: false }) !== undefined) return error;
  } catch {
    // A file system that does not answer is there.
    return error;
  }
  return reworded(controlGone(found), { cause: error });
}

/** The path decides; in the mount of its control directory that is the one below the mount's root, wherever it is mounted. */
function isSamePlace({ controlFile, workspace: then }: FoundWorkspace, now: PlacedWorkspace): boolean {
  if (liesBeside(controlFile, then) || rawBytesOf(then).equals(rawBytesOf(now))) return true;
  if (then.mount_path === undefined || now.mount_path === undefined) return false;
  return then.filesystem_uuid === now.filesystem_uuid && rawBytesOf(then.mount_path).equals(rawBytesOf(now.mount_path));
}

function rawBytesOf(recorded: Parameters<typeof rawPath>[0]): Buffer {
  return Buffer.from(rawPath(recorded));
}

function moved({ folder }: FoundWorkspace, now: Buffer): CairnError {
  return new CairnError(
    "conflict",
    `${printablePath(folder)} is not where this workspace lies any more: it was relocated to ${printablePath(now)}`,
    {
      hint: `go on there: cairn -C ${shellPath(now)} …; in a program, open that path`,
      details: { relocated_to: displayPath(now) },
    },
  );
}

function removed({ folder, workspace }: FoundWorkspace): CairnError {
  return new CairnError(
    "not_found",
    `the workspace ${JSON.stringify(workspace.name)} of ${printablePath(folder)} is not there any more`,
    { hint: "`cairn workspaces` lists what is kept" },
  );
}

function controlGone(found: FoundWorkspace): CairnError {
  const message = `${found.control.root}, where ${printablePath(found.folder)} was kept, is not there any more`;
  return withPresentPlace(found, "not_found", message);
}

function controlReplaced(found: FoundWorkspace): CairnError {
  const message = `${found.control.root} is another workspace's by now than the one that was opened at ${printablePath(found.folder)}`;
  return withPresentPlace(found, "conflict", message);
}

/** Where the control directory went with its workspace, only the registry may know. */
function withPresentPlace(found: FoundWorkspace, code: "not_found" | "conflict", message: string): CairnError {
  const known = [...listRegistered(), ...listSelfContained()].find(
    ({ registration, missing }) =>
      missing.length === 0 &&
      registration?.workspace_id === found.workspace.id &&
      controlOf(registration) !== found.control.root,
  )?.registration;
  if (known === undefined || known === null)
    return new CairnError(code, message, {
      hint: "mount it, where it was unmounted; else open the folder where it lies now; `cairn workspaces` lists what is kept",
    });
  const folder = rawBytesOf(known);
  return new CairnError(code, `${message}; it lies at ${printablePath(folder)} now, kept in ${controlOf(known)}`, {
    hint: `go on there: cairn -C ${shellPath(folder)} …; in a program, open that path`,
    details: { relocated_to: displayPath(folder) },
  });
}
