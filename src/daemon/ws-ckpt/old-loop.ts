import { existsSync, readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import type { LoopImage } from "../../formats/records/daemon-state.ts";
import { readSmallFile } from "../../fs/durable.ts";
import type { DaemonConfig } from "../config.ts";
import { backingFile, btrfsInFile, deviceAt } from "../state/loop-image.ts";
import type { DaemonPlaces } from "../places.ts";

/** The usual places of the checkpoint daemon ws-ckpt, unless its state names others. */
const STATE = "/var/lib/ws-ckpt";
const MOUNT = "/mnt/btrfs-workspace";
const IMAGE = "btrfs-data.img";
const OLDER_IMAGE = "/data/ws-ckpt/btrfs-data.img";
const MAX_STATE_BYTES = 64 << 20;

/** The members of ws-ckpt's `state.json` that have the right form. */
export interface OldState {
  backend: string | null;
  dataRoot: string | null;
  mount: string | null;
  image: string | null;
  workspaces: { id: string; path: string }[];
}

/** The image that ws-ckpt has left, and the workspaces of its records, as text for messages. */
export interface OldLoop {
  image: LoopImage;
  workspaces: string[];
}

/** The state directory of ws-ckpt from which this daemon takes workspaces over; null: this daemon takes none over. */
export function oldStateDirectory(
  { migrate }: Pick<DaemonConfig, "migrate">,
  { isSystem }: DaemonPlaces,
): string | null {
  return migrate.state ?? (isSystem || migrate.data_root !== null ? STATE : null);
}

/** Reads the state of ws-ckpt; null if it does not exist. Throws errors of reading and parsing. */
export function readOldState(directory: string): OldState | null {
  const bytes = readSmallFile(join(directory, "state.json"), MAX_STATE_BYTES);
  if (bytes === null) return null;
  const { backend, paths, workspaces } = objectOf(JSON.parse(bytes.toString("utf8")));
  const { mount_path: mount, data_root: dataRoot, loop_img: image } = objectOf(paths);
  return {
    backend: textOf(objectOf(backend)["backend_type"]),
    dataRoot: pathOf(dataRoot),
    mount: pathOf(mount),
    image: pathOf(objectOf(image)["img_path"]),
    workspaces: (Array.isArray(workspaces) ? workspaces : []).flatMap((each) => {
      const { ws_id: id, workspace_path: path } = objectOf(each);
      return typeof id === "string" && typeof path === "string" ? [{ id, path }] : [];
    }),
  };
}

/** The image of ws-ckpt and the mount to which its users' links lead. Null if ws-ckpt had no image, or used an existing btrfs. */
export function oldLoop(config: Pick<DaemonConfig, "migrate">, places: DaemonPlaces): OldLoop | null {
  const directory = oldStateDirectory(config, places);
  if (directory === null || process.geteuid?.() !== 0) return null;
  let state: OldState | null = null;
  try {
    state = readOldState(directory);
  } catch {
    // The migration reports the unreadable state; the image may still exist.
  }
  if (state !== null && state.backend !== null && state.backend !== "BtrfsLoop") return null;
  const mount = state?.mount ?? config.migrate.data_root ?? MOUNT;
  const device = deviceAt(mount);
  const mounted = device === null ? null : backingFile(device);
  const possible = [mounted, state?.image, join(directory, IMAGE), ...(directory === STATE ? [OLDER_IMAGE] : [])];
  const named = possible.filter((each) => each !== null && each !== undefined);
  const known = state === null ? [] : state.workspaces;
  // A missing image counts only if workspaces lay on it.
  const path =
    named.find((each) => btrfsInFile(each) !== null) ??
    named.find((each) => existsSync(each)) ??
    (known.length > 0 ? named[0] : undefined);
  if (path === undefined) return null;
  const bytes = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
  const listed = new Map(known.map((each) => [each.id, each.path]));
  for (const id of namesOfIndexes(directory)) if (!listed.has(id)) listed.set(id, "its path is not known");
  return {
    image: { path, bytes, last_device: null, mount },
    workspaces: [...listed].map(([id, shown]) => `${id}  ${shown}`),
  };
}

/** True if ws-ckpt has left a state, indexes or snapshots in the places that are configured, or in its usual ones. */
export function leftByWsCkpt(config: Pick<DaemonConfig, "migrate">, places: DaemonPlaces): boolean {
  const directory = oldStateDirectory(config, places);
  if (directory === null) return false;
  const { data_root: dataRoot } = config.migrate;
  return (
    existsSync(join(directory, "state.json")) ||
    namesOfIndexes(directory).length > 0 ||
    (dataRoot !== null && existsSync(join(dataRoot, "snapshots")))
  );
}

/** Ids of workspaces that have an index in the state directory. */
export function namesOfIndexes(directory: string): string[] {
  try {
    return readdirSync(join(directory, "indexes"));
  } catch {
    return [];
  }
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

function textOf(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function pathOf(value: unknown): string | null {
  return typeof value === "string" && value.startsWith("/") ? value : null;
}
