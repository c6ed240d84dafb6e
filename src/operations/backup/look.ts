import type { BlobIndex } from "../../repository/blob-index.ts";
import { LiveSet } from "../../repository/live.ts";
import type { NearPacks } from "../../repository/near-packs.ts";
import { NearReader, treePackEnds } from "../../repository/near-reader.ts";
import type { OtherCopies } from "../../repository/other-copies.ts";
import type { DamagedFile, ListedSnapshot, Repository, SnapshotListing } from "../../repository/repository.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import type { StoredFile } from "../../repository/storage/storage.ts";
import type { CallOptions } from "../contract.ts";
import type { FetchArea } from "./fetch-area.ts";
import { readableOf } from "./find-snapshot.ts";
import { copiesOf, indexWithout, missingHere, readFromWhatIsThere } from "./lost-packs.ts";
import type { RepositoryAccess } from "./repository-access.ts";

export interface Look {
  readonly reader: NearReader;
  readonly index: BlobIndex;
  readonly near: NearPacks;
  /** Of what is damaged; `reader` reads them by itself. */
  readonly copies: OtherCopies;
}

/** Runs work that reads trees and blobs, under a shared lock where this user may write one. */
export async function looking<T>(
  access: RepositoryAccess,
  options: CallOptions,
  work: (look: Look) => Promise<T>,
): Promise<T> {
  return access.reading(options, async () => lookingBy(access, await access.index(options.signal), { options, work }));
}

export interface LookAtSnapshots extends Look {
  readonly snapshots: readonly ListedSnapshot[];
  /** Snapshots that cannot be read. */
  readonly damaged: readonly DamagedFile[];
  /** To be called once nothing more is read from the repository: others need not wait for the rest of the work. */
  readonly readNoMore: () => void;
}

interface LookOptions extends CallOptions {
  /** Where packs are fetched to; absent: into the work folder of this process. */
  area?: FetchArea | null;
  /** Content is wanted: what is in a pack that a local storage has lost, and in another one, is read from that. */
  restores?: boolean;
}

/** The same for work that looks at snapshots. */
export async function lookingAtSnapshots<T>(
  access: RepositoryAccess,
  options: LookOptions,
  work: (look: LookAtSnapshots) => Promise<T>,
): Promise<T> {
  return readAhead(access, options, async (current) =>
    access.reading(options, async (readNoMore) => {
      const { index, ...listed } = await current();
      if (options.restores === true) await readFromWhatIsThere(access, index, options);
      return lookingBy(access, index, { options, work: async (look) => work({ ...look, ...listed, readNoMore }) });
    }),
  );
}

/** What a backup is made beside. */
export interface Beside {
  /** Without what a local storage has lost: it is stored again. */
  readonly index: BlobIndex;
  /** Those that can be read. */
  readonly snapshots: readonly ListedSnapshot[];
}

/** Runs work that adds to a repository, under a shared lock. */
export async function adding<T>(
  access: RepositoryAccess,
  options: CallOptions,
  work: (lock: RepositoryLock, beside: Beside) => Promise<T>,
): Promise<T> {
  return readAhead(access, options, async (current) =>
    access.locked(false, options, async (lock) => work(lock, await besideOf(access, await current(), options))),
  );
}

/** The same for a dry run, which has no lock. */
export async function lookingBeside(access: RepositoryAccess, options: CallOptions): Promise<Beside> {
  const listed = await listedInTurn(access, options.signal);
  // A prune may have removed packs since the index was read.
  const isWhole = missingHere(access, listed.index).size === 0;
  return besideOf(access, isWhole ? listed : await listedInTurn(access, options.signal), options);
}

async function besideOf(access: RepositoryAccess, { index, ...listed }: Listed, options: CallOptions): Promise<Beside> {
  const snapshots = readableOf(access, listed, options);
  const missing = missingHere(access, index, options.onWarning);
  return { index: await indexWithout(access, { index, lost: missing }, options), snapshots };
}

interface Listed extends SnapshotListing {
  readonly index: BlobIndex;
}

/**
 * `current` gives snapshots and index as they are when it is called, which is under a lock. Far away both are read from now
 * on, while that is placed: what others did until it held is told by the names that are there then.
 */
async function readAhead<T>(
  access: RepositoryAccess,
  { signal }: CallOptions,
  work: (current: () => Promise<Listed>) => Promise<T>,
): Promise<T> {
  if (access.storage.localPath !== undefined) return work(async () => listedInTurn(access, signal));
  const ahead = Promise.allSettled([access.repository.listSnapshots(signal), access.index(signal)]);
  try {
    return await work(async () => {
      const [names, files] = await Promise.all([access.storage.list("snapshots"), access.storage.list("index")]);
      const [listed, index] = await ahead;
      if (listed.status === "rejected" || index.status === "rejected") return listedInTurn(access, signal);
      const read = { ...listed.value, index: index.value };
      return (await stillThere(access.repository, read, { names, files, signal })) ?? listedInTurn(access, signal);
    });
  } finally {
    // Nothing goes on behind the back of who asked for it.
    await ahead;
  }
}

/** What was read, without snapshots that are gone; null where some came, or where something of the index is gone. */
async function stillThere(
  repository: Repository,
  { snapshots, damaged, index }: Listed,
  now: { names: readonly StoredFile[]; files: readonly StoredFile[]; signal: AbortSignal | undefined },
): Promise<Listed | null> {
  const names = new Set(now.names.map(({ name }) => name));
  const stay = {
    snapshots: snapshots.filter(({ id }) => names.has(id)),
    damaged: damaged.filter(({ name }) => names.has(name)),
  };
  // One that came may need an index file that came after those that are listed here.
  if (stay.snapshots.length + stay.damaged.length < names.size) return null;
  return (await index.refresh(repository, now)) ? { ...stay, index } : null;
}

async function listedInTurn(access: RepositoryAccess, signal: AbortSignal | undefined): Promise<Listed> {
  // What a snapshot needs is in the index by the time it is listed, and may not be before.
  let index: Promise<BlobIndex> | undefined;
  const listed = await access.repository.listSnapshots(signal, () => {
    index = access.index(signal);
    index.catch(() => undefined);
  });
  return { ...listed, index: await (index ?? access.index(signal)) };
}

/** As `looking`, for who holds a lock, with the index read under it. */
export async function lookingBy<T>(
  access: RepositoryAccess,
  index: BlobIndex,
  { options, work }: { options: LookOptions; work: (look: Look) => Promise<T> },
): Promise<T> {
  const near = options.area?.near(access, index) ?? access.near();
  const ends = treePackEnds(near, index);
  const copies = copiesOf(access, { index, near }, options);
  const reader = new NearReader({ repository: access.repository, near, ends, copies, signal: options.signal });
  try {
    return await work({ reader, index, near, copies });
  } finally {
    reader.close();
  }
}

/**
 * Has all trees of snapshots brought where they lie far away, their packs several at once, for a walk that reads all of them
 * one after the other. What is wrong with one is met on that walk.
 */
export async function bringTrees(
  { index, near, reader }: Look,
  snapshots: readonly ListedSnapshot[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const roots = snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex"));
  await bringBelow({ index, near, reader }, roots, signal);
}

/** The same of trees and all below them. */
export async function bringBelow(
  { index, near, reader }: Pick<Look, "index" | "near" | "reader">,
  roots: readonly Uint8Array[],
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!near.isLocal) await new LiveSet(index).mark(roots, reader.viewTree, { signal });
}
