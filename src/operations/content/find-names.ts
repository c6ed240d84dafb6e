import { pathMatcher } from "../../backup/open/paths.ts";
import type { FindNamesOptions, FindNamesResult } from "../../contract/looking.ts";
import { CairnError, tellsOfDamage, toCairnError } from "../../errors.ts";
import { joinPath, latin1 } from "../../formats/bytes.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import type { SavePointId } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { kindOf } from "../../workspace/points/listed-entry.ts";
import { diffTrees } from "../../workspace/points/tree-diff.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";

const LIMIT = 10_000;

interface Found {
  path: Uint8Array;
  node: TreeNode;
  newest: SavePointId;
  oldest: SavePointId;
  points: number;
  inLatest: boolean;
  /** Number of points that were read when the entry was last seen to begin; null: the state that was read last lacks it. */
  since: number | null;
}

/** Searches names, newest point first. Of each older point only what differs from the one after it is read. */
export async function findNames(
  workspace: Workspace,
  pattern: string,
  options: FindNamesOptions,
): Promise<FindNamesResult> {
  const search = new NameSearch(matcher(pattern, options.ignoreCase === true));
  const notRead: SavePointId[] = [];
  const pace = newPacer(options.signal);
  for (const sequence of workspace.points
    .listed(options.all === true ? {} : { savesAnd: workspace.state().head })
    .toReversed()) {
    await pace();
    const point = workspace.points.readOrNull(sequence);
    if (point === null) continue;
    const id = point.descriptor.save_point_id;
    try {
      await search.add(id, await workspace.source(point), pace);
    } catch (error) {
      if (!tellsOfDamage(toCairnError(error))) throw error;
      notRead.push(id);
    }
  }
  const limit = options.limit ?? LIMIT;
  const all = search.all();
  return {
    found: all.slice(0, limit).map(({ path, node, newest, oldest, points, inLatest }) => ({
      ...displayPath(path),
      kind: kindOf(node),
      newest,
      oldest,
      points,
      in_latest: inLatest,
    })),
    truncated: all.length > limit,
    not_read: notRead,
  };
}

class NameSearch {
  readonly #fits: (path: Uint8Array) => boolean;
  readonly #found = new Map<string, Found>();
  #newer: { source: TreeSource; id: SavePointId } | null = null;
  /** Points that were read. */
  #read = 0;

  constructor(fits: (path: Uint8Array) => boolean) {
    this.#fits = fits;
  }

  /** Adds the next older point. */
  async add(id: SavePointId, source: TreeSource, pace: () => Promise<void> | void): Promise<void> {
    if (this.#newer === null) await this.#whole(id, source, pace);
    else {
      const before = this.#newer;
      for (const { path, before: older, after: newer } of diffTrees(source, before.source)) {
        await pace();
        if (newer !== null && older === null) this.#end(path, before.id);
        else if (older !== null && newer === null) this.#begin(path, older, id);
      }
    }
    this.#newer = { source, id };
    this.#read++;
  }

  async #whole(id: SavePointId, source: TreeSource, pace: () => Promise<void> | void): Promise<void> {
    const folders = [{ path: new Uint8Array(0) as Uint8Array, tree: source.root }];
    for (let folder = folders.pop(); folder !== undefined; folder = folders.pop())
      for (const node of source.list(folder.tree)) {
        await pace();
        const path = joinPath(folder.path, node.name);
        this.#begin(path, node, id);
        if (node.subtree !== undefined) folders.push({ path, tree: node.subtree });
      }
  }

  #begin(path: Uint8Array, node: TreeNode, id: SavePointId): void {
    if (!this.#fits(path)) return;
    const key = latin1(path);
    const known = this.#found.get(key);
    if (known !== undefined) known.since ??= this.#read;
    else
      this.#found.set(key, {
        path: Uint8Array.from(path),
        node,
        newest: id,
        oldest: id,
        points: 0,
        inLatest: this.#newer === null,
        since: this.#read,
      });
  }

  #end(path: Uint8Array, oldest: SavePointId): void {
    const known = this.#found.get(latin1(path));
    if (known === undefined || known.since === null) return;
    known.points += this.#read - known.since;
    [known.since, known.oldest] = [null, oldest];
  }

  /** All that was found, by path. */
  all(): Found[] {
    for (const each of this.#found.values()) if (each.since !== null) this.#end(each.path, this.#newer!.id);
    return [...this.#found.values()].sort((a, b) => Buffer.compare(a.path, b.path));
  }
}

/** A pattern is compared with names, or with whole paths if it has a slash; any other text may be a part of them. */
function matcher(pattern: string, ignoreCase: boolean): (path: Uint8Array) => boolean {
  if (pattern === "") throw new CairnError("usage", "the pattern is empty", { hint: "give a part of a name" });
  const isPath = pattern.includes("/");
  const named = (path: Uint8Array): string => {
    const text = Buffer.from(path).toString("utf8");
    return isPath ? text : text.slice(text.lastIndexOf("/") + 1);
  };
  if (/[*?[]/.test(pattern)) {
    const fits = pathMatcher(isPath && !pattern.startsWith("/") ? `/${pattern}` : pattern, ignoreCase);
    return (path) => fits(`/${Buffer.from(path).toString("utf8")}`);
  }
  const wanted = ignoreCase ? pattern.toLowerCase() : pattern;
  return (path) => (ignoreCase ? named(path).toLowerCase() : named(path)).includes(wanted);
}
