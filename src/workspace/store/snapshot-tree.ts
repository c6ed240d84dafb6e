import fs from "node:fs";
import { hostname } from "node:os";
import { sha256 } from "../../crypto/hash.ts";
import { latin1 } from "../../formats/bytes.ts";
import { nodeNamed, type TreeNode } from "../../formats/restic/tree.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import { outsideOwner } from "../../fs/linux/syscalls.ts";
import { PROGRAM } from "../../formats/program.ts";
import type { Snapshot } from "../../formats/restic/snapshot.ts";
import { currentUser } from "../../fs/users.ts";
import type { ObjectId } from "../../ids.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import { type EditEntry, editTree, newTree } from "../../repository/trees/edit-tree.ts";
import type { ListTree } from "../../repository/trees/walk-trees.ts";
import { directoryNode, fileNode, type RootMetadata, modeWithoutList } from "../../archive/write/root-metadata.ts";
import { manifestOf } from "../../repository/verify/folder-facts.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import type { ExtraBlob } from "../../archive/scan/store-sink.ts";

interface SnapshotTreeInput {
  /** absolute path of the workspace, raw bytes */
  path: Uint8Array;
  /** tree of the workspace's root */
  tree: Uint8Array;
  root: RootMetadata;
  manifest: Uint8Array;
  /** seconds since 1970 at which the folder became a workspace: the modification time of all directories above the workspace */
  registeredAt: number;
}

const MANIFEST_LIMIT = 512 * 1024;

/**
 * Makes the trees above a workspace, as restic's snapshots have them: one node per level of the absolute path, and
 * `/.cairn/manifest.json`. Returns the blobs and the id of the topmost tree.
 */
export function snapshotTree(input: SnapshotTreeInput): SnapshotTrees {
  const components = splitPath(input.path);
  const name = components.at(-1);
  if (name === undefined) return { blobs: [], tree: input.tree };
  return treesAbove({
    components,
    leaf: directoryNode(name, input.tree, { ...input.root, mode: modeWithoutList(input.root) }),
    above: (path) => ancestorMetadata(path, input.registeredAt),
    manifest: input.manifest,
    recordedAt: input.registeredAt,
  });
}

export interface SnapshotTrees {
  blobs: ExtraBlob[];
  tree: Uint8Array;
}

interface TreesAboveInput {
  /** of the absolute path; the last component is the leaf's name */
  components: readonly Buffer[];
  leaf: TreeNode;
  /** mode, owner and time of the folder with this path */
  above(path: readonly Buffer[]): RootMetadata;
  manifest: Uint8Array;
  /** seconds since 1970: the times of the manifest and its folder */
  recordedAt: number;
}

/** Makes the trees above any node, with `/.cairn/manifest.json` at their top. */
export function treesAbove(input: TreesAboveInput): SnapshotTrees {
  const { components, leaf, recordedAt, above } = input;
  const blobs: ExtraBlob[] = [];
  const records = recordsNode(recordedAt, manifestTree(input, blobs));
  const leaves = [
    { components, node: leaf },
    { components: [records.name], node: records },
  ];
  return { blobs, tree: treeOver(blobs, leaves, above) };
}

/** A node at a place in a snapshot: the components of its absolute path. */
export interface Leaf {
  components: readonly Uint8Array[];
  node: TreeNode;
}

/** Adds the trees above nodes, none of which lies below another one. Returns the id of the topmost tree. */
export function treeOver(
  blobs: ExtraBlob[],
  leaves: readonly Leaf[],
  above: (path: readonly Buffer[], inside: readonly Leaf[]) => RootMetadata,
  depth = 0,
): Uint8Array {
  const byName = Map.groupBy(leaves, ({ components }) => latin1(components[depth]!));
  const nodes = [...byName.values()].map((inside) => {
    const { components, node } = inside[0]!;
    if (components.length === depth + 1) return node;
    const path = components.slice(0, depth + 1).map((part) => Buffer.from(part));
    return directoryNode(path[depth]!, treeOver(blobs, inside, above, depth + 1), above(path, inside));
  });
  return addTree(blobs, nodes);
}

/** Reads the manifest in a snapshot's topmost tree; null if it has none. */
export function readManifest(store: EmbeddedStore, snapshotRoot: Uint8Array): Manifest | null {
  return manifestOf((id, type) => store.read(id, type), snapshotRoot);
}

