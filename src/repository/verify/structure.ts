import { sha256 } from "../../crypto/hash.ts";
import { CairnError, tellsOfDamage, throwIfAborted, toCairnError } from "../../errors.ts";
import { decodeKeyFile } from "../../formats/restic/key-file.ts";
import { objectIdOf } from "../../ids.ts";
import { BlobIndex, type BlobPlaceOf, DATA_BLOB, TREE_BLOB } from "../index/blob-index.ts";
import { BlobSource, type BlobSourceOptions } from "../read/blob-source.ts";
import { eachIndexFile, type IndexFileContent, type IndexedPack } from "../index/index-set.ts";
import { LiveSet } from "../trees/live.ts";
import type { ListedSnapshot, Repository, SnapshotListing } from "../repository.ts";
import { packSizes, type StoredFile } from "../storage/storage.ts";
import { strikeNamed } from "./unindexed-packs.ts";
import { type ProvenPacks, unprovenBlobs, wholePackDamage } from "./pack-prover.ts";

export type CheckProblemKind =
  | "key_damaged"
  | "index_damaged"
  | "snapshot_damaged"
  | "pack_missing"
  | "pack_size"
  | "pack_layout"
  | "pack_unindexed"
  | "pack_damaged"
  | "blob_damaged"
  | "blob_missing"
  | "tree_missing"
  | "tree_damaged";

/** A path that can no longer be restored from a root, fully or in part. */
export interface Consequence {
  /** The root's label. */
  readonly root: string;
  /** Raw bytes, relative to the root, without a leading slash. Empty: the root itself. */
  readonly path: Uint8Array;
}

export interface CheckProblem {
  readonly kind: CheckProblemKind;
  /** Name of the file, or hex id of the blob. */
  readonly object: string;
  readonly detail: string;
  /** `note`: nothing is lost, e.g. a killed writer left the pack. */
  readonly severity: "damage" | "note";
  /** The paths that the problem affects. */
  consequences?: Consequence[];
}

export interface CheckRoot {
  readonly label: string;
  readonly tree: Uint8Array;
}

/** Findings in a repository's files, without the content of packs. */
export interface Structure {
  readonly problems: CheckProblem[];
  /** Built from the index files, without the cache. */
  readonly index: BlobIndex;
  /** Reads with `index`; the caller closes it. */
  readonly blobs: BlobSource;
  /** Existing packs, largest first, for a full read. */
  readonly packs: StoredFile[];
  /** Entries without a whole copy: at each of their places the pack is missing or too short. */
  readonly lost: ReadonlySet<number>;
  /** The chosen snapshots, with labels such as `snapshot 0123…`. */
  readonly roots: readonly CheckRoot[];
  /** All snapshots. */
  readonly listing: SnapshotListing;
}

export interface StructureOptions extends Pick<BlobSourceOptions, "packs" | "onDamagedPack" | "signal"> {
  /** A loaded index that is used as it is: index files are only searched for damage, and packs are not listed. */
  index?: BlobIndex | undefined;
  /** Tells whether a snapshot counts; default: all do. */
  isChosen?: ((listed: ListedSnapshot) => boolean) | undefined;
}

/**
 * Reads all files but packs: decodes keys, snapshots and index files, and compares the sizes of packs with the index.
 * Returns all damage in `problems`.
 */
export async function readStructure(repository: Repository, options: StructureOptions): Promise<Structure> {
  const problems: CheckProblem[] = [];
  await checkKeys(repository, problems);
  const listing = await repository.listSnapshots(options.signal);
  const checked = await checkPacks(repository, problems, options);
  for (const file of listing.damaged) problems.push(damage("snapshot_damaged", file.name, file.error.message));
  const roots = listing.snapshots
    .filter((listed) => options.isChosen?.(listed) !== false)
    .map(({ id, snapshot }) => ({ label: `snapshot ${id}`, tree: Buffer.from(snapshot.tree, "hex") }));
  return { ...checked, problems, roots, listing };
}

interface FollowOptions {
  /** The entries that another walk has marked completely. */
  live?: LiveSet | undefined;
  /** Root trees; default: those of the chosen snapshots. */
  trees?: readonly Uint8Array[];
  signal?: AbortSignal | undefined;
}

