import { append } from "../../append.ts";
import type { CleanupResult } from "../../contract/looking.ts";
import { toCairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { plural } from "../../formats/sizes.ts";
import { displayPath, listedNames, quotedPath } from "../../fs/paths/safe-path.ts";
import { suspectAt } from "../../fs/secret-names.ts";
import type { SavePointId } from "../../ids.ts";
import { DATA_BLOB } from "../../repository/index/blob-index.ts";
import { whileReading } from "../../repository/locks.ts";
import { LiveSet } from "../../repository/trees/live.ts";
import { pathIn, type TreeVisitor, walkTrees } from "../../repository/trees/walk-trees.ts";
import { readBackupNotes } from "../place/backup-notes.ts";
import type { Point } from "../points/point-files.ts";
import { allPoints } from "../points/points.ts";
import { type CopyContent, treesOf } from "../store/copy-content.ts";
import type { EmbeddedStore } from "../store/embedded-store.ts";
import { placedIn } from "../../archive/databases/point-view.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

/** Searches other points and repositories for content of points that will be removed. */

/** A file that a point shares with a removed one. Lower ranks come first. */
interface SharedFile {
  /** latin1 path below the folder; for content that a capture stored, below `/` of the point's snapshot */
  path: string;
  /** 0: looks like credentials; 1: the removed point was the first with this content; 2: any other file */
  rank: 0 | 1 | 2;
}

/** Files of one tree, or of a whole point. */
interface Shared {
  count: number;
  /** the first few by rank */
  sample: SharedFile[];
  /** false: some trees could not be read */
  isWhole: boolean;
}

interface Placed {
  point: Point;
  /** name of the point's workspace */
  workspace: string;
}

type Holder = Placed & Shared;

interface StillHeld {
  /** holders with files of the lowest rank first, then newest first */
  holders: Holder[];
  /** points whose content was not compared: not sealed, damaged, or beyond {@link MOST_NODES} */
  unread: (SavePointId | null)[];
  /** repositories that have backups of removed points, or of holders with files of a rank below 2 */
  repositories: { location: string; points: SavePointId[] }[];
}

/** The most directory entries that are read: some seconds of work. */
const MOST_NODES = 2_000_000;
const SAMPLE = 5;
const RECORDS = ".cairn/manifest.json";

/** Finds other points of the control directory's workspaces, and repositories, that hold content of `drop`. */
async function stillHeld(workspace: Workspace, drop: ReadonlySet<string>, call: WorkspaceCall): Promise<StillHeld> {
  const { control } = workspace.found;
  const going: Placed[] = [];
  const staying: Placed[] = [];
  const found: StillHeld = { holders: [], unread: [], repositories: [] };
  const places = allPoints(control);
  for (const { name, points } of places) {
    const listed = points.list();
    append(
      found.unread,
      listed.damaged.map(({ id }) => id).filter((id) => id === null || !drop.has(id)),
    );
    for (const point of listed.points) {
      const { save_point_id: id } = point.descriptor;
      if (!point.sealed) found.unread.push(id);
      else if (drop.has(id)) going.push({ point, workspace: name });
      else staying.push({ point, workspace: name });
    }
  }
  // The list is newest first, so `find` returns the nearest earlier point.
  const before = going.flatMap(
    (gone) =>
      staying.find((each) => each.workspace === gone.workspace && each.point.sequence < gone.point.sequence) ?? [],
  );
  const store = await workspace.engine.store(call);
  await whileReading(store.repository, { waitMs: 10_000, signal: call.signal }, async () => {
    await store.refresh(call.signal);
    const { index, blobs } = store;
    const [removed, known] = [new LiveSet(index), new LiveSet(index)];
    await removed.mark(going.flatMap(treesOfPoint), blobs.viewTree, call);
    await known.mark(before.flatMap(treesOfPoint), blobs.viewTree, call);
    const rankOf: RankOf = (name, { content = new Uint8Array() }) => {
      let rank: ReturnType<RankOf> = null;
      for (let at = 0; at < content.length; at += 32) {
        const entry = index.lookup(content, at, DATA_BLOB);
        if (entry < 0 || !removed.has(entry)) continue;
        if (suspectAt(Buffer.from(name, "latin1")) !== null) return 0;
        rank = known.has(entry) ? (rank ?? 2) : 1;
      }
      return rank;
    };
    const walk = new SharedWalk(store, rankOf, call.signal);
    for (const each of staying) {
      const shared = await walk.point(each);
      if (!shared.isWhole) found.unread.push(each.point.descriptor.save_point_id);
      if (shared.count > 0) found.holders.push({ ...each, ...shared });
    }
  });
  found.holders.sort((a, b) => a.sample[0]!.rank - b.sample[0]!.rank || newer(a.point, b.point));
  const telling = found.holders.filter(({ sample }) => sample[0]!.rank < 2);
  const held = new Set([...drop, ...telling.map(({ point }) => point.descriptor.save_point_id)]);
  for (const { paths } of places)
    for (const { location, save_point_id: id, earlier = [] } of readBackupNotes(paths)) {
      const points = [id, ...earlier].filter((each) => held.has(each));
      if (points.length > 0) found.repositories.push({ location, points });
    }
  return found;
}

function newer({ descriptor: a }: Point, { descriptor: b }: Point): number {
  return a.created_at < b.created_at ? 1 : -1;
}

function treesOfPoint({ point: { descriptor } }: Placed): Uint8Array[] {
  return treesOf(descriptor.content as unknown as CopyContent);
}

/** Returns a file's rank; null for a file without content of a removed point. */
type RankOf = (path: string, node: TreeNode) => SharedFile["rank"] | null;

/** Walks points' trees, each tree once. */
class SharedWalk {
  readonly #store: Pick<EmbeddedStore, "blobs">;
  readonly #rankOf: RankOf;
  readonly #signal: AbortSignal | undefined;
  /** results by tree id; paths start at the tree */
  readonly #known = new Map<string, Shared>();
  #nodes = 0;

  constructor(store: Pick<EmbeddedStore, "blobs">, rankOf: RankOf, signal: AbortSignal | undefined) {
    this.#store = store;
    this.#rankOf = rankOf;
    this.#signal = signal;
  }

  async point(placed: Placed): Promise<Shared> {
    const trees = treesOfPoint(placed);
    const known = await this.#tree(trees.at(-1)!);
    const own = { ...known, sample: [...known.sample] };
    const content = placed.point.descriptor.content as unknown as CopyContent;
    const databases = await placedIn(this.#store, content);
    for (const { path, database } of databases?.below(databases.root) ?? []) {
      const ranks = Array.from(database.files.values(), (file) => this.#rankOf(latin1(path), file));
      const rank = ([0, 1, 2] as const).find((each) => ranks.includes(each));
      if (rank !== undefined) add(own, { count: 1, sample: [{ path: "", rank }], isWhole: true }, latin1(path));
    }
    // Captured content lies beside the folder in the snapshot.
    const all = await this.#tree(trees[0]!);
    return { ...all, sample: own.count > 0 ? own.sample : all.sample };
  }

  async #tree(root: Uint8Array): Promise<Shared> {
    const visitor: TreeVisitor<Shared> = {
      known: ({ id }) => this.#known.get(latin1(id)) ?? (this.#nodes > MOST_NODES ? UNREAD : undefined),
      unread: () => UNREAD,
      done: ({ id, path }, nodes) => {
        const shared: Shared = { count: 0, sample: [], isWhole: true };
        for (const [node, below] of nodes) {
          this.#nodes++;
          const name = pathIn("", node.name);
          if (below !== undefined) add(shared, below, name);
          else if (node.type === "file" && pathIn(path, node.name) !== RECORDS) {
            const rank = this.#rankOf(pathIn(path, node.name), node);
            if (rank !== null) add(shared, { count: 1, sample: [{ path: "", rank }], isWhole: true }, name);
          }
        }
        this.#known.set(latin1(id), shared);
        return shared;
      },
    };
    return walkTrees(root, this.#store.blobs.listTree, visitor, this.#signal);
  }
}

/** Returns raw paths in points, at most 20, of files that have one of these data blobs. `content`: blob ids in latin1. */
export async function pathsWith(
  workspaces: readonly Workspace[],
  content: ReadonlySet<string>,
  call: WorkspaceCall,
): Promise<Buffer[]> {
  const { engine } = workspaces[0]!;
  const store = await engine.store(call);
  return engine.reading(async () => {
    const { index } = store;
    const left = new Set([...content].filter((id) => index.lookup(Buffer.from(id, "latin1"), 0, DATA_BLOB) >= 0));
    const found = new Set<string>();
    if (left.size === 0) return [];
    const rankOf: RankOf = (_path, { content: ids = new Uint8Array() }) => {
      for (let at = 0; at < ids.length; at += 32) if (left.has(latin1(ids.subarray(at, at + 32)))) return 2;
      return null;
    };
    const walk = new SharedWalk(store, rankOf, call.signal);
    for (const each of workspaces) {
      for (const point of each.points.list().points) {
        if (!point.sealed) continue;
        const { sample } = await walk.point({ point, workspace: each.found.workspace.name });
        for (const { path } of sample) found.add(path);
      }
    }
    return [...found].slice(0, 20).map((path) => Buffer.from(path, "latin1"));
  }, call);
}

const UNREAD: Shared = { count: 0, sample: [], isWhole: false };

/** Adds the shared files below a name. */
function add(shared: Shared, below: Shared, name: string): void {
  shared.count += below.count;
  shared.isWhole &&= below.isWhole;
  for (const { path, rank } of below.sample) {
    const at = shared.sample.findIndex((each) => each.rank > rank);
    shared.sample.splice(at < 0 ? shared.sample.length : at, 0, { path: path === "" ? name : `${name}/${path}`, rank });
  }
  shared.sample.length = Math.min(shared.sample.length, SAMPLE);
}

/** Finds other holders of content of points that will be removed. If that fails, warns and returns null. */
export async function lookForRest(
  workspace: Workspace,
  drop: readonly { id: SavePointId }[],
  call: WorkspaceCall,
): Promise<StillHeld | null> {
  try {
    return await stillHeld(workspace, new Set(drop.map(({ id }) => id)), call);
  } catch (error) {
    const problem = toCairnError(error);
    if (problem.code === "interrupted") throw problem;
    call.onWarning?.(`Cairn could not check if other points have the removed content: ${problem.message}`);
    return null;
  }
}

/** The most points in an answer, and in a warning. */
const [MOST_LISTED, MOST_TOLD] = [100, 10];

/** Returns the answer's part about other holders of removed content. */
export function publicHeld({ holders, unread, repositories }: StillHeld): NonNullable<CleanupResult["still_held"]> {
  return {
    points: holders.slice(0, MOST_LISTED).map(({ point, workspace, count, sample }) => ({
      save_point_id: point.descriptor.save_point_id,
      workspace_name: workspace,
      undo: point.descriptor.undo,
      pinned: point.pin !== null,
      files: count,
      paths: sample.map(({ path }) => displayPath(Buffer.from(path, "latin1"))),
    })),
    point_count: holders.length,
    not_looked_at: unread.filter((id) => id !== null).slice(0, MOST_LISTED),
    not_looked_at_count: unread.length,
    repositories: repositories.map(({ location, points }) => ({
      location,
      save_point_ids: points.slice(0, MOST_LISTED),
    })),
  };
}

/** Warns of the holders of removed content. Holders that have only older content are listed separately. */
export function warnOfRest(
  { found }: Workspace,
  { holders, unread, repositories }: StillHeld,
  call: WorkspaceCall,
): void {
  const tell = (some: readonly Holder[], meaning: string): void => {
    if (some.length === 0) return;
    const files = some.flatMap(({ sample }) => sample.filter(({ rank }) => rank < 2 || some === old));
    const names = [...new Set(files.map(({ path }) => path))].map((path) => quotedPath(Buffer.from(path, "latin1")));
    const shown = some.slice(0, MOST_TOLD).map((each) => nameOf(each, found.workspace.name));
    const more = some.length > MOST_TOLD ? ` and ${some.length - MOST_TOLD} more` : "";
    call.onWarning?.(
      `${plural(some.length, "other point")} still ${some.length === 1 ? "has" : "have"} ${meaning} (${listedNames(names)}): ${shown.join(", ")}${more}${some === old ? "" : "; `cairn cleanup purge --path PATH` removes a path from all points"}`,
    );
  };
  const old = holders.filter(({ sample }) => sample[0]!.rank === 2);
  tell(holders.slice(0, holders.length - old.length), "content of the removed points");
  tell(old, "files of the removed points, and are older");
  const places = [...new Set(repositories.map(({ location }) => location))];
  if (places.length > 0)
    call.onWarning?.(
      `content of the removed points was backed up into ${listedNames(places)}: \`cairn backup find\` finds it there, \`cairn backup rewrite --exclude PATH --forget\` removes it`,
    );
  if (unread.length > 0)
    call.onWarning?.(
      `${plural(unread.length, "point")} could not be compared with the removed points, because they are not sealed or are damaged: ${listedNames(unread.map((id) => id?.slice(0, 8) ?? "?"))}; run \`cairn seal\` before the next removal`,
    );
}

function nameOf({ point, workspace }: Holder, own: string): string {
  const { save_point_id: id, undo } = point.descriptor;
  const facts = [undo && "undo point", point.pin !== null && "pinned", workspace !== own && `of ${workspace}`];
  const said = facts.filter((fact) => fact !== false);
  return said.length === 0 ? id.slice(0, 8) : `${id.slice(0, 8)} (${said.join(", ")})`;
}
