import { displayPath } from "../fs/safe-path.ts";
import { readControl, readWorkspace } from "../workspace/place/records.ts";
import { convertFolder } from "../workspace/place/convert.ts";
import type { FoundWorkspace } from "../workspace/place/find-workspace.ts";
import { recoverWorkspace } from "../workspace/care/recovery.ts";
import { type WorkspaceParts, Workspace } from "../workspace/workspace.ts";
import type { GuardName, CallOptions, Conversion } from "../contract/index.ts";
import { release } from "../workspace/place/release.ts";

export interface ConvertOptions extends CallOptions {
  allow?: readonly GuardName[] | undefined;
}

/** Makes the folder a subvolume in place. For the holder of the workspace's lock. */
export async function convert(workspace: Workspace, options: ConvertOptions): Promise<Conversion> {
  const started = performance.now();
  const { original, entries, bytes } = await convertFolder(workspace, options);
  const { path, path_b64: raw } = displayPath(original);
  return {
    original: path,
    ...(raw === undefined ? {} : { original_b64: raw }),
    entries,
    bytes,
    duration_ms: Math.round(performance.now() - started),
  };
}

/**
 * Converts a folder that was adopted a moment ago, by the same call: where it cannot be done the adoption is taken back
 * too, but for points that it had found and taken up.
 */
export async function convertAdopted(
  found: FoundWorkspace,
  parts: WorkspaceParts,
  options: ConvertOptions,
): Promise<{ found: FoundWorkspace; conversion: Conversion }> {
  await using workspace = new Workspace(found, parts);
  try {
    const conversion = await convertLocked(workspace, options);
    return {
      conversion,
      found: {
        ...found,
        controlFile: readControl(found.control) ?? found.controlFile,
        workspace: readWorkspace(found.control, found.workspace.name) ?? found.workspace,
      },
    };
  } catch (error) {
    const deletePoints = workspace.points.committed().length === 0;
    await release(workspace, { deletePoints }).catch(() => undefined);
    throw error;
  }
}

async function convertLocked(workspace: Workspace, options: ConvertOptions): Promise<Conversion> {
  using _lock = await workspace.lock("convert", options);
  await recoverWorkspace(workspace, options);
  return await convert(workspace, options);
}
