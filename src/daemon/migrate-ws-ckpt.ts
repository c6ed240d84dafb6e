import { lstatSync, readdirSync } from "node:fs";
import { join } from "node:path";
import type { Client } from "../contract/index.ts";
import { CairnError, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { parseJson } from "../formats/fields.ts";
import { readSmallFile } from "../fs/durable.ts";
import { isSubvolume } from "../fs/linux/btrfs.ts";
import { printablePath } from "../fs/safe-path.ts";

/**
 * Takes over what the checkpoint daemon ws-ckpt has left, of its layouts v0 and v1. Nothing of it is changed or removed: the live
 * subvolumes become workspaces where they lie, each snapshot a point with its id, message, time and pin. A snapshot that is a
 * point already is passed over, so that what was killed goes on with the next start.
 */

/** The mount of its image, where its state does not say another. */
const LOOP_MOUNT = "/mnt/btrfs-workspace";
const MAX_INDEX_BYTES = 256 << 20;
const WORKSPACE = /^ws-[0-9a-f]{6}(?:-\d+)?$/;

export interface OldPlaces {
  /** The old state directory; only v1 has one. */
  state: string;
  /** The folder with the live subvolumes and `snapshots`; null: as the old state says. */
  dataRoot: string | null;
}

export interface Migration {
  /** Opens a folder as a workspace that the daemon serves. */
  register(folder: string): Promise<Client>;
  /** Snapshots of an old workspace that were taken over: what its user has removed since is not brought back. */
  taken(id: string): readonly string[];
  /** Notes them, durably. */
  note(id: string, names: readonly string[]): void;
  log(message: string): void;
}

interface OldSnapshot {
  message: string;
  pinned: boolean;
  createdAt: string | undefined;
  metadata: unknown;
  /** False: only its subvolume is there. */
  isListed: boolean;
}

/** Counts of a migration. */
export interface Migrated {
  workspaces: number;
  points: number;
  /** Sentences: what could not be taken over, and why. */
  problems: string[];
}

/** Takes over all that is there and not taken over yet; one bad file stops no good one. */
export async function migrateOld(places: OldPlaces, migration: Migration): Promise<Migrated> {
  const done: Migrated = { workspaces: 0, points: 0, problems: [] };
  const problem = (what: string, error: unknown): void =>
    void done.problems.push(`${what}: ${toCairnError(error).message}`);
  const dataRoot = places.dataRoot ?? oldDataRoot(places.state, problem) ?? LOOP_MOUNT;
  if (!isFolder(dataRoot)) return done;
  for (const id of oldWorkspaces(dataRoot)) {
    const live = join(dataRoot, id);
    try {
      if (!isFolder(live)) {
        const isKilled = isFolder(`${live}.rollback-tmp`);
        throw new CairnError(
          "not_found",
          isKilled
            ? `a rollback was killed: the live folder lies in ${live}.rollback-tmp; rename it to ${live}`
            : `${live} is not there; its snapshots stay where they are`,
        );
      }
      const snapshots = oldSnapshots(places.state, { dataRoot, id }, problem);
      const client = await migration.register(live);
      failpoint("daemon-migration.registered");
      done.workspaces++;
      const taken = new Set([...migration.taken(id), ...(await importedInto(client))]);
      for (const [name, snapshot] of snapshots) {
        if (taken.has(name)) continue;
        const tree = join(dataRoot, "snapshots", id, name);
        try {
          if (!isFolder(tree))
            throw new CairnError("not_found", `${tree} is not there; it is looked for at each start`);
          await take(client, { id, name, tree, snapshot });
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
    migration.log(`ws-ckpt: ${done.points} snapshots are points now; the old ones stay in ${printablePath(dataRoot)}`);
  return done;
}

type Problem = (what: string, error: unknown) => void;

/** The data root by the old state file; null where there is none, or it cannot be read. */
function oldDataRoot(state: string, problem: Problem): string | null {
  const file = join(state, "state.json");
  try {
    const bytes = readSmallFile(file, MAX_INDEX_BYTES);
    if (bytes === null) return null;
    const { paths } = (parseJson(bytes, file) ?? {}) as { paths?: { data_root?: unknown } };
    if (typeof paths?.data_root === "string" && paths.data_root.startsWith("/")) return paths.data_root;
    throw new CairnError("damaged", "it names no data_root");
  } catch (error) {
    problem(printablePath(file), error);
    return null;
  }
}

/** Ids of workspaces that have a live subvolume or snapshots, in order. */
function oldWorkspaces(dataRoot: string): string[] {
  const names = [...namesOf(dataRoot), ...namesOf(join(dataRoot, "snapshots"))];
  return [...new Set(names.filter((name) => WORKSPACE.test(name)))].toSorted();
}

/** Snapshots of a workspace, oldest first: those of its indexes, and subvolumes that no index has. */
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
          problem(file, new CairnError("invalid_id", `${JSON.stringify(name)} is no name of a snapshot`));
    } catch (error) {
      problem(printablePath(file), error);
    }
  for (const name of namesOf(folder))
    if (!found.has(name) && isSubvolumeAt(join(folder, name)))
      found.set(name, { message: "", pinned: true, createdAt: undefined, metadata: undefined, isListed: false });
  return [...found].toSorted(([, a], [, b]) => ((a.createdAt ?? "") < (b.createdAt ?? "") ? -1 : 1));
}

function listOf(value: unknown, file: string): Record<string, unknown> {
  const { snapshots } = (value ?? {}) as { snapshots?: unknown };
  if (typeof snapshots === "object" && snapshots !== null && !Array.isArray(snapshots))
    return snapshots as Record<string, unknown>;
  throw new CairnError("damaged", `${file}: it lists no snapshots`);
}

function snapshotOf(entry: unknown): OldSnapshot {
  const { message, pinned, created_at: at, metadata } = (entry ?? {}) as Record<string, unknown>;
  const time = typeof at === "string" ? Date.parse(at) : Number.NaN;
  return {
    message: typeof message === "string" ? message : "",
    pinned: pinned === true,
    createdAt: Number.isNaN(time) ? undefined : new Date(time).toISOString(),
    metadata,
    isListed: true,
  };
}

/** A name of somebody's choice becomes part of a path only as one entry of a directory. */
function isPlainName(name: string): boolean {
  return name !== "" && name !== "." && name !== ".." && !/[/\0]/.test(name) && name.length <= 255;
}

interface Taken {
  id: string;
  name: string;
  tree: string;
  snapshot: OldSnapshot;
}

async function take(client: Client, { id, name, tree, snapshot }: Taken): Promise<void> {
  const { message, pinned, createdAt, metadata, isListed } = snapshot;
  const cause = {
    kind: "ws-ckpt",
    workspace: id,
    snapshot: name,
    listed: isListed,
    ...(metadata === undefined ? {} : { metadata }),
  };
  const options = { message, cause, pinned, ...(createdAt === undefined ? {} : { createdAt }) };
  try {
    await client.importTree(tree, { ...options, id: name });
  } catch (error) {
    // A point has it already, or it means another one, as `latest`.
    if (!["already_exists", "invalid_id"].includes(toCairnError(error).code)) throw error;
    await client.importTree(tree, { ...options, tags: [name] });
  }
}

/** Names of snapshots that are points of a workspace. */
async function importedInto(client: Client): Promise<string[]> {
  const { save_points: points } = await client.history(undefined, 0);
  return points.flatMap(({ cause }) => (cause.kind === "ws-ckpt" ? [String(cause["snapshot"])] : []));
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
