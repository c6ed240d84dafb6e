import type { BackendType, ServedWorkspace } from "../formats/records/daemon-state.ts";
import { rawPath } from "../formats/records/record.ts";
import { isReleased, listWorkspaces } from "../workspace/place/control-directory.ts";
import { controlPaths } from "../workspace/place/control-layout.ts";
import { controlOf, listRegistered, unregister } from "../workspace/place/registry.ts";
import { entryOf } from "./state/kept-state.ts";

/** Entries of folders that have records on this machine and whose ids are not in `known`. */
export function registeredWorkspaces(known: ReadonlySet<string>, backend: BackendType): ServedWorkspace[] {
  return listRegistered().flatMap(({ registration }) => {
    if (registration === null || known.has(registration.workspace_id)) return [];
    const { workspace_id: id, registered_at } = registration;
    const control_directory = controlOf(registration);
    const facts = { id, registered_at, origin_backend: backend, control_directory };
    return [entryOf(registration, facts)];
  });
}

/**
 * Removes a workspace from the registry if its own record says that it was released, by root or by a call that was
 * killed. False if it was not released, or if its records cannot be read now.
 */
export function dropReleased(served: ServedWorkspace): boolean {
  try {
    const listed = listWorkspaces(controlPaths(served.control_directory));
    if (!listed.some(({ workspace }) => workspace?.id === served.id && isReleased(workspace))) return false;
  } catch {
    return false;
  }
  unregister(Buffer.from(rawPath(served)));
  return true;
}
