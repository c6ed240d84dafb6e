import { Readable } from "node:stream";
import { losslessByPath, exactNode } from "../../archive/write/exact-nodes.ts";
import type { ArchiveOptions } from "../../contract/looking.ts";
import { CairnError } from "../../errors.ts";
import { latin1 } from "../../formats/bytes.ts";
import { TAR_END, tarHeader, TarLinks, tarPadding } from "../../formats/payloads/tar.ts";
import type { TreeNode, TreeNodes } from "../../formats/restic/tree.ts";
import { plural } from "../../formats/sizes.ts";
import { displayPath, isAtOrBelow, normalizeTyped, quotedPath } from "../../fs/paths/safe-path.ts";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import { nodesBelow } from "../../workspace/points/listed-entry.ts";
import { withSealed } from "../../workspace/save/seal.ts";
import type { Workspace } from "../../workspace/open/workspace.ts";
import { contentOf, mustFind, unlessMoved } from "../show.ts";

interface Entry {
  path: Uint8Array;
  node: TreeNode;
}

/** Kinds of files, as a zip archive made on Unix has them above the mode. */
const ZIP_TYPES: Partial<Record<TreeNode["type"], number>> = { file: 0o100000, symlink: 0o120000, dir: 0o040000 };

/** A point, or some of its paths, as an archive with names from the workspace's root on. */
export async function* readArchive(
  workspace: Workspace,
  target: string,
  format: "tar" | "zip",
  options: ArchiveOptions,
): AsyncGenerator<Uint8Array> {
  const paths = (options.paths ?? []).map(normalizeTyped);
  const { source, fields } = await withSealed(workspace, options, async () => {
    const point = workspace.resolve(target);
    return { source: await workspace.source(point), fields: (await workspace.manifest(point))?.lossless ?? [] };
  });
  const lossless = losslessByPath(fields);
  const exact = async function* (): AsyncGenerator<Entry> {
    for await (const { path, node } of entriesOf(workspace, { source, target, paths }, options.signal))
      yield { path, node: exactNode(node, lossless.get(latin1(path))) };
  };
  const content = (node: TreeNode): AsyncIterable<Uint8Array> => contentOf(workspace, { source, node }, options);
  const omitted: Uint8Array[] = [];
  yield* format === "tar" ? tarOf(exact(), content, omitted) : zipOf(exact(), content, omitted);
  if (omitted.length > 0)
    options.onWarning?.(
      `not in the archive, because ${format} cannot store them: ${plural(omitted.length, "entry")}, for example ${quotedPath(omitted[0]!)}`,
    );
}

async function* entriesOf(
  workspace: Workspace,
  { source, target, paths }: { source: TreeSource; target: string; paths: readonly Uint8Array[] },
  signal: AbortSignal | undefined,
): AsyncGenerator<Entry> {
  const list = async (tree: Uint8Array): Promise<TreeNodes> => unlessMoved(workspace, () => source.list(tree));
  if (paths.length === 0 || paths.some(({ length }) => length === 0)) {
    yield* nodesBelow({ nodes: await list(source.root), path: new Uint8Array(0), signal }, list);
    return;
  }
  // A path below another is in the archive with that one.
  const own = paths.filter(
    (path, i) =>
      !paths.some((other, j) => i !== j && isAtOrBelow(path, other) && (j < i || other.length < path.length)),
  );
  for (const path of own) {
    const node = await unlessMoved(workspace, () => mustFind(source, path, target));
    yield { path, node };
    if (node.subtree !== undefined) yield* nodesBelow({ nodes: await list(node.subtree), path, signal }, list);
  }
}

async function* tarOf(
  entries: AsyncIterable<Entry>,
  content: (node: TreeNode) => AsyncIterable<Uint8Array>,
  omitted: Uint8Array[],
): AsyncGenerator<Uint8Array> {
  const links = new TarLinks();
  for await (const { path, node } of entries) {
    const linkTo = links.before(path, node);
    const header = tarHeader(path, node, linkTo);
    if (header === null) omitted.push(path);
    else yield header;
    if (header === null || linkTo !== null || node.type !== "file") continue;
    yield* sized(content(node), { path, node });
    yield tarPadding(node.size);
  }
  yield TAR_END;
}

async function* sized(pieces: AsyncIterable<Uint8Array>, { path, node }: Entry): AsyncGenerator<Uint8Array> {
  let size = 0;
  for await (const piece of pieces) {
    size += piece.length;
    yield piece;
  }
  if (size !== node.size)
    throw new CairnError(
      "damaged",
      `${quotedPath(path)} had ${node.size} bytes when it was saved, but the store holds ${size}`,
      { hint: "see `cairn doctor`" },
    );
}

async function* zipOf(
  entries: AsyncIterable<Entry>,
  content: (node: TreeNode) => AsyncIterable<Uint8Array>,
  omitted: Uint8Array[],
): AsyncGenerator<Uint8Array> {
  // A bundler gives what is no ES module as its default export alone.
  const { ZipFile } = (await import("yazl")).default;
  const zip = new ZipFile();
  const output = zip.outputStream as Readable;
  zip.on("error", (error: Error) => output.destroy(error));
  const add = async (): Promise<void> => {
    for await (const { path, node } of entries) {
      const type = ZIP_TYPES[node.type];
      // Names of a zip archive are UTF-8.
      const name = displayPath(path).path;
      if (type === undefined) {
        omitted.push(path);
        continue;
      }
      const options = { mtime: new Date(node.mtimeSec * 1000), mode: type | (node.mode & 0o7777) };
      if (node.type === "dir") zip.addEmptyDirectory(name, options);
      else if (node.type === "symlink") zip.addBuffer(Buffer.from(node.linktarget ?? []), name, options);
      else
        zip.addReadStreamLazy(name, { ...options, size: node.size }, (take) =>
          take(null, Readable.from(sized(content(node), { path, node }))),
        );
    }
    zip.end();
  };
  const adding = add().catch((error: unknown) => output.destroy(error as Error));
  yield* output as AsyncIterable<Uint8Array>;
  await adding;
}
