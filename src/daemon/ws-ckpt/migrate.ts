import { lstatSync, readdirSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { parse } from "smol-toml";
import type { Client } from "../../contract/index.ts";
import { append } from "../../append.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { parseJson } from "../../formats/fields.ts";
import { readSmallFile } from "../../fs/durable.ts";
import { isSubvolume } from "../../fs/linux/btrfs.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { namesOfIndexes, type OldState, readOldState } from "./old-loop.ts";

export { oldStateDirectory } from "./old-loop.ts";

/**
 * Takes over the workspaces of the checkpoint daemon ws-ckpt, layouts v0 and v1, and changes nothing of them. Live
 * subvolumes become workspaces in place, each snapshot a point with its id, message, time and pin. Snapshots that are
 * points already are skipped, so the next start continues after a kill.
 */

/** The mount of ws-ckpt's image, unless its state names another. */
const LOOP_MOUNT = "/mnt/btrfs-workspace";
const MAX_INDEX_BYTES = 256 << 20;
const WORKSPACE = /^ws-[0-9a-f]{6}(?:-\d+)?$/;

export interface OldPlaces {
  /** The old state directory; v0 has none. */
  state: string;
  /** The folder with the live subvolumes and `snapshots`; null: the folder that the old state names. */
  dataRoot: string | null;
}

export interface Migration {
  /** Opens a folder as a workspace that the daemon serves. `link`: the path that is a link to it. */
  register(folder: string, link: string | undefined): Promise<Client>;
  /**
   * Names of snapshots of an old workspace that were taken over. A point that its user removed since is not made again.
   */
  taken(id: string): readonly string[];
  /** Records the names, durably. */
  note(id: string, names: readonly string[]): void;
  log(message: string): void;
}

interface OldSnapshot {
  message: string;
  pinned: boolean;
  createdAt: string | undefined;
  metadata: unknown;
  /** The name of the snapshot that the folder was based on; null: none; undefined: the index does not say. */
  parent: string | null | undefined;
  /** The folder is based on it. Undefined: no index says which snapshot that is. */
  isHead: boolean | undefined;
  /** False: the workspace has only a subvolume, and no entry in the old state. */
  isListed: boolean;
}

export interface Migrated {
  workspaces: number;
  points: number;
  /** Sentences about things that were not taken over, with the reasons. */
  problems: string[];
}

/** Takes over everything that is not taken over yet. A bad file does not stop the others. */
export async function migrateOld(places: OldPlaces, migration: Migration): Promise<Migrated> {
  const done: Migrated = { workspaces: 0, points: 0, problems: [] };
  const problem = (what: string, error: unknown): void =>
    void done.problems.push(`${what}: ${toCairnError(error).message}`);
  const state = oldState(places.state, problem);
  const dataRoot = places.dataRoot ?? state?.dataRoot ?? LOOP_MOUNT;
  const paths = new Map(state?.workspaces.map(({ id, path }) => [id, path]));
  for (const id of oldWorkspaces(dataRoot, [...paths.keys(), ...namesOfIndexes(places.state)])) {
    const live = join(dataRoot, id);
    try {
      if (!isFolder(live)) {
        const isKilled = isFolder(`${live}.rollback-tmp`);
        throw new CairnError(
          "not_found",
          isKilled
            ? `a rollback was killed: the live folder lies in ${live}.rollback-tmp; rename it to ${live}`
            : `${live} is missing; its snapshots stay where they are`,
        );
      }
      const snapshots = oldSnapshots(places.state, { dataRoot, id }, problem);
      const client = await migration.register(live, linkTo(live, paths.get(id)));
      failpoint("daemon-migration.registered");
      done.workspaces++;
      const points = await importedInto(client);
      const taken = new Set([...migration.taken(id), ...points.keys()]);
      if (taken.size === 0) namePolicy({ state: places.state, dataRoot, id, live }, problem);
      for (const [name, snapshot] of snapshots) {
        if (taken.has(name)) continue;
        const tree = join(dataRoot, "snapshots", id, name);
        try {
          if (!isFolder(tree)) throw new CairnError("not_found", `${tree} is missing; each start looks for it again`);
          points.set(name, await take(client, { id, name, tree, snapshot, points }));
          taken.add(name);
          done.points++;
          failpoint("daemon-migration.imported");
        } catch (error) {
          problem(`the snapshot ${JSON.stringify(name)} of ${id}`, error);
        }
      }
      migration.note(id, [...taken]);
    } catch (error) {
      problem(`the workspace ${id}`, error);
    }
  }
  for (const each of done.problems) migration.log(`ws-ckpt: ${each}`);
  if (done.points > 0)
    migration.log(
      `ws-ckpt: ${done.points} snapshots became save points; the old snapshots stay in ${printablePath(dataRoot)}`,
    );
  return done;
}

type Problem = (what: string, error: unknown) => void;

/** The old state; null if it does not exist or cannot be read. */
function oldState(directory: string, problem: Problem): OldState | null {
  try {
    const state = readOldState(directory);
    if (state !== null && state.dataRoot === null) throw new CairnError("damaged", "the file names no data_root");
    return state;
  } catch (error) {
    problem(printablePath(join(directory, "state.json")), error);
    return null;
  }
}

/** The workspace's path of the user, if it is a link to the live folder. */
function linkTo(live: string, path: string | undefined): string | undefined {
  if (path === undefined || lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() !== true) return undefined;
  return readlinkSync(path) === live ? path : undefined;
}

/** Ids of workspaces that are listed, or have a live subvolume or snapshots, in order. */
function oldWorkspaces(dataRoot: string, listed: readonly string[]): string[] {
  const names = [...listed, ...namesOf(dataRoot), ...namesOf(join(dataRoot, "snapshots"))];
  return [...new Set(names.filter((name) => WORKSPACE.test(name)))].toSorted();
}

/** Snapshots of a workspace, oldest first: those in its indexes, and subvolumes without an index entry. */
function oldSnapshots(
  state: string,
  { dataRoot, id }: { dataRoot: string; id: string },
  problem: Problem,
): [name: string, snapshot: OldSnapshot][] {
  const folder = join(dataRoot, "snapshots", id);
  const found = new Map<string, OldSnapshot>();
  for (const file of [join(state, "indexes", id, "index.json"), join(folder, "index.json")])
    try {
      const bytes = readSmallFile(file, MAX_INDEX_BYTES);
      if (bytes === null) continue;
      for (const [name, entry] of Object.entries(listOf(parseJson(bytes, file), file)))
        if (!found.has(name) && isPlainName(name)) found.set(name, snapshotOf(entry));
        else if (!isPlainName(name))
          problem(file, new CairnError("invalid_id", `${JSON.stringify(name)} is not a snapshot name`));
    } catch (error) {
      problem(printablePath(file), error);
    }
  for (const name of namesOf(folder))
    if (!found.has(name) && isSubvolumeAt(join(folder, name))) found.set(name, UNLISTED);
  const heads = [...found.values()].some(({ isHead }) => isHead === true);
  if (!heads) for (const snapshot of found.values()) snapshot.isHead = undefined;
  return parentsFirst([...found].toSorted(([, a], [, b]) => ((a.createdAt ?? "") < (b.createdAt ?? "") ? -1 : 1)));
}

const UNLISTED: OldSnapshot = {
  message: "",
  pinned: true,
  createdAt: undefined,
  metadata: undefined,
  parent: undefined,
  isHead: undefined,
  isListed: false,
};

/** Moves parents before their children; otherwise keeps the order. */
function parentsFirst(snapshots: [string, OldSnapshot][]): [string, OldSnapshot][] {
  const waiting = new Map(snapshots);
  const ordered: [string, OldSnapshot][] = [];
  for (const [first] of snapshots) {
    const way: [string, OldSnapshot][] = [];
    for (let name: string | null | undefined = first; typeof name === "string" && waiting.has(name);) {
      const snapshot: OldSnapshot = waiting.get(name)!;
      waiting.delete(name);
      way.push([name, snapshot]);
      name = snapshot.parent;
    }
    append(ordered, way.reverse());
  }
  return ordered;
}

const POLICY = "policy.toml";
const MAX_POLICY_BYTES = 64 << 10;

/** Reports the cleanup policy of a workspace, which its user has to set here: a cleanup removes points. */
function namePolicy(
  { state, dataRoot, id, live }: { state: string; dataRoot: string; id: string; live: string },
  problem: Problem,
): void {
  for (const file of [join(state, "indexes", id, POLICY), join(dataRoot, "snapshots", id, POLICY)])
    try {
      const bytes = readSmallFile(file, MAX_POLICY_BYTES);
      if (bytes === null) continue;
      const { auto_cleanup: isOn, auto_cleanup_keep: keep } = parse(bytes.toString("utf8"));
      const rule =
        typeof keep === "number"
          ? `--keep-last ${keep}`
          : `--keep-within ${shellPath(typeof keep === "string" ? keep : "DURATION")}`;
      const how =
        isOn === false || keep === undefined
          ? "each cleanup of this daemon goes by [retention] in its configuration"
          : `to keep the same: cairn -C ${shellPath(live)} cleanup policy ${rule}`;
      throw new CairnError("unsupported", `its cleanup policy was not taken over; ${how}`);
    } catch (error) {
      problem(printablePath(file), error);
    }
}

function listOf(value: unknown, file: string): Record<string, unknown> {
  const { snapshots } = (value ?? {}) as { snapshots?: unknown };
  if (typeof snapshots === "object" && snapshots !== null && !Array.isArray(snapshots))
    return snapshots as Record<string, unknown>;
  throw new CairnError("damaged", `${file}: it lists no snapshots`);
}

function snapshotOf(entry: unknown): OldSnapshot {
  const {
    message,
    pinned,
    created_at: at,
    metadata,
    parent_id: parent,
    child_ids: children,
  } = (entry ?? {}) as Record<string, unknown>;
  const time = typeof at === "string" ? Date.parse(at) : Number.NaN;
  return {
    message: typeof message === "string" ? message : "",
    pinned: pinned === true,
    createdAt: Number.isNaN(time) ? undefined : new Date(time).toISOString(),
    metadata,
    parent: typeof parent === "string" || parent === null ? parent : undefined,
    isHead: Array.isArray(children) && children.includes(LIVE),
    isListed: true,
  };
}

/** The child of the snapshot that the live folder is based on. */
const LIVE = "__live__";

/** True if a name that a user chose is a single entry of a directory, so that it may become part of a path. */
function isPlainName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name) && name.length <= 255;
}

