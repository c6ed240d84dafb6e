import { CairnError } from "../errors.ts";
import type { IndexBlob } from "../formats/pack-header.ts";
import { objectIdOf } from "../ids.ts";
import { BlobIndex, isPlacedAt } from "./blob-index.ts";
import { eachIndexFile, type IndexFileContent, type IndexedPack, listingKey } from "./index-set.ts";
import { type Duplicate, KeptCopies } from "./kept-copies.ts";
import { LiveSet, requireComplete, type ReadTree } from "./live.ts";
import type { LockCall } from "./locks.ts";
import { nearPacksIn } from "./near-packs.ts";
import { type FoundCopy, OtherCopies } from "./other-copies.ts";
import { packSizeOf, SMALL_PACK, type WorkDirectory } from "./pack-copy.ts";
import type { DamagedFile, Repository } from "./repository.ts";
import { type PackSizes, packSizes } from "./storage/storage.ts";
import { strikeNamed } from "./unindexed-packs.ts";

export interface SweepOptions extends LockCall {
  /** The index cache; null for none. */
  cachePath: string | null;
  /** The index as it was loaded before: read again only where one of its files has gone. Moved entries stay moved in it. */
  index?: BlobIndex | undefined;
  /** Root trees (32 bytes each) that are needed beside those of the repository's own snapshots. Asked again under the lock. */
  roots(): Promise<Uint8Array[]>;
  readTree: ReadTree;
  /** See `OtherCopiesOptions`; of trees. */
  onFound?: (copy: FoundCopy) => void;
  /** What to do about what is needed and damaged. */
  hint?: string;
  /** Ids of snapshots that do not count, because they will be removed. */
  withoutSnapshots?: ReadonlySet<string>;
  /** What may be done about snapshots that cannot be read. */
  unreadableHint?: (names: readonly string[]) => string;
  /** A pack is rewritten when more than this share of it is dead; default 0.2. */
  maxWaste?: number;
  /** Packs below so many bytes are rewritten for any dead blob; default `SMALL_PACK`. */
  smallPack?: number;
  /** How many bytes may be written into new packs before old ones go; asked for each plan. Default: any number. */
  roomForCopies?: () => number;
  /** Roots may need data that no index lists: what is listed is freed all the same, but no pack that is in no index. */
  mayLackData?: boolean;
  /** Where packs are brought and written that are copied; needed where the repository is not a local one. */
  work?: WorkDirectory;
  /** How long to wait for the exclusive lock before the deletes are put off; default 0. */
  waitMs?: number;
}

/** A pack as the index files state it. */
export interface PackFacts {
  readonly name: string;
  /** Bytes of the file; -1 when it is missing. */
  readonly size: number;
  /** Missing, or shorter than what is listed of it: nothing of it counts as there. */
  isShort: boolean;
  /** Longer than what is listed of it, by whichever index file. */
  isLong: boolean;
  /** What the first index file that lists it says of it. */
  readonly listing: number;
  /** Listed differently by several index files: left alone, until a repair lists it once. */
  split: boolean;
  /** Sealed bytes of all its blobs; of a split pack for each index file. */
  blobBytes: number;
  /** Sealed bytes of the blobs that are needed from this pack. */
  liveBytes: number;
  /** Index files that list it. */
  readonly indexes: string[];
  /** Listed in an index file that is not ours to rewrite, or split. */
  frozen: boolean;
}

/** Packs that are left as they are, because there is no room for copies of what is needed of them. */
export interface CrowdedPacks {
  /** Bytes of what nothing needs in them. */
  readonly unusedBytes: number;
  /** The most that has to be written for one of them. */
  readonly copyBytes: number;
}

export interface SweepPlan {
  readonly index: BlobIndex;
  readonly live: LiveSet;
  /** Packs without anything that is needed. */
  readonly remove: PackFacts[];
  /** Packs of which the needed blobs are copied elsewhere. */
  readonly repack: PackFacts[];
  /** Files in no index: what a killed writer left. */
  readonly unindexed: { name: string; size: number }[];
  /** Names of all index files that were read. */
  readonly indexFiles: ReadonlySet<string>;
  /** Those that list a pack that goes. */
  readonly affected: ReadonlySet<string>;
  readonly packs: ReadonlyMap<string, PackFacts>;
  /** Bytes that the run will free, new packs subtracted. */
  readonly bytesFreed: number;
  /** Bytes that nothing needs and that stay, because rewriting their packs would not pay, or cannot be done. */
  readonly unusedBytes: number;
  /** Packs that stay because of what is needed of them no copy is sound. */
  readonly unsound: readonly string[];
  /** Null where there is room for all copies. */
  readonly crowded: CrowdedPacks | null;
}

