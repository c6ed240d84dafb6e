import { advice, CairnError, call, type Hint, option, reworded } from "../../errors.ts";
import { plural } from "../../formats/sizes.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { BlobIndex, type BlobPlaceOf } from "../index/blob-index.ts";
import { BlobSource, type OnDamagedPack } from "../read/blob-source.ts";
import { EntrySet } from "../index/entry-set.ts";
import { eachIndexFile, type IndexFileContent, type IndexedPack, listingKey } from "../index/index-set.ts";
import { LiveSet, requireComplete } from "../trees/live.ts";
import type { LockCall } from "../locks.ts";
import type { MissingSnapshot } from "../seen-snapshots.ts";
import { type NearPacks, nearPacksIn } from "../read/near-packs.ts";
import { type Look, type MarksNow, marksNow, SECOND_LOOK_MS } from "./marks.ts";
import { SMALL_PACK, type WorkDirectory } from "./pack-copy.ts";
import type { DamagedFile, ListedSnapshot, Repository } from "../repository.ts";
import { concurrently } from "../storage/concurrently.ts";
import { type PackSizes, packSizes, type Storage } from "../storage/storage.ts";
import { strikeNamed } from "../verify/unindexed-packs.ts";
import { headerToDrop, packSizeOf } from "../packs/pack-read.ts";

export interface SweepOptions extends LockCall {
  /** Path of the index cache; null for no cache. */
  cachePath: string | null;
  /**
   * An index that was loaded before. The sweep loads it again only if one of its index files is gone, and changes its
   * preferred places.
   */
  index?: BlobIndex | undefined;
  /**
   * Returns root trees (32 bytes each) that are needed in addition to the snapshots' trees. Called again under the
   * exclusive lock.
   */
  roots(): Promise<Uint8Array[]>;
  /** Called repeatedly with the number of trees marked so far. */
  onTree?: (done: number) => void;
  /** See `BlobSourceOptions`; called for packs of trees. */
  onDamagedPack?: OnDamagedPack;
  /** Says how to go on if needed content is damaged. */
  hint?: Hint;
  /** Ids of snapshots whose trees are not kept, because the caller will remove these snapshots. */
  withoutSnapshots?: ReadonlySet<string>;
  /** Says how to go on if snapshots cannot be read. */
  unreadableHint?: (files: readonly DamagedFile[]) => Hint;
  /** True: a repository that has packs but no snapshot may be emptied. */
  mayBeEmpty?: boolean;
  /** True: a missing snapshot no longer keeps its content, even if it is missing for less than 23 hours. */
  mayBeMissing?: boolean;
  /**
   * `twice`: unneeded packs are marked in the repository, and freed by a sweep at least 23 hours later that still finds
   * them unneeded. Default `once`: they are freed at once; for a store, whose points are a second list.
   */
  looks?: "once" | "twice";
  /** A pack is rewritten if more than this share of it is dead. Default 0.2. */
  maxWaste?: number;
  /** Bytes below which a pack is rewritten for any dead blob. Default `SMALL_PACK`. */
  smallPack?: number;
  /**
   * Returns the bytes that may be written into new packs before old ones are removed; called for each plan. Default:
   * unlimited.
   */
  roomForCopies?: () => number;
  /** True: roots may need blobs that no index lists. Indexed packs are then freed as usual; unindexed packs stay. */
  mayLackData?: boolean;
  /** A folder for fetched and copied packs. Required if the repository is not local. */
  work?: WorkDirectory;
  /** Milliseconds to wait for the exclusive lock before the removals are postponed. Default 0. */
  waitMs?: number;
  /**
   * Called with the plan before the sweep changes anything; throws to prevent the sweep. Such a sweep makes no second
   * plan: removals are postponed if the repository changes meanwhile.
   */
  confirm?: ((plan: SweepPlan) => void) | undefined;
}

