import { existsSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import type { CallOptions } from "../../contract/index.ts";
import { advice, adviceOf, type CairnError, call, reworded, toCairnError } from "../../errors.ts";
import { formatBytes, plural } from "../../formats/sizes.ts";
import { objectIdOf } from "../../ids.ts";
import { marksNow } from "../../repository/care/marks.ts";
import { type BlobIndex, type BlobPlaceOf, blobTypeName } from "../../repository/index/blob-index.ts";
import { BlobSource, type OnDamagedPack } from "../../repository/read/blob-source.ts";
import { LiveSet } from "../../repository/trees/live.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import { lostPacks, NearPacks, packEnds } from "../../repository/read/near-packs.ts";
import type { DamagedFile, ListedSnapshot, SnapshotListing } from "../../repository/repository.ts";
import { packSizes, type Storage } from "../../repository/storage/storage.ts";
import { FetchArea } from "./fetch-area.ts";
import type { OpenRepository } from "./open-repository.ts";
import { warnOfUnreadable } from "./snapshots.ts";

interface SessionParts {
  access: OpenRepository;
  options: CallOptions;
  index: BlobIndex;
  listing?: SnapshotListing;
  lock?: RepositoryLock | null;
  readNoMore?: () => void;
  area?: FetchArea | null;
}

/** Work on a repository under one of its locks, or without any: its index and snapshots as they are then, and a reader of its blobs. */
export class Session implements SnapshotListing {
  readonly access: OpenRepository;
  readonly index: BlobIndex;
  readonly snapshots: readonly ListedSnapshot[];
  /** Snapshots that cannot be read. */
  readonly damaged: readonly DamagedFile[];
  /** The lock under which this call may write; null if it only reads. */
  readonly lock: RepositoryLock | null;
  /** Releases the lock. To be called once the repository is no longer read, so that other processes need not wait. */
  readonly readNoMore: () => void;
  /** Packs are fetched into this area; null: into the work folder of this process. */
  readonly area: FetchArea | null;
  readonly onDamagedPack: OnDamagedPack;
  readonly #options: CallOptions;
  #near: NearPacks | null = null;
  #reader: BlobSource | null = null;

  constructor({ access, options, index, listing, lock = null, readNoMore, area = null }: SessionParts) {
    this.access = access;
    this.index = index;
    this.snapshots = listing?.snapshots ?? [];
    this.damaged = listing?.damaged ?? [];
    this.lock = lock;
    this.readNoMore = readNoMore ?? (() => undefined);
    this.area = area;
    this.onDamagedPack = noteDamage(access, options);
    this.#options = options;
  }

  get near(): NearPacks {
    if (this.#near !== null) return this.#near;
    this.#near = this.area?.near(this.access, this.index) ?? nearPacks(this.access);
    this.#near.compareWith(this.index, this.access.repository.keys);
    return this.#near;
  }

  get reader(): BlobSource {
    const { index, near, onDamagedPack, access } = this;
    const { signal } = this.#options;
    this.#reader ??= new BlobSource({ keys: access.repository.keys, index, packs: near, signal, onDamagedPack });
    return this.#reader;
  }

  /**
   * Fetches these trees and all below them if the storage is far, several packs at once, before a walk that reads them
   * one by one. The walk meets damaged trees itself.
   */
  async bring(roots: readonly Uint8Array[]): Promise<void> {
    const { signal } = this.#options;
    const far = this.near.isLocal ? [] : roots.filter((root) => this.reader.lent(root) === undefined);
    if (far.length > 0) await new LiveSet(this.index).mark(far, this.reader.viewTree, { signal });
  }

  /** Collects new blobs and keeps the index in step. Null if this call only reads. */
  packedBlobs(): PackedBlobs | null {
    const { access, index, lock } = this;
    if (lock === null) return null;
    const directory = join(access.workDirectory(), "packs");
    const { repository } = access;
    return new PackedBlobs({ repository, index, directory, stillHeld: async () => lock.recheck() });
  }

  close(): void {
    this.#reader?.close();
  }
}

/** Packs of a repository that are here, or are fetched into the work folder of this process. */
export function nearPacks(access: OpenRepository): NearPacks {
  return new NearPacks(access.storage, access.storage.localPath === undefined ? access.workDirectory() : "");
}

/** Works in a session under a lock that the caller holds, with the index read under that lock. */
export async function within<T>(parts: SessionParts, work: (session: Session) => Promise<T>): Promise<T> {
  const session = new Session(parts);
  try {
    return await work(session);
  } finally {
    session.close();
  }
}

/**
 * Reads a repository, under a shared lock if this user can write one. `area`: where far packs are fetched to; a stopped
 * restore leaves its area to the next one. `"own"` begins with an empty area.
 */
export async function reading<T>(
  access: OpenRepository,
  options: CallOptions & { area?: FetchArea | "shared" | "own" | null },
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const read = async (area: FetchArea | null): Promise<T> =>
    readAhead(access, options, async (current) =>
      access.reading(options, async (readNoMore) => {
        const { index, ...listing } = await current();
        return within({ access, options, index, listing, readNoMore, area }, work);
      }),
    );
  const { area = null } = options;
  return typeof area === "string" ? FetchArea.during(access, area === "shared", read) : read(area);
}

/**
 * Adds to a repository under a shared lock; a dry run takes none. Leaves packs that are missing, cut or remembered as
 * damaged out of the index, so that their content is stored again. Warns of them, and of unreadable snapshots.
 */
export async function adding<T>(
  access: OpenRepository,
  options: CallOptions & { dryRun?: boolean | undefined; listsAll?: boolean },
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const add = async ({ index, ...listing }: Listed, lock: RepositoryLock | null): Promise<T> => {
    warnOfUnreadable(access, listing.damaged, options);
    const lost = await lostIn(access, index, options);
    const whole = lost.size === 0 ? index : index.without(lost);
    const { waits, bytes } = marksNow(index.marks, { ...listing, now: null, isLocal: false });
    // Content of marked packs is stored again: at the second look a list may lack the snapshot that is made now.
    const own = waits.size === 0 ? whole : whole.without(new Set(waits.keys()));
    const lostBlobs = [...without(index, whole)];
    try {
      return await within({ access, options, index: own, listing, lock }, work);
    } catch (error) {
      throw withMarked(toCairnError(error), bytes);
    } finally {
      if (lostBlobs.length > 0) {
        const again = lostBlobs.filter(({ id, type }) => own.entryOf({ id, type }) >= 0).length;
        tellOfLost(access, { packs: lost.size, blobs: lostBlobs.length, again }, options);
      }
    }
  };
  if (options.dryRun !== true)
    return readAhead(access, options, async (current) =>
      access.locked(false, options, async (lock) => add(await current(), lock)),
    );
  const listed = await listedInTurn(access, options.signal);
  // A prune may have removed packs since the index was read.
  const isWhole = (await lostIn(access, listed.index, {})).size === 0;
  return add(isWhole ? listed : await listedInTurn(access, options.signal), null);
}

/** Adds a hint to the error of a full storage: a prune can free marked packs there. */
function withMarked(error: CairnError, bytes: number): CairnError {
  if (error.code !== "no_space" || bytes === 0) return error;
  const prune = call("backup prune --instant", "prune", { instant: true });
  const hint = advice`${prune} frees ${formatBytes(bytes)} that earlier prunes have marked as unneeded; ${adviceOf(error) ?? "then run the command again"}`;
  return reworded(error, { hint });
}

interface Listed extends SnapshotListing {
  readonly index: BlobIndex;
}

/**
 * `current` returns snapshots and index as they are under the lock, when it is called. For a far storage both are read
 * while the lock is being placed; the names listed under the lock then tell whether other processes changed them.
 */
async function readAhead<T>(
  access: OpenRepository,
  { signal }: CallOptions,
  work: (current: () => Promise<Listed>) => Promise<T>,
): Promise<T> {
  const { storage, repository } = access;
  if (storage.localPath !== undefined) return work(async () => listedInTurn(access, signal));
  const ahead = Promise.allSettled([repository.listSnapshots(signal), access.index(signal)]);
  const current = async (): Promise<Listed> => {
    const [names, files] = await Promise.all([storage.list("snapshots"), storage.list("index")]);
    const [listed, index] = await ahead;
    if (listed.status === "rejected" || index.status === "rejected") return listedInTurn(access, signal);
    const there = new Set(names.map(({ name }) => name));
    const snapshots = listed.value.snapshots.filter(({ id }) => there.has(id));
    const damaged = listed.value.damaged.filter(({ name }) => there.has(name));
    // A snapshot that came meanwhile may need a newer index file than those listed here.
    const hasCome = snapshots.length + damaged.length < there.size;
    const isCurrent = !hasCome && (await index.value.refresh(repository, { files, signal }));
    return isCurrent ? { snapshots, damaged, index: index.value } : listedInTurn(access, signal);
  };
  try {
    return await work(current);
  } finally {
    // The reads must end before the caller continues.
    await ahead;
  }
}

async function listedInTurn(access: OpenRepository, signal: AbortSignal | undefined): Promise<Listed> {
  // A snapshot is written after its index, so the index is loaded only after the snapshots' names are listed.
  let index: Promise<BlobIndex> | undefined;
  const listed = await access.repository.listSnapshots(signal, () => {
    index = access.index(signal);
    index.catch(() => undefined);
  });
  return { ...listed, index: await (index ?? access.index(signal)) };
}

/** Names of packs that an index lists and a local storage lacks; lists only the folders of packs. */
function missingHere(storage: Storage, index: BlobIndex): ReadonlySet<string> {
  const missing = new Set<string>();
  if (storage.localPath === undefined) return missing;
  const folders = new Map<string, string[]>();
  for (const [number, end] of packEnds(index).entries()) {
    if (end === 0) continue;
    const pack = objectIdOf(index.table.packId(number));
    const folder = dirname(storage.localPath("data", pack));
    const packs = folders.get(folder);
    if (packs === undefined) folders.set(folder, [pack]);
    else packs.push(pack);
  }
  for (const [folder, packs] of folders) {
    const there = new Set(namesIn(folder));
    for (const pack of packs) if (!there.has(pack)) missing.add(pack);
  }
  return missing;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch (error) {
    // If the parent folder is missing too, the repository's disk is not mounted.
    if ((error as NodeJS.ErrnoException).code === "ENOENT" && existsSync(dirname(folder))) return [];
    throw toCairnError(error, `list ${folder}`);
  }
}

/** The most packs whose sizes a backup asks for: on S3, ten requests. */
const MOST_SIZES = 10_000;

/**
 * Returns the names of missing, cut and damaged packs, whose content a writer has to store again. Damage counts if this
 * host found it. With more than `MOST_SIZES` packs and no known damage, sizes are compared only with `listsAll`. Warns if
 * the packs cannot be listed.
 */
async function lostIn(
  { storage, repository }: OpenRepository,
  index: BlobIndex,
  { onWarning, listsAll }: CallOptions & { listsAll?: boolean },
): Promise<ReadonlySet<string>> {
  const damaged = repository.damaged.listedIn(index);
  try {
    if (listsAll !== true && index.packCount > MOST_SIZES && damaged.size === 0) return missingHere(storage, index);
    return damaged.union(new Set(lostPacks(index, await packSizes(storage))));
  } catch (error) {
    if (toCairnError(error).code === "interrupted") throw error;
    onWarning?.(`cannot check that all packs are there: ${toCairnError(error).message}`);
    return damaged;
  }
}

/** Yields the blobs of an index that `own` lacks. */
function* without(index: BlobIndex, own: BlobIndex): Generator<Pick<BlobPlaceOf, "type"> & { id: Uint8Array }> {
  const { ids } = index.table;
  for (let entry = 0; own !== index && entry < index.count; entry++) {
    const number = index.table.typeOf(entry);
    if (own.lookup(ids, entry * 32, number) < 0) yield { id: index.idOf(entry), type: blobTypeName(number) };
  }
}

/** Warns of packs that a writer did not rely on. `blobs`: their blobs that no other pack has; `again`: stored by it. */
function tellOfLost(
  { location }: OpenRepository,
  { packs, blobs, again }: { packs: number; blobs: number; again: number },
  { onWarning, dryRun }: CallOptions & { dryRun?: boolean | undefined },
): void {
  const stored = dryRun === true ? "" : `, of which ${again} ${again === 1 ? "was" : "were"} needed and stored again`;
  onWarning?.(
    `${location} has ${plural(packs, "damaged, missing or cut pack")} with ${plural(blobs, "blob")} that no other pack has${stored}; \`cairn backup verify\` shows what is lost, \`cairn backup repair packs\` mends the repository`,
  );
}

/** Returns a function that remembers each damaged pack, and warns once of each whose content is read from other packs. */
export function noteDamage({ location, repository }: OpenRepository, { onWarning }: CallOptions): OnDamagedPack {
  const told = new Set<string>();
  return (pack, isElsewhere) => {
    if (told.has(pack)) return;
    repository.damaged.learn([pack]);
    if (!isElsewhere) return;
    told.add(pack);
    onWarning?.(
      `pack ${pack.slice(0, 12)} of ${location} is damaged or missing: its content is read from other packs, if they have it too; \`cairn backup repair packs\` repairs the repository`,
    );
  };
}
