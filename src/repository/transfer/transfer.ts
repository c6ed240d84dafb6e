import { throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { objectIdOf } from "../../ids.ts";
import { keepTelling, newPacer } from "../../pacer.ts";
import { BlobMover } from "./blob-mover.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import type { OnDamagedPack } from "../read/blob-source.ts";
import { addWanted, type NearPacks, type WantedRange } from "../read/near-packs.ts";
import { type BlobCounts, PackUploader, type PackUploaderOptions } from "../packs/pack-uploader.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";
import type { TransferPlan } from "./transfer-plan.ts";

/** One side of a transfer. The caller loads the index under a lock and holds the lock during the transfer. */
export interface TransferSide {
  readonly repository: Repository;
  readonly index: BlobIndex;
}

/** Blobs and their sealed bytes in the source: moved so far, and in total. */
export interface TransferProgress {
  done: number;
  total: number;
  bytes: number;
  totalBytes: number;
  /** See `PackUploader`; bytes are those in the target. */
  arrived: Readonly<BlobCounts>;
}

/** Blobs for other threads to move, all out of local packs. */
export interface MoveJob {
  readonly from: TransferSide;
  readonly to: TransferSide;
  /** Sorted by pack and offset. */
  readonly entries: Uint32Array;
  /** The folder of the source's packs. */
  readonly packs: string;
  readonly directory: string;
  readonly signal: AbortSignal | undefined;
  /** Uploads a finished pack; resolves when the upload has ended. */
  onPack(pack: FinishedPack): Promise<void>;
  /** See `TransferOptions`. */
  onDamagedPack?: OnDamagedPack | undefined;
  /** The job calls `onMoved` repeatedly. If `onMoved` throws, the job ends. */
  onMoved(blobs: number, bytes: number): Promise<void>;
}

export type MoveBlobs = (job: MoveJob) => Promise<void>;

export interface TransferOptions {
  /** Moves many blobs of local packs by threads. Absent: this thread moves them. */
  move?: MoveBlobs | undefined;
  /** For unfinished packs, on the target's file system if that is local. Created if missing. */
  directory: string;
  /** The source's packs, as local files. */
  near: NearPacks;
  uploads?: Pick<PackUploaderOptions, "packsPerIndex" | "indexEveryMs" | "stillHeld">;
  /** Gets source packs; may repeat a pack. */
  onDamagedPack?: OnDamagedPack | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: TransferProgress) => void) | undefined;
}

export interface TransferResult {
  packs: number;
  indexes: number;
  /** Bytes of the packs that were written. */
  packBytes: number;
}

/** Bytes from which on starting threads pays. */
const MANY_BYTES = 24 * 1024 * 1024;
/** Bytes that are fetched ahead from a remote source. */
const AHEAD = 64 * 1024 * 1024;

/**
 * Moves the blobs of a plan into the target: packs, and an index at least every 64 packs or 30 seconds. Writes no
 * snapshot: after a kill the next transfer uses the packs, or a clean-up removes them. Throws `damaged`, and passes
 * nothing on, if a blob does not match its id.
 */
export async function runTransfer(
  from: TransferSide,
  to: TransferSide,
  plan: TransferPlan,
  options: TransferOptions,
): Promise<TransferResult> {
  const { directory, near, signal, onProgress } = options;
  const { entries } = plan;
  if (entries.length === 0) return { packs: 0, indexes: 0, packBytes: 0 };
  makeFolder(directory);
  const uploader = new PackUploader({ ...to, ...options.uploads });
  const moved: BlobCounts = { blobs: 0, bytes: 0 };
  const totals = { total: entries.length, totalBytes: plan.storedBytes };
  const toldLast = keepTelling(onProgress, () => ({
    done: moved.blobs,
    bytes: Math.min(moved.bytes, plan.storedBytes),
    ...totals,
    arrived: uploader.arrived,
  }));
  try {
    failpoint("transfer.begin");
    if (options.move !== undefined && near.isLocal && plan.storedBytes >= MANY_BYTES) {
      await options.move({
        from,
        to,
        entries,
        packs: near.folder,
        directory,
        signal,
        onDamagedPack: options.onDamagedPack,
        onPack: async (pack) => uploader.add(pack),
        onMoved: async (blobs, bytes) => {
          Object.assign(moved, { blobs, bytes });
          await uploader.indexIfDue();
        },
      });
    } else await moveHere({ from, to, plan, options, uploader, moved });
    await uploader.checkpoint();
  } catch (error) {
    await uploader.abort();
    throw error;
  } finally {
    toldLast();
  }
  return { packs: uploader.packs, indexes: uploader.indexes, packBytes: uploader.bytes };
}