/** A pack as the index files state it. */
export interface PackFacts {
  readonly name: string;
  /** Bytes of the file; -1 if the file is missing. */
  readonly size: number;
  /** True if the file is missing or shorter than its entries: none of its blobs counts as stored. */
  isShort: boolean;
  /** True if the file is longer than the entries of any index file say. */
  isLong: boolean;
  /** `listingKey` of the first index file that lists this pack. */
  readonly listing: number;
  /** True if index files list different blobs of this pack: left alone until a repair lists the pack once. */
  split: boolean;
  /** Sealed bytes of all its blobs; of a split pack the sum over its different listings. */
  blobBytes: number;
  /** Sealed bytes of the needed blobs that are read from this pack. */
  liveBytes: number;
  /** Names of the index files that list this pack. */
  readonly indexes: string[];
  /** True if it has blobs that only missing snapshots need: it may be marked, but not freed. */
  isHeld: boolean;
  /** True if a foreign index file lists this pack, or if it is split: the sweep leaves it. */
  frozen: boolean;
}

/** Packs that are left as they are, because there is no room for copies of their needed blobs. */
export interface CrowdedPacks {
  /** Bytes of dead blobs in these packs. */
  readonly unusedBytes: number;
  /** Bytes of the largest copy: the room that one more run needs at least. */
  readonly copyBytes: number;
}

/** Packs that nothing needs and that a later look frees. */
export interface MarkedPacks {
  packs: number;
  bytes: number;
  /** Milliseconds until all may be freed; infinite if the storage tells no time. */
  waitMs: number;
}

export interface SweepPlan {
  readonly index: BlobIndex;
  readonly live: LiveSet;
  /** Entries that only missing snapshots need: their packs may be marked, but not freed. Empty with one look. */
  readonly held: LiveSet;
  /** Packs without needed blobs that may be freed now. */
  readonly remove: PackFacts[];
  /** Packs that hold no needed blob and have no mark yet: name to size in bytes. */
  readonly unmarked: ReadonlyMap<string, number>;
  /** Counts of the packs that are marked after this run. */
  readonly marked: MarkedPacks;
  readonly marks: MarksNow;
  /** Names of mark files that are of no use after this run. */
  readonly spent: readonly string[];
  /** The time and the snapshots of this look, for new marks. */
  readonly look: Look;
  /** Names of packs that hold needed blobs of which other copies are freed. */
  readonly copies: ReadonlySet<string>;
  /** Packs whose needed blobs are copied into new packs. */
  readonly repack: PackFacts[];
  /** Packs that this run deletes: with two looks, a repacked pack is only marked. */
  readonly freed: PackFacts[];
  /** Packs in no index, left by killed writers. */
  readonly unindexed: { name: string; size: number }[];
  /** Names of all index files that were read, also those with marks. */
  readonly indexFiles: ReadonlySet<string>;
  /** Names of the index files that list a pack of `freed`. */
  readonly affected: ReadonlySet<string>;
  readonly packs: ReadonlyMap<string, PackFacts>;
  /** Bytes that the run will free, minus the bytes of new packs. */
  readonly bytesFreed: number;
  /** Bytes of dead blobs that stay, because rewriting their packs would not pay or is not possible. */
  readonly unusedBytes: number;
  /** Names of packs that stay because a needed blob in them is sound nowhere. */
  readonly unsound: readonly string[];
  /** Null if there is room for all copies. */
  readonly crowded: CrowdedPacks | null;
  /** Snapshots that this host saw before and misses now. */
  readonly missing: readonly MissingSnapshot[];
  /**
   * Ids of missing snapshots that exist but are not listed: the list of snapshots is incomplete, so nothing may be
   * removed.
   */
  readonly unlisted: readonly string[];
}

/** Root trees that a prune keeps, and snapshots that are missing. */
export interface Roots {
  /** All listed snapshots. */
  readonly snapshots: readonly ListedSnapshot[];
  /** Root trees (32 bytes each) of listed snapshots and of the caller. */
  readonly trees: Uint8Array[];
  readonly missing: readonly MissingSnapshot[];
  readonly unlisted: readonly string[];
}

