import { statSync } from "node:fs";
import type { BackendType, DaemonState, SelectionMethod } from "../formats/records/daemon-state.ts";
import { filesystemKind, filesystemUuid } from "../fs/linux/mounts.ts";
import type { DaemonConfig } from "./config.ts";

/** The file system at a data root; nulls if no root is named or the root does not exist. */
export interface Probe {
  kind: string | null;
  uuid: string | null;
}

/** Reads the type and UUID of the file system at a data root. */
export function probeDataRoot(place: string | null): Probe {
  if (place === null || statSync(place, { throwIfNoEntry: false }) === undefined) return { kind: null, uuid: null };
  return { kind: filesystemKind(place).name, uuid: filesystemUuid(place) };
}

/** The backend of a start, and the reason for it. */
export interface Decision {
  type: BackendType;
  method: SelectionMethod;
  dataRoot: string | null;
  reason: string;
  /** A sentence for the operator, or null. */
  warning: string | null;
}

/**
 * Chooses the backend: the configuration wins, then the state. Without both the backend is detected. The answer depends
 * only on the arguments. `oldImage`: an image that ws-ckpt has left.
 */
export function decideBackend(
  { backend }: Pick<DaemonConfig, "backend">,
  state: DaemonState | null,
  probe: Probe,
  oldImage: string | null = null,
): Decision {
  const persisted = state?.backend ?? null;
  const isKept = backend.type === null || backend.type === persisted?.type;
  const dataRoot = backend.data_root ?? (isKept ? (state?.paths.data_root ?? null) : null);
  if (backend.type !== null) {
    const differs = persisted !== null && persisted.type !== backend.type;
    return {
      type: backend.type,
      method: "config-override",
      dataRoot,
      reason: `the configuration says backend.type = "${backend.type}"`,
      warning: differs
        ? `the daemon's state says ${persisted.type}, but the configuration says ${backend.type}, which is used from now on; workspaces of ${persisted.type} stay as they are`
        : null,
    };
  }
  if (persisted !== null)
    return {
      type: persisted.type,
      method: "persisted",
      dataRoot,
      reason: `the daemon's state says ${persisted.type} since ${persisted.selected_at}`,
      warning: null,
    };
  if (oldImage !== null)
    return {
      type: "btrfs-loop",
      method: "auto-detect",
      dataRoot,
      reason: `ws-ckpt left its image ${oldImage}`,
      warning: null,
    };
  if (probe.kind === "btrfs")
    return {
      type: "btrfs-base",
      method: "auto-detect",
      dataRoot,
      reason: `${dataRoot} lies on btrfs`,
      warning: null,
    };
  return {
    type: "plain",
    method: "auto-detect",
    dataRoot: null,
    reason: dataRoot === null ? "no backend and no data_root are configured" : `${dataRoot} does not lie on btrfs`,
    warning: null,
  };
}

/** Returns the previous state with the backend of the decision. */
export function stateOf(decision: Decision, before: DaemonState | null, probe: Probe): DaemonState {
  const isKept = before?.backend.type === decision.type;
  const backend = {
    type: decision.type,
    selection_method: decision.method,
    selected_at: isKept ? before.backend.selected_at : new Date().toISOString(),
    filesystem_uuid:
      (isKept ? before.backend.filesystem_uuid : null) ?? (decision.type === "plain" ? null : probe.uuid),
  };
  return {
    ...before,
    backend: { ...before?.backend, ...backend },
    paths: { loop_image: null, ...before?.paths, data_root: decision.type === "plain" ? null : decision.dataRoot },
    workspaces: before?.workspaces ?? [],
    schedules: before?.schedules ?? {},
  };
}
