import { throwIfAborted } from "../../errors.ts";
import { hex } from "../../formats/bytes.ts";
import { plural } from "../../formats/sizes.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import { objectIdOf } from "../../ids.ts";
import { databaseAt, factsWithDatabases } from "../../archive/databases/point-view.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import { whileReading } from "../../repository/locks.ts";
import { NearPacks, packsToProve } from "../../repository/read/near-packs.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { type DamagedBlob, DamageFinder } from "../../repository/verify/damage.ts";
import { type ChunkedFile, DigestWalk, type TreeTotals } from "../../repository/verify/digest-walk.ts";
import { type FolderFacts, NO_FACTS, readFacts } from "../../repository/verify/folder-facts.ts";
import { PackProver, unprovenBlobs, wholePackDamage } from "../../repository/verify/pack-prover.ts";
import { followRoots, readStructure, type Structure } from "../../repository/verify/structure.ts";
import { type PackReport, VERIFY, type VerifyWork } from "../../repository/verify/verify-task.ts";
import { firstFailure, type Thread, warmThreads, withThreads } from "../../threads/threads.ts";
import {
  type ExamineRequest,
  type PointVerdict,
  type PointToVerify,
  type StoreFinding,
  storedTree,
} from "./store-care.ts";
import { EmbeddedStore } from "./embedded-store.ts";

const TAG = "cairn:";
const LOCK_WAIT_MS = 10_000;
const MAX_FINDINGS = 10_000;
const MEND = "run `cairn doctor` to see the possible repairs, and how to bring lost files back";
const MEND_INDEX = "run `cairn doctor --repair`: it rebuilds the index from the packs";
const MEND_SNAPSHOT = "run `cairn doctor --repair`: it writes the snapshot again; nothing is lost";
const MEND_FACTS = "run `cairn doctor --repair`, which repairs what it can; the files can still be restored";
const DIFFERENT =
  "compare with another copy of the control directory; the files can be looked at with `cairn restore --to`";

/** The state of a store. */
export interface ExaminedStore {
  findings: StoreFinding[];
  /** Number of further findings, which are not listed. */
  more: number;
  /** One for each requested point; empty if no digests were computed. */
  verdicts: PointVerdict[];
  /** Packs that were read and are damaged or missing, by hex name. */
  damagedPacks: string[];
  /** True if there are findings other than of index and snapshot files. */
  isContentDamaged: boolean;
  structure: Structure;
}

/**
 * Verifies the points of a store, and with `everything` also all other packs and snapshots. A shared lock keeps
 * clean-ups from removing packs meanwhile. Throws if the store cannot be opened.
 */
export async function verifyStore(control: string, request: Omit<ExamineRequest, "reads">): Promise<ExaminedStore> {
  warmThreads(VERIFY);
  const { signal, everything } = request;
  const store = await EmbeddedStore.open(control, { signal });
  try {
    const found = await whileReading(store.repository, { waitMs: LOCK_WAIT_MS, signal }, async () =>
      examineStore(store, { ...request, reads: true }),
    );
    const { damaged } = store.repository;
    damaged.learn(found.damagedPacks, everything ? damaged.names() : []);
    return found;
  } finally {
    store.close();
  }
}

/**
 * Finds damage of a store, and the lost paths. If `reads` is true, threads read the needed packs whole, and digests are
 * computed anew from the trees. Damage of content counts only if the index files agree with the index in memory. Throws
 * `interrupted`, and system errors that are not about one file of the store.
 */