/** Marks all entries that the roots need. Adds problems for unreadable trees and missing blobs. */
export async function followRoots(
  { problems, roots, index, blobs }: Structure,
  { live = new LiveSet(index), trees = roots.map(({ tree }) => tree), signal }: FollowOptions = {},
): Promise<LiveSet> {
  await live.mark(trees, blobs.viewTree, { signal });
  for (const { kind, id, tree, detail } of live.problems)
    problems.push(damage(KIND_OF[kind], id, tree === undefined ? detail : `${detail}; tree ${tree} names it`));
  return live;
}

const KIND_OF = { missing_data: "blob_missing", missing_tree: "tree_missing", damaged_tree: "tree_damaged" } as const;

/**
 * Returns problems of packs after a full read, including blobs that the index places in them but that were not found.
 */
export function packProblems(
  { index, lost }: Structure,
  packs: readonly StoredFile[],
  found: ProvenPacks,
): CheckProblem[] {
  const problems: CheckProblem[] = [];
  const { table } = index;
  const read = new Set(packs.map(({ name }) => name));
  const names = Array.from({ length: table.packCount }, (_, pack) => objectIdOf(table.packId(pack)));
  const isRead = Uint8Array.from(names, (name) => Number(read.has(name)));
  for (const { pack, kind, message } of found.reports)
    if (kind !== null)
      problems.push(damage(kind === "missing" ? "pack_missing" : "pack_damaged", names[pack]!, message));
  // The pack of a lost blob is known to end before the blob.
  const shouldBeProven = (entry: number): boolean => isRead[table.packOf[entry]!] === 1 && !lost.has(entry);
  for (const { entry, pack, report, own } of unprovenBlobs(index, found, shouldBeProven)) {
    const name = names[pack]!;
    const place = `in pack ${name} at ${table.offsetOf[entry]}`;
    const detail =
      own === undefined
        ? (wholePackDamage(report, name) ?? `it is not ${place}, where the index places it`)
        : `${place}: ${own}`;
    problems.push(damage("blob_damaged", objectIdOf(index.idOf(entry)), detail));
  }
  return problems;
}

/**
 * Adds to problems of blobs that are damaged in one pack the name of a pack with a sound copy. Returns the blobs' ids.
 */
export async function nameSoundPlaces({ index, blobs, problems }: Structure): Promise<Set<string>> {
  const idOf = (entry: number): string => objectIdOf(index.idOf(entry));
  const damaged = problems.filter(({ kind }) => kind === "blob_damaged" || kind === "tree_damaged");
  const entries = damaged.flatMap(({ object }) => {
    const id = Buffer.from(object, "hex");
    return [DATA_BLOB, TREE_BLOB]
      .map((type) => index.lookup(id, 0, type))
      .filter((entry) => entry >= 0 && index.others(entry).length > 0);
  });
  await blobs.prove(entries);
  const said = new Set(damaged.map(({ object }) => object));
  const packs = new Map<string, string>();
  for (const [entry, { error, place }] of blobs.elsewhere) {
    const object = idOf(entry);
    packs.set(object, objectIdOf(place.pack));
    if (said.has(object)) continue;
    const kind = index.table.typeOf(entry) === TREE_BLOB ? "tree_damaged" : "blob_damaged";
    problems.push(damage(kind, object, error.message));
  }
  for (const [at, problem] of problems.entries()) {
    const pack = packs.get(problem.object);
    if (pack === undefined) continue;
    problems[at] = { ...problem, detail: `${problem.detail}; the copy in pack ${pack.slice(0, 12)} is sound` };
  }
  return new Set(packs.keys());
}

async function checkKeys(repository: Repository, problems: CheckProblem[]): Promise<void> {
  const files = await repository.storage.list("keys");
  if (files.length === 0)
    problems.push(damage("key_damaged", "keys", "there is no key file: without one nothing opens the repository"));
  for (const { name } of files) {
    try {
      const bytes = await repository.storage.load("keys", name);
      if (objectIdOf(sha256(bytes)) !== name) throw new Error("its SHA-256 does not match its name");
      decodeKeyFile(bytes);
    } catch (error) {
      if (error instanceof CairnError && !tellsOfDamage(error)) throw error;
      problems.push(damage("key_damaged", name, (error as Error).message));
    }
  }
}

