import { accessSync, constants, existsSync, lstatSync, statSync } from "node:fs";
import { dirname, join } from "node:path";
import { type ErrorCode, toCairnError } from "../errors.ts";
import type { DaemonState, LoopImage } from "../formats/records/daemon-state.ts";
import { filesystemKind, filesystemUuid, freeSpace, type FreeSpace, mountOf } from "../fs/linux/mounts.ts";
import { plural } from "../formats/sizes.ts";
import { groupId } from "../fs/users.ts";
import { listMarks } from "../workspace/place/daemon-marks.ts";
import { existingAncestor } from "../workspace/place/room.ts";
import { controlsAt, listRegisteredIn } from "../workspace/place/registry.ts";
import type { DaemonConfig } from "./config.ts";
import type { DaemonPlaces } from "./places.ts";
import {
  backingFile,
  btrfsInFile,
  deviceAt,
  loopPlaces,
  missingPrograms,
  unfinishedImage,
} from "./state/loop-image.ts";
import type { LoadedState } from "./state/state-file.ts";
import { leftByWsCkpt, type OldLoop, oldLoop } from "./ws-ckpt/old-loop.ts";

/** The folder that is configured or recorded as the data root. */
export interface DataRoot {
  path: string;
  /** False: nothing lies there, or a file. */
  isFolder: boolean;
  /** Type of its file system, for example `btrfs`; null if the folder is missing. */
  kind: string | null;
  uuid: string | null;
}

/** The image of this start: the one that the state names, else the daemon's own, else one that ws-ckpt left. */
export interface ImageFacts {
  path: string;
  mount: string;
  /** Null: the file does not exist. */
  file: { uuid: string | null } | null;
  /** The image by the record in the state, or by ws-ckpt's files; null for an image without a record. */
  known: LoopImage | null;
  /** Ws-ckpt's image and workspaces, if the image is ws-ckpt's and was not taken over yet. */
  old: OldLoop | null;
  /** The file or device that is mounted at `mount` now; null: none is. */
  mounted: string | null;
  /** UUID of the image that a killed start formatted and did not name yet; null if there is none. */
  unfinished: string | null;
}

/** All that the decision about a start depends on. */
export interface StartFacts {
  config: Pick<DaemonConfig, "backend" | "loop" | "migrate">;
  places: Pick<DaemonPlaces, "state" | "config">;
  isRoot: boolean;
  /** True: a person gave up a state that is lost. */
  rebuild: boolean;
  state: DaemonState | null;
  /** Files of a state of which no generation can be read. */
  lost: readonly string[];
  /** Traces of an earlier daemon beside a missing or unreadable state, as text. */
  traces: readonly string[];
  dataRoot: DataRoot | null;
  /** Control directories on the data root's file system. Read only if no state exists. */
  controls: readonly string[];
  image: ImageFacts;
  /** Folders that are recorded or marked below the image's mount. */
  foldersOnImage: number;
  /** Room where the image lies, or would lie. */
  disk: FreeSpace;
  missingPrograms: readonly string[];
  /** Configured places of ws-ckpt that do not exist. */
  missingOld: readonly string[];
  /** True if ws-ckpt left state on this machine that Cairn has not taken over yet. */
  isOldLeft: boolean;
  /** The reason for which the state directory or the socket cannot be made, and a remedy; null if both can be made. */
  closed: { what: string; help: string; code?: ErrorCode } | null;
}

/** The data root that the configuration names, else that of a state with the same backend. */
function dataRootOf({ backend }: Pick<DaemonConfig, "backend">, state: DaemonState | null): string | null {
  const isKept = backend.type === null || backend.type === state?.backend.type;
  return backend.data_root ?? (isKept ? (state?.paths.data_root ?? null) : null);
}

/** Reads everything that decides about a start. Makes, mounts and changes nothing. */
export function gatherFacts(
  { state, lost }: Pick<LoadedState, "state" | "lost">,
  { config, places, rebuild }: { config: DaemonConfig; places: DaemonPlaces; rebuild: boolean },
): StartFacts {
  const known = state?.paths.loop_image ?? null;
  const own = loopPlaces(places.state);
  const isUnnamed = known === null && state?.backend.type !== "btrfs-loop" && !existsSync(own.image);
  const old = isUnnamed ? oldLoop(config, places) : null;
  const recorded = old?.image ?? known;
  const { image: path, mount } = loopPlaces(places.state, recorded);
  const { registered, marked } = foldersOf(places);
  const dataRoot = dataRootOf(config, state);
  const unfinished = unfinishedImage(places.state);
  return {
    config,
    places,
    isRoot: process.geteuid?.() === 0,
    rebuild,
    state,
    lost,
    traces: state === null ? tracesIn(places, { registered, marked, image: own.image }) : [],
    dataRoot: dataRoot === null ? null : lookAt(dataRoot),
    controls: state === null && dataRoot !== null ? controlsOn(dataRoot) : [],
    image: {
      path,
      mount,
      file: fileOf(path),
      known: recorded,
      old,
      mounted: mountedAt(mount),
      unfinished: fileOf(unfinished)?.uuid ?? null,
    },
    foldersOnImage: new Set([...registered, ...marked].filter((each) => each.startsWith(`${mount}/`))).size,
    disk: freeSpace(existingAncestor(places.state)),
    missingPrograms: missingPrograms(),
    missingOld: [config.migrate.state, config.migrate.data_root].flatMap((each) =>
      each === null || existsSync(each) ? [] : [each],
    ),
    isOldLeft: old !== null || (state?.migrated === undefined && leftByWsCkpt(config, places)),
    closed: whyNoPlaces(places, config.socket.group),
  };
}

