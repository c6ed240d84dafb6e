import { exactNode, type LosslessByPath, losslessByPath } from "../archive/write/exact-nodes.ts";
import type { CallOptions, PathInput, ReadOptions } from "../contract/index.ts";
import { CairnError, reworded, toCairnError } from "../errors.ts";
import { comparePaths, latin1 } from "../formats/bytes.ts";
import type { TreeNode } from "../formats/restic/tree.ts";
import { plural } from "../formats/sizes.ts";
import { isAtOrBelow, normalizeTyped, quotedPath } from "../fs/paths/safe-path.ts";
import type { ByteSink, Output, OutputEntry } from "../output/output.ts";
import { TarOutput } from "../output/tar.ts";
import { ZipOutput } from "../output/zip.ts";
import { withSealed } from "../workspace/save/seal.ts";
import { handedOver } from "./handed-over.ts";
import { NodeFinder } from "../workspace/points/tree-diff.ts";
import { entryOf, mustFind, pathIn } from "./read.ts";
import { entriesBelow } from "./show.ts";
import { type Looking, meantBy, withSources } from "./sources/operands.ts";
import { type FileAt, NOTHING, type Source } from "./sources/source.ts";

/** Files whose content is fetched at once are at most this many, or hold about this many bytes. */
const BATCH_FILES = 1000;
const BATCH_BYTES = 32 * 1024 * 1024;
/** Shorter pieces are joined. */
const PIECE_BYTES = 256 * 1024;

type Prepared = FileAt & OutputEntry;

/**
 * Reads entries of the state that an operand means, each with everything below it, as one archive. Names begin at the
 * state's root. Skips entries that the format cannot store, with a warning. Throws `damaged` if an entry cannot be read; the archive is
 * then incomplete.
 */
export async function* readArchive(
  hand: Looking,
  target: string | null,
  path: PathInput,
  options: ReadOptions,
): AsyncGenerator<Uint8Array> {
  const { workspace } = hand;
  if (target === null) throw new CairnError("usage", "only a save point can be read as an archive: name one");
  if (options.offset !== undefined || options.length !== undefined)
    throw new CairnError("usage", "an archive is read as a whole: leave out offset and length");
  if (options.paths !== undefined && normalizeTyped(path).length > 0)
    throw new CairnError("usage", "with paths, which begin at the state's root, the path must be empty");
  yield* handedOver<Uint8Array>(async (write) =>
    withSealed(workspace, options, async () => {
      const meant = meantBy(workspace, target);
      return withSources(hand, [{ ...meant, path: NOTHING }], options, async ([opened]) => {
        const { source, pathOf } = opened!;
        const roots = topmost((options.paths ?? [path]).map((each) => pathOf(pathIn(meant, each))));
        const found: { path: Uint8Array; node: TreeNode | null }[] = [];
        const nodes = new NodeFinder(source);
        const inPoint = async (each: Uint8Array): Promise<TreeNode> =>
          workspace.engine.reading(async () => mustFind(nodes, each, target), options);
        for (const each of roots) {
          const isInPoint = meant.kind === "point";
          const node = each.length === 0 ? null : await (isInPoint ? inPoint(each) : entryOf(opened!, each));
          found.push({ path: each, node });
        }
        await writeArchive(source, found, { ...options, archive: options.archive!, write });
      });
    }),
  );
}

/** Drops paths that lie below other ones. */
function topmost(paths: readonly Uint8Array[]): Uint8Array[] {
  const roots: Uint8Array[] = [];
  // Entries below a path come right after it.
  for (const path of paths.toSorted(comparePaths))
    if (roots.length === 0 || !isAbove(roots.at(-1)!, path)) roots.push(path);
  return roots;
}

/**
 * Writes entries of a source as an archive, each with everything below it; `node` null stands for the source's root.
 * Skips entries that the format cannot store, with a warning. Throws `damaged` if an entry cannot be read; the archive
 * then lacks its end.
 */
