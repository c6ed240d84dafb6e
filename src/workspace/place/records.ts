import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { CairnError, toCairnError } from "../../errors.ts";
import {
  type ControlFile,
  decodeControl,
  decodeState,
  decodeWorkspace,
  encodeControl,
  encodeState,
  encodeWorkspace,
  type WorkspaceFile,
  type WorkspaceState,
} from "../../formats/records/control.ts";
import { decodePolicy, encodePolicy, NO_POLICY, type PolicyFile } from "../../formats/records/policy.ts";
import type { RecordedPath } from "../../formats/records/record.ts";
import { decodeView, encodeView, type ViewFile } from "../../formats/records/view.ts";
import { durableMkdir, durableRemove, durableRename, durableWrite, readSmallFile } from "../../fs/durable.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { namesIfThere } from "../../fs/names-in.ts";
import { orderedWrite } from "../../fs/ordered-write.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { shellPath } from "../../fs/safe-path.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { type ControlPaths, type WorkspacePaths, workspacePaths } from "./control-layout.ts";

/** The small files of a control directory: reading and writing them. */

export interface ReadOptions {
  maxBytes?: number;
  /** The way out of a damaged file. */
  hint?: string;
}

/** The record that `decode` makes of a file, null where there is none. Throws what `decode` throws, with the file's path. */
export function readRecord<T>(path: string, decode: (bytes: Uint8Array) => T, options: ReadOptions = {}): T | null {
  const { maxBytes = 16 << 20, hint = "see `cairn doctor`" } = options;
  const bytes = readSmallFile(path, maxBytes);
  if (bytes === null) return null;
  try {
    return decode(bytes);
  } catch (error) {
    const failed = toCairnError(error);
    throw new CairnError(failed.code, `${path}: ${failed.message}`, { hint: failed.hint ?? hint, cause: error });
  }
}

/**
 * Writes a record of the whole control directory durably where several processes write without a common lock. A kill leaves
 * its file among the unfinished things of processes, so that whoever comes next can tell that it may go.
 */
export function writeRecord(control: ControlPaths, path: string, bytes: Uint8Array): void {
  const work = newWorkDirectory(control.temporary);
  try {
    makeFolder(work);
    durableMkdir(dirname(path));
    const staged = join(work, basename(path));
    durableWrite(staged, bytes, { syncDirectory: false });
    durableRename(staged, path);
  } catch (error) {
    throw toCairnError(error, `write ${path}`);
  } finally {
    clearAway(work);
  }
}

/** The hint for a file without which doctor is not led here either. */
export function wayWithout({ store, storePassword }: ControlPaths, what = "that file"): string {
  const restic = `restic -r ${shellPath(store)} --password-file ${shellPath(storePassword)} snapshots`;
  return `put ${what} back from a copy; what the store holds can be read without it: ${restic}`;
}

/** The control directory's own file, null where there is none. Throws `damaged`, `newer_version`. */
export function readControl(control: ControlPaths): ControlFile | null {
  return readRecord(control.file, decodeControl, { hint: wayWithout(control) });
}

/** Replaces the control directory's own file durably. */
export function writeControl(control: ControlPaths, file: ControlFile): void {
  writeRecord(control, control.file, encodeControl(file));
}

/** True for a directory that has everything of a control directory but the file that makes it one. */
export function lacksItsFile({ file, workspaces, store, storeKey }: ControlPaths): boolean {
  return [workspaces, store, storeKey].every((each) => existsSync(each)) && !existsSync(file);
}

/** The error for such a directory that keeps a folder: nothing is begun anew in its place. */
export function fileIsMissing(control: ControlPaths): CairnError {
  return new CairnError("damaged", `${control.file} is missing`, { hint: wayWithout(control) });
}

/** A workspace's file; control directories at a mount's root also know the folder by its path in that mount. */
export interface PlacedWorkspace extends WorkspaceFile {
  mount_path?: RecordedPath;
}