export function splitPath(path: Uint8Array): Buffer[] {
  return Buffer.from(path)
    .toString("latin1")
    .split("/")
    .filter((part) => part !== "")
    .map((part) => Buffer.from(part, "latin1"));
}

function manifestTree(input: TreesAboveInput, blobs: ExtraBlob[]): Uint8Array {
  const { pieces, file } = manifestFile(input.manifest);
  for (const piece of pieces) blobs.push({ ...piece, type: "data" });
  return addTree(blobs, [manifestNode(input.recordedAt, file)]);
}

/** Cuts a manifest into the blobs that it is stored in. `file`: the size and the blob ids of its node. */
export function manifestFile(manifest: Uint8Array): {
  pieces: { id: Uint8Array; bytes: Uint8Array }[];
  file: { size: number; content: Uint8Array };
} {
  const pieces = [];
  for (let at = 0; at < manifest.length; at += MANIFEST_LIMIT) {
    const bytes = manifest.subarray(at, at + MANIFEST_LIMIT);
    pieces.push({ id: sha256(bytes), bytes });
  }
  return { pieces, file: { size: manifest.length, content: Buffer.concat(pieces.map(({ id }) => id)) } };
}

interface EditedSnapshot {
  /** Null: the snapshot gets no other manifest. */
  manifest: Uint8Array | null;
  /** Seconds since 1970: the times of a manifest and a folder `/.cairn` that the snapshot lacks. */
  recordedAt: number;
  /** Further changed entries, by their paths from the topmost tree. */
  edits: Iterable<readonly [string, EditEntry]>;
  list: ListTree;
  add: PackedBlobs["addNew"];
}

/** Writes the topmost tree of a snapshot again, with another manifest and changed entries. Returns the tree's id. */
export async function editSnapshot(
  top: Uint8Array,
  { manifest, recordedAt, edits: others, list, add }: EditedSnapshot,
): Promise<Uint8Array> {
  const edits = new Map(others);
  if (manifest !== null) {
    const { pieces, file } = manifestFile(manifest);
    for (const { id, bytes } of pieces) add("data", id, bytes);
    const isThere = nodeNamed(await list(top), Buffer.from(".cairn")) !== undefined;
    if (isThere)
      edits.set(".cairn/manifest.json", (node) => ({ ...(node ?? manifestNode(recordedAt, file)), ...file }));
    else {
      const { id, bytes } = newTree([manifestNode(recordedAt, file)]);
      add("tree", id, bytes);
      edits.set(".cairn", () => recordsNode(recordedAt, id));
    }
  }
  return editTree(top, edits, { list, onTree: (id, bytes) => add("tree", id, bytes) });
}

/** The node of `/.cairn`; `recordedAt`: seconds since 1970. */
function recordsNode(recordedAt: number, tree: Uint8Array): TreeNode {
  return directoryNode(Buffer.from(".cairn"), tree, { ...RECORDS, mtimeSec: recordedAt });
}

/** Returns the node of the manifest; `content`: ids of its blobs. */
function manifestNode(recordedAt: number, file: { size: number; content: Uint8Array }): TreeNode {
  return fileNode(Buffer.from("manifest.json"), { ...RECORDS, mode: 0o600, mtimeSec: recordedAt }, file);
}

const RECORDS = { mode: 0o700, uid: 0, gid: 0, mtimeNs: 0 };

function ancestorMetadata(components: readonly Buffer[], registeredAt: number): RootMetadata {
  const place = Buffer.concat(components.flatMap((part) => [Buffer.from("/"), part]));
  const stat = fs.lstatSync(place);
  return { mode: stat.mode & 0o7777, ...outsideOwner(place, stat), mtimeSec: registeredAt, mtimeNs: 0 };
}

function addTree(blobs: ExtraBlob[], nodes: TreeNode[]): Uint8Array {
  const { id, bytes } = newTree(nodes);
  blobs.push({ id, type: "tree", bytes });
  return id;
}

/** A snapshot of a point with this topmost tree, not yet written. */
export function newSnapshot({ root, pointId }: { root: Uint8Array; pointId: string }, tree: ObjectId): Snapshot {
  const { uid, gid, username } = currentUser();
  return {
    time: new Date().toISOString(),
    tree,
    paths: [Buffer.from(root).toString("utf8")],
    hostname: hostname(),
    username,
    uid,
    gid,
    tags: [`cairn:${pointId}`],
    program_version: PROGRAM,
  };
}