interface MoveHere {
  from: TransferSide;
  to: TransferSide;
  plan: TransferPlan;
  options: TransferOptions;
  uploader: PackUploader;
  moved: BlobCounts;
}

/** Moves the blobs on this thread. Remote packs are fetched a few at a time. */
async function moveHere({ from, to, plan, options, uploader, moved }: MoveHere): Promise<void> {
  const { directory, near, signal } = options;
  const { entries } = plan;
  near.compareWith(from.index, from.repository.keys);
  const mover = new BlobMover({
    from: { keys: from.repository.keys, index: from.index, packs: near },
    to: { keys: to.repository.keys, style: to.repository.style },
    directory,
    onPack: (pack) => void uploader.add(pack),
    onDamagedPack: options.onDamagedPack,
  });
  const pace = newPacer(signal);
  try {
    let fetched = 0;
    let fetchedPacks = new Set<string>();
    let broughtFor = -1;
    for (let at = 0; at < entries.length;) {
      await pace();
      throwIfAborted(signal);
      if (at >= fetched) {
        for (const pack of fetchedPacks) near.drop(pack);
        ({ to: fetched, packs: fetchedPacks } = await fetchAhead(from, near, { entries, at, signal }));
      }
      let next: number;
      try {
        next = mover.moveSome(entries.subarray(0, fetched), at);
      } catch (error) {
        if (near.isLocal || broughtFor === at || toCairnError(error).code !== "damaged") throw error;
        broughtFor = at;
        for (const pack of await bringPlaces(from.index, near, { entry: entries[at]!, signal })) fetchedPacks.add(pack);
        continue;
      }
      for (; at < next; at++) moved.bytes += from.index.table.lengthOf[entries[at]!]!;
      moved.blobs = at;
      await uploader.settle();
    }
    mover.finish();
  } catch (error) {
    mover.abort();
    throw error;
  }
}

/** Fetches all places of one entry, except missing ones. Returns their packs. */
async function bringPlaces(
  index: BlobIndex,
  near: NearPacks,
  { entry, signal }: { entry: number; signal: AbortSignal | undefined },
): Promise<string[]> {
  const places = [index.place(entry), ...index.others(entry)];
  const ranges = places.map(({ pack, offset, length }) => ({ pack: objectIdOf(pack), offset, length }));
  await near.fetch(ranges, { lenient: true, signal });
  return ranges.map(({ pack }) => pack);
}

/**
 * Fetches the entries from `at` on, as many as are fetched at once. Returns their end and their packs. A missing pack
 * is noticed when its blobs are moved.
 */
async function fetchAhead(
  { index }: TransferSide,
  near: NearPacks,
  want: { entries: Uint32Array; at: number; signal: AbortSignal | undefined },
): Promise<{ to: number; packs: Set<string> }> {
  const { entries, at } = want;
  if (near.isLocal) return { to: entries.length, packs: new Set() };
  const { table } = index;
  const ranges: WantedRange[] = [];
  const packs = new Set<string>();
  let bytes = 0;
  let to = at;
  for (; to < entries.length; to++) {
    const entry = entries[to]!;
    const pack = objectIdOf(table.packId(table.packOf[entry]!));
    // Whole packs only, so that a pack can be dropped after its last entry.
    if (bytes >= AHEAD && !packs.has(pack)) break;
    packs.add(pack);
    bytes += table.lengthOf[entry]!;
    addWanted(ranges, { pack, offset: table.offsetOf[entry]!, length: table.lengthOf[entry]! });
  }
  await near.fetch(ranges, { lenient: true, signal: want.signal });
  return { to, packs };
}
