import { throwIfAborted, toCairnError } from "../../errors.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import { newPacer } from "../../pacer.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import { whileReading } from "../../repository/locks.ts";
import { packsToProve } from "../../repository/read/near-packs.ts";
import type { DamagedFile, ListedSnapshot, Repository } from "../../repository/repository.ts";
import { type DamagedBlob, DamageFinder } from "../../repository/verify/damage.ts";
import { type ChunkedFile, DigestWalk, type TreeTotals } from "../../repository/verify/digest-walk.ts";
import { type FolderFacts, NO_FACTS, readFacts } from "../../repository/verify/folder-facts.ts";
import { PackProver, wholePackDamage } from "../../repository/verify/pack-prover.ts";
import { type PackReport, VERIFY, type VerifyWork } from "../../repository/verify/verify-task.ts";
import { firstFailure, warmThreads, withThreads } from "../../threads/threads.ts";
import type { Thread } from "../../threads/worker-thread.ts";
import type { PointToVerify, PointVerdict, StoreProblem, StoreVerification, VerifyStoreRequest } from "./store-care.ts";
import { EmbeddedStore } from "./embedded-store.ts";
import { notePacks } from "./store-files.ts";

const LOCK_WAIT_MS = 10_000;
const MAX_PROBLEMS = 10_000;
const MEND = "run `cairn doctor` to see the possible repairs, and how to bring lost files back";
const MEND_INDEX = "run `cairn doctor --repair`: it rebuilds the index from the packs";
const MEND_SNAPSHOT = "run `cairn doctor --repair`: it writes the snapshot again; nothing is lost";
const MEND_FACTS = "run `cairn doctor --repair`, which repairs what it can; the files can still be restored";
const DIFFERENT =
  "compare with another copy of the control directory; the files can be looked at with `cairn restore --to`";

/** A point whose content is verified. */
export interface CheckedPoint {
  /** The caller's name for the point; problems repeat it. */
  label: string;
  /** Id of the root's tree, 32 bytes. */
  tree: Uint8Array;
  /** Id of the tree that the point's snapshot names, in which its manifest lies; null if there is no snapshot. */
  snapshotTree: Uint8Array | null;
  /** The digests in the descriptor, 32 bytes each; null is not compared. */
  stateDigest: Uint8Array | null;
  metadataDigest: Uint8Array | null;
}

export interface PointProofOptions extends Pick<VerifyStoreRequest, "deep" | "signal" | "onProgress"> {
  keys: Repository["keys"];
  /** Freshly loaded; no other code changes it meanwhile. */
  index: BlobIndex;
  /** The repository's `data` folder. */
  packs: string;
  points: readonly CheckedPoint[];
  /** Also packs that no point needs. */
  allPacks?: boolean;
}

export interface ProvenPoints {
  points: PointVerdict[];
  /** `point`: a label. */
  problems: StoreProblem[];
  /** Number of further problems, which are not listed. */
  more: number;
  /** Packs that are damaged or missing, by hex name. */
  damagedPacks: string[];
  packs: number;
  blobs: number;
}

/**
 * Verifies points, and with `everything` also all other packs and snapshots. A shared lock keeps clean-ups from
 * removing packs meanwhile. Throws if the store cannot be opened.
 */
export async function verifyStore(control: string, request: VerifyStoreRequest): Promise<StoreVerification> {
  warmThreads(VERIFY);
  const store = await EmbeddedStore.open(control, { signal: request.signal });
  const { signal } = request;
  try {
    return await whileReading(store.repository, { waitMs: LOCK_WAIT_MS, signal }, async () => verify(store, request));
  } finally {
    store.close();
  }
}

async function verify(store: EmbeddedStore, request: VerifyStoreRequest): Promise<StoreVerification> {
  await store.refresh(request.signal);
  const damagedIndexes = await readIndexFiles(store.repository, request.signal);
  const { snapshots, damaged } = await store.repository.listSnapshots(request.signal);
  const others = request.everything ? foreignPoints(snapshots, request.points) : [];
  const content = await proveContent(store, request, [...request.points.map(checkedPoint), ...others]);
  notePacks(store.paths, content.damagedPacks, request.everything);
  const labels = new Set(others.map((other) => other.label));
  return {
    problems: [
      ...damagedIndexes.map(indexProblem),
      ...damagedSnapshots(damaged, request),
      ...content.problems.map((problem) => storeProblem(problem, labels)),
    ],
    more: content.more,
    verdicts: content.points.filter((verdict) => !labels.has(verdict.label)),
  };
}

