import { CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { decodePackHeader, type IndexBlob } from "../../formats/restic/pack-header.ts";
import { failpoint } from "../../failpoint.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import {
  eachIndexFile,
  type IndexedPack,
  type IndexFileContent,
  IndexFileWriter,
  listingKey,
} from "../index/index-set.ts";
import { type LockCall, withLock } from "../locks.ts";
import { copyingPacks, type PackCopier, type WorkDirectory } from "./pack-copy.ts";
import type { NearPacks } from "../read/near-packs.ts";
import { damagedOf } from "../verify/unindexed-packs.ts";
import { loadPackHeader, packSizeOf } from "../packs/pack-read.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";
import { removeIndexes, removePack, writeIndexOf } from "./replaced-files.ts";
import { type PackSizes, packSizes } from "../storage/storage.ts";

/** A plan to repair the index: shown first, then run. */
export interface IndexRepairPlan {
  /** Packs that get index entries from their own header. */
  readonly add: { name: string; blobs: IndexBlob[] }[];
  /**
   * Packs whose entries are removed. Their readable blobs are copied, unless `add` lists the pack too. The rest counts
   * as absent, so that the next save of the same content stores it again.
   */
  readonly drop: { name: string; blobs: number; reason: string }[];
  /** Index files that cannot be read. */
  readonly damagedIndexes: string[];
  /** Index files that are rewritten without the dropped packs. */
  readonly rewrite: string[];
  /** Packs that no index lists and whose header cannot be read; left alone. */
  readonly unreadable: { name: string; reason: string }[];
  /** Names of the index files when the plan was made. A run throws if the set of names has changed. */
  readonly basis: string[];
}

export interface RepairOptions extends LockCall {
  /** Packs that a full read found damaged, in addition to packs of a wrong size. */
  damagedPacks?: ReadonlySet<string>;
  /** Reads the packs that no index lists, and takes damaged ones apart. Absent: only their headers are read. */
  near?: NearPacks;
  /** True: a damaged pack of which not all blobs could be copied stays, in no index. */
  keepsDamaged?: boolean;
  /** A folder for packs that sound content is copied to. Required if the repository is not local. */
  work?: WorkDirectory;
}

export interface RepairResult {
  /** Number of blobs that were copied out of damaged or cut packs. */
  readonly savedBlobs: number;
  /** Ids of blobs of dropped packs that no other pack has. */
  readonly lostBlobs: string[];
}

const NO_PACKS: PackSizes = new Map();

/** Compares index files with pack files; nothing is changed. */
export async function planIndexRepair(repository: Repository, options: RepairOptions = {}): Promise<IndexRepairPlan> {
  // Lists index files before packs: a backup that runs meanwhile writes packs first, so each indexed pack is found.
  const basis = (await repository.storage.list("index")).map((file) => file.name).sort();
  const stored = await packSizes(repository.storage);
  const add: IndexRepairPlan["add"] = [];
  const drop = new Map<string, { name: string; blobs: number; reason: string }>();
  const rewrite = new Set<string>();
  const listed = new Set<string>();
  const inPart = new Set<string>();
  const marks = new Map<string, readonly string[]>();
  const unreadable: IndexRepairPlan["unreadable"] = [];
  const pace = newPacer(options.signal);
  const damaged = await eachIndexFile(repository, basis, async (file) => {
    for (const pack of file.packs) {
      await pace();
      const name = objectIdOf(pack.id);
      const reason = reasonToDrop(stored.get(name), pack, options.damagedPacks?.has(name) === true);
      if (reason === null) {
        listed.add(name);
        if (!pack.isContiguous) inPart.add(name);
        continue;
      }
      rewrite.add(file.name);
      drop.set(name, { name, blobs: pack.blobCount, reason });
    }
    if (file.marked.length > 0) marks.set(file.name, file.marked);
  });
  for (const name of inPart) {
    await pace();
    const blobs = drop.has(name) ? null : await headerOrNull(repository, name, stored.get(name)!);
    if (blobs !== null) drop.set(name, { name, blobs: blobs.length, reason: "the index lists only a part of it" });
  }
  // If one entry of a pack is dropped, all are. An entry that stayed would name a pack that the repair takes apart, or
  // list only a part of it.
  const isDropped = (name: string): boolean => drop.has(name);
  const marked = new Set([...marks.values()].flat());
  if ([...drop.keys()].some((name) => listed.has(name) || marked.has(name))) {
    const sound = basis.filter((name) => damaged.every((file) => file.name !== name));
    const [unread] = await eachIndexFile(repository, sound, (file) => {
      const isNamed = file.packs.some(({ id }) => isDropped(objectIdOf(id))) || file.marked.some(isDropped);
      if (isNamed) rewrite.add(file.name);
    });
    if (unread !== undefined) throw unread.error;
  }
  // Rewriting an index file drops its deletion marks, so the marked packs are in use again.
  for (const [file, names] of marks) if (!rewrite.has(file)) for (const name of names) listed.add(name);
  const { near, signal } = options;
  const unlisted = new Map([...stored].filter(([name]) => !listed.has(name) && !drop.has(name)));
  const found = near === undefined ? [] : await damagedOf(unlisted, { repository, near, signal });
  const damagedPacks = new Set([...(options.damagedPacks ?? []), ...found]);
  for (const [name, size] of stored) {
    if (listed.has(name) && !drop.has(name)) continue;
    await pace();
    try {
      const isDamaged = damagedPacks.has(name);
      if (isDamaged && drop.has(name)) continue;
      const blobs = await loadPackHeader(repository, name, size);
      if (isDamaged) drop.set(name, { name, blobs: blobs.length, reason: "its content is damaged" });
      else add.push({ name, blobs });
    } catch (error) {
      const known = toCairnError(error);
      if (!tellsOfDamage(known)) throw known;
      if (!drop.has(name)) unreadable.push({ name, reason: known.message });
    }
  }
  return {
    add,
    drop: [...drop.values()],
    damagedIndexes: damaged.map((file) => file.name),
    rewrite: [...rewrite],
    unreadable,
    basis,
  };
}