/** Headers of unindexed packs that are read at the same time: a remote storage answers slowly. */
const LOOKS_AT_ONCE = 16;

/**
 * Returns the root trees of the snapshots (without `withoutSnapshots`) and of the caller, and the missing snapshots.
 * Throws `damaged` if a snapshot is unreadable. Asks for each missing snapshot by name: a server may have it and not
 * list it.
 */
export async function rootsOf(repository: Repository, options: SweepOptions): Promise<Roots> {
  const { storage, seen } = repository;
  const { snapshots, damaged } = await repository.listSnapshots(options.signal);
  requireReadable(damaged, options);
  const kept = snapshots.filter(({ id }) => options.withoutSnapshots?.has(id) !== true);
  const missing = seen?.missing() ?? [];
  const unlisted: string[] = [];
  await concurrently(missing.length, LOOKS_AT_ONCE, async (at) => {
    const { id } = missing[at]!;
    if (await storage.exists("snapshots", id)) unlisted.push(id);
  });
  const trees = [...kept.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")), ...(await options.roots())];
  return { snapshots, trees, missing, unlisted };
}

/** Throws `refused` for packs without a snapshot: the list may be incomplete, or the snapshots lost. */
export function refuseEmpty({ location }: Storage, missing: readonly MissingSnapshot[]): never {
  const before =
    missing.length === 0
      ? ""
      : `; this host saw ${plural(missing.length, "snapshot")} there before: ${namesOfMissing(missing)}`;
  throw new CairnError(
    "refused",
    `${location} has packs, but no snapshot would be left${before}; nothing was removed`,
    {
      hint: advice`check that its folder \`snapshots\` is complete and that its server lists it; if no snapshot is needed any more, add ${option({ allow: ["empty"] })}`,
      details: { missing_snapshots: missing.map(({ id }) => id) },
    },
  );
}

/** Names up to 20 missing snapshots, for messages. */
export function namesOfMissing(missing: readonly MissingSnapshot[]): string {
  const shown = missing.slice(0, 20).map(({ id, time }) => `${id.slice(0, 8)} of ${time.slice(0, 16)}`);
  return [...shown, ...(missing.length > shown.length ? [`${missing.length - shown.length} more`] : [])].join(", ");
}

/**
 * Throws `damaged` if a snapshot outside `withoutSnapshots` is unreadable, because the blobs that it needs are unknown.
 */
export function requireReadable(
  damaged: readonly DamagedFile[],
  { withoutSnapshots, unreadableHint }: Pick<SweepOptions, "withoutSnapshots" | "unreadableHint">,
): void {
  const blocking = damaged.filter(({ name }) => withoutSnapshots?.has(name) !== true);
  const [first] = blocking;
  if (first === undefined) return;
  throw new CairnError(
    "damaged",
    `snapshot ${first.name.slice(0, 8)} cannot be read, so the content that it needs is unknown: ${first.error.message}`,
    {
      hint: advice`nothing was freed; ${unreadableHint?.(blocking) ?? "repair or remove the snapshot first"}`,
      details: { snapshots: blocking.map(({ name }) => name) },
    },
  );
}

/** Throws `damaged` if an index file cannot be read, because packs that only this file lists seem to be in no index. */
export function requireWholeIndex({ damaged }: BlobIndex): void {
  const [first] = damaged;
  if (first === undefined) return;
  throw new CairnError(
    "damaged",
    `index ${first.name.slice(0, 8)} cannot be read, so packs may only seem unused: ${first.error.message}`,
    { hint: "nothing was freed; repair the index first" },
  );
}

/**
 * Plans a sweep. The caller holds a shared lock for the plan and for a run that follows. `trees` reads the packs of
 * trees. Throws `damaged`, so that nothing is removed, if an index file, a snapshot or a needed tree is unreadable.
 */
export async function planSweep(repository: Repository, options: SweepOptions, trees: NearPacks): Promise<SweepPlan> {
  const isTwice = options.looks === "twice";
  const now = isTwice ? ((await repository.storage.now?.()) ?? null) : null;
  // Snapshots before index files before packs: anything that a save adds meanwhile is either known or not needed yet.
  const roots = await rootsOf(repository, options);
  const { missing, unlisted, snapshots } = roots;
  const look: Look = { lookedAt: now, trees: new Set(roots.trees.map((tree) => objectIdOf(tree))) };
  const index = await currentIndex(repository, options);
  requireWholeIndex(index);
  const isLocal = repository.storage.localPath !== undefined;
  const marks = marksNow(index.marks, { snapshots, now, isLocal });
  if (marks.newer !== null)
    throw reworded(marks.newer, { message: `nothing was freed, because ${marks.newer.message}` });
  const live = new LiveSet(index);
  const held = new LiveSet(index, undefined, live);
  const { sound, gone } = await markAll(repository, { index, live, held, roots, trees }, options);
  const stored = await packSizes(repository.storage);
  if (roots.trees.length === 0 && stored.size > 0 && options.mayBeEmpty !== true)
    refuseEmpty(repository.storage, missing);
  const { packs, unindexed } = await readFacts(repository, { index, live, held, stored, signal: options.signal });
  choosePlaces(index, packs, { live, sound, marks });
  const kept = new KeptPlaces({ repository, index, live, gone, marks, options });
  for (;;) {
    countLive(index, { live, packs, hint: options.hint });
    const plan = decide(options, { index, live, packs, unindexed, kept, marks });
    const going = new Set([...namesOf([...plan.remove, ...plan.repack]), ...plan.unmarked.keys()]);
    for (const { name } of plan.unindexed) going.add(name);
    const beside = [...unindexed].filter(([name]) => going.has(name)).map(([name, size]) => ({ name, size }));
    if (await kept.change({ packs: going, copied: namesOf(plan.repack), unindexed: beside })) continue;
    const copies = kept.copies({ packs: namesOf(plan.remove), unindexed: plan.unindexed });
    const isHeld = (name: string): boolean => packs.get(name)?.isHeld === true && packs.get(name)!.liveBytes === 0;
    const ripe = [...marks.ripe].filter(([, names]) => !names.some(isHeld)).map(([name]) => name);
    const spent = isTwice ? [...marks.void, ...ripe] : marks.files;
    return { ...plan, held, marks, spent, look, copies, missing, unlisted };
  }
}

/**
 * Marks all entries that the roots need. With two looks, entries that only missing snapshots need are marked in `held`.
 * A tree that is unreadable at its preferred place is read from another; `sound` has such entries, and `index` prefers the sound place from then on. Throws `damaged` if no place is sound. `gone`:
 * ids of blobs that only missing snapshots need and that no index lists.
 */
export async function markAll(
  { keys }: Repository,
  { index, live, held, roots, trees }: Pick<SweepPlan, "index" | "live" | "held"> & { roots: Roots; trees: NearPacks },
  options: SweepOptions,
): Promise<{ sound: ReadonlySet<number>; gone: ReadonlySet<string> }> {
  const { onDamagedPack, signal } = options;
  const blobs = new BlobSource({ keys, index, packs: trees, signal, onDamagedPack });
  const counted = options.mayBeMissing === true ? [] : roots.missing.filter(({ counts }) => counts);
  let gone: readonly string[];
  try {
    await live.mark(roots.trees, blobs.viewTree, options);
    const rest = counted.map(({ tree }) => Buffer.from(tree, "hex"));
    gone = await (options.looks === "twice" ? held : live).markRest(rest, blobs.viewTree, options);
  } finally {
    blobs.close();
  }
  requireComplete(live, options);
  requireComplete(held, options);
  return { sound: preferFound(index, blobs), gone: new Set(gone) };
}

/** Makes the index prefer the sound places that a source found. Returns the entries whose place changed. */
function preferFound(index: BlobIndex, { elsewhere }: BlobSource): ReadonlySet<number> {
  for (const [entry, { place }] of elsewhere) index.prefer(entry, place);
  return new Set(elsewhere.keys());
}

function namesOf(packs: readonly PackFacts[]): Set<string> {
  return new Set(packs.map(({ name }) => name));
}

async function currentIndex(repository: Repository, { index, cachePath, signal }: SweepOptions): Promise<BlobIndex> {
  if (index !== undefined && (await index.refresh(repository, { signal }))) return index;
  return BlobIndex.load(repository, cachePath, signal);
}

async function readFacts(
  repository: Repository,
  from: { index: BlobIndex; live: LiveSet; held: LiveSet; stored: PackSizes; signal: AbortSignal | undefined },
): Promise<{ packs: Map<string, PackFacts>; unindexed: Map<string, number> }> {
  const unindexed = new Map(from.stored);
  const packs = new Map<string, PackFacts>();
  const take = (file: IndexFileContent): void => {
    const frozen = file.foreign || file.packs.some((pack) => !pack.isContiguous);
    for (const pack of file.packs) {
      const name = objectIdOf(pack.id);
      const { blobs } = pack;
      const listing = listingKey(blobs);
      let facts = packs.get(name);
      const isFirst = facts === undefined;
      if (facts === undefined) {
        facts = newFacts(name, from.stored.get(name) ?? -1, listing);
        packs.set(name, facts);
      } else if (listing !== facts.listing) facts.split = true;
      if (isFirst || listing !== facts.listing) addBlobs(facts, blobs, from);
      facts.indexes.push(file.name);
      if (frozen || facts.split) facts.frozen = true;
    }
    strikeNamed(unindexed, file);
  };
  const damaged = await eachIndexFile(repository, from.index.covered, take, { signal: from.signal });
  if (damaged.length > 0) throw damaged[0]!.error;
  return { packs, unindexed };
}

function newFacts(name: string, size: number, listing: number): PackFacts {
  const facts = { name, size, listing, blobBytes: 0, liveBytes: 0, indexes: [] };
  return { ...facts, isShort: false, isLong: false, isHeld: false, split: false, frozen: false };
}

/** Adds the blobs of one listing of a pack. A needed blob counts at each of its places. */
function addBlobs(
  facts: PackFacts,
  blobs: IndexedPack["blobs"],
  { index, live, held }: { index: BlobIndex; live: LiveSet; held: LiveSet },
): void {
  const last = blobs.at(-1);
  const wanted = Math.max(packSizeOf(blobs), last === undefined ? 0 : last.offset + last.length);
  if (facts.size < wanted) facts.isShort = true;
  if (facts.size > wanted) facts.isLong = true;
  for (const blob of blobs) {
    facts.blobBytes += blob.length;
    const entry = index.entryOf(blob);
    if (entry >= 0 && live.has(entry)) facts.liveBytes += blob.length;
    if (entry >= 0 && held.has(entry)) facts.isHeld = true;
  }
}

/**
 * Prefers, for each blob in several packs, the pack with the largest share of needed bytes, and a pack without a mark.
 * So the next run finishes an interrupted run and copies nothing twice. Of two equal packs the larger one: a merge of
 * small packs made it.
 */
function choosePlaces(
  index: BlobIndex,
  packs: ReadonlyMap<string, PackFacts>,
  { live, sound, marks }: { live: LiveSet; sound: ReadonlySet<number>; marks: MarksNow },
): void {
  const rank = ({ pack }: BlobPlaceOf): number => {
    const name = objectIdOf(pack);
    const facts = packs.get(name);
    if (facts === undefined || facts.isShort) return 0;
    const share = facts.blobBytes === 0 ? 0 : facts.liveBytes / facts.blobBytes;
    return (marks.waits.has(name) ? 1 : 10) + share + Math.min(1e-6, facts.blobBytes / 2 ** 52);
  };
  for (const entry of new Set(index.inSeveralPlaces())) {
    // The preferred place was proven after another place could not be read.
    if (!live.has(entry) || sound.has(entry)) continue;
    let best = index.place(entry);
    for (const place of index.others(entry)) if (rank(place) > rank(best)) best = place;
    if (rank(best) > rank(index.place(entry))) index.prefer(entry, best);
  }
}

/** Packs that a plan removes, by name. */
interface Going {
  readonly packs: ReadonlySet<string>;
  /** Packs of `packs` that are copied first; copying proves their needed blobs. */
  readonly copied: ReadonlySet<string>;
  readonly unindexed: readonly { name: string; size: number }[];
}

interface KeptIn {
  repository: Repository;
  index: BlobIndex;
  live: LiveSet;
  gone: ReadonlySet<string>;
  /** The blobs of these packs were proven elsewhere when the packs were marked. */
  marks: MarksNow;
  options: SweepOptions;
}

/**
 * Proves blobs that several packs contain, before one of these packs is removed: the copy that stays may be damaged,
 * and the removed copy the only sound one.
 */
class KeptPlaces {
  /** Names of packs with blobs that are sound at none of their places. */
  readonly unsound = new Set<string>();
  /** Names of packs in no index that this user cannot read. */
  readonly closed = new Set<string>();
  readonly #of: KeptIn;
  readonly #proven: EntrySet;
  /** The needed entries that an unindexed pack contains too, by the pack's name. */
  readonly #beside = new Map<string, readonly number[]>();

  constructor(of: KeptIn) {
    this.#of = of;
    this.#proven = new EntrySet(of.index.count);
  }

  /**
   * Returns true if the plan must be made again: the index prefers other places now, or more packs are unsound or
   * closed. Call `change` again until it returns false.
   */
  async change(going: Going): Promise<boolean> {
    const known = this.unsound.size + this.closed.size;
    await this.#lookInto(going.unindexed);
    const entries = this.#toProve(going);
    const { repository, index, options } = this.#of;
    const { storage, keys } = repository;
    const { work, signal } = options;
    let isMoved = false;
    if (entries.length > 0) {
      const blobs = new BlobSource({ keys, index, packs: nearPacksIn(storage, work, "kept"), signal });
      try {
        for (const entry of await blobs.prove(entries))
          for (const { pack } of [index.place(entry), ...index.others(entry)]) this.unsound.add(objectIdOf(pack));
      } finally {
        blobs.close();
      }
      for (const entry of entries) this.#proven.add(entry);
      isMoved = preferFound(index, blobs).size > 0;
    }
    return isMoved || this.unsound.size + this.closed.size > known;
  }

  async #lookInto(packs: Going["unindexed"]): Promise<void> {
    const { repository, index, live, gone, options } = this.#of;
    const left = packs.filter(({ name }) => !this.#beside.has(name));
    const pace = newPacer(options.signal);
    await concurrently(left.length, LOOKS_AT_ONCE, async (at) => {
      await pace();
      const { name, size } = left[at]!;
      const blobs = await headerToDrop(repository, name, size);
      if (blobs === "closed") this.closed.add(name);
      if (blobs !== "closed" && blobs.some((blob) => gone.has(objectIdOf(blob.id)))) throw indexIsShort(name);
      const entries = blobs === "closed" ? [] : blobs.map((blob) => index.entryOf(blob));
      this.#beside.set(
        name,
        entries.filter((entry) => entry >= 0 && live.has(entry)),
      );
    });
  }

  /** Entries whose kept place is not proven yet, while another place is removed. */
  #toProve({ packs, copied, unindexed }: Going): number[] {
    const { index, live, marks } = this.#of;
    const { table } = index;
    const isProven = (name: string): boolean => marks.waits.has(name);
    const names = Array.from({ length: table.packCount }, (_, pack) => objectIdOf(table.packId(pack)));
    const seen = new EntrySet(index.count);
    const entries: number[] = [];
    const add = (entry: number): void => {
      if (copied.has(names[table.packOf[entry]!]!) || this.#proven.has(entry) || !seen.add(entry)) return;
      entries.push(entry);
    };
    for (const entry of index.inSeveralPlaces()) {
      if (!live.has(entry)) continue;
      const others = index.others(entry).map(({ pack }) => objectIdOf(pack));
      if (others.some((name) => packs.has(name) && !isProven(name))) add(entry);
    }
    for (const { name } of unindexed) if (!isProven(name)) for (const entry of this.#beside.get(name)!) add(entry);
    return entries;
  }

  /** Returns the packs that hold needed blobs of which other copies lie in these packs. */
  copies({ packs, unindexed }: Omit<Going, "copied">): Set<string> {
    const { index, live } = this.#of;
    const names = new Set<string>();
    const add = (entry: number): void => void names.add(objectIdOf(index.place(entry).pack));
    for (const entry of new Set(index.inSeveralPlaces()))
      if (live.has(entry) && index.others(entry).some(({ pack }) => packs.has(objectIdOf(pack)))) add(entry);
    for (const { name } of unindexed) for (const entry of this.#beside.get(name)!) add(entry);
    return names;
  }
}

function indexIsShort(pack: string): CairnError {
  return new CairnError(
    "damaged",
    `pack ${pack.slice(0, 8)} is in no index and holds content that a missing snapshot needs: index files are missing too`,
    {
      hint: advice`nothing was freed; ${call("backup repair index", "repair", { what: "index" })} lists the pack again. If the snapshot was forgotten on another host, use ${option({ allow: ["missing"] })}`,
    },
  );
}

/** Counts live bytes again: each blob once, in the pack that it is read from. */
function countLive(
  index: BlobIndex,
  { live, packs, hint }: { live: LiveSet; packs: Map<string, PackFacts>; hint: Hint | undefined },
): void {
  for (const facts of packs.values()) facts.liveBytes = 0;
  const { table } = index;
  const byNumber: (PackFacts | undefined)[] = [];
  for (let number = 0; number < table.packCount; number++) byNumber.push(packs.get(objectIdOf(table.packId(number))));
  for (let entry = 0; entry < table.count; entry++) {
    if (!live.has(entry)) continue;
    const facts = byNumber[table.packOf[entry]!];
    if (facts === undefined || facts.isShort) {
      const pack = objectIdOf(table.packId(table.packOf[entry]!));
      const what = facts === undefined || facts.size < 0 ? "missing" : "shorter than the index says";
      throw new CairnError("damaged", `pack ${pack.slice(0, 8)} is ${what} and holds content that is still needed`, {
        hint: hint ?? "nothing was freed; repair the repository first",
      });
    }
    facts.liveBytes += table.lengthOf[entry]!;
  }
}

function decide(
  options: SweepOptions,
  from: {
    index: BlobIndex;
    live: LiveSet;
    packs: Map<string, PackFacts>;
    unindexed: Map<string, number>;
    kept: Pick<KeptPlaces, "unsound" | "closed">;
    marks: MarksNow;
  },
): Omit<SweepPlan, "missing" | "unlisted" | "marks" | "look" | "copies" | "held" | "spent"> {
  const { unsound, closed } = from.kept;
  const remove: PackFacts[] = [];
  const wasteful: PackFacts[] = [];
  const maxWaste = options.maxWaste ?? 0.2;
  const smallPack = options.smallPack ?? SMALL_PACK;
  let bytesFreed = 0;
  let unusedBytes = 0;
  const isTwice = options.looks === "twice";
  const unmarked = new Map<string, number>();
  const marked: MarkedPacks = { packs: 0, bytes: 0, waitMs: 0 };
  const hold = (name: string, size: number, wait: number | undefined): void => {
    if (wait === undefined) unmarked.set(name, size);
    marked.packs++;
    marked.bytes += Math.max(0, size);
    marked.waitMs = Math.max(marked.waitMs, wait ?? SECOND_LOOK_MS);
  };
  /** Holds a pack that nothing needs, unless it may be freed now. */
  const isFree = (name: string, size: number): boolean => {
    const wait = isTwice ? from.marks.waits.get(name) : 0;
    if (wait !== 0) hold(name, size, wait);
    return wait === 0;
  };
  for (const facts of from.packs.values()) {
    const waste = wasteOf(facts);
    // If needed blobs are in no index, they may lie in the unlisted part of a pack.
    if (facts.frozen || unsound.has(facts.name) || (facts.isLong && !from.live.complete)) unusedBytes += waste;
    else if (facts.liveBytes === 0) {
      if (facts.isHeld) hold(facts.name, facts.size, from.marks.waits.get(facts.name));
      if (facts.isHeld || !isFree(facts.name, facts.size)) continue;
      remove.push(facts);
      bytesFreed += Math.max(0, facts.size);
    } else if (waste > 0 && (facts.size < smallPack || waste > facts.blobBytes * maxWaste)) wasteful.push(facts);
    else unusedBytes += waste;
  }
  const unindexed: { name: string; size: number }[] = [];
  for (const [name, size] of from.unindexed) {
    // Needed blobs that are in no index, or are damaged elsewhere, may lie in such a pack.
    if (!from.live.complete || unsound.size > 0 || closed.has(name)) {
      unusedBytes += size;
      continue;
    }
    if (!isFree(name, size)) continue;
    unindexed.push({ name, size });
    bytesFreed += size;
  }
  const room = options.roomForCopies?.() ?? Number.POSITIVE_INFINITY;
  // With two looks copies stay beside the old packs for a day: if room is short, none is made.
  const isMadeFirst = remove.length + unindexed.length > 0 || isTwice;
  const { repack, crowded } = chooseRepack(wasteful, { room, isMadeFirst });
  for (const facts of repack) {
    // An older mark does not count: the pack was needed until now.
    if (isTwice) hold(facts.name, facts.size, undefined);
    else bytesFreed += wasteOf(facts);
  }
  const freed = isTwice ? remove : [...remove, ...repack];
  return {
    index: from.index,
    live: from.live,
    remove,
    unmarked,
    marked,
    repack,
    unindexed,
    indexFiles: new Set([...from.index.covered, ...from.index.marks.map(({ name }) => name)]),
    freed,
    affected: new Set(freed.flatMap(({ indexes }) => indexes)),
    packs: from.packs,
    bytesFreed,
    unusedBytes: unusedBytes + (crowded?.unusedBytes ?? 0),
    crowded,
    unsound: [...unsound],
  };
}

function wasteOf({ split, blobBytes, size, liveBytes }: PackFacts): number {
  return Math.max(0, (split ? Math.min(blobBytes, size) : blobBytes) - liveBytes);
}

/** Returns the bytes that copying a pack writes: its needed blobs, and a header no longer than the old one. */
function copyBytesOf(facts: PackFacts): number {
  return Math.max(facts.liveBytes, facts.size - wasteOf(facts));
}

/**
 * Returns all wasteful packs, or as many as fit into `room`, packs with the least copying for each freed byte first. If
 * other files are removed, the next run has more room, so nothing is copied now.
 */
function chooseRepack(
  wasteful: PackFacts[],
  { room, isMadeFirst }: { room: number; isMadeFirst: boolean },
): Pick<SweepPlan, "repack" | "crowded"> {
  let left = room - wasteful.reduce((sum, facts) => sum + copyBytesOf(facts), 0);
  if (left >= 0) return { repack: wasteful, crowded: null };
  left = isMadeFirst ? 0 : room;
  const cost = (facts: PackFacts): number => copyBytesOf(facts) / wasteOf(facts);
  const repack: PackFacts[] = [];
  const crowded = { unusedBytes: 0, copyBytes: 0 };
  for (const facts of wasteful.toSorted((a, b) => cost(a) - cost(b))) {
    const bytes = copyBytesOf(facts);
    if (bytes <= left) {
      left -= bytes;
      repack.push(facts);
    } else {
      crowded.unusedBytes += wasteOf(facts);
      crowded.copyBytes = Math.max(crowded.copyBytes, bytes);
    }
  }
  return { repack, crowded };
}
