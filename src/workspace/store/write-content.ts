import path from "node:path";
import type { PointContent, WriteRequest, WrittenContent } from "./engine.ts";
import { writeTree } from "../../archive/write/write-tree.ts";
import { beyondNodes } from "./beyond-nodes.ts";
import type { CopyContent } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { viewOf } from "./point-view.ts";
import { readManifest } from "./snapshot-tree.ts";

/** Writes content into an empty folder. */
export async function writeContent(
  store: EmbeddedStore,
  content: PointContent,
  request: WriteRequest,
): Promise<WrittenContent> {
  const { target, paths, readOnly, held, signal, onProgress } = request;
  const tree = Buffer.from(content.tree, "hex");
  const { index, derived } = await viewOf(store, content);
  if (derived === null) store.tree(tree);
  const top = Buffer.from((content as CopyContent).snapshot_tree, "hex");
  const { damaged, lacks, ...beyond } = await beyondNodes(async () => readManifest(store, top));
  const written = await writeTree({
    keys: store.repository.keys,
    index,
    derived,
    packs: path.join(store.paths.repository, "data"),
    target,
    tree,
    paths,
    readOnly: readOnly ?? false,
    held,
    ...beyond,
    onDamagedPack: store.onDamagedPack,
    signal,
    onProgress,
  });
  return { ...written, damaged: [...written.damaged, ...damaged], lacks };
}
