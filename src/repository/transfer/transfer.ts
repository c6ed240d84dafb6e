import { throwIfAborted, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { objectIdOf } from "../../ids.ts";
import { keepTelling, newPacer } from "../../pacer.ts";
import { BlobMover } from "./blob-mover.ts";
import type { BlobIndex } from "../index/blob-index.ts";
import { addWanted, type NearPacks, type WantedRange } from "../read/near-packs.ts";
import { type BlobCounts, PackUploader, type PackUploaderOptions } from "../packs/pack-uploader.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";
import type { TransferPlan } from "./transfer-plan.ts";

/** One side of a transfer. The index is up to date under a lock that is held as long as the transfer runs. */
export interface TransferSide {
  readonly repository: Repository;
  readonly index: BlobIndex;
}

/** Blobs and their sealed bytes in the source: moved into packs, and all of them. */
export interface TransferProgress {
  done: number;
  total: number;
  bytes: number;
  totalBytes: number;
  /** See `PackUploader`; its bytes are those of the target. */
  arrived: Readonly<BlobCounts>;
}

/** Blobs to be moved by somebody else: all of them, out of local packs. */
export interface MoveJob {
  readonly from: TransferSide;
  readonly to: TransferSide;
  /** By pack and offset. */
  readonly entries: Uint32Array;
  /** The folder of the source's packs. */
  readonly packs: string;
  readonly directory: string;
  readonly signal: AbortSignal | undefined;
  /** Threads, and packs on their way at once; see `TransferOptions`. */
  readonly jobs: number | undefined;
  /** Takes a finished pack away; resolves when it has arrived. */
  onPack(pack: FinishedPack): Promise<void>;
  /** See `TransferOptions`. */
  onElsewhere?: ((pack: string) => void) | undefined;
  /** To be called now and then; what it throws ends the job. */
  onMoved(blobs: number, bytes: number): Promise<void>;
}

export type MoveBlobs = (job: MoveJob) => Promise<void>;

export interface TransferOptions {
  /** Moves many blobs of local packs; absent: this thread does. */
  move?: MoveBlobs | undefined;
  /** For unfinished packs, on the target's file system where that is local. Made when absent. */
  directory: string;
  /** The source's packs as local files. */
  near: NearPacks;
  /** Threads, and uploads at once; default as many as any operation has, and 4. */
  jobs?: number | undefined;
  uploads?: Pick<PackUploaderOptions, "connections" | "packsPerIndex" | "indexEveryMs" | "stillHeld">;
  /** Told of each pack of the source that is damaged or missing, and of which something is read from others; several times. */
  onElsewhere?: ((pack: string) => void) | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: TransferProgress) => void) | undefined;
}

export interface TransferResult {
  packs: number;
  indexes: number;
  /** Bytes of the packs that were written. */
  packBytes: number;
}

/** From so many bytes on it pays to start threads. */
const MANY_BYTES = 24 * 1024 * 1024;
/** Bytes that are fetched ahead of what is moved, from a source that is not local. */
const AHEAD = 64 * 1024 * 1024;

/**
 * Puts what a plan lists into the target: packs, and their index at the latest every 64 packs or 30 seconds. It writes
 * no snapshot, so a kill leaves packs that the next clean-up removes or the next transfer finds. Throws `damaged`,
 * passing nothing of it on, when something of the source is not what its id says.
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
  const uploader = new PackUploader({ ...to, connections: options.jobs, ...options.uploads });
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
        jobs: options.jobs,
        onElsewhere: options.onElsewhere,
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

/** On this thread, from packs that are brought a few at a time where they are not local. */
async function moveHere({ from, to, plan, options, uploader, moved }: MoveHere): Promise<void> {
  const { directory, near, signal } = options;
  const { entries } = plan;
  near.compareWith(from.index, from.repository.keys);
  const mover = new BlobMover({
    from: { keys: from.repository.keys, index: from.index, packs: near },
    to: { keys: to.repository.keys, style: to.repository.style },
    directory,
    onPack: (pack) => void uploader.add(pack),
    onElsewhere: options.onElsewhere,
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

/** Brings one entry from all of its places, as far as they are there. Returns their packs. */
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
 * Makes the entries from `at` on local, as many as are fetched at once. Returns where they end, and their packs. What is not
 * there is met when it is moved.
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
    // Whole packs only, so that one can be dropped once it was passed.
    if (bytes >= AHEAD && !packs.has(pack)) break;
    packs.add(pack);
    bytes += table.lengthOf[entry]!;
    addWanted(ranges, { pack, offset: table.offsetOf[entry]!, length: table.lengthOf[entry]! });
  }
  await near.fetch(ranges, { lenient: true, signal: want.signal });
  return { to, packs };
}
