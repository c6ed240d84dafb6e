import { append } from "../../append.ts";
import { pathMatcher } from "../../backup/open/paths.ts";
import type { EntryKind } from "../../contract/index.ts";
import { CairnError, toCairnError } from "../../errors.ts";
import { comparePaths, latin1 } from "../../formats/bytes.ts";
import type { TreeNodes } from "../../formats/restic/tree.ts";
import { plural } from "../../formats/sizes.ts";
import { displayPath, quotedPath } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { newPacer, type Pacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { pathIn } from "../../repository/trees/walk-trees.ts";
import { ownPointsOnly } from "../../workspace/open/siblings.ts";
import { type Workspace, workspacesBeside } from "../../workspace/open/workspace.ts";
import { isReleased } from "../../workspace/place/control-directory.ts";
import { kindOf } from "../../workspace/points/listed-entry.ts";
import type { Point } from "../../workspace/points/point-files.ts";
import { ensureSealed } from "../../workspace/save/seal.ts";
import type { FindNamesOptions, FindNamesResult } from "./find-names.ts";

const LIMIT = 1000;
const NOTHING = new Uint8Array(0);

/** Tells if an entry matches. Path and name are latin1 of their raw bytes. */
type Fits = (path: string, name: string) => boolean;

/** Indexes in the list of points (newest first): from `from` up to, but without, `to`. */
interface Range {
  from: number;
  to: number;
}
/** Adjacent points form one range. */
type Places = Range[];

/** All states of one folder: the trees that it has in some points, by their ids in latin1. */
interface Folder {
  path: string;
  trees: ReadonlyMap<string, Places>;
}

interface Name {
  newest: number;
  oldest: number;
  points: number;
  inLatest: boolean;
  /** kind of the entry in the newest point that has the name */
  kind: EntryKind;
  /** if folders have the name: the points that have each of their trees, by tree id in latin1 */
  trees: Map<string, Places>;
  /** content ids of a matching name; null if the name does not match */
  versions: Set<string> | null;
}

/** Searches names in all points; with `all` also in those of the other workspaces of the control directory. */
export async function findNames(
  workspace: Workspace,
  pattern: string,
  options: FindNamesOptions,
): Promise<FindNamesResult> {
  const { limit = LIMIT, all = false } = options;
  const result = await namesIn(workspace, pattern, options);
  const others = all && ownPointsOnly.getStore() !== true ? workspacesBeside(workspace) : [];
  for (const other of others) {
    await using _open = other;
    // A limit of 1 tells if the other workspace has further names.
    const left = Math.max(1, limit - result.found.length);
    const { found, truncated } = result.truncated
      ? { found: [], truncated: true }
      : await namesIn(other, pattern, { ...options, limit: left });
    result.truncated ||= truncated || result.found.length + found.length > limit;
    append(result.found, found.slice(0, limit - result.found.length));
  }
  return result;
}

/** Searches names in the points of one workspace. A tree that several points have at the same path is read once. */
async function namesIn(workspace: Workspace, pattern: string, options: FindNamesOptions): Promise<FindNamesResult> {
  const { limit = LIMIT, all = false, signal } = options;
  if (!Number.isInteger(limit) || limit < 1)
    throw new CairnError("usage", `the limit must be a whole number from 1; found ${limit}`);
  const fits = fitting(pattern, options.ignoreCase === true);
  const pace = newPacer(signal);
  const points = await sealedPoints(workspace, { ...options, all }, pace);
  const latest = points.findIndex((point) => point.sequence === workspace.points.latest()?.sequence);
  const { found, truncated, unread } = await workspace.engine.reading(
    async () => new NameSearch({ workspace, points, latest, fits, pace }).search(limit),
    options,
  );
  if (unread.length > 0)
    options.onWarning?.(
      `${plural(unread.length, "directory")} could not be read and searched, for example ${quotedPath(Buffer.from(unread[0]!, "latin1"))}: see \`cairn verify\``,
    );
  const raw = found.map(({ path, ...name }) => ({ path: Buffer.from(path, "latin1"), name }));
  const idOf = (place: number): SavePointId => points[place]!.descriptor.save_point_id;
  return {
    found: raw
      .toSorted((a, b) => comparePaths(a.path, b.path))
      .map(({ path, name }) => ({
        ...displayPath(path),
        workspace_name: workspace.found.workspace.name,
        kind: name.kind,
        newest: idOf(name.newest),
        oldest: idOf(name.oldest),
        points: name.points,
        versions: name.versions!.size,
        in_latest: name.inLatest,
      })),
    truncated,
  };
}

/** Returns the points to search, newest first. Warns of points that cannot be read or sealed. */
async function sealedPoints(
  workspace: Workspace,
  options: FindNamesOptions & { all: boolean },
  pace: Pacer,
): Promise<Point[]> {
  const read = async (): Promise<(Point | null)[]> => {
    const shown = options.all ? {} : { savesAnd: workspace.state().head };
    const points: (Point | null)[] = [];
    for (const sequence of workspace.points.listed(shown).toReversed()) {
      await pace();
      points.push(workspace.points.readOrNull(sequence));
    }
    return points;
  };
  let points = await read();
  if (points.some((point) => point?.sealed === false)) {
    // The points of a released workspace stay as they are.
    if (!isReleased(workspace.found.workspace)) await ensureSealed(workspace, options);
    workspace.points.refresh();
    points = await read();
  }
  const sealed = points.filter((point) => point?.sealed === true) as Point[];
  if (sealed.length < points.length)
    options.onWarning?.(
      `${plural(points.length - sealed.length, "save point")} could not be read and searched: see \`cairn doctor\``,
    );
  return sealed;
}

/** Returns a matcher. `*`, `?`, `[` and slashes work as in restic. Any other pattern matches a part of a name. */
function fitting(pattern: string, ignoreCase: boolean): Fits {
  if (/[*?[/]/.test(pattern) || pattern === "") {
    const matches = pathMatcher(pattern, ignoreCase);
    return (path) => matches(`/${path}`);
  }
  const part = latin1(Buffer.from(pattern));
  if (!ignoreCase) return (_path, name) => name.includes(part);
  const lower = pattern.toLowerCase();
  return (_path, name) => Buffer.from(name, "latin1").toString("utf8").toLowerCase().includes(lower);
}

interface Search {
  workspace: Workspace;
  points: readonly Point[];
  /** index of the latest point; -1 if it is not among `points` */
  latest: number;
  fits: Fits;
  pace: Pacer;
}

class NameSearch {
  readonly #of: Search;
  readonly #unread: string[] = [];
  #last: { point: Point; source: TreeSource } | null = null;

  constructor(of: Search) {
    this.#of = of;
  }

  /** Searches folder by folder, each with all its states. */
  async search(
    limit: number,
  ): Promise<{ found: ({ path: string } & Name)[]; truncated: boolean; unread: readonly string[] }> {
    const { points } = this.#of;
    const found: ({ path: string } & Name)[] = [];
    const unread = this.#unread;
    if (points.length === 0) return { found, truncated: false, unread };
    const roots = new Map<string, Places>();
    for (const [place, { descriptor }] of points.entries())
      addPlaces(roots, latin1(Buffer.from(descriptor.content.tree, "hex")), [{ from: place, to: place + 1 }]);
    const open: Folder[] = [{ path: "", trees: roots }];
    for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
      for (const [name, state] of await this.#namesIn(folder)) {
        const path = pathIn(folder.path, Buffer.from(name, "latin1"));
        if (state.trees.size > 0) open.push({ path, trees: state.trees });
        if (state.versions === null) continue;
        if (found.length === limit) return { found, truncated: true, unread };
        found.push({ path, ...state });
      }
    }
    return { found, truncated: false, unread };
  }

  /** Returns the names that a folder has in any of its states. */
  async #namesIn({ path, trees }: Folder): Promise<Map<string, Name>> {
    const { latest, pace, fits } = this.#of;
    const names = new Map<string, Name>();
    for (const [tree, places] of trees) {
      await pace();
      const isInLatest = places.some(({ from, to }) => from <= latest && latest < to);
      const newest = places.reduce((least, { from }) => Math.min(least, from), Infinity);
      const oldest = places.reduce((most, { to }) => Math.max(most, to - 1), 0);
      const count = places.reduce((sum, { from, to }) => sum + to - from, 0);
      for (const node of await this.#list({ tree, place: places[0]!.from, path })) {
        await pace();
        const name = latin1(node.name);
        let state = names.get(name);
        if (state === undefined) {
          const versions = fits(pathIn(path, node.name), name) ? new Set<string>() : null;
          state = { newest, oldest, points: 0, inLatest: false, kind: kindOf(node), trees: new Map(), versions };
          names.set(name, state);
        }
        if (newest < state.newest) [state.newest, state.kind] = [newest, kindOf(node)];
        state.oldest = Math.max(state.oldest, oldest);
        state.versions?.add(latin1(node.subtree ?? node.content ?? node.linktarget ?? NOTHING));
        state.points += count;
        state.inLatest ||= isInLatest;
        if (node.subtree !== undefined) addPlaces(state.trees, latin1(node.subtree), places);
      }
    }
    return names;
  }

  /** `place`: of a point with the tree. */
  async #list({ tree, place, path }: { tree: string; place: number; path: string }): Promise<TreeNodes> {
    try {
      return (await this.#sourceOf(this.#of.points[place]!)).list(Buffer.from(tree, "latin1"));
    } catch (error) {
      const { code, details } = toCairnError(error);
      if (code !== "damaged" || details?.["missing_pack"] !== undefined) throw error;
      this.#unread.push(path);
      return [];
    }
  }

  /** All points are in one store, but only the source of a point with databases by pages has the trees above these. */
  async #sourceOf(point: Point): Promise<TreeSource> {
    const isPaged = point.descriptor.content.stored_tree !== undefined;
    const last = this.#last;
    if (last !== null && (last.point === point || !isPaged)) return last.source;
    const source = await this.#of.workspace.source(point);
    this.#last = { point, source };
    return source;
  }
}

function addPlaces(trees: Map<string, Places>, tree: string, places: Places): void {
  const known = trees.get(tree) ?? [];
  trees.set(tree, known);
  for (const { from, to } of places) {
    const last = known.at(-1);
    if (last?.to === from) last.to = to;
    else known.push({ from, to });
  }
}