/**
 * Runs a plan under an exclusive lock: writes new index files durably, then removes the old ones. Packs stay, except
 * damaged or cut ones whose readable blobs were copied. Throws `stale_plan` if index files changed or became
 * unreadable, or a pack of `add` changed.
 */
export async function runIndexRepair(
  repository: Repository,
  plan: IndexRepairPlan,
  options: RepairOptions = {},
): Promise<RepairResult> {
  repository.requireRemovals();
  return withLock(repository, { ...options, exclusive: true }, async (lock) => {
    const present = (await repository.storage.list("index")).map((file) => file.name).sort();
    if (present.join() !== plan.basis.join())
      throw stale("index files were added or removed since the repair was planned");
    await requireDamaged(repository, plan);
    const stored = plan.add.length + plan.drop.length === 0 ? NO_PACKS : await packSizes(repository.storage);
    requireThere(plan.add, stored);
    const dropped = new Set(plan.drop.map((pack) => pack.name));
    const salvage = await salvageAll(repository, plan, { ...options, stored });
    const { lost, done, copied } = salvage;
    const keep = (blobs: readonly IndexBlob[]): void => {
      if (lost.size > 0) for (const { id } of blobs) lost.delete(objectIdOf(id));
    };
    const untouched = new Set(lost.size + done.size === 0 ? [] : plan.basis);
    const old = [...plan.rewrite, ...plan.damagedIndexes];
    for (const name of old) untouched.delete(name);
    await eachAsBefore(repository, untouched, (file) => {
      for (const { blobs } of file.packs) keep(blobs);
      // A pack that an untouched index file names is in use.
      for (const { id } of file.packs) done.delete(objectIdOf(id));
      for (const name of file.marked) done.delete(name);
    });
    const writer = new IndexFileWriter(repository);
    const list = async (pack: Uint8Array, blobs: readonly IndexBlob[]): Promise<void> => {
      keep(blobs);
      await writer.add(pack, blobs);
    };
    // A repair that slept through the end of its lock would index packs that others have removed.
    await lock.recheck();
    await eachAsBefore(repository, plan.rewrite, async (file) => {
      for (const pack of file.packs) if (!dropped.has(objectIdOf(pack.id))) await list(pack.id, pack.blobs);
    });
    for (const pack of plan.add) await list(Buffer.from(pack.name, "hex"), pack.blobs);
    for (const { header } of copied) keep(decodePackHeader(header));
    await lock.recheck();
    await writeIndexOf(repository, copied, { doing: "repair", writer });
    const how = { doing: "repair", lock } as const;
    await removeIndexes(repository, old, how);
    for (const name of done) await removePack(repository, name, how);
    await repository.storage.sync(["data"]);
    failpoint("repair.index-rewritten");
    repository.damaged.learn([], dropped);
    return {
      savedBlobs: copied.reduce((sum, pack) => sum + pack.blobs, 0),
      lostBlobs: [...lost],
    };
  });
}

