import { hex } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/manifest.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import type { FinishedPack } from "../../repository/pack-writer.ts";
import type { AmendRequest } from "../engine.ts";
import { presentSource } from "../scan/present-source.ts";
import { scan, type ScanOptions, type ScanResult } from "../scan/scan.ts";
import type { ExtraBlob } from "../scan/store-sink.ts";
import { amendedManifest, type CopyContent } from "./copy-content.ts";
import { editTree } from "./edit-tree.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { snapshotTree } from "./snapshot-tree.ts";

export interface Amendment {
  packs: FinishedPack[];
  /** hex, of the workspace's root and of the snapshot */
  tree: string;
  snapshotTree: string;
}

interface AmendWith {
  store: EmbeddedStore;
  target: NonNullable<ScanOptions["store"]>;
  manifest: Manifest | null;
  adoptedAt: number;
}

/** Packs the changed entries, and the trees of the point with those entries in place of its own. */
export async function scanAmendment(request: AmendRequest, more: AmendWith): Promise<Amendment> {
  let made: { blobs: ExtraBlob[]; tree: Uint8Array; top: Uint8Array } | undefined;
  const { packs } = await scan({
    root: request.staging,
    cache: null,
    excludes: [],
    rules: NO_RULES,
    chunkerPolynomial: more.store.repository.chunkerPolynomial,
    store: more.target,
    onProgress: request.onProgress,
    finish: (scanned) => {
      made = amendedTrees(request, more, scanned);
      return made.blobs;
    },
  });
  return { packs, tree: hex(made!.tree), snapshotTree: hex(made!.top) };
}

function amendedTrees(
  request: AmendRequest,
  more: AmendWith,
  scanned: ScanResult,
): { blobs: ExtraBlob[]; tree: Uint8Array; top: Uint8Array } {
  const { tree, root } = request.content as CopyContent;
  const staging = presentSource(scanned);
  const nodes = new Map(staging.list(staging.root).map((node) => [hex(node.name), node]));
  const edits = request.edits.map(({ path, name }) => ({ path, node: nodes.get(hex(name))! }));
  const edited = editTree(more.store.source(Buffer.from(tree, "hex")), edits);
  const summary = scanned.summarise();
  const built = snapshotTree({
    path: request.root,
    tree: edited.tree,
    root: { mode: root.mode, uid: root.uid, gid: root.gid, mtimeSec: root.mtime_sec, mtimeNs: root.mtime_ns },
    manifest:
      more.manifest === null ? new Uint8Array(0) : amendedManifest(more.manifest, { edits: request.edits, summary }),
    adoptedAt: more.adoptedAt,
  });
  return { blobs: [...edited.blobs, ...built.blobs], tree: edited.tree, top: built.tree };
}
