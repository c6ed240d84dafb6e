import type { BlobIndex } from "../../repository/blob-index.ts";
import type { NearPacks } from "../../repository/near-packs.ts";
import { NearReader, treePackEnds } from "../../repository/near-reader.ts";
import type { DamagedFile, ListedSnapshot, Repository, SnapshotListing } from "../../repository/repository.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import type { CallOptions } from "../contract.ts";
import type { FetchArea } from "./fetch-area.ts";
import { readableOf } from "./find-snapshot.ts";
import type { RepositoryAccess } from "./repository-access.ts";

export interface Look {
  readonly reader: NearReader;
  readonly index: BlobIndex;
  readonly near: NearPacks;
}

/** Runs work that reads trees and blobs, under a shared lock where this user may write one. */
export async function looking<T>(
  access: RepositoryAccess,
  options: CallOptions,
  work: (look: Look) => Promise<T>,
): Promise<T> {
  return withIndexAhead(access, options, async (newest) =>
    access.readingAhead(options, {
      ahead: newest,
      work: async (_over, index) => lookingBy(access, index, { options, work }),
    }),
  );
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
}

/** The same for work that looks at snapshots. */
export async function lookingAtSnapshots<T>(
  access: RepositoryAccess,
  options: LookOptions,
  work: (look: LookAtSnapshots) => Promise<T>,
): Promise<T> {
  return withIndexAhead(access, options, async (newest) =>
    access.readingAhead(options, {
      ahead: async () => snapshotsAndIndex(access.repository, { newest, signal: options.signal }),
      work: async (readNoMore, { index, ...listed }) =>
        lookingBy(access, index, { options, work: async (look) => work({ ...look, ...listed, readNoMore }) }),
    }),
  );
}

/** What a backup is made beside. */
export interface Beside {
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
  return withIndexAhead(access, options, async (newest) =>
    access.writingAhead(options, {
      ahead: async () => snapshotsAndIndex(access.repository, { newest, signal: options.signal }),
      work: async (lock, { index, ...listed }) => work(lock, { index, snapshots: readableOf(access, listed, options) }),
    }),
  );
}

/** The same for a dry run, which has no lock. */
export async function lookingBeside(access: RepositoryAccess, options: CallOptions): Promise<Beside> {
  const newest = async (): Promise<BlobIndex> => access.index(options.signal);
  const { index, ...listed } = await snapshotsAndIndex(access.repository, { newest, signal: options.signal });
  return { index, snapshots: readableOf(access, listed, options) };
}

/**
 * `newest` gives the index as it is when that is called. Far away it is read from now on, while a lock is placed; what came
 * since is read then, and all of it once more where something of it is gone.
 */
async function withIndexAhead<T>(
  access: RepositoryAccess,
  { signal }: CallOptions,
  work: (newest: () => Promise<BlobIndex>) => Promise<T>,
): Promise<T> {
  if (access.storage.localPath !== undefined) return work(async () => access.index(signal));
  const ahead = access.index(signal);
  const isLoaded = ahead.then(
    () => true,
    () => false,
  );
  try {
    return await work(async () => {
      const files = access.storage.list("index");
      files.catch(() => undefined);
      if (!(await isLoaded)) return access.index(signal);
      const index = await ahead;
      return (await index.refresh(access.repository, { files: await files, signal })) ? index : access.index(signal);
    });
  } finally {
    await isLoaded;
  }
}

async function snapshotsAndIndex(
  repository: Repository,
  { newest, signal }: { newest: () => Promise<BlobIndex>; signal: AbortSignal | undefined },
): Promise<SnapshotListing & { index: BlobIndex }> {
  // What a snapshot needs is in the index by the time it is listed, and may not be before.
  let index: Promise<BlobIndex> | undefined;
  const listed = await repository.listSnapshots(signal, () => {
    index = newest();
    index.catch(() => undefined);
  });
  return { ...listed, index: await (index ?? newest()) };
}

/** As `looking`, for who holds a lock, with the index read under it. */
export async function lookingBy<T>(
  access: RepositoryAccess,
  index: BlobIndex,
  { options, work }: { options: LookOptions; work: (look: Look) => Promise<T> },
): Promise<T> {
  const near = options.area?.near(access, index) ?? access.near();
  const ends = treePackEnds(near, index);
  const reader = new NearReader({ repository: access.repository, near, ends, signal: options.signal });
  try {
    return await work({ reader, index, near });
  } finally {
    reader.close();
  }
}