/** A workspace's file, null where there is none. Throws `damaged`, `newer_version`. */
export function readWorkspace(control: ControlPaths, name: string): PlacedWorkspace | null {
  return readRecord(workspacePaths(control, name).file, decodeWorkspace, { hint: wayWithout(control) });
}

/** Replaces a workspace's file durably, e.g. after its folder has moved. */
export function writeWorkspace(control: ControlPaths, workspace: PlacedWorkspace): void {
  durableWrite(workspacePaths(control, workspace.name).file, encodeWorkspace(workspace));
}

/** True for a folder that is kept no more, though its points may still lie there. */
export function isReleased({ settings }: PlacedWorkspace): boolean {
  return settings["released_at"] !== undefined;
}

/** A workspace's record from its release on. */
export function withRelease(workspace: PlacedWorkspace): PlacedWorkspace {
  return { ...workspace, settings: { ...workspace.settings, released_at: new Date().toISOString() } };
}

/** A workspace's record once it is kept again. */
export function withoutRelease(workspace: PlacedWorkspace): PlacedWorkspace {
  const { released_at: _released, ...settings } = workspace.settings;
  return { ...workspace, settings };
}

/** Head and last restore. Throws `damaged` when the file is, or is gone. */
export function readState(paths: WorkspacePaths): WorkspaceState {
  const state = readRecord(paths.state, decodeState);
  if (state !== null) return state;
  throw new CairnError("damaged", `${paths.state} is missing`, { hint: "run `cairn doctor --repair`" });
}

/** Replaces head and last restore durably: the commit point of a restore. */
export function writeState(paths: WorkspacePaths, state: WorkspaceState): void {
  durableWrite(paths.state, encodeState(state));
}

/** As {@link writeState}, where what was done before says how to do it again until the file system commits. */
export function writeStateInOrder(paths: WorkspacePaths, state: WorkspaceState): void {
  orderedWrite(paths.state, encodeState(state));
}

/** The policy of a control directory; nothing set where there is no file. Throws `damaged`, `newer_version`. */
export function readPolicy(control: ControlPaths): PolicyFile {
  const hint = "set the policy again: cairn cleanup --clear-policy, then --set-policy";
  return readRecord(control.policy, decodePolicy, { maxBytes: 1 << 20, hint }) ?? NO_POLICY;
}

/** Replaces the policy durably. For the holder of the control directory's lock. */
export function writePolicy(control: ControlPaths, policy: PolicyFile): void {
  durableWrite(control.policy, encodePolicy(policy));
}

/** The leases of open views are `<id>.json` beside the folder `<id>`. */
const VIEW_ID = /^[0-9a-f]{16}$/;

/** Throws `invalid_id` for a text that can be no view's id. */
export function leasePath(control: ControlPaths, id: string): string {
  if (VIEW_ID.test(id)) return join(control.views, `${id}.json`);
  throw new CairnError("invalid_id", `not a view: ${JSON.stringify(id.slice(0, 40))}`, {
    hint: "see `cairn view --list`",
  });
}

export function writeLease(control: ControlPaths, lease: ViewFile): void {
  writeRecord(control, leasePath(control, lease.view_id), encodeView(lease));
}

export function removeLease(control: ControlPaths, id: string): boolean {
  return durableRemove(leasePath(control, id));
}

/** All open views, oldest first. Throws `damaged`, `newer_version` for a lease that cannot be read: nobody knows what it protects. */
export function listLeases(control: ControlPaths): ViewFile[] {
  return namesIfThere(control.views)
    .filter((name) => name.endsWith(".json") && VIEW_ID.test(name.slice(0, -5)))
    .flatMap((name) => {
      const hint = "remove that file and the folder beside it";
      const lease = readRecord(join(control.views, name), decodeView, { hint });
      // The control directory may have been moved since.
      return lease === null ? [] : [{ ...lease, path: join(control.views, name.slice(0, -5)) }];
    })
    .sort((a, b) => (a.opened_at < b.opened_at ? -1 : 1));
}
