import { append } from "../../append.ts";
import { chosenJobs, THREADS_BESIDE, warmThreads } from "../../threads/threads.ts";
import { VERIFY } from "../../repository/verify/verify-task.ts";
import { CairnError } from "../../errors.ts";
import { type ObjectId, objectIdOf } from "../../ids.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import type { LiveSet } from "../../repository/trees/live.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import type { StoredFile } from "../../repository/storage/storage.ts";
import { explain } from "../../repository/verify/damage.ts";
import { type ProvenPacks, type ProvenSoFar, provePacks } from "../../repository/verify/pack-prover.ts";
import {
  type CheckProblem,
  followRoots,
  nameSoundPlaces,
  packProblems,
  readStructure,
  type Structure,
} from "../../repository/verify/structure.ts";
import { NO_DIGESTS, type ProvenDigests, provenPointDigests } from "./verify-digests.ts";
import type { BackupProblem, VerifyBackupOptions, VerifyBackupResult } from "../../contract/index.ts";
import { chosenSnapshots } from "../open/snapshots.ts";
import type { OpenRepository } from "../open/open-repository.ts";
import { nearPacks } from "../open/session.ts";

/**
 * Reads a repository and names everything that differs from the written bytes, with the affected snapshots and paths.
 * Takes a shared lock if this user can write one, so that no pack moves meanwhile. Changes nothing else.
 */
export async function verifyRepository(
  access: OpenRepository,
  options: VerifyBackupOptions,
): Promise<Omit<VerifyBackupResult, "restored" | "duration_ms">> {
  const { subset, quick, snapshots } = options;
  if (subset !== undefined && !(subset.part >= 1 && subset.part <= subset.of && Number.isSafeInteger(subset.of)))
    throw new CairnError("usage", `there is no part ${subset.part} of ${subset.of}`);
  if (quick === true && subset !== undefined)
    throw new CairnError("usage", "a quick verification reads no packs, so no part of them can be chosen");
  if (quick !== true) warmThreads(VERIFY, THREADS_BESIDE);
  return access.reading(options, async () => {
    const chosen = snapshots === undefined ? undefined : await chosenIds(access, options);
    const found = await readRepository(access, options, chosen);
    const { structure, digests, read } = found;
    const problems = relevant(found, chosen).map(publicProblem);
    const costly = new Set(problems.flatMap(({ losses }) => losses.map((loss) => loss.snapshot_id)));
    const unverified = [...digests.unverified].flatMap(([id, problem]) => (costly.has(id) ? [] : problem));
    return {
      ...access.info,
      checked: {
        snapshots: structure.roots.length,
        trees: found.trees,
        packs: read.packs,
        blobs: read.blobs,
        bytes: read.bytes,
        digests: digests.proven.filter((id) => !costly.has(id)).length,
      },
      read_data: quick !== true,
      problems: [...problems, ...digests.problems, ...unverified],
    };
  });
}

interface ReadRepository {
  structure: Structure;
  trees: number;
  digests: ProvenDigests;
  read: ProvenPacks;
  /** Packs that the chosen snapshots need; null if all packs count. */
  needed: ReadonlySet<string> | null;
  /** Ids of blobs that are damaged in one pack and sound in another. */
  elsewhere: ReadonlySet<string>;
}

/**
 * Threads verify local packs while this thread walks the trees. Far packs, and packs of chosen snapshots, are verified
 * after the walk.
 */