/** Throws `stale_plan` if a damaged index file of the plan can be read now. */
async function requireDamaged(repository: Repository, plan: IndexRepairPlan): Promise<void> {
  await eachIndexFile(repository, plan.damagedIndexes, ({ name }) => {
    throw stale(`index file ${name.slice(0, 8)} could not be read when the repair was planned, but can be now`);
  });
}

/**
 * Throws `stale_plan` if a pack of `add` is gone or has changed. No index lists these packs, so a clean-up may have
 * removed them; an entry for a missing pack would keep its content from being stored again.
 */
function requireThere(packs: IndexRepairPlan["add"], stored: PackSizes): void {
  for (const { name, blobs } of packs)
    if (stored.get(name) !== packSizeOf(blobs))
      throw stale(`pack ${name.slice(0, 8)} has changed since the repair was planned`);
}

/**
 * Reads index files that were readable when the repair was planned. Throws `stale_plan` if one is not readable now: its
 * entries would be lost.
 */
async function eachAsBefore(
  repository: Repository,
  names: Iterable<string>,
  each: (file: IndexFileContent) => void | Promise<void>,
): Promise<void> {
  const [damaged] = await eachIndexFile(repository, names, each);
  if (damaged !== undefined)
    throw stale(
      `index file ${damaged.name.slice(0, 8)} could be read when the repair was planned, but cannot be now`,
      damaged.error,
    );
}

/** Returns a `stale_plan` error with a message that names the change. */
function stale(what: string, cause?: CairnError): CairnError {
  return new CairnError("stale_plan", what, { hint: "plan the repair again", cause });
}

/** Returns null if the pack's header is damaged or gone. */
async function headerOrNull(repository: Repository, name: string, size: number): Promise<IndexBlob[] | null> {
  try {
    return await loadPackHeader(repository, name, size);
  } catch (error) {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw known;
    return null;
  }
}

function reasonToDrop(size: number | undefined, pack: IndexedPack, damaged: boolean): string | null {
  if (size === undefined) return "the file is missing";
  if (damaged) return "its content is damaged";
  if (!pack.isContiguous) return null;
  const { fileSize } = pack;
  return size === fileSize ? null : `the file has ${size} bytes, but the index implies ${fileSize}`;
}

interface Salvage {
  readonly copied: FinishedPack[];
  /** Ids of blobs that could not be copied; another pack may have them. */
  readonly lost: Set<string>;
  /** Damaged packs whose readable blobs are all copied. */
  readonly done: Set<string>;
}

async function salvageAll(
  repository: Repository,
  plan: IndexRepairPlan,
  { stored, signal, work, keepsDamaged }: RepairOptions & { stored: PackSizes },
): Promise<Salvage> {
  const lost = new Set<string>();
  const done = new Set<string>();
  const pace = newPacer(signal);
  const added = new Set(plan.add.map((pack) => pack.name));
  const wanted = new Set(plan.drop.map((pack) => pack.name).filter((name) => !added.has(name)));
  const salvage = async (copier: PackCopier, name: string, blobs: readonly IndexBlob[]): Promise<void> => {
    await pace();
    const size = stored.get(name) ?? 0;
    const isInside = ({ offset, length }: IndexBlob): boolean => offset + length <= size;
    const inside = blobs.filter(isInside).toSorted((x, y) => x.offset - y.offset);
    for (const { id } of blobs.filter((blob) => !isInside(blob))) lost.add(objectIdOf(id));
    const unsound = await copier.copySound(name, inside, signal);
    for (const { id } of unsound) lost.add(objectIdOf(id));
    if (stored.has(name) && !(keepsDamaged === true && unsound.length > 0)) done.add(name);
  };
  const listings = new Set<string>();
  const isNew = (name: string, blobs: readonly IndexBlob[]): boolean => {
    const before = listings.size;
    return listings.add(`${name} ${listingKey(blobs)}`).size > before;
  };
  const indexed = new Set<string>();
  const copied = await copyingPacks(repository, work, async (copier) => {
    await eachAsBefore(repository, plan.rewrite, async (file) => {
      for (const pack of file.packs) {
        const name = objectIdOf(pack.id);
        if (!wanted.has(name)) continue;
        indexed.add(name);
        const { blobs } = pack;
        if (isNew(name, blobs)) await salvage(copier, name, blobs);
      }
    });
    // Packs in no index: left by a killed repair, or damaged together with their index file.
    for (const [name, size] of stored)
      if (wanted.has(name) && !indexed.has(name))
        await salvage(copier, name, await loadPackHeader(repository, name, size));
  });
  return { copied, lost, done };
}
