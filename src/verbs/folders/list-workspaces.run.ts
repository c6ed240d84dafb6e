import { throwIfAborted, toCairnError } from "../../errors.ts";
import { rawPath, type RecordedPath } from "../../formats/records/record.ts";
import type { Registration } from "../../formats/records/registration.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { isGone } from "../../fs/silent-mounts.ts";
import {
  isFolderThere,
  isReleased,
  listWorkspaces as listIn,
  type PlacedWorkspace,
  readControl,
} from "../../workspace/place/control-directory.ts";
import { controlPaths } from "../../workspace/place/control-layout.ts";
import { workspaceNamed, workspaceRef } from "../../workspace/place/find-workspace.ts";
import {
  controlOf,
  listDaemons,
  listRegistered,
  listSelfContained,
  readRegistration,
} from "../../workspace/place/registry.ts";
import { Workspace, type WorkspaceParts } from "../../workspace/open/workspace.ts";
import type { CallOptions } from "../../contract/words.ts";
import type { WorkspaceInfo } from "../../contract/care.ts";

/**
 * Lists this user's workspaces by path, including self-contained ones that were opened here, missing folders, and
 * workspaces with unreadable records.
 */
export async function listWorkspaces(parts: WorkspaceParts, options: CallOptions): Promise<WorkspaceInfo[]> {
  const infos = new Map<string, WorkspaceInfo>();
  const registered = [...listRegistered(), ...listDaemons(), ...listSelfContained()];
  for (const { problem } of registered) if (problem !== undefined) options.onWarning?.(problem.message);
  const registrations = registered.flatMap(({ registration }) => (registration === null ? [] : [registration]));
  for (const root of new Set(registrations.map(controlOf))) {
    throwIfAborted(options.signal);
    // A copy of a self-contained workspace has the original's ids, and another path.
    for (const info of await inControl(parts, root, options))
      infos.set(`${info.id} ${info.path_b64 ?? info.path}`, info);
  }
  const found = new Set([...infos.values()].map(({ id }) => id));
  for (const registration of registrations) {
    if (found.has(registration.workspace_id) || isRecorded(registration) || isReplaced(registration)) continue;
    infos.set(registration.workspace_id, lost(registration));
  }
  return [...infos.values()].sort((a, b) => (a.path < b.path ? -1 : Number(a.path > b.path)));
}

async function inControl(parts: WorkspaceParts, root: string, options: CallOptions): Promise<WorkspaceInfo[]> {
  const infos: WorkspaceInfo[] = [];
  let bytes: number | undefined;
  let listed: ReturnType<typeof listIn>;
  try {
    listed = listIn(controlPaths(root));
  } catch {
    return [];
  }
  for (const { name, workspace, problem } of listed) {
    if (problem !== undefined) options.onWarning?.(problem.message);
    if (workspace === null || isReleased(workspace)) continue;
    const unread = (error: unknown): WorkspaceInfo => unreadable(workspace, root, toCairnError(error).message);
    const info = await describe(parts, root, { name, bytes }).catch(unread);
    if (info === null) continue;
    bytes = info.problem === undefined ? info.store_bytes : bytes;
    infos.push(info);
  }
  return infos;
}

/** Describes a workspace. `bytes`: the store's size if known already. */
async function describe(
  parts: WorkspaceParts,
  root: string,
  ask: { name: string; bytes: number | undefined },
): Promise<WorkspaceInfo | null> {
  const found = workspaceNamed(controlPaths(root), ask.name);
  if (found === null) return null;
  const { origin } = found.workspace;
  const info: WorkspaceInfo = {
    ...workspaceRef(found),
    present: isPresent(found.workspace, found.folder),
    points: 0,
    store_bytes: 0,
    last_save_at: null,
    ...(origin === undefined ? {} : { origin }),
  };
  await using workspace = new Workspace(found, parts);
  try {
    info.points = workspace.points.count();
    info.last_save_at = workspace.points.latest()?.descriptor.created_at ?? null;
    info.store_bytes = ask.bytes ?? (await workspace.engine.storeFacts()).bytes;
    return info;
  } catch (error) {
    return { ...info, problem: toCairnError(error).message };
  }
}

/** Tells if the folder at a workspace's path is present and not registered for another workspace. */
function isPresent(workspace: PlacedWorkspace, folder: Buffer): boolean {
  try {
    if (!isFolderThere(folder)) return false;
    const registration = readRegistration(folder);
    return registration === null || registration.workspace_id === workspace.id;
  } catch {
    return true;
  }
}

/** Tells if a workspace's record exists. A recorded workspace that is not listed is released. */
function isRecorded(registration: Registration): boolean {
  try {
    return listIn(controlPaths(controlOf(registration))).some(
      ({ workspace }) => workspace?.id === registration.workspace_id,
    );
  } catch {
    return false;
  }
}

/** Tells if another control directory is at a registration's place: a self-contained one was removed and made again. */
function isReplaced(registration: Registration): boolean {
  try {
    const there = readControl(controlPaths(controlOf(registration)));
    return there !== null && there.id !== registration.control_id;
  } catch {
    return false;
  }
}

/** Describes a folder whose control directory, or whose record in it, is missing. */
function lost(registration: Registration): WorkspaceInfo {
  const { workspace_name: name, workspace_id: id } = registration;
  const control = controlOf(registration);
  return unreadable({ ...registration, name, id }, control, `its control directory ${control} is not there`);
}

/** Describes a workspace of which only the name, id and path are known. */
function unreadable(
  known: RecordedPath & { name: string; id: WorkspaceInfo["id"] },
  control: string,
  problem: string,
): WorkspaceInfo {
  const folder = Buffer.from(rawPath(known));
  return {
    name: known.name,
    ...displayPath(folder),
    id: known.id,
    engine: "copy",
    control_directory: control,
    present: !isGone(folder),
    points: 0,
    store_bytes: 0,
    last_save_at: null,
    problem,
  };
}
