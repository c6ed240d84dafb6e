import { ByteWriter, hex, latin1 } from "../../formats/bytes.ts";
import { encodeManifest, type Manifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { PathSelection } from "../../fs/path-selection.ts";
import { arenaOver } from "../../native.ts";
import type { FinishedPack } from "../../repository/packs/pack-writer.ts";
import { planTransfer } from "../../repository/transfer/transfer-plan.ts";
import { runTransfer } from "../../repository/transfer/transfer.ts";
import type { ReceivedContent, ReceiveRequest } from "./engine.ts";
import type { ScanOptions } from "../../archive/scan/scan.ts";
import { StoreSink } from "../../archive/scan/store-sink.ts";
import { moveByThreads } from "../../repository/transfer/move-by-threads.ts";
import { manifestWithout } from "./content-without.ts";
import type { EmbeddedStore } from "./embedded-store.ts";
import { snapshotTree } from "./snapshot-tree.ts";
import { ignoreFilesBelow, type Survey, surveyTree } from "./survey-tree.ts";

interface Received extends Omit<ReceivedContent, "content"> {
  /** New packs that no index lists yet; the packs of moved blobs are listed. */
  packs: FinishedPack[];
  /** hex, of the workspace's root and of the snapshot */
  tree: string;
  snapshotTree: string;
}

interface ReceiveWith {
  store: EmbeddedStore;
  target: NonNullable<ScanOptions["store"]>;
  registeredAt: number;
  /** Throws if the store's lock has ended. */
  stillHeld(): Promise<void>;
}

/** Moves the blobs of a tree that the store lacks into it, and packs the trees above the tree. The caller writes the snapshot. */
export async function receiveContent(request: ReceiveRequest, more: ReceiveWith): Promise<Received> {
  const { from, tree, paths, signal } = request;
  const only = paths === null ? null : new PathSelection(paths);
  const ignoreFiles = await ignoreFilesBelow(from.blobs, tree, signal);
  const moved = await move(request, only, more);
  const sink = new StoreSink({
    ...more.target,
    index: more.store.index.shared,
    forward: null,
    taker: null,
    pages: null,
  });
  try {
    const files = await storeFiles(request, sink);
    const survey = await surveyTree(from.blobs, tree, { only, files, signal });
    const manifest = only === null ? request.manifest : chosenManifest(request.manifest, only, survey);
    const built = snapshotTree({
      path: request.root,
      tree: survey.tree,
      root: request.rootMetadata,
      manifest: encoded(manifest),
      registeredAt: more.registeredAt,
    });
    const { packs } = sink.finish([...survey.blobs, ...built.blobs]);
    return {
      packs,
      manifest,
      entries: survey.entries,
      bytes: survey.bytes,
      ignoreFiles,
      bytesStored: packs.reduce((sum, pack) => sum + pack.size, moved),
      tree: hex(survey.tree),
      snapshotTree: hex(built.tree),
    };
  } catch (error) {
    sink.abort(false);
    throw error;
  }
}

/** Stores the files that the tree lacks. Returns their nodes by their latin1 paths. */
async function storeFiles({ files = [] }: ReceiveRequest, sink: StoreSink): Promise<Map<string, TreeNode>> {
  const nodes = new Map<string, TreeNode>();
  for (const { path, read } of files) {
    const take = (id: Uint8Array, bytes: Uint8Array): void =>
      sink.add("data", { id, offset: 0 }, arenaOver(bytes), 0, bytes.length);
    nodes.set(latin1(path), await read(take));
  }
  return nodes;
}

/** Returns the bytes of the packs that were written. */
async function move(request: ReceiveRequest, only: PathSelection | null, more: ReceiveWith): Promise<number> {
  const { from, tree, signal, onProgress } = request;
  const { store, target, stillHeld } = more;
  const plan = await planTransfer(from.index, store.index, {
    roots: [tree],
    ...(only === null ? {} : { only, leading: false }),
    readTree: from.blobs.viewTree,
    signal,
  });
  const { packBytes } = await runTransfer(from, { repository: store.repository, index: store.index }, plan, {
    directory: target.directory,
    near: from.near,
    move: moveByThreads,
    uploads: { stillHeld },
    onDamagedPack: from.onDamagedPack,
    signal,
    onProgress,
  });
  return packBytes;
}

/** Returns a manifest with the chosen entries only. The digests are null, since nothing has computed them. */
function chosenManifest(manifest: Manifest, only: PathSelection, { entries }: Survey): Manifest {
  const isGone = (path: Uint8Array): boolean => only.chosenAt(path) === null;
  // The other chosen names of a file stay hard links, even if the first name is not chosen.
  const lossless = manifest.lossless.filter(({ path }) => !isGone(path));
  return { ...manifestWithout(manifest, isGone), lossless, stateDigest: null, metadataDigest: null, entries };
}

function encoded(manifest: Manifest): Uint8Array {
  const writer = new ByteWriter(4096);
  encodeManifest(writer, manifest);
  return Uint8Array.from(writer.view());
}