/** Reads all index files and returns the damaged ones. A sound file needs no comparison with the loaded index. */
async function readIndexFiles(repository: Repository, signal: AbortSignal | undefined): Promise<DamagedFile[]> {
  const pace = newPacer(signal);
  const damaged: DamagedFile[] = [];
  for (const { name } of await repository.storage.list("index")) {
    await pace();
    try {
      await repository.loadUnpacked("index", name);
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      damaged.push({ name, error: known });
    }
  }
  return damaged;
}

/** Verifies with the loaded index. Problems count only if the index loaded anew from its files has them too. */
async function proveContent(
  store: EmbeddedStore,
  request: VerifyStoreRequest,
  points: CheckedPoint[],
): Promise<ProvenPoints> {
  const { deep, signal, onProgress, everything } = request;
  const options = {
    keys: store.repository.keys,
    packs: `${store.paths.repository}/data`,
    points,
    allPacks: everything,
    ...(deep === undefined ? {} : { deep }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
  };
  const prove = async (index: BlobIndex): Promise<ProvenPoints> => provePoints({ ...options, index });
  const result = await prove(store.index);
  if (result.problems.length === 0) return result;
  const fresh = await BlobIndex.load(store.repository, null, signal);
  return isSameIndex(fresh, store.index) ? result : prove(fresh);
}

function isSameIndex(a: BlobIndex, b: BlobIndex): boolean {
  const { table } = a;
  for (let entry = 0; entry < table.count; entry++) {
    const other = b.lookup(table.ids, entry * 32, table.typeOf(entry));
    if (other < 0) return false;
    const [x, y] = [a.place(entry), b.place(other)];
    if (x.offset !== y.offset || x.length !== y.length || x.uncompressedLength !== y.uncompressedLength) return false;
    if (Buffer.compare(x.pack, y.pack) !== 0) return false;
  }
  return a.count === b.count;
}

function checkedPoint(point: PointToVerify): CheckedPoint {
  const bytes = (hex: string | null): Uint8Array | null => (hex === null ? null : Buffer.from(hex, "hex"));
  const snapshotTree = point.content["snapshot_tree"];
  return {
    label: point.id,
    tree: Buffer.from(point.content.tree, "hex"),
    snapshotTree: typeof snapshotTree === "string" ? Buffer.from(snapshotTree, "hex") : null,
    stateDigest: bytes(point.stateDigest),
    metadataDigest: bytes(point.metadataDigest),
  };
}

/** Snapshots of other programs, or of points that are gone. */
function foreignPoints(snapshots: readonly ListedSnapshot[], points: readonly PointToVerify[]): CheckedPoint[] {
  const known = new Set(points.flatMap(({ id, content }) => [`cairn:${id}`, content["snapshot"]]));
  return snapshots
    .filter(({ id, snapshot }) => !known.has(id) && snapshot.tags?.some((tag) => known.has(tag)) !== true)
    .map(({ id, snapshot }) => ({
      label: `snapshot ${id.slice(0, 8)}`,
      tree: Buffer.from(snapshot.tree, "hex"),
      snapshotTree: null,
      stateDigest: null,
      metadataDigest: null,
    }));
}

function indexProblem({ name, error }: DamagedFile): StoreProblem {
  return {
    point: null,
    path: null,
    kind: "index",
    detail: `index file ${name.slice(0, 12)}: ${error.message}`,
    hint: MEND_INDEX,
  };
}

/** Damaged snapshot files: of the verified points, or with `everything` all. */
function damagedSnapshots(damaged: readonly DamagedFile[], request: VerifyStoreRequest): StoreProblem[] {
  const owners = new Map(request.points.map(({ id, content }) => [content["snapshot"], id]));
  return damaged.flatMap(({ name, error }): StoreProblem[] => {
    const point = owners.get(name) ?? null;
    if (point === null && !request.everything) return [];
    return [{ point, path: null, kind: "snapshot", detail: error.message, hint: MEND_SNAPSHOT }];
  });
}

function storeProblem(problem: StoreProblem, foreign: ReadonlySet<string>): StoreProblem {
  if (problem.point === null || !foreign.has(problem.point)) return problem;
  const where = problem.path === null ? "" : `/${printablePath(problem.path)}: `;
  return {
    ...problem,
    point: null,
    path: null,
    detail: `${problem.point}, which belongs to no save point: ${where}${problem.detail}`,
  };
}

/**
 * Verifies points of a store: all threads read the needed packs whole, and digests are computed anew from the trees.
 * Damage is a result. Throws `interrupted`, and system errors that are not about one file of the store.
 */
export async function provePoints(options: PointProofOptions): Promise<ProvenPoints> {
  throwIfAborted(options.signal);
  return withThreads({ kind: VERIFY, signal: options.signal }, async (threads) =>
    new PointProof(options, threads).run(),
  );
}

interface Walked {
  point: CheckedPoint;
  facts: FolderFacts;
  totals: TreeTotals;
}

class PointProof {
  readonly #options: PointProofOptions;
  readonly #threads: readonly Thread<VerifyWork>[];
  readonly #blobs: BlobSource;
  readonly #walk: DigestWalk;
  readonly #prover: PackProver;
  readonly #proven: Uint8Array;
  #total: number | undefined;
  readonly #reports = new Map<number, PackReport>();
  readonly #problems: StoreProblem[] = [];
  #more = 0;
  /** Labels of points with a problem. */
  readonly #damaged = new Set<string>();

  constructor(options: PointProofOptions, threads: readonly Thread<VerifyWork>[]) {
    const { keys, index, packs, signal, onProgress } = options;
    const { table } = index;
    this.#options = options;
    this.#threads = threads;
    // The threads check the ids of the same blobs, so this source need not.
    this.#blobs = new BlobSource({ keys, index, packs: packsToProve(packs), compares: false });
    this.#proven = new Uint8Array(new SharedArrayBuffer(Math.max(1, index.count)));
    this.#prover = new PackProver(threads, {
      keys,
      index,
      folder: packs,
      proven: this.#proven,
      signal,
      onProgress: onProgress && (({ blobs: done, bytes }) => onProgress({ done, bytes, ...this.#totalOf(done) })),
    });
    this.#walk = new DigestWalk({
      blobs: this.#blobs,
      onNeed: (entry) => this.#prover.want(table.packOf[entry]!),
      signal,
    });
  }

  #totalOf(done: number): { total?: number } {
    return this.#total === undefined ? {} : { total: Math.max(this.#total, done) };
  }

  async run(): Promise<ProvenPoints> {
    const { index, deep, allPacks, signal } = this.#options;
    try {
      // Packs are read as soon as the walk finds that they are needed.
      const walked = await this.#walkPoints();
      this.#total = allPacks === true ? index.count : this.#walk.live.size;
      for (const report of await this.#prover.end()) this.#reports.set(report.pack, report);
      await this.#proveElsewhere();
      await this.#hashUnknown(walked);
      const wrong = deep === true ? await this.#wrongFiles() : new Map<string, string>();
      throwIfAborted(signal);
      this.#addPacks();
      if (this.#walk.suspicious || wrong.size > 0 || this.#isAnyLost()) await this.#addPaths(wrong);
      for (const each of walked) this.#addDigests(each);
      const points = walked.map(({ point: { label }, totals }) => ({
        label,
        sound: !this.#damaged.has(label),
        stateDigest: totals.state,
        metadataDigest: totals.meta,
        files: totals.files,
        bytes: totals.bytes,
      }));
      const damagedPacks = [...this.#reports.keys()].map((pack) => objectIdOf(index.table.packId(pack))).toSorted();
      const { packs, blobs } = this.#prover.done;
      return { points, problems: this.#problems, more: this.#more, damagedPacks, packs, blobs };
    } finally {
      await this.#prover.close();
      this.#blobs.close();
    }
  }

  async #walkPoints(): Promise<Walked[]> {
    const walked: Walked[] = [];
    // Points without digests have chosen paths only, perhaps without a file's first name. They come last, so that
    // shared trees get their digests from complete points.
    const isWithout = ({ metadataDigest }: CheckedPoint): number => Number(metadataDigest === null);
    for (const point of this.#options.points.toSorted((a, b) => isWithout(a) - isWithout(b))) {
      const { tree, snapshotTree } = point;
      const facts = snapshotTree === null ? NO_FACTS : readFacts(this.#blobs, snapshotTree);
      const totals = await this.#walk.folder(tree, facts);
      if (snapshotTree !== null) await this.#walk.mark(snapshotTree);
      walked.push({ point, facts, totals });
    }
    const { packRefs, packCount } = this.#options.index.table;
    if (this.#options.allPacks === true)
      for (let pack = 0; pack < packCount; pack++) if (packRefs[pack]! > 0) this.#prover.want(pack);
    return walked;
  }

  /** Counts a needed blob as proven if another pack has a sound copy of it. */
  async #proveElsewhere(): Promise<void> {
    const { index, allPacks } = this.#options;
    const lost: number[] = [];
    for (const entry of new Set(index.inSeveralPlaces()))
      if (this.#proven[entry] !== 1 && (allPacks === true || this.#walk.live.has(entry))) lost.push(entry);
    const unsound = await this.#blobs.prove(lost);
    for (const entry of lost) if (!unsound.has(entry)) this.#proven[entry] = 1;
  }

  /** Computes whole-file hashes that no manifest has, then the digests that depend on them. */
  async #hashUnknown(walked: Walked[]): Promise<void> {
    const unknown = [...this.#walk.chunked.values()].filter((file) => file.sha256 === null);
    if (unknown.length === 0) return;
    await this.#hashFiles(unknown, (file, sha256) => {
      file.sha256 = sha256;
    });
    this.#walk.forgetUnhashed();
    for (const each of walked)
      if (each.totals.state === null) each.totals = await this.#walk.folder(each.point.tree, each.facts);
  }

  /** Files whose whole content differs from the hash in their point's manifest: a message by the content's key. */
  async #wrongFiles(): Promise<Map<string, string>> {
    const wrong = new Map<string, string>();
    const files = [...this.#walk.chunked].filter(([, file]) => file.sha256 !== null);
    const keys = new Map(files.map(([key, file]) => [file, key]));
    await this.#hashFiles([...keys.keys()], (file, sha256) => {
      if (sha256 === null || Buffer.compare(sha256, file.sha256!) === 0) return;
      wrong.set(
        keys.get(file)!,
        `its blobs together have SHA-256 ${objectIdOf(sha256)}, recorded is ${objectIdOf(file.sha256!)}`,
      );
    });
    return wrong;
  }

  async #hashFiles(files: ChunkedFile[], each: (file: ChunkedFile, sha256: Uint8Array | null) => void): Promise<void> {
    const left = files.toSorted((a, b) => a.content.length - b.content.length);
    const settled = await Promise.allSettled(
      this.#threads.map(async (thread) => {
        for (let file = left.pop(); file !== undefined; file = left.pop()) {
          throwIfAborted(this.#options.signal);
          each(file, await thread.ask({ kind: "verify-file", content: file.content }));
        }
      }),
    );
    firstFailure(settled);
  }

  #add(problem: StoreProblem): void {
    if (problem.point !== null) this.#damaged.add(problem.point);
    if (this.#problems.length < MAX_PROBLEMS) this.#problems.push(problem);
    else this.#more++;
  }

  #isAnyLost(): boolean {
    return this.#proven.some((proven, entry) => proven !== 1 && this.#walk.live.has(entry));
  }

  /** Adds pack files that are damaged as such. */
  #addPacks(): void {
    const { index, allPacks } = this.#options;
    const { table } = index;
    const sound = new Set([...this.#blobs.elsewhere.keys()].map((entry) => table.packOf[entry]!));
    const lost = new Map<number, number>();
    for (let entry = 0; entry < table.count; entry++) {
      if (!this.#walk.live.has(entry) || this.#proven[entry] === 1) continue;
      const pack = table.packOf[entry]!;
      lost.set(pack, (lost.get(pack) ?? 0) + 1);
    }
    for (const report of this.#reports.values()) {
      const { pack, kind } = report;
      const count = lost.get(pack) ?? 0;
      const name = objectIdOf(table.packId(pack));
      const add = (detail: string, hint: string): void =>
        this.#add({ point: null, path: null, kind: "pack", detail: `pack ${name}${detail}`, hint });
      if (count === 0 && sound.has(pack)) {
        add(" is damaged or missing; other packs have sound copies of all its needed blobs", MEND_INDEX);
        continue;
      }
      // Only unneeded blobs of this pack are damaged.
      if (count === 0 && allPacks !== true && (kind === "name" || kind === null)) continue;
      const effect =
        count === 0 ? "none of the checked content is lost by that" : `${count} needed blobs cannot be read from it`;
      add(`: ${describe(report)}; ${effect}`, MEND);
    }
  }

  /** Adds all paths of points that cannot be restored. `files`: see `DamageFinder`. */
  async #addPaths(files: ReadonlyMap<string, string>): Promise<void> {
    const { points, signal } = this.#options;
    const finder = new DamageFinder({ blobs: this.#blobs, damaged: this.#unproven(), files, signal });
    for (const { label: point, tree, snapshotTree } of points) {
      const { list, more } = await finder.below(tree);
      this.#more += more;
      for (const { path, kind, detail } of list)
        this.#add({ point, path: Buffer.from(path, "latin1"), kind, detail, hint: MEND });
      if (snapshotTree === null) continue;
      for (const each of (await finder.below(snapshotTree, tree)).list) {
        const detail = `/${printablePath(Buffer.from(each.path, "latin1"))} of its snapshot: ${each.detail}`;
        this.#add({ point, path: null, kind: "snapshot", detail, hint: MEND_FACTS });
      }
    }
  }

  /** Needed blobs without a sound copy. */
  #unproven(): Map<number, DamagedBlob> {
    const { table } = this.#options.index;
    const reasons = new Map<number, string>();
    for (const { blobs } of this.#reports.values()) for (const { entry, message } of blobs) reasons.set(entry, message);
    const damaged = new Map<number, DamagedBlob>();
    for (let entry = 0; entry < table.count; entry++) {
      if (!this.#walk.live.has(entry) || this.#proven[entry] === 1) continue;
      const pack = table.packOf[entry]!;
      const name = objectIdOf(table.packId(pack)).slice(0, 12);
      const reason = reasons.get(entry);
      const whole =
        wholePackDamage(this.#reports.get(pack), name) ??
        `pack ${name} does not have it at the offset that the index names`;
      damaged.set(entry, { why: reason === undefined ? whole : `in pack ${name}: ${reason}` });
    }
    return damaged;
  }

  #addDigests({ point, facts: { manifest, problem }, totals }: Walked): void {
    const { label, stateDigest, metadataDigest } = point;
    const add = (kind: string, detail: string, hint: string): void =>
      this.#add({ point: label, path: null, kind, detail, hint });
    if (problem !== null && !this.#damaged.has(label))
      add("manifest", `its manifest cannot be read: ${problem}`, MEND_FACTS);
    const digests = [
      ["state digest", stateDigest, totals.state, manifest?.stateDigest],
      ["metadata digest", metadataDigest, totals.meta, manifest?.metadataDigest],
    ] as const;
    for (const [what, wanted, computed, inManifest] of digests) {
      if (wanted === null) continue;
      const recorded = objectIdOf(wanted);
      // If no digest could be computed, its cause is listed already.
      if (computed !== null && objectIdOf(computed) !== recorded)
        add(
          "digest",
          `its content has the ${what} ${objectIdOf(computed)}, its descriptor says ${recorded}`,
          DIFFERENT,
        );
      if (inManifest !== undefined && inManifest !== null && inManifest !== recorded)
        add("manifest", `its manifest has the ${what} ${inManifest}, its descriptor ${recorded}`, DIFFERENT);
    }
  }
}

function describe({ kind, message, blobs }: PackReport): string {
  if (kind === null) return `${blobs.length} of its blobs are damaged`;
  return kind === "header" ? `its header cannot be read (${message})` : message;
}
