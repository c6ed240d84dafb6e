import { readdirSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { identityOfTree, recordedIdentity } from "../clones/as-made.ts";
import type { Client, HistoryResult } from "../contract/index.ts";
import { advice, CairnError, toCairnError } from "../errors.ts";
import type { FolderMove, ServedWorkspace } from "../formats/records/daemon-state.ts";
import { freeSpace, mountOf } from "../fs/linux/mounts.ts";
import { plural } from "../formats/sizes.ts";
import { printablePath, restoreLine, shellPath } from "../fs/paths/safe-path.ts";
import { originalsIn } from "../workspace/care/originals.ts";
import { folderOf, type KeptState } from "./state/kept-state.ts";

/** State of a workspace at the last look. A look changes and removes nothing. */
export interface Health {
  health: "ok" | "folder_gone" | "control_gone" | "points_missing" | "failing";
  detail: string | null;
  /** A command or a sentence that helps. */
  remedy: string | null;
  /** Ids of points whose content is missing now. The points count again once their content is back. */
  missing: string[];
}

export const WELL: Health = { health: "ok", detail: null, remedy: null, missing: [] };

/** Counts the points of a workspace by their directories, with the time of the newest; null if the directories cannot be read now. */
export function pointsOf({
  control_directory: control,
}: ServedWorkspace): { points: number; last_point_at: string | null } | null {
  try {
    const folders = foldersOfPoints(control);
    const newest = folders.reduce((last, each) => (basename(each) > basename(last) ? each : last), "");
    const made = newest === "" ? null : statSync(join(newest, "descriptor.json"), { throwIfNoEntry: false });
    return { points: folders.length, last_point_at: made?.mtime.toISOString() ?? null };
  } catch {
    return null;
  }
}

/** The error for a folder that replaced the link to a workspace on the image. */
export function linkReplaced(served: ServedWorkspace): CairnError {
  const { link = "", path } = served;
  const points = plural(pointsOf(served)?.points ?? served.points, "point");
  const [shown, target] = [shellPath(Buffer.from(link)), shellPath(Buffer.from(path))];
  return new CairnError(
    "conflict",
    `${link} was a link to a workspace with ${points}, which lies in ${path}; the link was removed, and another folder lies at its path now`,
    {
      hint: advice`move the folder away and make the link again: mv ${shown} ${shown}.new && ln -s ${target} ${shown}; to get the workspace's last state back: ${restoreLine(link)}`,
    },
  );
}

function foldersOfPoints(control: string): string[] {
  const workspaces = join(control, "workspaces");
  return readdirSync(workspaces).flatMap((each) => {
    const points = join(workspaces, each, "points");
    return readdirSync(points).flatMap((name) => (/^\d{10}$/.test(name) ? [join(points, name)] : []));
  });
}

/** Milliseconds after a change of a workspace's points until they are counted: a series of saves is counted once. */
const DELAY_MS = 1000;

/** Keeps each workspace's number of points in the state, so that it is known while the points' file system is gone. */
export class PointCounts {
  readonly #kept: KeptState;
  readonly #log: (message: string) => void;
  readonly #changed = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(kept: KeptState, log: (message: string) => void) {
    this.#kept = kept;
    this.#log = log;
  }

  /** Counts the points of a workspace soon. */
  changed(id: string): void {
    this.#changed.add(id);
    this.#timer ??= setTimeout(() => this.settle(), DELAY_MS).unref();
  }

  /** Counts the points of changed workspaces at once, and saves the state. */
  settle(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const served of this.#kept.state.workspaces)
      if (this.#changed.has(served.id)) served.points = pointsOf(served)?.points ?? served.points;
    this.#changed.clear();
    try {
      this.#kept.save();
    } catch (error) {
      this.#log(`cannot save the daemon's state, so its file stays as it was: ${toCairnError(error).message}`);
    }
  }
}

/**
 * Makes points of trees that lost their record. The points are pinned, because their purpose is unknown. Skips a tree
 * that is a point already. Returns the number of new points.
 */
async function recoverTrees(
  { control_directory: control }: ServedWorkspace,
  client: Client,
  { damaged, save_points: points }: HistoryResult,
): Promise<number> {
  if (damaged.length === 0) return 0;
  const known = new Set(points.map(({ cause }) => (cause.kind === RECOVERED ? cause["tree"] : null)));
  let made = 0;
  for (const folder of foldersOfPoints(control)) {
    const [tree, record] = [join(folder, "tree"), join(folder, "descriptor.json")];
    const isLost = damaged.some(({ detail }) => detail.startsWith(`${record} `));
    if (!isLost || known.has(tree) || isThere(record) || !isThere(tree)) continue;
    const identity = recordedIdentity(join(folder, "tree-identity"));
    if (identity !== null && identityOfTree(tree) !== identity) continue;
    await client.importTree(tree, {
      message: "recovered: its record was lost",
      cause: { kind: RECOVERED, tree },
      createdAt: statSync(tree).ctime.toISOString(),
      pinned: true,
    });
    made++;
  }
  return made;
}

const RECOVERED = "recovered";

/** Looks at a workspace, and counts its points. */
export async function lookAfter(
  served: ServedWorkspace,
  { open, log }: { open: () => Promise<Client>; log: (message: string) => void },
): Promise<Health> {
  const folder = folderOf(served);
  const shown = printablePath(folder);
  if (!isThere(served.control_directory))
    return {
      ...WELL,
      health: "control_gone",
      detail: `its points lie in ${served.control_directory}, which is missing`,
      remedy:
        "mount the control directory's file system, or restore the directory from a backup; the workspace works again then",
    };
  try {
    const client = await open();
    const history = async (): Promise<HistoryResult> => client.history(undefined, 0, { all: true });
    const found = await history();
    const recovered = await recoverTrees(served, client, found);
    if (recovered > 0) log(`${shown}: recovered and pinned ${plural(recovered, "point")} whose record was lost`);
    const { save_points: points, damaged } = recovered > 0 ? await history() : found;
    served.points = points.length + damaged.length;
    if (!isThere(folder))
      return {
        ...WELL,
        health: "folder_gone",
        detail: `${shown} is missing`,
        remedy: `cairn -C ${shown} restore latest`,
      };
    const missing = points.flatMap((each) => (each.integrity_state === "damaged" ? [each.save_point_id] : []));
    if (missing.length === 0) return WELL;
    return {
      health: "points_missing",
      detail: `the content of ${missing.length} of ${served.points} points is missing`,
      remedy: `cairn -C ${shown} doctor`,
      missing,
    };
  } catch (error) {
    const { message, hint } = toCairnError(error);
    return { ...WELL, health: "failing", detail: message, remedy: hint ?? null };
  }
}

/** False also for a place that cannot be read: a mount may be dead. */
function isThere(place: string | Buffer): boolean {
  return deviceOf(place) !== undefined;
}

function deviceOf(place: string | Buffer): number | undefined {
  try {
    return statSync(place).dev;
  } catch {
    return undefined;
  }
}

/** Room of a file system, in bytes. */
export interface FileSystemFacts {
  mount: string;
  type: string;
  total_bytes: number;
  free_bytes: number;
}

/** The file systems of the workspaces, their points and the state; without those that do not answer. */
export function fileSystemsOf(workspaces: readonly ServedWorkspace[], state: string): FileSystemFacts[] {
  const found = new Map<number, FileSystemFacts>();
  const places = workspaces.flatMap((served) => [folderOf(served), Buffer.from(served.control_directory)]);
  for (const place of [...places, Buffer.from(state)]) {
    const device = deviceOf(place);
    if (device === undefined || found.has(device)) continue;
    const mount = mountOf(place);
    const { totalBytes, freeBytes } = freeSpace(place);
    const [shown, type] = mount === null ? [printablePath(place), ""] : [printablePath(mount.mountPoint), mount.type];
    found.set(device, { mount: shown, type, total_bytes: totalBytes, free_bytes: freeBytes });
  }
  // Each subvolume has a device of its own.
  return [...new Map([...found.values()].map((each) => [each.mount, each])).values()];
}

/** A file system with less free space than this part is nearly full. */
const LITTLE = 0.1;

/** Sentences for the operator about problems; empty if all is well. */
export function adviceOn(
  workspaces: readonly (ServedWorkspace & Health)[],
  systems: readonly FileSystemFacts[],
  moves: readonly FolderMove[] = [],
): string[] {
  // Originals lie beside the links, not beside the folders on the image, so nobody would find them.
  const parents = new Set(workspaces.flatMap(({ link }) => (link === undefined ? [] : [dirname(link)])));
  const originals = [...parents]
    .flatMap((parent) => originalsIn(Buffer.from(parent)))
    .filter((place) => !moves.some(({ aside }) => place.equals(Buffer.from(aside))));
  const full = systems.filter(({ free_bytes: free, total_bytes: total }) => free < total * LITTLE);
  const sick = workspaces.filter(({ health }) => health !== "ok");
  return [
    ...full.map(({ mount }) => `${mount} is nearly full: remove points with \`cairn cleanup\`, or add space`),
    ...(sick.length === 0
      ? []
      : [`${plural(sick.length, "workspace")} with problems: see the detail and the remedy of each`]),
    ...originals.map(
      (place) =>
        `${printablePath(place)} is the original of a folder that was moved, or a copy with files that were written during a move that was taken back: compare it with the folder, then remove it`,
    ),
  ];
}