async function readRepository(
  access: OpenRepository,
  options: VerifyBackupOptions,
  chosen: ReadonlySet<string> | undefined,
): Promise<ReadRepository> {
  const { subset, quick, signal, onProgress } = options;
  const near = nearPacks(access);
  const { keys } = access.repository;
  const stop = new AbortController();
  const stopped = signal === undefined ? stop.signal : AbortSignal.any([signal, stop.signal]);
  const provePart = async (
    index: BlobIndex,
    packs: readonly StoredFile[],
    walked?: Promise<void>,
  ): Promise<ProvenPacks> => {
    const total_bytes = packs.reduce((sum, { size }) => sum + size, 0);
    const told = ({ packs: done, bytes }: ProvenSoFar): void =>
      onProgress?.({ phase: "verifying", done, total: packs.length, bytes, total_bytes });
    return provePacks({ keys, index, near, packs, walked, signal: stopped, onProgress: onProgress && told });
  };
  const onDamagedPack = (pack: string): void => access.repository.damaged.learn([pack]);
  const isChosen = chosen === undefined ? undefined : ({ id }: ListedSnapshot) => chosen.has(id);
  const structure = await access.asStored(async () =>
    readStructure(access.repository, { packs: near, isChosen, signal, onDamagedPack }),
  );
  const { index, problems } = structure;
  let packs = quick === true ? [] : partOf(structure.packs, subset);
  let reading: Promise<ProvenPacks> | null = null;
  const walked = Promise.withResolvers<void>();
  // One reader: a disk that seeks reads trees and packs one after the other.
  if (quick !== true && chosen === undefined && near.isLocal && chosenJobs() !== 1) {
    reading = provePart(index, packs, walked.promise);
    reading.catch(() => undefined);
  }
  try {
    let proven = NO_DIGESTS;
    const prove = async (): Promise<ProvenDigests> => provenPointDigests({ access, structure, near, options });
    // If every tree is local, one walk serves the digests and the structure.
    const isAllNear = near.isLocal && quick !== true;
    if (isAllNear) proven = await access.asStored(prove);
    const live = await access.asStored(async () => followRoots(structure, { live: proven.live, signal }));
    walked.resolve();
    const needed = chosen === undefined ? null : neededPacks(index, live);
    if (needed !== null) packs = packs.filter(({ name }) => needed.has(name));
    // On a far storage: proves the digests while the fetched packs of the trees are still here.
    if (!near.isLocal && quick !== true) proven = await prove();
    const read = await (reading ?? provePart(index, packs));
    append(problems, packProblems(structure, packs, read));
    learn(access, { structure, packs, read });
    const elsewhere = await nameSoundPlaces(structure);
    await explain(structure, { sound: structure.blobs.elsewhere, signal });
    return { structure, trees: live.trees, digests: proven, read, needed, elsewhere };
  } finally {
    stop.abort();
    await reading?.catch(() => undefined);
    structure.blobs.close();
  }
}

/** Remembers damaged packs for later backups, and forgets the packs that this verification read and found sound. */
function learn(
  { repository }: OpenRepository,
  { structure: { index, problems }, packs, read }: Pick<ReadRepository, "structure" | "read"> & { packs: StoredFile[] },
): void {
  const damaged = read.reports.map(({ pack }) => objectIdOf(index.table.packId(pack)));
  for (const { kind, object } of problems)
    if (kind === "pack_missing" || kind === "pack_size") damaged.push(object as ObjectId);
  repository.damaged.learn(
    damaged,
    packs.map(({ name }) => name),
  );
}

async function chosenIds(access: OpenRepository, options: VerifyBackupOptions): Promise<Set<string>> {
  const listing = await access.asStored(async () => access.repository.listSnapshots(options.signal));
  return new Set(chosenSnapshots(listing, options).map(({ id }) => id));
}

/** The choice of a part depends only on the packs' names. */
function partOf(packs: StoredFile[], subset: VerifyBackupOptions["subset"]): StoredFile[] {
  if (subset === undefined) return packs;
  return packs.filter(({ name }) => Number.parseInt(name.slice(0, 8), 16) % subset.of === subset.part - 1);
}

function neededPacks({ table }: BlobIndex, live: LiveSet): Set<string> {
  const needed = new Uint8Array(table.packCount);
  for (let entry = 0; entry < table.count; entry++) if (live.has(entry)) needed[table.packOf[entry]!] = 1;
  const names = new Set<string>();
  for (let pack = 0; pack < table.packCount; pack++)
    if (needed[pack] === 1) names.add(Buffer.from(table.packId(pack)).toString("hex"));
  return names;
}

/** Returns the problems that concern chosen snapshots, and problems that may concern any snapshot. */
function relevant(
  { structure: { problems }, needed, elsewhere }: ReadRepository,
  chosen: ReadonlySet<string> | undefined,
): CheckProblem[] {
  if (chosen === undefined || needed === null) return problems;
  return problems.filter(
    ({ kind, object, consequences }) =>
      (consequences?.length ?? 0) > 0 ||
      kind === "key_damaged" ||
      kind === "index_damaged" ||
      needed.has(object) ||
      elsewhere.has(object) ||
      chosen.has(object),
  );
}

function publicProblem({ kind, object, detail, severity, consequences }: CheckProblem): BackupProblem {
  const losses = (consequences ?? []).map(({ root, path }) => ({
    snapshot_id: root.replace(/^snapshot /, ""),
    ...displayPath(path),
  }));
  return { kind, object, detail, severity, losses };
}