export async function examineStore(store: EmbeddedStore, request: ExamineRequest): Promise<ExaminedStore> {
  const { signal } = request;
  await store.refresh(signal);
  if (!request.reads) return examineWith(store, undefined, request);
  const examined = await examineWith(store, store.index, request);
  if (!examined.isContentDamaged) return examined;
  const fresh = await BlobIndex.load(store.repository, null, signal);
  return isSameIndex(fresh, store.index) ? examined : examineWith(store, fresh, request);
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

async function examineWith(
  store: EmbeddedStore,
  index: BlobIndex | undefined,
  request: ExamineRequest,
): Promise<ExaminedStore> {
  const { repository, onDamagedPack } = store;
  const { signal } = request;
  throwIfAborted(signal);
  const structure = await readStructure(repository, {
    packs: new NearPacks(repository.storage, ""),
    index,
    isChosen: request.everything ? isForeignTo(request.points) : () => false,
    onDamagedPack,
    signal,
  });
  try {
    if (!request.reads) return await new Examination(store, structure, request).look();
    return await withThreads({ kind: VERIFY, signal }, async (threads) =>
      new Proof(store, structure, request, threads).run(),
    );
  } finally {
    structure.blobs.close();
  }
}

/** Tells snapshots of other programs, or of points that are gone. */
function isForeignTo(points: readonly PointToVerify[]): (listed: ListedSnapshot) => boolean {
  const known = new Set(points.flatMap(({ id, content }) => [`${TAG}${id}`, content["snapshot"]]));
  return ({ id, snapshot }) => !known.has(id) && snapshot.tags?.some((tag) => known.has(tag)) !== true;
}

/** The folder of a point, or a snapshot that belongs to no point. */
interface Root {
  point: PointToVerify | null;
  label: string;
  /** Id of the root's tree, 32 bytes. */
  tree: Uint8Array;
  /** Id of the tree that the point's snapshot names, in which its manifest lies; null if there is no snapshot. */
  snapshotTree: Uint8Array | null;
}

class Examination {
  protected readonly store: EmbeddedStore;
  protected readonly structure: Structure;
  protected readonly request: ExamineRequest;
  protected readonly roots: readonly Root[];
  readonly #findings: StoreFinding[] = [];
  #more = 0;
  /** Ids of points with damaged content. */
  readonly #damaged = new Set<string>();
  #isContentDamaged = false;

  constructor(store: EmbeddedStore, structure: Structure, request: ExamineRequest) {
    this.store = store;
    this.structure = structure;
    this.request = request;
    const ofPoint = (point: PointToVerify): Root => {
      const top = point.content["snapshot_tree"];
      const snapshotTree = typeof top === "string" ? Buffer.from(top, "hex") : null;
      const tree = Buffer.from(storedTree(point.content), "hex");
      return { point, label: point.id, tree, snapshotTree };
    };
    const ofOther = ({ label, tree }: Structure["roots"][number]): Root => ({
      point: null,
      label: `${label.slice(0, "snapshot ".length + 8)}, which belongs to no save point`,
      tree,
      snapshotTree: null,
    });
    this.roots = [...request.points.map(ofPoint), ...structure.roots.map(ofOther)];
  }

  /** Reads trees only. */
  async look(): Promise<ExaminedStore> {
    const { structure, request } = this;
    const { signal } = request;
    const trees = this.roots.flatMap(({ tree, snapshotTree }) =>
      snapshotTree === null ? [tree] : [tree, snapshotTree],
    );
    const live = await followRoots(structure, { trees, signal });
    this.addFiles();
    for (const { kind, object, detail } of structure.problems)
      if (kind === "pack_missing") this.addPack(object, ` is missing: ${detail}`, MEND);
      else if (kind === "pack_size") this.addPack(object, `: ${detail}`, MEND);
    const damaged = new Map<number, DamagedBlob>();
    for (const entry of structure.lost) damaged.set(entry, { why: "its pack is missing or truncated" });
    if (!live.complete || damaged.size > 0) await this.addPaths(structure.blobs, { damaged });
    return this.result([], []);
  }

  protected result(verdicts: PointVerdict[], damagedPacks: string[]): ExaminedStore {
    return {
      findings: this.#findings,
      more: this.#more,
      verdicts,
      damagedPacks,
      isContentDamaged: this.#isContentDamaged,
      structure: this.structure,
    };
  }

  protected isSound(id: string): boolean {
    return !this.#damaged.has(id);
  }

  protected add(finding: Omit<StoreFinding, "severity">): void {
    if (finding.point !== undefined) this.#damaged.add(finding.point);
    this.#isContentDamaged = true;
    this.#list(finding);
  }

  #list(finding: Omit<StoreFinding, "severity">): void {
    if (this.#findings.length < MAX_FINDINGS) this.#findings.push({ ...finding, severity: "damage" });
    else this.#more++;
  }

  protected addPack(name: string, detail: string, hint: string): void {
    this.add({ kind: "pack", detail: `pack ${name}${detail}`, hint });
  }

  /**
   * Lists damaged index files, and damaged snapshot files: of the points, or with `everything` all. They cost no
   * content, and a repair writes them again.
   */
  protected addFiles(): void {
    const { problems } = this.structure;
    const owners = new Map(this.request.points.map(({ id, content }) => [content["snapshot"], id]));
    for (const { kind, object, detail } of problems) {
      if (kind === "index_damaged")
        this.#list({ kind: "index", detail: `index file ${object.slice(0, 12)}: ${detail}`, hint: MEND_INDEX });
      if (kind !== "snapshot_damaged") continue;
      const point = owners.get(object);
      if (point !== undefined || this.request.everything)
        this.#list({ kind: "snapshot", ...(point === undefined ? {} : { point }), detail, hint: MEND_SNAPSHOT });
    }
  }

  /** Adds all paths that cannot be restored. */
  protected async addPaths(
    blobs: BlobSource,
    found: { damaged: ReadonlyMap<number, DamagedBlob>; files?: ReadonlyMap<string, string> },
  ): Promise<void> {
    const finder = new DamageFinder({ blobs, ...found, signal: this.request.signal });
    for (const { point, label, tree, snapshotTree } of this.roots) {
      const { list, more } = await finder.below(tree);
      this.#more += more;
      for (const each of list) {
        const { kind, detail } = each;
        const path = Buffer.from(each.path, "latin1");
        if (point !== null) this.add({ point: point.id, path, kind, detail, hint: MEND });
        else this.add({ kind, detail: `${label}: /${printablePath(path)}: ${detail}`, hint: MEND });
      }
      if (snapshotTree === null) continue;
      for (const each of (await finder.below(snapshotTree, tree)).list) {
        const database = databaseAt(blobs, snapshotTree, each.path);
        if (database !== null && point !== null) {
          const { kind } = each;
          this.add({ point: point.id, path: database, kind, detail: `its pages: ${each.detail}`, hint: MEND });
          continue;
        }
        const detail = `/${printablePath(Buffer.from(each.path, "latin1"))} of its snapshot: ${each.detail}`;
        this.add({ point: label, kind: "snapshot", detail, hint: MEND_FACTS });
      }
    }
  }
}

interface Walked {
  root: Root;
  facts: FolderFacts;
  totals: TreeTotals;
}

class Proof extends Examination {
  readonly #threads: readonly Thread<VerifyWork>[];
  readonly #blobs: BlobSource;
  readonly #walk: DigestWalk;
  readonly #prover: PackProver;
  readonly #proven: Uint8Array;
  #total: number | undefined;
  readonly #reports = new Map<number, PackReport>();

  constructor(
    store: EmbeddedStore,
    structure: Structure,
    request: ExamineRequest,
    threads: readonly Thread<VerifyWork>[],
  ) {
    super(store, structure, request);
    const { index } = structure;
    const { keys } = store.repository;
    const { signal, onProgress } = request;
    const folder = `${store.paths.repository}/data`;
    this.#threads = threads;
    // The threads check the ids of the same blobs, so this source need not.
    this.#blobs = new BlobSource({ keys, index, packs: packsToProve(folder), compares: false });
    this.#proven = new Uint8Array(new SharedArrayBuffer(Math.max(1, index.count)));
    this.#prover = new PackProver(threads, {
      keys,
      index,
      folder,
      proven: this.#proven,
      signal,
      onProgress: onProgress && (({ blobs: done, bytes }) => onProgress({ done, bytes, ...this.#totalOf(done) })),
    });
    const { packOf } = index.table;
    this.#walk = new DigestWalk({
      blobs: this.#blobs,
      onNeed: (entry) => this.#prover.want(packOf[entry]!),
      signal,
    });
  }

  #totalOf(done: number): { total?: number } {
    return this.#total === undefined ? {} : { total: Math.max(this.#total, done) };
  }

  async run(): Promise<ExaminedStore> {
    const { index } = this.structure;
    const { deep, everything, signal } = this.request;
    try {
      // Packs are read as soon as the walk finds that they are needed.
      const walked = await this.#walkRoots();
      this.#total = everything ? index.count : this.#walk.live.size;
      for (const report of await this.#prover.end()) this.#reports.set(report.pack, report);
      await this.#proveElsewhere();
      await this.#hashUnknown(walked);
      const files = deep === true ? await this.#wrongFiles() : new Map<string, string>();
      throwIfAborted(signal);
      this.addFiles();
      const damaged = this.#unproven();
      this.#addPacks(damaged);
      if (this.#walk.suspicious || files.size > 0 || damaged.size > 0)
        await this.addPaths(this.#blobs, { damaged, files });
      const verdicts: PointVerdict[] = [];
      for (const { root, facts, totals } of walked) {
        if (root.point === null) continue;
        this.#addDigests(root.point, facts, totals);
        const { state: stateDigest, meta: metadataDigest, files: count, bytes } = totals;
        const { id } = root.point;
        verdicts.push({ id, sound: this.isSound(id), stateDigest, metadataDigest, files: count, bytes });
      }
      return this.result(verdicts, [...this.#reports.keys()].map((pack) => this.#nameOf(pack)).toSorted());
    } finally {
      await this.#prover.close();
      this.#blobs.close();
    }
  }

  #nameOf(pack: number): string {
    return objectIdOf(this.structure.index.table.packId(pack));
  }

  async #walkRoots(): Promise<Walked[]> {
    const walked: Walked[] = [];
    // Roots without digests have chosen paths only, perhaps without a file's first name. They come last, so that
    // shared trees get their digests from complete points.
    const isWithout = ({ point }: Root): number => Number((point?.metadataDigest ?? null) === null);
    for (const root of this.roots.toSorted((a, b) => isWithout(a) - isWithout(b))) {
      const { tree, snapshotTree } = root;
      const facts = await this.#factsOf(root);
      const totals = await this.#walk.folder(tree, facts);
      if (snapshotTree !== null) await this.#walk.mark(snapshotTree);
      walked.push({ root, facts, totals });
    }
    const { packRefs, packCount } = this.structure.index.table;
    if (this.request.everything)
      for (let pack = 0; pack < packCount; pack++) if (packRefs[pack]! > 0) this.#prover.want(pack);
    return walked;
  }

  /** Facts of a root, with its databases that lie by pages. */
  async #factsOf({ point, snapshotTree }: Root): Promise<FolderFacts> {
    const known = snapshotTree === null ? NO_FACTS : readFacts(this.#blobs, snapshotTree);
    if (point === null) return known;
    const { repository, storage, onDamagedPack } = this.store;
    const store = { repository, storage, onDamagedPack, index: this.structure.index, blobs: this.#blobs };
    const deep = this.request.deep === true;
    const { facts, problem } = await factsWithDatabases(store, point.content, { facts: known, deep });
    if (problem !== null) this.#unplaced.set(point.id, problem);
    return facts;
  }

  /** Reasons why databases of points cannot be read, by the points' ids. */
  readonly #unplaced = new Map<string, string>();

  /** Counts a needed blob as proven if another pack has a sound copy of it. */
  async #proveElsewhere(): Promise<void> {
    const lost: number[] = [];
    for (const entry of new Set(this.structure.index.inSeveralPlaces()))
      if (this.#proven[entry] !== 1 && (this.request.everything || this.#walk.live.has(entry))) lost.push(entry);
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
      if (each.totals.state === null) each.totals = await this.#walk.folder(each.root.tree, each.facts);
  }

  /** Files whose whole content differs from the hash in their point's manifest: a message by the content's key. */
  async #wrongFiles(): Promise<Map<string, string>> {
    const wrong = new Map<string, string>();
    const keys = new Map([...this.#walk.chunked].map(([key, file]) => [file, key]));
    const known = [...keys.keys()].filter((file) => file.sha256 !== null);
    await this.#hashFiles(known, (file, sha256) => {
      if (sha256 === null || Buffer.compare(sha256, file.sha256!) === 0) return;
      const recorded = `recorded is ${objectIdOf(file.sha256!)}`;
      wrong.set(keys.get(file)!, `its blobs together have SHA-256 ${objectIdOf(sha256)}, ${recorded}`);
    });
    return wrong;
  }

  async #hashFiles(files: ChunkedFile[], each: (file: ChunkedFile, sha256: Uint8Array | null) => void): Promise<void> {
    const left = files.toSorted((a, b) => a.content.length - b.content.length);
    const settled = await Promise.allSettled(
      this.#threads.map(async (thread) => {
        for (let file = left.pop(); file !== undefined; file = left.pop()) {
          throwIfAborted(this.request.signal);
          each(file, await thread.ask({ kind: "verify-file", content: file.content }));
        }
      }),
    );
    firstFailure(settled);
  }

  /** Needed blobs without a sound copy. */
  #unproven(): Map<number, DamagedBlob> {
    const damaged = new Map<number, DamagedBlob>();
    const found = { reports: [...this.#reports.values()], proven: this.#proven };
    const { live } = this.#walk;
    for (const { entry, pack, report, own } of unprovenBlobs(this.structure.index, found, (each) => live.has(each))) {
      const name = this.#nameOf(pack).slice(0, 12);
      const otherwise =
        wholePackDamage(report, name) ?? `pack ${name} does not have it at the offset that the index names`;
      damaged.set(entry, { why: own === undefined ? otherwise : `in pack ${name}: ${own}` });
    }
    return damaged;
  }

  /** Adds pack files that are damaged as such. */
  #addPacks(damaged: ReadonlyMap<number, DamagedBlob>): void {
    const { packOf } = this.structure.index.table;
    const sound = new Set([...this.#blobs.elsewhere.keys()].map((entry) => packOf[entry]!));
    const lost = Map.groupBy(damaged.keys(), (entry) => packOf[entry]!);
    for (const report of this.#reports.values()) {
      const { pack, kind } = report;
      const count = lost.get(pack)?.length ?? 0;
      const name = this.#nameOf(pack);
      if (count === 0 && sound.has(pack)) {
        this.addPack(name, " is damaged or missing; other packs have sound copies of all its needed blobs", MEND_INDEX);
        continue;
      }
      // Only unneeded blobs of this pack are damaged.
      if (count === 0 && !this.request.everything && (kind === "name" || kind === null)) continue;
      const effect =
        count === 0
          ? "none of the checked content is lost by that"
          : `${plural(count, "needed blob")} cannot be read from it`;
      this.addPack(name, `: ${describe(report)}; ${effect}`, MEND);
    }
  }

  #addDigests(point: PointToVerify, { manifest, problem }: FolderFacts, totals: TreeTotals): void {
    const { id, stateDigest, metadataDigest } = point;
    const unplaced = this.#unplaced.get(id);
    if (unplaced !== undefined) {
      if (this.isSound(id)) this.add({ point: id, kind: "content", detail: unplaced, hint: MEND });
      return;
    }
    if (problem !== null && this.isSound(id))
      this.add({ point: id, kind: "manifest", detail: `its manifest cannot be read: ${problem}`, hint: MEND_FACTS });
    const digests = [
      ["state digest", stateDigest, totals.state, manifest?.stateDigest],
      ["metadata digest", metadataDigest, totals.meta, manifest?.metadataDigest],
    ] as const;
    for (const [what, recorded, computed, inManifest] of digests) {
      if (recorded === null) continue;
      const add = (kind: string, detail: string): void => this.add({ point: id, kind, detail, hint: DIFFERENT });
      // If no digest could be computed, its cause is listed already.
      if (computed !== null && hex(computed) !== recorded)
        add("digest", `its content has the ${what} ${hex(computed)}, its descriptor says ${recorded}`);
      if (inManifest !== undefined && inManifest !== null && inManifest !== recorded)
        add("manifest", `its manifest has the ${what} ${inManifest}, its descriptor ${recorded}`);
    }
  }
}

function describe({ kind, message, blobs }: PackReport): string {
  if (kind === null) return `${blobs.length} of its blobs are damaged`;
  return kind === "header" ? `its header cannot be read (${message})` : message;
}
