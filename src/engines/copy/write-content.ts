import path from "node:path";
import { PathSelection } from "../../fs/path-selection.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import { planTransfer } from "../../repository/transfer-plan.ts";
import type { PointContent, WriteRequest, WrittenContent } from "../engine.ts";
import { writeTree, type WriteTreeResult } from "../write/write-tree.ts";
import { beyondNodes } from "./beyond-nodes.ts";
import type { CopyContent } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { readTreeOf } from "./free-content.ts";
import { readManifest } from "./snapshot-tree.ts";

/**
 * Writes content into an empty folder. Where something was damaged that other packs have too, all is written once more over
 * what is there, of which only that is missing.
 */
export async function writeContent(
  store: EmbeddedStore,
  content: PointContent,
  request: WriteRequest,
): Promise<WrittenContent> {
  const { target, paths, readOnly, held, signal, onProgress } = request;
  const tree = Buffer.from(content.tree, "hex");
  store.tree(tree);
  const top = Buffer.from((content as CopyContent).snapshot_tree, "hex");
  const { damaged, lacks, ...beyond } = await beyondNodes(async () => readManifest(store, top));
  const write = async (resumes: boolean): Promise<WriteTreeResult> =>
    writeTree({
      keys: store.repository.keys,
      index: store.index,
      packs: path.join(store.paths.repository, "data"),
      target,
      tree,
      paths,
      readOnly: readOnly ?? false,
      resumes,
      held,
      ...beyond,
      read: (id) => store.read(id, "data"),
      ...(signal === undefined ? {} : { signal }),
      ...(onProgress === undefined ? {} : { onProgress }),
    });
  // What was read by now.
  store.settleCopies();
  let written = await write(false);
  while (written.damaged.length > 0 && (await findCopies(store, tree, { ...written, signal })))
    written = await write(true);
  return { ...written, damaged: [...written.damaged, ...damaged], lacks };
}

/** True where other packs have something of what was damaged, which the index has from now on. */
async function findCopies(
  store: EmbeddedStore,
  tree: Uint8Array,
  { damaged, signal }: Pick<WriteTreeResult, "damaged"> & Pick<WriteRequest, "signal">,
): Promise<boolean> {
  const { entries } = await planTransfer(store.index, new BlobIndex(), {
    roots: [tree],
    only: new PathSelection(damaged.map(({ path: each }) => each)),
    lenient: true,
    readTree: readTreeOf(store),
    signal,
  });
  await store.copies.seek(entries);
  return store.settleCopies();
}
