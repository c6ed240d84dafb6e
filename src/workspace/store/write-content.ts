import path from "node:path";
import { movedBelow } from "../../fs/paths/safe-path.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import type { PointContent, WriteRequest, WrittenContent } from "./engine.ts";
import { manifestBelow } from "../../archive/write/exact-nodes.ts";
import { writeTree } from "../../archive/write/write-tree.ts";
import { beyondNodes } from "./beyond-nodes.ts";
import type { CopyContent } from "./copy-content.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { viewOf } from "../../archive/databases/point-view.ts";
import { readManifest } from "./snapshot-tree.ts";

/** Writes content into an empty folder. */
export async function writeContent(
  store: EmbeddedStore,
  content: PointContent,
  request: WriteRequest,
): Promise<WrittenContent> {
  const { target, part, paths, readOnly, held, signal, onProgress } = request;
  const { index, derived, placed, lost } = await viewOf(store, content, true);
  const tree = part?.tree ?? placed?.root ?? Buffer.from(content.tree, "hex");
  if (derived === null) store.tree(tree);
  const chosen = paths === null ? null : new PathSelection(paths);
  const isChosen = ({ path: each }: { path: Uint8Array }): boolean => chosen?.of(each) !== "no";
  const top = Buffer.from((content as CopyContent).snapshot_tree, "hex");
  const { damaged, lacks, ...beyond } = await beyondNodes(async () => {
    const manifest = readManifest(store, top);
    return part === undefined || manifest === null ? manifest : manifestBelow(manifest, part.path);
  });
  const lostHere = part === undefined ? lost : movedBelow(part.path)(lost);
  const written = await writeTree({
    keys: store.repository.keys,
    index,
    derived,
    packs: path.join(store.paths.repository, "data"),
    target,
    tree,
    paths,
    readOnly: readOnly ?? false,
    held: part === undefined ? held : undefined,
    ...beyond,
    onDamagedPack: store.onDamagedPack,
    signal,
    onProgress,
  });
  return { ...written, damaged: [...written.damaged, ...damaged, ...lostHere.filter(isChosen)], lacks };
}