interface Taken {
  id: string;
  name: string;
  tree: string;
  snapshot: OldSnapshot;
  /** ids of the points of snapshots that were taken over */
  points: ReadonlyMap<string, string>;
}

/** Makes a snapshot a point. Returns the point's id. */
async function take(client: Client, { id, name, tree, snapshot, points }: Taken): Promise<string> {
  const { message, pinned, createdAt, metadata, isListed, isHead } = snapshot;
  const parent = typeof snapshot.parent === "string" ? points.get(snapshot.parent) : snapshot.parent;
  const cause = {
    kind: "ws-ckpt",
    workspace: id,
    snapshot: name,
    listed: isListed,
    ...(metadata === undefined ? {} : { metadata }),
  };
  const options = {
    message,
    cause,
    pinned,
    ...(createdAt === undefined ? {} : { createdAt }),
    ...(parent === undefined ? {} : { parent }),
    ...(isHead === undefined ? {} : { isHead }),
  };
  try {
    return (await client.importTree(tree, { ...options, id: name })).save_point_id;
  } catch (error) {
    // A point has the name already, or the name has a special meaning, for example `latest`.
    if (!["already_exists", "invalid_id"].includes(toCairnError(error).code)) throw error;
    return (await client.importTree(tree, { ...options, tags: [name] })).save_point_id;
  }
}

/** Snapshots that are points of a workspace: ids of the points by name. */
async function importedInto(client: Client): Promise<Map<string, string>> {
  const { save_points: points } = await client.history(undefined, 0);
  const ours = points.filter(({ cause }) => cause.kind === "ws-ckpt");
  return new Map(ours.map(({ cause, save_point_id: id }) => [String(cause["snapshot"]), id]));
}

function namesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isFolder(place: string): boolean {
  return lstatSync(place, { throwIfNoEntry: false })?.isDirectory() === true;
}

function isSubvolumeAt(place: string): boolean {
  return isFolder(place) && isSubvolume(place);
}
