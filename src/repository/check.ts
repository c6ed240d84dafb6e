import { append } from "../append.ts";
import { sha256 } from "../crypto/hash.ts";
import { CairnError } from "../errors.ts";
import { decodeKeyFile } from "../formats/key-file.ts";
import { objectIdOf } from "../ids.ts";
import { BlobIndex } from "./blob-index.ts";
import { eachIndexFile, type IndexFileContent, type IndexedPack } from "./index-set.ts";
import { LiveSet, tellsOfDamage, type ReadTree } from "./live.ts";
import type { Repository } from "./repository.ts";
import { packSizes, type StoredFile } from "./storage/storage.ts";
import { strikeNamed } from "./unindexed-packs.ts";

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

/** A path that cannot be had from a root any more, fully or in part. */
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
  /** `note`: nothing is lost, e.g. a pack that a killed writer left. */
  readonly severity: "damage" | "note";
  /** Filled by `explain`. */
  consequences?: Consequence[];
}

export interface CheckRoot {
  readonly label: string;
  readonly tree: Uint8Array;
}

/** What the index files say of packs. */
export interface CheckedPacks {
  /** Built from the index files alone, without the cache. */
  readonly index: BlobIndex;
  /** Packs that are there, largest first: what a full read goes through. */
  readonly packs: StoredFile[];
  /** Entries whose pack is missing, or ends before them. */
  readonly lost: Set<number>;
}

export interface CheckReport extends CheckedPacks {
  readonly problems: CheckProblem[];
  /** Snapshots and the caller's roots. */
  readonly roots: CheckRoot[];
  /** What the roots need. */
  readonly live: LiveSet;
  readonly snapshots: number;
  readonly trees: number;
}

/** What is known before the trees are walked. */
export type CheckedRoots = Pick<CheckReport, "index" | "roots">;

export interface CheckOptions {
  /** Trees that are needed beside those of the repository's own snapshots. */
  roots?: readonly CheckRoot[];
  /** Only these of the repository's snapshots, by id; default all. */
  snapshots?: ReadonlySet<string> | undefined;
  readTree: ReadTree;
  /** Called before the trees are walked: from then on the packs can be read beside that. */
  onPacks?: ((packs: CheckedPacks) => void) | undefined;
  /**
   * Called before the trees are walked, by a caller that follows most of them itself: a byte for each entry of the index
   * that it found needed, each tree with all that it names; null where it could not follow everything.
   */
  follow?: ((found: CheckedRoots) => Promise<Uint8Array | null>) | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * Checks everything but the content of packs: keys and snapshots and index files decode, packs are there with the
 * size that the index implies, every tree of every root can be read and every blob they name is indexed.
 * Never throws for damage: all of it is in `problems`. Call `explain` for what it means. The caller holds a shared
 * lock, so that nothing is moved meanwhile; saves may go on (`roots` must be older than the call).
 */
export async function checkStructure(repository: Repository, options: CheckOptions): Promise<CheckReport> {
  const problems: CheckProblem[] = [];
  await checkKeys(repository, problems);
  const { snapshots: all, damaged } = await repository.listSnapshots(options.signal);
  const snapshots = all.filter(({ id }) => options.snapshots?.has(id) !== false);
  const checked = await checkPacks(repository, problems, options.signal);
  options.onPacks?.(checked);
  for (const file of damaged) problems.push(damage("snapshot_damaged", file.name, file.error.message));
  const roots: CheckRoot[] = snapshots.map(({ id, snapshot }) => ({
    label: `snapshot ${id}`,
    tree: Buffer.from(snapshot.tree, "hex"),
  }));
  append(roots, options.roots ?? []);
  const live = new LiveSet(checked.index);
  const followed = await options.follow?.({ index: checked.index, roots });
  if (followed !== undefined && followed !== null) live.adopt(followed);
  await live.mark(
    roots.map((root) => root.tree),
    options.readTree,
    options.signal === undefined ? {} : { signal: options.signal },
  );
  for (const problem of live.problems) {
    const kind =
      problem.kind === "missing_data"
        ? "blob_missing"
        : problem.kind === "missing_tree"
          ? "tree_missing"
          : "tree_damaged";
    problems.push(
      damage(
        kind,
        problem.id,
        problem.tree === undefined ? problem.detail : `${problem.detail}; tree ${problem.tree} names it`,
      ),
    );
  }
  return { ...checked, problems, roots, live, snapshots: snapshots.length, trees: live.trees };
}

async function checkKeys(repository: Repository, problems: CheckProblem[]): Promise<void> {
  const files = await repository.storage.list("keys");
  if (files.length === 0)
    problems.push(damage("key_damaged", "keys", "there is no key file: without the master key nothing opens it"));
  for (const { name } of files) {
    try {
      const bytes = await repository.storage.load("keys", name);
      if (objectIdOf(sha256(bytes)) !== name) throw new Error("its SHA-256 is not its name");
      decodeKeyFile(bytes);
    } catch (error) {
      if (error instanceof CairnError && !tellsOfDamage(error)) throw error;
      problems.push(damage("key_damaged", name, (error as Error).message));
    }
  }
}

interface ShortPack {
  readonly pack: IndexedPack;
  /** bytes that are there; 0 where there is no file */
  readonly size: number;
}

async function checkPacks(
  repository: Repository,
  problems: CheckProblem[],
  signal: AbortSignal | undefined,
): Promise<CheckedPacks> {
  // Index files before packs, as a save that runs meanwhile writes them in the other order.
  const names = (await repository.storage.list("index")).map((file) => file.name);
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
      detail: `no index lists this file of ${size} bytes`,
      severity: damaged.length > 0 ? "damage" : "note",
    });
  const packs = [...planned.values()].sort((a, b) => b.size - a.size);
  return { index, packs, lost: addShort(index, short) };
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

/** Adds entries that are only in packs that are not there, or not to their end, so that what they break can be told; returns those that are lost. */
function addShort(index: BlobIndex, packs: readonly ShortPack[]): Set<number> {
  const lost = new Set<number>();
  for (const { pack, size } of packs) {
    const from = index.count;
    pack.addTo(index);
    const { table } = index;
    for (let entry = from; entry < index.count; entry++)
      if (table.offsetOf[entry]! + table.lengthOf[entry]! > size) lost.add(entry);
  }
  return lost;
}

function damage(kind: CheckProblemKind, object: string, detail: string): CheckProblem {
  return { kind, object, detail, severity: "damage" };
}
