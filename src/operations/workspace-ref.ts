import { displayPath } from "../fs/safe-path.ts";
import type { FoundWorkspace } from "../workspace/find-workspace.ts";
import type { EngineType, WorkspaceRef } from "./contract.ts";

/** A workspace as results name it. */
export function workspaceRef(found: FoundWorkspace): WorkspaceRef {
  return {
    name: found.workspace.name,
    ...displayPath(found.folder),
    id: found.workspace.id,
    engine: found.controlFile.engine as EngineType,
    control_directory: found.control.root,
  };
}