/** Paths of folders in the registry and in the marks of the daemon of all users; another daemon's registry is its user's own. */
function foldersOf({ isSystem, state }: DaemonPlaces): { registered: string[]; marked: string[] } {
  if (!isSystem) return { registered: [], marked: [] };
  const registered = listRegisteredIn(state).map(({ registration, file }) => registration?.path ?? file);
  return { registered, marked: listMarks(state) };
}

/** Files that a daemon makes only after its state was saved. */
const LATER_FILES = ["records.db", "tokens.json"];

function tracesIn(
  { state }: DaemonPlaces,
  { registered, marked, image }: { registered: readonly string[]; marked: readonly string[]; image: string },
): string[] {
  return [
    ...(existsSync(image) ? [`the image ${image}`] : []),
    ...(registered.length === 0 ? [] : [`records of ${plural(registered.length, "folder")}`]),
    ...(marked.length === 0 ? [] : [`${plural(marked.length, "mark")} of kept folders`]),
    ...LATER_FILES.map((name) => join(state, name)).filter((each) => existsSync(each)),
  ];
}

function lookAt(path: string): DataRoot {
  const found = statSync(path, { throwIfNoEntry: false });
  if (found?.isDirectory() !== true) return { path, isFolder: false, kind: null, uuid: null };
  const { name } = filesystemKind(path);
  const kind = name === "unknown" ? (mountOf(path)?.type ?? name) : name;
  return { path, isFolder: true, kind, uuid: filesystemUuid(path) };
}

/** Control directories at the root of the mount that holds a folder: those of folders on btrfs lie there. */
function controlsOn(folder: string): string[] {
  const mount = existsSync(folder) ? mountOf(folder) : null;
  return mount === null ? [] : controlsAt(mount.mountPoint);
}

function fileOf(path: string): ImageFacts["file"] {
  return statSync(path, { throwIfNoEntry: false }) === undefined ? null : { uuid: btrfsInFile(path) };
}

function mountedAt(mount: string): string | null {
  const device = deviceAt(mount);
  return device === null ? null : (backingFile(device) ?? device);
}

/** The most bytes that the kernel takes for the path of a socket. */
const MOST_SOCKET_BYTES = 107;

function whyNoPlaces({ state, socket }: DaemonPlaces, group: string | null): StartFacts["closed"] {
  const stateClosed = whyClosed(state);
  if (stateClosed !== null)
    return { what: `the state directory ${state} cannot be used: ${stateClosed}`, help: "name another one" };
  const help = "name another place for the socket";
  const why =
    Buffer.byteLength(socket) > MOST_SOCKET_BYTES
      ? `its path has more than ${MOST_SOCKET_BYTES} bytes`
      : whyClosed(dirname(socket));
  if (why !== null) return { what: `the socket ${socket} cannot be made: ${why}`, help };
  if (lstatSync(socket, { throwIfNoEntry: false })?.isSocket() === false)
    return { code: "already_exists", what: `the socket cannot be made: ${socket} exists and is not a socket`, help };
  if (group === null || groupId(group) !== null) return null;
  return {
    what: `socket.group: there is no group ${JSON.stringify(group)} on this machine`,
    help: `make it: groupadd --system ${group}; or leave socket.group out of the configuration`,
  };
}

/** File systems of the kernel in which nobody can make a folder. */
const OF_KERNEL: ReadonlySet<string> = new Set(["proc", "sysfs"]);

function whyClosed(folder: string): string | null {
  const place = existingAncestor(folder).toString("utf8");
  try {
    if (!statSync(place).isDirectory()) return `${place} is not a folder`;
    const type = mountOf(place)?.type ?? "";
    if (OF_KERNEL.has(type)) return `${place} lies on ${type}`;
    accessSync(place, constants.W_OK | constants.X_OK);
    return null;
  } catch (error) {
    return `${place}: ${toCairnError(error).message}`;
  }
}
