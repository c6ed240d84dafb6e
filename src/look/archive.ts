import { exactNode, type LosslessByPath, losslessByPath } from "../archive/write/exact-nodes.ts";
import { ZipStream } from "../bundle/zip-stream.ts";
import type { CallOptions, PathInput, ReadOptions } from "../contract/index.ts";
import { CairnError, reworded, toCairnError } from "../errors.ts";
import { comparePaths, latin1 } from "../formats/bytes.ts";
import { TAR_END, tarHeader, TarLinks, tarPadding } from "../formats/payloads/tar.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { plural } from "../formats/sizes.ts";
import { isAtOrBelow, normalizeTyped, quotedPath } from "../fs/paths/safe-path.ts";
import type { Workspace } from "../workspace/open/workspace.ts";
import { nodesBelow } from "../workspace/points/listed-entry.ts";
import { withSealed } from "../workspace/save/seal.ts";
import { mustFind } from "./read.ts";
import type { Source } from "./sources/source.ts";
import { pointSource } from "./sources/workspace-source.ts";

/** Files whose content is fetched at once are at most this many, or hold about this many bytes. */
const BATCH_FILES = 1000;
const BATCH_BYTES = 32 * 1024 * 1024;
/** Shorter pieces are joined. */
const PIECE_BYTES = 256 * 1024;

interface Entry {
  path: Uint8Array;
  node: TreeNode;
}

/** Writes the bytes of an entry. */
interface Member {
  /** True if the bytes need the content of the entry's file. */
  needsContent: boolean;
  bytes(content: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array>;
}

/** Writes an archive. `add` returns null if the format cannot store the entry. */
interface ArchiveFormat {
  /** Entries that the format cannot store, in a sentence. */
  readonly lacks: string;
  add(entry: Entry): Member | null;
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
  const source = await withSealed(workspace, options, async () => pointSource(workspace, workspace.resolve(target)));
  const sorted = paths.toSorted(comparePaths);
  // Entries below a path come right after it.
  const roots: Uint8Array[] = [];
  for (const path of sorted) if (roots.length === 0 || !isAbove(roots.at(-1)!, path)) roots.push(path);
  const found = await workspace.engine.reading(
    async () => roots.map((path) => ({ path, node: path.length === 0 ? null : mustFind(source, path, target) })),
    options,
  );
  yield* archiveOf(source, found, { ...options, archive: options.archive! });
}

/**
 * Yields the archive of entries of a source, each with everything below it; `node` null stands for the source's root.
 * Skips entries that the format cannot store, with a warning. Throws `damaged` if an entry cannot be read; the archive
 * then lacks its end.
 */
export async function* archiveOf(
  source: Source,
  roots: readonly { path: Uint8Array; node: TreeNode | null }[],
  { archive, signal, onWarning }: { archive: "tar" | "zip" } & CallOptions,
): AsyncGenerator<Uint8Array> {
  const lossless = losslessByPath((await source.facts()).lossless);
  const format = archive === "zip" ? new Zip() : new Tar();
  const leftOut: Uint8Array[] = [];
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    let batch: (Entry & Member)[] = [];
    let bytes = 0;
    for (const root of roots)
      for await (const entry of entriesOf(source, { ...root, lossless, signal })) {
        const member = format.add(entry);
        if (member === null) {
          leftOut.push(entry.path);
          continue;
        }
        batch.push({ ...entry, needsContent: member.needsContent, bytes: (content) => member.bytes(content) });
        bytes += member.needsContent ? entry.node.size : 0;
        if (batch.length < BATCH_FILES && bytes < BATCH_BYTES) continue;
        yield* batchOf(source, batch, signal);
        [batch, bytes] = [[], 0];
      }
    yield* batchOf(source, batch, signal);
    yield* format.end();
  };
  yield* joined(pieces());
  if (leftOut.length > 0)
    onWarning?.(
      `not in the archive, because ${archive} cannot store ${format.lacks}: ${plural(leftOut.length, "entry")}, for example ${quotedPath(leftOut[0]!)}`,
    );
}

/** Yields the bytes of entries, whose contents are fetched together. */
async function* batchOf(
  source: Source,
  batch: readonly (Entry & Member)[],
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  const contents = source.contents(
    batch.filter(({ needsContent }) => needsContent),
    signal,
  );
  try {
    for (const entry of batch) yield* entry.bytes(entry.needsContent ? wholeContent(contents, entry) : NOTHING);
  } finally {
    await contents.return(undefined);
  }
}

const NOTHING: AsyncIterable<Uint8Array> = {
  async *[Symbol.asyncIterator]() {
    // No content.
  },
};

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

async function* entriesOf(source: Source, { path, node: root, lossless, signal }: Root): AsyncGenerator<Entry> {
  const entry = (own: Uint8Array, read: TreeNode): Entry => ({
    path: own,
    node: exactNode(read, lossless.get(latin1(own))),
  });
  if (root !== null) yield entry(path, root);
  if (root !== null && root.subtree === undefined) return;
  const directory = root?.subtree ?? source.root;
  await source.bring([directory], true);
  const nodes = await source.nodes(directory);
  for await (const each of nodesBelow({ nodes, path, signal }, source.nodes)) yield entry(each.path, each.node);
}

/** Yields the next content. Throws if its length is not the node's size, on which the archive's layout depends. */
async function* wholeContent(
  contents: AsyncGenerator<AsyncIterable<Uint8Array>>,
  { path, node }: Entry,
): AsyncGenerator<Uint8Array> {
  let size = 0;
  try {
    const { value, done } = await contents.next();
    for await (const piece of done === true ? NOTHING : value) {
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
    `the archive stops at ${quotedPath(path)}: it had ${node.size} bytes when it was saved, but its blobs have a different number`,
  );
}

class Tar implements ArchiveFormat {
  readonly lacks = "sockets";
  readonly #links = new TarLinks();

  add({ path, node }: Entry): Member | null {
    const linkTo = this.#links.before(path, node);
    const header = tarHeader(path, node, linkTo);
    if (header === null) return null;
    const needsContent = linkTo === null && node.type === "file";
    const bytes = async function* (content: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
      yield header;
      if (!needsContent) return;
      yield* content;
      yield tarPadding(node.size);
    };
    return { needsContent, bytes };
  }

  *end(): Generator<Uint8Array> {
    yield TAR_END;
  }
}

class Zip implements ArchiveFormat {
  readonly lacks = "them";
  readonly #stream = new ZipStream();

  add({ path, node }: Entry): Member | null {
    if (!ZipStream.holds(node)) return null;
    // A member's place in the archive is known only when its turn comes.
    return {
      needsContent: node.type === "file" && node.size > 0,
      bytes: (content) => this.#stream.add(path, node, content),
    };
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
