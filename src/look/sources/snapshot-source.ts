import { tellsOfDamage, toCairnError } from "../../errors.ts";
import { compareBytes, latin1 } from "../../formats/bytes.ts";
import { decodeTree, type TreeNodes } from "../../formats/restic/tree.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { DATA_BLOB, TREE_BLOB } from "../../repository/index/blob-index.ts";
import { savedEntry, savedNodes, snapshotContent, type SnapshotContent } from "../../backup/open/content.ts";
import { contentOf } from "../../backup/open/paths.ts";
import type { Session } from "../../backup/open/session.ts";
import { pieces, piecesOf } from "../../backup/pieces.ts";
import type { PathInput } from "../../contract/words.ts";
import { readBlob, readNodes, treeHere } from "../../archive/databases/nodes.ts";
import { type FileAt, NO_FACTS, NOTHING, type Source } from "./source.ts";

/** A snapshot of any program as a source, whose parts tell where the saved folder lies in the snapshot. */
export interface SnapshotSource extends Source {
  readonly session: Session;
  readonly listed: ListedSnapshot;
  readonly saved: SnapshotContent;
}

/** Opens a snapshot. Throws `damaged`. */
export async function snapshotSource(session: Session, listed: ListedSnapshot): Promise<SnapshotSource> {
  return sourceOf(session, listed, await snapshotContent(session.reader, listed.snapshot));
}

function sourceOf(session: Session, listed: ListedSnapshot, content: SnapshotContent): SnapshotSource {
  const { reader, near, access } = session;
  const { root, only, manifest } = content;
  const raw = (tree: Uint8Array): Uint8Array => treeHere(reader, tree);
  const chosen = (directory: Uint8Array, nodes: TreeNodes): TreeNodes =>
    only === null || compareBytes(directory, root) !== 0
      ? nodes
      : [...nodes].filter(({ name }) => compareBytes(name, only) === 0);
  return {
    root,
    session,
    listed,
    saved: content,
    facts: async () => manifest ?? NO_FACTS,
    store: access.repository.id,
    cutBy: access.repository.chunkerPolynomial,
    linksFrom: manifest === null ? null : (content.part?.path ?? NOTHING),
    lacking: content.placed?.damaged[0]?.error,
    isFar: !near.isLocal,
    list: (directory) => chosen(directory, decodeTree(raw(directory))),
    ...(only === null ? { raw } : {}),
    *content(node) {
      for (let at = 0; at < (node.content?.length ?? 0); at += 32)
        yield reader.readId(node.content!.subarray(at, at + 32), DATA_BLOB);
    },
    bring: async (trees, below) => (below ? session.bring(trees) : bringOnly(session, trees)),
    nodes: async (directory) => chosen(directory, await readNodes(reader, directory)),
    contents: (files, signal) => contentsOf(session, { files, placed: content.placed, signal }),
  };
}

/** Fetches trees without those below them. The walk meets damaged trees itself. */
async function bringOnly({ near, reader }: Session, trees: readonly Uint8Array[]): Promise<void> {
  const stack = near.isLocal ? [] : trees.toReversed();
  for (let tree = stack.pop(); tree !== undefined; tree = stack.pop())
    await readBlob(reader, tree, TREE_BLOB, stack).catch((error: unknown) => {
      if (!tellsOfDamage(toCairnError(error))) throw error;
    });
}

async function* contentsOf(
  session: Session,
  {
    files,
    placed,
    signal,
  }: { files: readonly FileAt[] } & Pick<SnapshotContent, "placed"> & {
      signal: AbortSignal | undefined;
    },
): AsyncGenerator<AsyncIterable<Uint8Array>> {
  const idsOf = ({ node }: FileAt): Uint8Array => node.content ?? NOTHING;
  const isPlaced = (file: FileAt): boolean => placed?.of(idsOf(file)) !== undefined;
  const together = files.flatMap((file) => (isPlaced(file) ? [] : [idsOf(file)]));
  const blobs = pieces(session, Buffer.concat(together), signal);
  try {
    for (const file of files) {
      const content = idsOf(file);
      yield isPlaced(file) ? piecesOf(session, { content, placed }, signal) : some(blobs, content.length / 32);
    }
  } finally {
    await blobs.return(undefined);
  }
}

async function* some(blobs: AsyncGenerator<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  for (let left = count; left > 0; left--) {
    const { value, done } = await blobs.next();
    if (done === true) return;
    yield value;
  }
}

/** True if the source's root is the saved folder itself, without directories above it. */
export function isOfFolder({ saved: { node, only } }: SnapshotSource): boolean {
  return node !== null || only !== null;
}

/** Returns a folder of a snapshot as a source; without `folder` the source itself. Throws `not_found`, `conflict`. */
export async function folderIn(source: SnapshotSource, folder: PathInput | undefined): Promise<SnapshotSource> {
  const { session, listed, saved: content } = source;
  return sourceOf(session, listed, await contentOf(session.reader, { listed, content }, folder));
}

/**
 * Returns the folder of a snapshot that is like a folder with entries of these `names`, in latin1. The trees of another
 * program's snapshot start at the path's first folder, at some later part of the path, or at the folder itself, which no
 * field says: takes the tree that shares most names. Returns a snapshot of the folder itself as it is.
 */
export async function likeFolder(source: SnapshotSource, names: ReadonlySet<string>): Promise<SnapshotSource> {
  if (isOfFolder(source)) return source;
  const { session, listed, saved: content } = source;
  const { reader } = session;
  const { tree, paths } = listed.snapshot;
  const parts = paths.length === 1 ? paths[0]!.split("/") : [];
  const found: SnapshotContent[] = [];
  for (let from = 0; from < parts.length; from++) {
    const saved = await savedEntry(reader, { tree, paths: [parts.slice(from).join("/")] }, { byName: true });
    if (saved !== null) found.push({ ...content, ...saved });
  }
  let best = content;
  let most = -1;
  for (const each of [...found, content]) {
    let shared = 0;
    for (const { name } of await savedNodes(reader, each)) if (names.has(latin1(name))) shared++;
    if (shared > most) [best, most] = [each, shared];
  }
  return best === content ? source : sourceOf(session, listed, best);
}
