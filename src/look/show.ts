import { CairnError, throwIfAborted } from "../errors.ts";
import { joinPath } from "../formats/bytes.ts";
import { ReadNodes, type TreeNode, type TreeNodes } from "../formats/restic/tree.ts";
import { displayPath, normalizeTyped } from "../fs/paths/safe-path.ts";
import { collectPaced, newPacer } from "../pacer.ts";
import { withSealed } from "../workspace/save/seal.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import type { ListedEntry, PathInput, ShowOptions, ShowResult, WorkspaceCallOptions } from "../contract/index.ts";
import { kindOf, listedEntry } from "../workspace/points/listed-entry.ts";
import { nodesBelow } from "../repository/trees/walk-trees.ts";
import { NodeFinder } from "../workspace/points/tree-diff.ts";
import { mustFind } from "./read.ts";
import type { Source } from "./sources/source.ts";
import { pointSource } from "./sources/workspace-source.ts";
import { publicPoint } from "./public-point.ts";

/** Lists a point's entries at a path: the entries of a directory, or the single entry at the path. */
export async function show(
  workspace: Workspace,
  target: string,
  path: PathInput,
  options: ShowOptions,
): Promise<ShowResult> {
  throwIfAborted(options.signal);
  return workspace.engine.reading(async () => showReading(workspace, target, { path, ...options }), options);
}

async function showReading(
  workspace: Workspace,
  target: string,
  { path, ...options }: { path: PathInput } & ShowOptions,
): Promise<ShowResult> {
  const point = workspace.resolve(target);
  const source = await pointSource(workspace, point);
  const where = normalizeTyped(path);
  const node = where.length === 0 ? null : mustFind(new NodeFinder(source), where, target);
  return {
    save_point: publicPoint(point),
    ...displayPath(where),
    kind: node === null ? "directory" : kindOf(node),
    ...(await listedAt(source, { path: where, node }, options)),
  };
}

/** An entry of a source; `node` null stands for the root. */
interface At {
  path: Uint8Array;
  node: TreeNode | null;
  signal?: AbortSignal | undefined;
}

/** Lists a page of the entries of a directory of a source, or the single entry. `total`: of all pages. */
export async function listedAt(
  source: Source,
  { path, node }: At,
  options: ShowOptions,
): Promise<{ entries: ListedEntry[]; total: number }> {
  const all = node === null || node.type === "dir" ? await source.nodes(node?.subtree ?? source.root) : [node];
  const entries: ListedEntry[] = [];
  const pace = newPacer(options.signal);
  for (const each of await pageOf(all, options)) {
    await pace();
    entries.push(listedEntry(each, each === node ? path : joinPath(path, each.name)));
  }
  return { entries, total: all.length };
}

/** Yields everything below an entry of a source, each folder before its entries. Of any other entry yields the entry itself. */
export async function* walkSource(source: Source, { path, node, signal }: At): AsyncGenerator<ListedEntry> {
  if (node !== null && node.type !== "dir") return yield listedEntry(node, path);
  for await (const each of await entriesBelow(source, { path, node, signal })) yield listedEntry(each.node, each.path);
}

/** Fetches the trees below a folder of a source, and returns all entries below it, each folder before its entries. */
export async function entriesBelow(source: Source, { path, node, signal }: At): Promise<ReturnType<typeof nodesBelow>> {
  const directory = node?.subtree ?? source.root;
  await source.bring([directory], true);
  return nodesBelow({ nodes: await source.nodes(directory), path, signal }, source.nodes);
}

const ORDERS: Readonly<Record<string, (a: TreeNode, b: TreeNode) => number>> = {
  size: (a, b) => a.size - b.size,
  time: (a, b) => a.mtimeSec - b.mtimeSec || a.mtimeNs - b.mtimeNs,
  kind: (a, b) => rankOf(a) - rankOf(b),
};

/** Sorts directories before files, and files before all other entries. */
function rankOf({ type }: TreeNode): number {
  return type === "dir" ? 0 : type === "file" ? 1 : 2;
}

/** Returns the entries of a page in the requested order. Ordered by name, only these entries are decoded. */
async function pageOf(nodes: TreeNodes, options: ShowOptions): Promise<Iterable<TreeNode>> {
  const { limit = 0, skip = 0, sort = "name", reverse = false, signal } = options;
  for (const [name, value] of Object.entries({ limit, skip }))
    if (!Number.isInteger(value) || value < 0)
      throw new CairnError("usage", `${name} must be a whole number of entries; found ${value}`);
  const end = limit === 0 ? nodes.length : Math.min(nodes.length, skip + limit);
  const order = ORDERS[sort];
  if (order === undefined)
    return new ReadNodes(Math.max(0, end - skip), (at) =>
      nodes.at(reverse ? nodes.length - 1 - skip - at : skip + at)!,
    );
  const all = await collectPaced(nodes, newPacer(signal));
  return all.toSorted((a, b) => (reverse ? order(b, a) : order(a, b))).slice(skip, end);
}

/** Yields everything below a path, each folder before its entries. For any other entry yields the entry itself. */
export async function* walk(
  workspace: Workspace,
  target: string,
  path: PathInput,
  options: WorkspaceCallOptions,
): AsyncGenerator<ListedEntry> {
  const { signal } = options;
  const where = normalizeTyped(path);
  const source = await withSealed(workspace, options, async () => pointSource(workspace, workspace.resolve(target)));
  const node =
    where.length === 0
      ? null
      : await workspace.engine.reading(async () => mustFind(new NodeFinder(source), where, target), options);
  yield* walkSource(source, { path: where, node, signal });
}