export async function writeArchive(
  source: Source,
  roots: readonly { path: Uint8Array; node: TreeNode | null }[],
  {
    archive,
    write,
    signal,
    onWarning,
  }: { archive: "tar" | "zip"; write: (piece: Uint8Array) => Promise<void> } & CallOptions,
): Promise<void> {
  if (source.lacking !== undefined) throw source.lacking;
  const pieces = joining(write);
  const output: Output = archive === "zip" ? new ZipOutput(pieces) : new TarOutput(pieces);
  const leftOut = await writeEntries(source, roots, { output, signal });
  await output.end();
  await pieces.end();
  if (leftOut.length > 0)
    onWarning?.(
      `not in the archive, because ${archive} cannot store ${output.lacks}: ${plural(leftOut.length, "entry")}, for example ${quotedPath(leftOut[0]!)}`,
    );
}

/** Writes entries, each with everything below it, and returns the paths that the output cannot hold. */
async function writeEntries(
  source: Source,
  roots: readonly { path: Uint8Array; node: TreeNode | null }[],
  { output, signal }: { output: Output; signal: AbortSignal | undefined },
): Promise<Uint8Array[]> {
  const lossless = losslessByPath((await source.facts()).lossless);
  const leftOut: Uint8Array[] = [];
  let batch: Prepared[] = [];
  let bytes = 0;
  for (const root of roots)
    for await (const entry of entriesOf(source, { ...root, lossless, signal })) {
      const prepared = output.next(entry.path, entry.node);
      if (prepared === null) {
        leftOut.push(entry.path);
        continue;
      }
      batch.push({ ...entry, ...prepared });
      bytes += prepared.needsContent ? entry.node.size : 0;
      if (batch.length < BATCH_FILES && bytes < BATCH_BYTES) continue;
      await writeBatch(source, batch, signal);
      [batch, bytes] = [[], 0];
    }
  await writeBatch(source, batch, signal);
  return leftOut;
}

/** Writes entries, whose contents are fetched together. */
async function writeBatch(source: Source, batch: readonly Prepared[], signal: AbortSignal | undefined): Promise<void> {
  const contents = source.contents(
    batch.filter(({ needsContent }) => needsContent),
    signal,
  );
  try {
    for (const entry of batch) await entry.write(entry.needsContent ? wholeContent(contents, entry) : undefined);
  } finally {
    await contents.return(undefined);
  }
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

async function* entriesOf(source: Source, { path, node: root, lossless, signal }: Root): AsyncGenerator<FileAt> {
  const entry = (own: Uint8Array, read: TreeNode): FileAt => ({
    path: own,
    node: exactNode(read, lossless.get(latin1(own))),
  });
  if (root !== null) yield entry(path, root);
  if (root !== null && root.subtree === undefined) return;
  for await (const each of await entriesBelow(source, { path, node: root, signal })) yield entry(each.path, each.node);
}

/** Yields the next content. Throws if its length is not the node's size, on which the archive's layout depends. */
async function* wholeContent(
  contents: AsyncGenerator<AsyncIterable<Uint8Array>>,
  { path, node }: FileAt,
): AsyncGenerator<Uint8Array> {
  let size = 0;
  try {
    const { value, done } = await contents.next();
    for await (const piece of done === true ? [] : value) {
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

/** Joins short pieces before they are handed over. */
function joining(hand: (piece: Uint8Array) => Promise<void>): ByteSink & { end: () => Promise<void> } {
  let ready: Uint8Array[] = [];
  let bytes = 0;
  const end = async (): Promise<void> => {
    if (bytes === 0) return;
    const joined = Buffer.concat(ready);
    [ready, bytes] = [[], 0];
    await hand(joined);
  };
  const write = async (piece: Uint8Array): Promise<void> => {
    ready.push(piece);
    bytes += piece.length;
    if (bytes >= PIECE_BYTES) await end();
  };
  return { write, end };
}