interface DuplicateThere extends Duplicate {
  readonly id: Uint8Array;
  readonly blob: IndexBlob;
}

/** The root trees of all snapshots that count, and of the caller. `damaged` when a snapshot cannot be read. */
export async function rootsOf(repository: Repository, options: SweepOptions): Promise<Uint8Array[]> {
  const { snapshots, damaged } = await repository.listSnapshots(options.signal);
  requireReadable(damaged, options);
  const kept = snapshots.filter(({ id }) => options.withoutSnapshots?.has(id) !== true);
  return [...kept.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex")), ...(await options.roots())];
}

/** Throws `damaged` when a snapshot that counts cannot be read: what it needs is unknown. */
export function requireReadable(
  damaged: readonly DamagedFile[],
  { withoutSnapshots, unreadableHint }: Pick<SweepOptions, "withoutSnapshots" | "unreadableHint">,
): void {
  const blocking = damaged.filter(({ name }) => withoutSnapshots?.has(name) !== true);
  const [first] = blocking;
  if (first === undefined) return;
  const names = blocking.map(({ name }) => name);
  throw new CairnError(
    "damaged",
    `snapshot ${first.name.slice(0, 8)} cannot be read, so what it needs is unknown: ${first.error.message}`,
    {
      hint: `nothing was freed; ${unreadableHint?.(names) ?? "repair or remove the snapshot first"}`,
      details: { snapshots: names },
    },
  );
}

/** Throws `damaged` when an index file cannot be read: what only it lists seems to be in no index. */
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
 * What a sweep would do. The caller holds a shared lock while it runs and while a run follows from it.
 * `damaged` when an index file, a snapshot or a needed tree cannot be read: then nothing may be removed.
 */
export async function planSweep(repository: Repository, options: SweepOptions): Promise<SweepPlan> {
  // Snapshots before the index, the index before the packs: what a save adds meanwhile is then known or not needed yet.
  const roots = await rootsOf(repository, options);
  const index = await currentIndex(repository, options);
  requireWholeIndex(index);
  const live = new LiveSet(index);
  const sound = await markAll(repository, { index, live, roots }, options);
  const stored = await packSizes(repository.storage);
  const { packs, duplicates, unindexed } = await readFacts(repository, { index, live, stored, signal: options.signal });
  settleDuplicates(index, packs, { duplicates, sound });
  const { work, signal } = options;
  const kept = new KeptCopies(repository, { index, live, duplicates, work, signal });
  for (;;) {
    countLive(index, { live, packs, hint: options.hint });
    const plan = decide(options, { index, live, packs, unindexed, kept });
    const going = { packs: namesOf([...plan.remove, ...plan.repack]), copied: namesOf(plan.repack) };
    if (!(await kept.change({ ...going, unindexed: plan.unindexed }))) return plan;
  }
}

/**
 * Marks all that these roots need. Trees that are damaged or lost where the index has them, and sound in other packs, are read
 * there, which the index has from then on; their entries are returned. `damaged` where one is sound nowhere.
 */
export async function markAll(
  repository: Repository,
  { index, live, roots }: { index: BlobIndex; live: LiveSet; roots: readonly Uint8Array[] },
  options: SweepOptions,
): Promise<Pick<ReadonlySet<number>, "has">> {
  const { work, readTree, onFound, signal } = options;
  const near = nearPacksIn(repository.storage, work, "copies");
  const copies = new OtherCopies({ repository, index, near, signal, onFound });
  try {
    await live.mark(roots, copies.reading(readTree), options);
  } finally {
    copies.close();
  }
  requireComplete(live, options);
  copies.settle();
  return copies.found;
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
  from: { index: BlobIndex; live: LiveSet; stored: PackSizes; signal: AbortSignal | undefined },
): Promise<{ packs: Map<string, PackFacts>; duplicates: DuplicateThere[]; unindexed: Map<string, number> }> {
  const unindexed = new Map(from.stored);
  const packs = new Map<string, PackFacts>();
  const duplicates: DuplicateThere[] = [];
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
      if (isFirst || listing !== facts.listing) addBlobs(facts, { id: pack.id, blobs }, { ...from, duplicates });
      facts.indexes.push(file.name);
      if (frozen || facts.split) facts.frozen = true;
    }
    strikeNamed(unindexed, file);
  };
  const damaged = await eachIndexFile(repository, from.index.covered, take, { signal: from.signal });
  if (damaged.length > 0) throw damaged[0]!.error;
  return { packs, duplicates, unindexed };
}

