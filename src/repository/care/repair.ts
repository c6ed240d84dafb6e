import { zstdDecompressSync } from "node:zlib";
import { sha256 } from "../../crypto/hash.ts";
import { openedOrNull } from "../../crypto/seal.ts";
import { CairnError, toCairnError, tellsOfDamage } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodePackHeader, type IndexBlob } from "../../formats/restic/pack-header.ts";
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
import { loadPackHeader, packSizeOf } from "../packs/pack-read.ts";
import type { FinishedPack } from "../packs/pack-writer.ts";
import type { Repository } from "../repository.ts";
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
  /** A folder for packs that sound content is copied to. Required if the repository is not local. */
  work?: WorkDirectory;
}

export interface RepairResult {
  readonly addedPacks: number;
  readonly droppedPacks: number;
  readonly removedIndexes: number;
  readonly newIndexes: number;
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
  for (const [name, size] of stored) {
    if (listed.has(name) && !drop.has(name)) continue;
    await pace();
    try {
      const isDamaged = options.damagedPacks?.has(name) === true;
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
    await repository.storage.sync(["data"]);
    failpoint("repair.packs-written");
    const { lost, done } = salvage;
    const keep = (blobs: readonly IndexBlob[]): void => {
      for (const { id } of blobs) lost.delete(objectIdOf(id));
    };
    const untouched = new Set(lost.size + done.size === 0 ? [] : plan.basis);
    for (const name of [...plan.rewrite, ...plan.damagedIndexes]) untouched.delete(name);
    await eachAsBefore(repository, untouched, (file) => {
      if (lost.size > 0) for (const { blobs } of file.packs) keep(blobs);
      // A pack that an untouched index file names is in use.
      for (const { id } of file.packs) done.delete(objectIdOf(id));
      for (const name of file.marked) done.delete(name);
    });
    const writer = new IndexFileWriter(repository);
    const list = async (pack: Uint8Array, blobs: readonly IndexBlob[]): Promise<void> => {
      if (lost.size > 0) keep(blobs);
      await writer.add(pack, blobs);
    };
    // A repair that slept through the end of its lock would index packs that others have removed.
    await lock.recheck();
    await eachAsBefore(repository, plan.rewrite, async (file) => {
      for (const pack of file.packs) if (!dropped.has(objectIdOf(pack.id))) await list(pack.id, pack.blobs);
    });
    for (const pack of plan.add) await list(Buffer.from(pack.name, "hex"), pack.blobs);
    for (const pack of salvage.copied) await list(pack.id, decodePackHeader(pack.header));
    await lock.recheck();
    const names = await writer.finish();
    await repository.storage.sync(["index"]);
    failpoint("repair.index-written");
    for (const name of [...plan.rewrite, ...plan.damagedIndexes]) {
      lock.requireHeld();
      await repository.storage.remove("index", name);
      failpoint("repair.index-removed");
    }
    await repository.storage.sync(["index"]);
    for (const name of done) {
      lock.requireHeld();
      await repository.storage.remove("data", name);
      failpoint("repair.pack-removed");
    }
    await repository.storage.sync(["data"]);
    return {
      addedPacks: plan.add.length,
      droppedPacks: plan.drop.length,
      removedIndexes: plan.rewrite.length + plan.damagedIndexes.length,
      newIndexes: names.length,
      savedBlobs: salvage.copied.reduce((sum, pack) => sum + pack.blobs, 0),
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
  { stored, signal, work }: RepairOptions & { stored: PackSizes },
): Promise<Salvage> {
  const lost = new Set<string>();
  const done = new Set<string>();
  const pace = newPacer(signal);
  const added = new Set(plan.add.map((pack) => pack.name));
  const wanted = new Set(plan.drop.map((pack) => pack.name).filter((name) => !added.has(name)));
  const salvage = async (copier: PackCopier, name: string, blobs: readonly IndexBlob[]): Promise<void> => {
    const found = await loadWhole(repository, name);
    if (found === "gone" && !stored.has(name)) {
      for (const { id } of blobs) lost.add(objectIdOf(id));
      return;
    }
    // Blobs that are not copied lose their index entries. A storage that lists a pack and then does not find it is not believed.
    if (found === "gone")
      throw new CairnError("io", `pack ${name.slice(0, 8)} is listed, but was not found when it was read`);
    for (const blob of blobs) {
      await pace();
      const sealed = found === "unreadable" ? null : found.subarray(blob.offset, blob.offset + blob.length);
      if (sealed !== null && isSound(repository, sealed, blob)) await copier.add(sealed, blob);
      else if (!(await copyAgain(repository, copier, { name, blob }))) lost.add(objectIdOf(blob.id));
    }
    done.add(name);
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

/** Returns a pack's bytes. `unreadable`: a part cannot be read, but single blobs may be readable. */
async function loadWhole(repository: Repository, pack: string): Promise<Uint8Array | "gone" | "unreadable"> {
  try {
    return await repository.storage.load("data", pack);
  } catch (error) {
    const known = toCairnError(error);
    if (!tellsOfDamage(known)) throw known;
    return known.code === "not_found" ? "gone" : "unreadable";
  }
}

/**
 * Reads one blob again: the first error may have come from the transport, and the pack is removed afterwards. False if
 * the blob is lost.
 */
async function copyAgain(
  repository: Repository,
  copier: PackCopier,
  from: { name: string; blob: IndexBlob },
): Promise<boolean> {
  const { offset, length } = from.blob;
  let sealed: Uint8Array;
  try {
    sealed = await repository.storage.load("data", from.name, { offset, length });
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "not_found" || !tellsOfDamage(known)) throw known;
    return false;
  }
  if (!isSound(repository, sealed, from.blob)) return false;
  await copier.add(sealed, from.blob);
  return true;
}

/**
 * False if the sealed blob is damaged. Throws other errors, such as a lack of memory, because unsound blobs are removed
 * with their pack.
 */
function isSound(repository: Repository, sealed: Uint8Array, blob: IndexBlob): boolean {
  const plain = openedOrNull(repository.keys, sealed);
  if (plain === null) return false;
  let content = plain;
  try {
    if (blob.uncompressedLength > 0) content = zstdDecompressSync(plain, { maxOutputLength: blob.uncompressedLength });
  } catch (error) {
    const known = toCairnError(error);
    if (known.code === "io") throw known;
    return false;
  }
  return Buffer.compare(sha256(content), blob.id) === 0;
}
