import { throwIfAborted } from "../errors.ts";
import type { ControlPaths } from "../workspace/place/control-layout.ts";
import { allPoints } from "../workspace/points/points.ts";
import type { Workspace } from "../workspace/workspace.ts";
import type { CallOptions, StoreInfo } from "../contract/index.ts";

/** Says where the embedded repository lies, how restic opens it, and how much it holds. */
export async function store(workspace: Workspace, options: CallOptions): Promise<StoreInfo> {
  throwIfAborted(options.signal);
  const { control } = workspace.found;
  const { repositoryId } = await workspace.engine.storeFacts();
  const { bytes, points } = await storeSize(workspace);
  return {
    repository: control.store,
    password_file: control.storePassword,
    repository_id: repositoryId,
    restic_command: ["restic", "-r", control.store, "--password-file", control.storePassword, "snapshots"]
      .map(quoted)
      .join(" "),
    bytes,
    points,
  };
}

/**
 * Bytes of the store's packs as its index knows them, and points of the whole control directory. Cheap also with
 * 20 000 packs: asks neither for a pack's size nor reads a descriptor.
 */
export async function storeSize(workspace: Workspace): Promise<{ bytes: number; points: number }> {
  const { bytes } = await workspace.engine.storeFacts();
  return { bytes, points: pointCount(workspace.found.control) };
}

/** Points of all workspaces of a control directory, damaged ones too. */
export function pointCount(control: ControlPaths): number {
  let count = 0;
  for (const { points } of allPoints(control)) count += points.count();
  return count;
}

function quoted(word: string): string {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