interface ShortPack {
  readonly pack: IndexedPack;
  /** bytes of the file; 0 if it is missing */
  readonly size: number;
}

async function checkPacks(
  repository: Repository,
  problems: CheckProblem[],
  { packs: files, index: loaded, signal, onDamagedPack }: StructureOptions,
): Promise<Pick<Structure, "index" | "blobs" | "packs" | "lost">> {
  const { keys } = repository;
  // Index files before packs: a save that runs meanwhile writes them in the other order.
  const names = (await repository.storage.list("index")).map((file) => file.name);
  if (loaded !== undefined) {
    for (const { name, json } of repository.loadInTurn("index", names)) {
      throwIfAborted(signal);
      const problem = await json.then(() => null, toCairnError);
      if (problem?.code === "damaged") problems.push(damage("index_damaged", name, problem.message));
      else if (problem !== null) throw problem;
    }
    return { index: loaded, blobs: new BlobSource({ keys, index: loaded, packs: files }), packs: [], lost: new Set() };
  }
  const stored = await packSizes(repository.storage);
  const index = new BlobIndex();
  const planned = new Map<string, StoredFile>();
  const short: ShortPack[] = [];
  const seen = new Set<string>();
  const unindexed = new Map(stored);
  const take = (file: IndexFileContent): void => {
    for (const pack of file.packs) {
      const name = objectIdOf(pack.id);
      const size = stored.get(name);
      const wanted = pack.fileSize;
      if (!seen.has(name)) statePack(problems, pack, { name, size, wanted });
      seen.add(name);
      if (size !== undefined) planned.set(name, { name, size });
      if (size === undefined || size < wanted) short.push({ pack, size: size ?? 0 });
      else pack.addTo(index);
    }
    strikeNamed(unindexed, file);
    index.cover(file.name);
  };
  const damaged = await eachIndexFile(repository, names, take, { signal });
  for (const file of damaged) problems.push(damage("index_damaged", file.name, file.error.message));
  for (const [name, size] of unindexed)
    problems.push({
      kind: "pack_unindexed",
      object: name,
      detail: `no index lists this file of ${size} bytes${damaged.length > 0 ? "" : ": an interrupted run left it, and a prune removes it"}`,
      severity: damaged.length > 0 ? "damage" : "note",
    });
  const packs = [...planned.values()].sort((a, b) => b.size - a.size);
  const lost = addShort(index, short);
  return {
    index,
    blobs: new BlobSource({ keys, index, packs: files, sizes: stored, signal, onDamagedPack }),
    packs,
    lost,
  };
}

function statePack(
  problems: CheckProblem[],
  pack: IndexedPack,
  file: { name: string; size: number | undefined; wanted: number },
): void {
  if (file.size === undefined) {
    problems.push(damage("pack_missing", file.name, `the index lists ${pack.blobCount} blobs in it`));
    return;
  }
  if (file.size !== file.wanted)
    problems.push(damage("pack_size", file.name, `the file has ${file.size} bytes; the index implies ${file.wanted}`));
  if (!pack.isContiguous)
    problems.push({
      kind: "pack_layout",
      object: file.name,
      detail: "its blobs do not lie back to back",
      severity: "note",
    });
}

/**
 * Adds entries of missing or short packs to the index, so that the affected paths are found. Returns the lost entries.
 */
function addShort(index: BlobIndex, packs: readonly ShortPack[]): Set<number> {
  const from = index.count;
  for (const { pack } of packs) pack.addTo(index);
  const sizes = new Map(packs.map(({ pack, size }) => [objectIdOf(pack.id), size]));
  const isThere = ({ pack, offset, length }: BlobPlaceOf): boolean => offset + length <= sizes.get(objectIdOf(pack))!;
  const lost = new Set<number>();
  for (let entry = from; entry < index.count; entry++)
    if (![index.place(entry), ...index.others(entry)].some(isThere)) lost.add(entry);
  return lost;
}

export function damage(kind: CheckProblemKind, object: string, detail: string): CheckProblem {
  return { kind, object, detail, severity: "damage" };
}