function newFacts(name: string, size: number, listing: number): PackFacts {
  const facts = { name, size, listing, blobBytes: 0, liveBytes: 0, indexes: [] };
  return { ...facts, isShort: false, isLong: false, split: false, frozen: false };
}

function addBlobs(
  facts: PackFacts,
  pack: Pick<IndexedPack, "id" | "blobs">,
  to: { index: BlobIndex; live: LiveSet; duplicates: DuplicateThere[] },
): void {
  const last = pack.blobs.at(-1);
  const wanted = Math.max(packSizeOf(pack.blobs), last === undefined ? 0 : last.offset + last.length);
  if (facts.size < wanted) facts.isShort = true;
  if (facts.size > wanted) facts.isLong = true;
  for (const blob of pack.blobs) {
    facts.blobBytes += blob.length;
    const entry = to.index.entryOf(blob);
    if (entry < 0 || !to.live.has(entry)) continue;
    facts.liveBytes += blob.length;
    if (isPlacedAt(to.index, entry, pack.id, blob)) continue;
    to.duplicates.push({ entry, pack: facts.name, was: to.index.table.packOf[entry]!, id: pack.id, blob });
  }
}

/**
 * A pack that is wanted whole keeps its copies, so that a run that was interrupted after its new packs
 * were indexed is finished by the next one instead of copying again.
 */
function settleDuplicates(
  index: BlobIndex,
  packs: Map<string, PackFacts>,
  { duplicates, sound }: { duplicates: readonly DuplicateThere[]; sound: Pick<ReadonlySet<number>, "has"> },
): void {
  const whole = namesOf(
    [...packs.values()].filter(({ isShort, liveBytes, blobBytes }) => !isShort && liveBytes === blobBytes),
  );
  for (const { entry, pack, id, blob } of duplicates) {
    // Read where it is, after it could not be read elsewhere.
    if (sound.has(entry)) continue;
    const name = objectIdOf(index.place(entry).pack);
    const current = packs.get(name);
    if (whole.has(pack) && !whole.has(name)) index.relocate(entry, { ...blob, pack: id });
    else if (current?.isShort === true && !packs.get(pack)!.isShort) index.relocate(entry, { ...blob, pack: id });
  }
}

/** Live bytes again, each blob now counted once, where it is read from. */
function countLive(
  index: BlobIndex,
  { live, packs, hint }: { live: LiveSet; packs: Map<string, PackFacts>; hint: string | undefined },
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
      const what = facts === undefined || facts.size < 0 ? "missing" : "shorter than what the index lists of it";
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
    kept: Pick<KeptCopies, "unsound" | "closed">;
  },
): SweepPlan {
  const { unsound, closed } = from.kept;
  const remove: PackFacts[] = [];
  const wasteful: PackFacts[] = [];
  const maxWaste = options.maxWaste ?? 0.2;
  const smallPack = options.smallPack ?? SMALL_PACK;
  let bytesFreed = 0;
  let unusedBytes = 0;
  for (const facts of from.packs.values()) {
    const waste = wasteOf(facts);
    // What lacks may lie in a pack that is listed in part.
    if (facts.frozen || unsound.has(facts.name) || (facts.isLong && !from.live.complete)) unusedBytes += waste;
    else if (facts.liveBytes === 0) {
      remove.push(facts);
      bytesFreed += Math.max(0, facts.size);
    } else if (waste > 0 && (facts.size < smallPack || waste > facts.blobBytes * maxWaste)) wasteful.push(facts);
    else unusedBytes += waste;
  }
  const unindexed: { name: string; size: number }[] = [];
  for (const [name, size] of from.unindexed) {
    // What lacks may lie in a pack that is in no index, or what is damaged.
    if (!from.live.complete || unsound.size > 0 || closed.has(name)) {
      unusedBytes += size;
      continue;
    }
    unindexed.push({ name, size });
    bytesFreed += size;
  }
  const room = options.roomForCopies?.() ?? Number.POSITIVE_INFINITY;
  const { repack, crowded } = chooseRepack(wasteful, { room, isMadeFirst: remove.length + unindexed.length > 0 });
  for (const facts of repack) bytesFreed += wasteOf(facts);
  const affected = new Set([...remove, ...repack].flatMap((facts) => facts.indexes));
  return {
    index: from.index,
    live: from.live,
    remove,
    repack,
    unindexed,
    indexFiles: new Set(from.index.covered),
    affected,
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

/** What is needed of a pack, and a header that is no longer than its own. */
function copyBytesOf(facts: PackFacts): number {
  return Math.max(facts.liveBytes, facts.size - wasteOf(facts));
}

/** All, or as many as there is room for, those first that make the most of it. Where other files go, room is made by them first. */
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
