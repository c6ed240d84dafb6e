import { exactNode, type LosslessByPath, losslessByPath } from "../archive/write/exact-nodes.ts";
import { ZipStream } from "../bundle/zip-stream.ts";
import type { PathInput, ReadOptions } from "../contract/index.ts";
import { CairnError, reworded, toCairnError } from "../errors.ts";
import { comparePaths, latin1 } from "../formats/bytes.ts";
import { TAR_END, tarHeader, TarLinks, tarPadding } from "../formats/payloads/tar.ts";
import type { TreeNode, TreeNodes } from "../formats/restic/tree.ts";
import { plural } from "../formats/sizes.ts";
import { isAtOrBelow, normalizeTyped, quotedPath } from "../fs/paths/safe-path.ts";
import type { TreeSource } from "../repository/trees/tree-source.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { nodesBelow } from "../workspace/points/listed-entry.ts";
import { withSealed } from "../workspace/save/seal.ts";
import { contentOf, mustFind, unlessMoved } from "./read.ts";

/** Shorter pieces are joined. */
const PIECE_BYTES = 256 * 1024;

interface Entry {
  path: Uint8Array;
  node: TreeNode;
  content: () => AsyncGenerator<Uint8Array>;
}

/** Writes an archive. `add` returns null if the format cannot store the entry. */
interface ArchiveFormat {
  add(entry: Entry): AsyncIterable<Uint8Array> | null;
  end(): Iterable<Uint8Array>;
}

/**
 * Reads entries of a point, each with everything below it, as one archive. Names begin at the workspace's root. Skips
 * entries that the format cannot store, with a warning. Throws `damaged` if an entry cannot be read; the archive is
 * then incomplete.
 */
export async function* readArchive(
  workspace: Workspace,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  if (target === null) throw new CairnError("usage", "only a save point can be read as an archive: name one");
  if (options.offset !== undefined || options.length !== undefined)
    throw new CairnError("usage", "an archive is read as a whole: leave out offset and length");
  const where = normalizeTyped(path);
  if (options.paths !== undefined && where.length > 0)
    throw new CairnError("usage", "with paths, which begin at the workspace's root, the path must be empty");
  const paths = options.paths?.map(normalizeTyped) ?? [where];
  const { source, lossless } = await withSealed(workspace, options, async () => {
    const point = workspace.resolve(target);
    const fields = (await workspace.manifest(point))?.lossless ?? [];
    return { source: await workspace.source(point), lossless: losslessByPath(fields) };
  });
  const sorted = paths.toSorted(comparePaths);
  // Entries below a path come right after it.
  const roots: Uint8Array[] = [];
  for (const path of sorted) if (roots.length === 0 || !isAbove(roots.at(-1)!, path)) roots.push(path);
  const found = await workspace.engine.reading(
    async () => roots.map((path) => ({ path, node: path.length === 0 ? null : mustFind(source, path, target) })),
    options,
  );
  const format = options.archive === "zip" ? new Zip() : new Tar();
  const leftOut: Uint8Array[] = [];
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    for (const root of found)
      for await (const entry of entriesOf(workspace, source, { ...root, lossless, signal: options.signal })) {
        const written = format.add(entry);
        if (written === null) leftOut.push(entry.path);
        else yield* written;
      }
    yield* format.end();
  };
  yield* joined(pieces());
  if (leftOut.length > 0)
    options.onWarning?.(
      `not in the archive, because ${options.archive} cannot store them: ${plural(leftOut.length, "entry")}, for example ${quotedPath(leftOut[0]!)}`,
    );
}

function isAbove(above: Uint8Array, path: Uint8Array): boolean {
  return above.length === 0 || isAtOrBelow(path, above);
}

interface Root {
  path: Uint8Array;
  /** node of the entry; null for the whole point */
  node: TreeNode | null;
  lossless: LosslessByPath;
  signal: AbortSignal | undefined;
}

async function* entriesOf(
  workspace: Workspace,
  source: TreeSource,
  { path, node: root, lossless, signal }: Root,
): AsyncGenerator<Entry> {
  const entry = (own: Uint8Array, read: TreeNode): Entry => {
    const node = exactNode(read, lossless.get(latin1(own)));
    return { path: own, node, content: () => wholeContent(workspace, source, { path: own, node, signal }) };
  };
  if (root !== null) yield entry(path, root);
  if (root !== null && root.subtree === undefined) return;
  const list = async (tree: Uint8Array): Promise<TreeNodes> => unlessMoved(workspace, () => source.list(tree));
  for await (const each of nodesBelow({ nodes: await list(root?.subtree ?? source.root), path, signal }, list))
    yield entry(each.path, each.node);
}

/** Returns a file's content. Throws if its length is not the node's size, on which the archive's layout depends. */
async function* wholeContent(
  workspace: Workspace,
  source: TreeSource,
  { path, node, signal }: { path: Uint8Array; node: TreeNode; signal: AbortSignal | undefined },
): AsyncGenerator<Uint8Array> {
  let size = 0;
  try {
    for await (const piece of contentOf(workspace, source, node, { start: 0, end: Infinity, signal })) {
      size += piece.length;
      if (size > node.size) break;
      yield piece;
    }
  } catch (error) {
    const known = toCairnError(error);
    if (known.code !== "damaged") throw known;
    throw reworded(known, { message: `the archive stops at ${quotedPath(path)}: ${known.message}` });
  }
  if (size === node.size) return;
  throw new CairnError(
    "damaged",
    `the archive stops at ${quotedPath(path)}: it had ${node.size} bytes when it was saved, but the point holds a different number`,
  );
}

class Tar implements ArchiveFormat {
  readonly #links = new TarLinks();

  add({ path, node, content }: Entry): AsyncIterable<Uint8Array> | null {
    const linkTo = this.#links.before(path, node);
    const header = tarHeader(path, node, linkTo);
    if (header === null) return null;
    return (async function* () {
      yield header;
      if (linkTo !== null || node.type !== "file") return;
      yield* content();
      yield tarPadding(node.size);
    })();
  }

  *end(): Generator<Uint8Array> {
    yield TAR_END;
  }
}

class Zip implements ArchiveFormat {
  readonly #stream = new ZipStream();

  add({ path, node, content }: Entry): AsyncIterable<Uint8Array> | null {
    return this.#stream.add(path, node, { [Symbol.asyncIterator]: content });
  }

  end(): Generator<Uint8Array> {
    return this.#stream.end();
  }
}

async function* joined(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let ready: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of pieces) {
    ready.push(piece);
    bytes += piece.length;
    if (bytes < PIECE_BYTES) continue;
    yield Buffer.concat(ready);
    [ready, bytes] = [[], 0];
  }
  if (bytes > 0) yield Buffer.concat(ready);
}
