import { hostname } from "node:os";
import type { PathsBackupOptions, PathsBackupResult, TransferredSize } from "../../contract/snapshots.ts";
import { throwIfAborted } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { labelsOf } from "../../archive/scan/summary.ts";
import type { ExtraBlob } from "../../archive/scan/store-sink.ts";
import { type RootMetadata, rootMetadata } from "../../archive/write/root-metadata.ts";
import { currentUser } from "../../fs/users.ts";
import { objectIdOf } from "../../ids.ts";
import { arenaOver } from "../../native.ts";
import { blobTypeOf } from "../../repository/index/blob-index.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { type LeftOutEntry, publicLeftOut, SHOWN_LEFT_OUT } from "../../workspace/points/left-out.ts";
import { type Leaf, treeOver } from "../../workspace/store/snapshot-tree.ts";
import { madeSnapshot } from "../open/made-snapshot.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { partsToScan } from "./paths-to-scan.ts";
import { scanParts, type ScannedParts } from "./scan-parts.ts";
import { adding, type Session } from "../open/session.ts";
import { checkSnapshotTags, INCOMPLETE, newestOfSame, publicSnapshot, timeAfter } from "../open/snapshots.ts";

/**
 * Backs up folders and files as one snapshot of whole paths, as restic makes them: no save point, and no manifest,
 * which exists for single folders only.
 * - A shared lock; packs as they are filled, with their index at the latest every 64 packs or 30 s.
 * - All is read: trees above the folders, their index; another look for a lock that excludes ours.
 * - The snapshot's file ●. A failure or kill before it leaves packs that `prune` removes.
 */
export async function createFromPaths(
  access: OpenRepository,
  given: readonly string[],
  options: PathsBackupOptions,
): Promise<PathsBackupResult> {
  const started = Date.now();
  checkSnapshotTags(options.tags ?? []);
  const { parts, missing, places } = partsToScan(given);
  return adding(access, options, async (session) => {
    session.index.beginSession();
    const target = session.packedBlobs()!;
    const added: TransferredSize = { data_blobs: 0, tree_blobs: 0, bytes: 0, stored_bytes: 0, packs: 0 };
    try {
      await using scanned = await scanParts(parts, { session, target, added, options });
      failpoint("paths.scanned");
      const blobs: ExtraBlob[] = [];
      const tree = objectIdOf(treeOver(blobs, scanned.leaves, metadataOf));
      scanned.leftOut = [...missing, ...scanned.leftOut];
      return await new PathsBackup({ session, target, added, options, started, paths: places, scanned }).finish(
        tree,
        blobs,
      );
    } catch (error) {
      await target.abort();
      throw error;
    } finally {
      session.index.endSession();
    }
  });
}

/**
 * Mode and owner of a folder above the saved ones, with the newest time of the saved entries: the folder's own time
 * changes with every unrelated entry, and each snapshot would differ.
 */
function metadataOf(path: readonly Buffer[], inside: readonly Leaf[]): RootMetadata {
  const own = rootMetadata(Buffer.concat(path.flatMap((part) => [Buffer.from("/"), part])));
  const [newest] = inside.map(({ node }) => node).toSorted((a, b) => b.mtimeSec - a.mtimeSec || b.mtimeNs - a.mtimeNs);
  return { ...own, mtimeSec: newest!.mtimeSec, mtimeNs: newest!.mtimeNs };
}

interface Parts {
  session: Session;
  target: PackedBlobs;
  added: TransferredSize;
  options: PathsBackupOptions;
  /** milliseconds since 1970 */
  started: number;
  paths: string[];
  scanned: ScannedParts;
}

const isLacking = ({ reason }: LeftOutEntry): boolean => reason !== "mounted" && reason !== "excluded";

class PathsBackup {
  readonly #parts: Parts;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  async finish(tree: ReturnType<typeof objectIdOf>, blobs: readonly ExtraBlob[]): Promise<PathsBackupResult> {
    const { session, target, added, options, paths } = this.#parts;
    for (const { id, type, bytes } of blobs) {
      if (!session.index.claim(id, 0, blobTypeOf(type))) continue;
      added.tree_blobs++;
      added.bytes += bytes.length;
      target.add(type, id, arenaOver(bytes), 0, bytes.length);
    }
    await target.finish();
    [added.stored_bytes, added.packs] = [target.bytes, target.packs];
    const { username, uid, gid } = currentUser();
    const origin = { paths, hostname: options.hostname ?? hostname(), username, uid, gid };
    const parent = newestOfSame(session.snapshots, origin);
    const unchanged = parent?.snapshot.tree === tree;
    if (unchanged && options.skipIfUnchanged === true) return this.#result({ parent, unchanged, snapshot: null });
    await session.lock!.recheck();
    const { started, scanned } = this.#parts;
    const snapshot = madeSnapshot({
      time: timeAfter(new Date(started).toISOString(), parent, options.onWarning),
      tree,
      origin,
      parent,
      excludes: [...(options.exclude ?? [])],
      tags: [...(options.tags ?? []), ...(this.#lacking.length === 0 ? [] : [INCOMPLETE])],
      started,
      added,
      files: scanned.files,
      bytes: scanned.bytes,
    });
    failpoint("backup.transferred");
    throwIfAborted(options.signal);
    const id = await session.access.repository.saveSnapshot(snapshot);
    failpoint("backup.snapshot-written");
    session.index.saveCache();
    return this.#result({ parent, unchanged, snapshot: { id, snapshot } });
  }

  /** Entries that should be in the snapshot. */
  get #lacking(): LeftOutEntry[] {
    return this.#parts.scanned.leftOut.filter(isLacking);
  }

  #result(of: {
    parent: ListedSnapshot | null;
    unchanged: boolean;
    snapshot: ListedSnapshot | null;
  }): PathsBackupResult {
    const { session, added, started, scanned } = this.#parts;
    const { said } = scanned;
    const lacking = this.#lacking;
    return {
      ...session.access.info,
      snapshot: of.snapshot === null ? null : publicSnapshot(of.snapshot),
      save_point_id: null,
      parent: of.parent?.id ?? null,
      unchanged: of.unchanged,
      dry_run: false,
      added,
      incomplete:
        lacking.length === 0
          ? null
          : { count: lacking.length, left_out: lacking.slice(0, SHOWN_LEFT_OUT).map(publicLeftOut) },
      left_out: scanned.leftOut.filter((each) => !isLacking(each)).map(publicLeftOut),
      labels: labelsOf({ ...said, longRules: [] }, { ...said, secrets: [] }) as unknown as PathsBackupResult["labels"],
      duration_ms: Date.now() - started,
    };
  }
}
