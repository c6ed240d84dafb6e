import { comparePaths, hex } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/manifest.ts";
import { NO_RULES } from "../../fs/ignore.ts";
import type { TreeNode } from "../../formats/tree.ts";
import type { FinishedPack } from "../../repository/pack-writer.ts";
import type { AmendRequest, TreeSource } from "../engine.ts";
import { linkGroupNumber } from "../scan/link-groups.ts";
import { presentSource } from "../scan/present-source.ts";
import { scan, type ScanOptions, type ScanResult } from "../scan/scan.ts";
import type { ScanSummary } from "../scan/summary.ts";
import type { ExtraBlob } from "../scan/store-sink.ts";
import { amendedManifest, type CopyContent } from "./copy-content.ts";
import { editTree, type TreeEdit } from "./edit-tree.ts";
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
  const point = more.store.source(Buffer.from(tree, "hex"));
  const edits = withOwnLinks(
    point,
    request.edits.map(({ path, name }) => ({ path, node: nodes.get(hex(name))! })),
  );
  const edited = editTree(point, edits);
  const summary = summaryAtPaths(scanned, request.edits);
  const built = snapshotTree({
    path: request.root,
    tree: edited.tree,
    root: {
      mode: root.mode,
      uid: root.uid,
      gid: root.gid,
      mtimeSec: root.mtime_sec,
      mtimeNs: root.mtime_ns,
      aclGroup: root.acl_group,
    },
    manifest:
      more.manifest === null ? new Uint8Array(0) : amendedManifest(more.manifest, { edits: request.edits, summary }),
    adoptedAt: more.adoptedAt,
  });
  return { blobs: [...edited.blobs, ...built.blobs], tree: edited.tree, top: built.tree };
}

/**
 * The numbers of hard-link groups come from the paths in the point: those from the names in the other folder may be those of
 * groups that the point has.
 */
function withOwnLinks(point: TreeSource, edits: readonly TreeEdit[]): TreeEdit[] {
  const members = new Map<bigint, { path: Uint8Array; was: TreeNode | null }[]>();
  for (const { path, node } of edits) {
    if (node.inode === 0n) continue;
    const group = members.get(node.inode) ?? [];
    group.push({ path, was: nodeAt(point, path) });
    members.set(node.inode, group);
  }
  const numbers = new Map<bigint, bigint>();
  for (const [staged, group] of members) {
    const paths = group.map(({ path }) => path).toSorted(comparePaths);
    // A group of the point whose other members stay in it keeps its number.
    const isFree = (path: Uint8Array): boolean => {
      const replaced = group.filter(({ was }) => was?.inode === linkGroupNumber(path));
      return replaced.every(({ was }) => was!.links <= replaced.length);
    };
    numbers.set(staged, linkGroupNumber(paths.find(isFree) ?? paths[0]!));
  }
  return edits.map(({ path, node }) => ({ path, node: { ...node, inode: numbers.get(node.inode) ?? node.inode } }));
}

function nodeAt(source: TreeSource, path: Uint8Array): TreeNode | null {
  let directory: Uint8Array | undefined = source.root;
  let node: TreeNode | undefined;
  for (const name of Buffer.from(path).toString("latin1").split("/")) {
    if (directory === undefined) return null;
    node = source.list(directory).find((each) => Buffer.from(each.name).toString("latin1") === name);
    directory = node?.subtree;
  }
  return node ?? null;
}

/** What was found in the other folder, where it names the first member of a group of links, pipes or the like by its path in the point. */
function summaryAtPaths(scanned: ScanResult, edits: AmendRequest["edits"]): ScanSummary {
  const summary = scanned.summarise();
  const places = new Map(edits.map(({ path, name }) => [hex(name), path]));
  const first = new Map<string, Uint8Array>();
  for (const { path, field, value } of summary.lossless) {
    const place = places.get(hex(path));
    if (field !== "hard_link" || place === undefined) continue;
    const known = first.get(hex(value));
    if (known === undefined || comparePaths(place, known) < 0) first.set(hex(value), place);
  }
  return {
    ...summary,
    lossless: summary.lossless.map((each) =>
      each.field === "hard_link" ? { ...each, value: first.get(hex(each.value)) ?? each.value } : each,
    ),
  };
}
