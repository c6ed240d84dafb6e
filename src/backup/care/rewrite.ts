import type {
  CallOptions,
  PathPattern,
  RepairSnapshotsOptions,
  RepairSnapshotsResult,
  RewriteBackupsOptions,
  RewriteBackupsResult,
  SnapshotChoice,
  UnreadableSnapshot,
} from "../../contract/index.ts";
import { sha256 } from "../../crypto/hash.ts";
import { manifestNode, recordsNode } from "../../workspace/store/snapshot-tree.ts";
import { countEntry } from "../../workspace/store/survey-tree.ts";
import { DigestWalk } from "../../repository/verify/digest-walk.ts";
import { factsOf } from "../../repository/verify/folder-facts.ts";
import { CairnError, reworded, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { ByteWriter, compareBytes, comparePaths, hex, latin1 } from "../../formats/bytes.ts";
import { encodeManifest, type Manifest } from "../../formats/records/manifest.ts";
import type { BlobType } from "../../formats/restic/pack-header.ts";
import { PROGRAM } from "../../formats/program.ts";
import { rawPath } from "../../formats/records/record.ts";
import { plural } from "../../formats/sizes.ts";
import { encodeSnapshot, type Snapshot } from "../../formats/restic/snapshot.ts";
import { encodeTree, type TreeNode } from "../../formats/restic/tree.ts";
import { displayPath, printablePath } from "../../fs/safe-path.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { BlobSource } from "../../repository/blob-source.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { lostPacks, packsToProve } from "../../repository/transfer/near-packs.ts";
import type { PackedBlobs } from "../../repository/packs/packed-blobs.ts";
import { removeSnapshots } from "../../repository/care/remove.ts";
import { loadPackHeader } from "../../repository/packs/pack-read.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { packSizes } from "../../repository/storage/storage.ts";
import { type LostEntry, type MendedTree, type TakenEntries, TreeMender } from "../../repository/trees/tree-mender.ts";
import { mayHaveManifest, nameOf, readNodes, savedEntry, snapshotContent } from "../content.ts";
import { lockCall, type OpenRepository } from "../open-repository.ts";
import { type Fitting, fitting } from "../paths.ts";
import { type Session, within } from "../session.ts";
import { changedSnapshots, REWRITTEN } from "../snapshots.ts";

/** Files up to this size are one blob. */
const PIECE = 512 * 1024;

/** Makes new snapshots of those that lack something, without what is lost; what that is, is said of each. */
export async function repairSnapshots(
  access: OpenRepository,
  options: RepairSnapshotsOptions,
): Promise<RepairSnapshotsResult> {
  const started = Date.now();
  const { plan = false, forget = false } = options;
  const rewriting = { choice: options, tag: "repaired", takesOut: null };
  const done = await rewriteSnapshots(access, options, { rewriting, isPlan: plan, forget });
  return {
    ...access.info,
    plan,
    intact: done.others,
    repaired: done.rewritten.map(({ listed, lost, newId }) => ({
      snapshot_id: listed.id,
      created_at: listed.snapshot.time,
      new_id: newId,
      forgotten: forget && !plan,
      lost: lost.map(({ path, kind, detail }) => ({ ...displayPath(path), kind, detail })),
    })),
    unreadable: done.unreadable,
    duration_ms: Date.now() - started,
  };
}

/**
 * Takes what fits a pattern out of snapshots: new ones are made without it, and with `forget` the old ones go. A new one
 * lists what was taken out as what it lacks.
 */
export async function rewriteBackups(
  access: OpenRepository,
  options: RewriteBackupsOptions,
): Promise<RewriteBackupsResult> {
  const started = Date.now();
  const { dryRun = false, forget = false } = options;
  const rewriting = { choice: options, tag: REWRITTEN, takesOut: takesOutOf(options.exclude) };
  const done = await rewriteSnapshots(access, options, { rewriting, isPlan: dryRun, forget });
  return {
    ...access.info,
    dry_run: dryRun,
    rewritten: done.rewritten.map(({ listed, lost, newId }) => ({
      snapshot_id: listed.id,
      created_at: listed.snapshot.time,
      new_id: newId,
      forgotten: forget && !dryRun,
      taken_out: lost.map(({ path, kind }) => ({ ...displayPath(path), kind })),
    })),
    unchanged: done.others,
    unreadable: done.unreadable,
    lacking: done.lacking,
    duration_ms: Date.now() - started,
  };
}

interface Rewriting {
  choice: SnapshotChoice;
  /** A new snapshot has this one beside the tags of the one whose place it takes. */
  tag: string;
  /** Null: only what is lost goes. */
  takesOut: TakesOut | null;
}

/** Entries that go, by their paths in latin1 with a slash before them. */
interface TakesOut extends Fitting {
  /** Throws where a folder that was saved would go, or one above it. */
  requireNot(path: string): void;
  /** Throws where one pattern has met something either way: only one of them can be meant. */
  requireOneWay(): void;
}

function takesOutOf(exclude: readonly PathPattern[]): TakesOut {
  const patterns = exclude.map((given) => {
    const pattern = fitting(given);
    const text = typeof given === "string" ? given : given.pattern;
    if (pattern.fits("/")) throw everything(`everything fits ${JSON.stringify(text)}`);
    return { ...pattern, text, met: { below: false, whole: false } };
  });
  if (patterns.length === 0) throw new CairnError("usage", "what is to be taken out?", { hint: "--exclude PATTERN" });
  return {
    isName: patterns.every(({ isName }) => isName),
    fits: (path) => patterns.some(({ fits, met }) => fits(path) && (met.below = true)),
    fitsWhole: (path) => patterns.some(({ fitsWhole, met }) => fitsWhole(path) && (met.whole = true)),
    requireNot(path) {
      if (!patterns.some(({ fitsWhole }) => fitsWhole(path))) return;
      throw everything(`${printablePath(Buffer.from(path, "latin1"))} is what was saved, or above it`);
    },
    requireOneWay() {
      const both = patterns.find(({ met }) => met.below && met.whole);
      if (both === undefined) return;
      const text = JSON.stringify(both.text);
      throw new CairnError("usage", `${text} fits one path below what was saved, and another one from the root`, {
        hint: "leave the slash before it out: then it is the end of a path",
      });
    },
  };
}

function everything(why: string): CairnError {
  return new CairnError("usage", `${why}: nothing would be left`, {
    hint: "a snapshot goes by `cairn backup forget`",
  });
}

/** A snapshot of which something goes. */
interface RewrittenSnapshot {
  listed: ListedSnapshot;
  /** By paths from the topmost tree. */
  lost: readonly LostEntry[];
  /** Null where nothing is written, and where nothing is left of it. */
  newId: ObjectId | null;
}

interface Rewritten {
  /** Oldest first. */
  rewritten: RewrittenSnapshot[];
  /** Snapshots of which nothing goes. */
  others: number;
  /** Those that stay as they are, because nobody knows what they hold. */
  unreadable: UnreadableSnapshot[];
  /** Those that do because something of them is lost, which a repair alone gives up. */
  lacking: ObjectId[];
}

/** Makes new snapshots in the place of others, by a {@link SnapshotRewriter}; with `forget` the others go. */
async function rewriteSnapshots(
  access: OpenRepository,
  options: CallOptions,
  { rewriting, isPlan, forget }: { rewriting: Rewriting; isPlan: boolean; forget: boolean },
): Promise<Rewritten> {
  const run = async (lock: RepositoryLock | null): Promise<Rewritten> => {
    const index = await BlobIndex.load(access.repository, null, options.signal);
    await requireIndexed(access, index);
    const listing = await access.repository.listSnapshots(options.signal);
    const parts = { access, options, index, listing, lock };
    return within(parts, async (session) => new SnapshotRewriter(session, rewriting, options).run());
  };
  if (isPlan) return access.reading(options, async () => run(null));
  if (forget) access.repository.requireRemovals();
  const done = await access.locked(false, options, async (lock) => run(lock));
  if (!forget || done.rewritten.length === 0) return done;
  try {
    await forgetRewritten(access, done.rewritten, options);
  } catch (error) {
    const known = toCairnError(error);
    const made = plural(done.rewritten.filter(({ newId }) => newId !== null).length, "new snapshot");
    throw reworded(known, { message: `${made} made, but not all of the old ones are gone: ${known.message}` });
  }
  return done;
}

/** Removes the old ones, each a file ●, under an exclusive lock, once those that take their place are there for sure. */
async function forgetRewritten(
  access: OpenRepository,
  rewritten: readonly RewrittenSnapshot[],
  options: CallOptions,
): Promise<void> {
  const old = rewritten.map(({ listed }) => listed.id);
  await removeSnapshots(access.repository, old, {
    ...lockCall(options),
    confirm: async () => {
      for (const { newId } of rewritten)
        if (newId !== null) await access.asStored(async () => access.repository.loadSnapshot(newId));
    },
  });
}

interface Broken {
  listed: ListedSnapshot;
  mended: MendedTree;
}

/**
 * Makes new snapshots of those of which something is lost, or is to go, without it. Only what the index does not know
 * counts as lost: `repair index` and `repair packs` come first, and it is refused while they have work.
 * - Under a shared lock: new trees and their index; manifests, the trees above them and their index.
 * - Each snapshot's file ●. A kill leaves the old snapshots or both; the next call finds what was made.
 */
class SnapshotRewriter {
  readonly #session: Session;
  readonly #rewriting: Rewriting;
  readonly #options: CallOptions;
  /** Null: nothing is written. */
  readonly #blobs: PackedBlobs | null;
  readonly #unreadable: UnreadableSnapshot[] = [];
  readonly #menders = new Map<string, TreeMender>();

  constructor(session: Session, rewriting: Rewriting, options: CallOptions) {
    const { access, index, lock } = session;
    this.#session = session;
    this.#rewriting = rewriting;
    this.#options = options;
    this.#blobs = lock === null ? null : access.packedBlobs(index, lock);
  }

  async run(): Promise<Rewritten> {
    const chosen = changedSnapshots(this.#session, this.#rewriting.choice);
    for (const { name, error } of this.#session.damaged) this.#leave(name, error);
    try {
      const broken = await this.#findBroken(chosen);
      const isWhole = ({ mended }: Broken): boolean =>
        this.#rewriting.takesOut === null || mended.lost.every(({ isTakenOut }) => isTakenOut === true);
      const rewritten = await this.#rewrite(broken.filter(isWhole));
      const lacking = broken.flatMap((each) => (isWhole(each) ? [] : [each.listed.id]));
      return { rewritten, others: chosen.length - broken.length, unreadable: this.#unreadable, lacking };
    } catch (error) {
      await this.#blobs?.abort();
      throw error;
    }
  }

  #leave(id: string, { message }: CairnError): void {
    this.#unreadable.push({ snapshot_id: id, reason: message });
  }

  async #findBroken(snapshots: readonly ListedSnapshot[]): Promise<Broken[]> {
    const { takesOut } = this.#rewriting;
    const broken: Broken[] = [];
    const phase = takesOut === null ? "repairing" : "rewriting";
    for (const [done, listed] of snapshots.entries()) {
      this.#options.onProgress?.({ phase, done, total: snapshots.length });
      const mender = await this.#menderOf(listed.snapshot);
      const mended = await mender.mend(Buffer.from(listed.snapshot.tree, "hex"));
      if (mended.lost.length > 0) broken.push({ listed, mended });
      await this.#blobs?.settle();
    }
    takesOut?.requireOneWay();
    await this.#requireLost(new Set([...this.#menders.values()].flatMap(({ missing }) => [...missing])));
    return broken;
  }

  /** One for all snapshots whose trees begin alike: each tree is read once by it. */
  async #menderOf(snapshot: Snapshot): Promise<TreeMender> {
    const { index, reader } = this.#session;
    const { takesOut } = this.#rewriting;
    const depth = takesOut === null ? null : await this.#depthAbove(snapshot);
    const key = String(depth);
    const known = this.#menders.get(key);
    if (known !== undefined) return known;
    const mender = new TreeMender({
      index,
      readTree: reader.readTree,
      onTree: (id, bytes) => this.#add("tree", id, bytes),
      takesOut: takesOut === null ? undefined : belowDepth(takesOut, depth),
      signal: this.#options.signal,
    });
    this.#menders.set(key, mender);
    return mender;
  }

  /** The number of directories that lead to what was saved; null in snapshots of other programs, where all of it counts. */
  async #depthAbove(snapshot: Snapshot): Promise<number | null> {
    try {
      const { manifest, manifestDamage, only } = await snapshotContent(this.#session.reader, snapshot);
      if (manifest === null && manifestDamage === null) return null;
      return depthOf(snapshot) - (only === null ? 0 : 1);
    } catch (error) {
      // It stays as it is then.
      if (error instanceof CairnError && error.code === "damaged") return null;
      throw error;
    }
  }

  /** Throws `refused` when a pack that no index lists has something of what is missing. */
  async #requireLost(missing: ReadonlySet<string>): Promise<void> {
    if (missing.size === 0) return;
    const { access, index } = this.#session;
    const listed = new Set<string>();
    for (let pack = 0; pack < index.table.packCount; pack++) listed.add(objectIdOf(index.table.packId(pack)));
    for (const [name, size] of await packSizes(access.storage)) {
      if (listed.has(name)) continue;
      // A file that is no pack is a leftover, which `repair index` leaves alone too.
      const blobs = await loadPackHeader(access.repository, name, size).catch((error: unknown) => {
        if (error instanceof CairnError && error.code === "damaged") return [];
        throw error;
      });
      if (blobs.some(({ id }) => missing.has(objectIdOf(id))))
        throw firstRepair(`pack ${name.slice(0, 12)}, which is in no index, has some of what seems lost`);
    }
  }

  async #rewrite(broken: readonly Broken[]): Promise<RewrittenSnapshot[]> {
    const { snapshots, lock } = this.#session;
    const result = ({ listed, mended }: Broken, newId: ObjectId | null): RewrittenSnapshot => ({
      listed,
      lost: mended.lost,
      newId,
    });
    if (this.#blobs === null || broken.length === 0) return broken.map((each) => result(each, null));
    await this.#blobs.finish();
    failpoint("rewrite-snapshots.trees-written");
    const tops = await this.#topTrees(broken);
    await this.#blobs.finish();
    failpoint("rewrite-snapshots.manifests-written");
    const made = new Map(snapshots.map(({ id, snapshot }) => [identityOf(snapshot), id]));
    const rewritten: RewrittenSnapshot[] = [];
    await lock!.recheck();
    for (const [each, tree] of tops)
      rewritten.push(result(each, tree === null ? null : await this.#save(each, tree, made)));
    return rewritten;
  }

  /** The new topmost tree of each snapshot; null where nothing is left of its folder. */
  async #topTrees(broken: readonly Broken[]): Promise<Map<Broken, Uint8Array | null>> {
    const { access, index, near } = this.#session;
    const { keys } = access.repository;
    const blobs = new BlobSource({ keys, index, packs: packsToProve(near.folder), compares: false });
    const walk = new DigestWalk({ blobs, onPack: () => undefined, signal: this.#options.signal });
    const tops = new Map<Broken, Uint8Array | null>();
    try {
      for (const each of broken) {
        try {
          tops.set(each, await this.#topTree(each, walk));
        } catch (error) {
          // What a newer program says of its snapshot is not ours to write anew.
          if (!(error instanceof CairnError) || error.code !== "newer_version") throw error;
          this.#leave(each.listed.id, error);
        }
      }
    } finally {
      blobs.close();
    }
    return tops;
  }

  /** With a manifest that is true of what is left, where there is one. */
  async #topTree({ listed, mended }: Broken, walk: DigestWalk): Promise<Uint8Array | null> {
    const { reader } = this.#session;
    if (mended.tree === null) return null;
    const snapshot = { ...listed.snapshot, tree: objectIdOf(mended.tree) };
    const mayBeOurs = mayHaveManifest(snapshot);
    const depth = depthOf(snapshot);
    const lost = mended.lost.filter(({ path }) => !mayBeOurs || componentsOf(path)[0] !== ".cairn");
    if (snapshot.paths.length === 1 && lost.some(({ path }) => componentsOf(path).length <= depth)) {
      // In a snapshot of a save point that is its folder, or one above it. Other programs may have laid it out otherwise.
      const nodes = await readNodes(reader, mended.tree);
      const isRecordsAlone = mayBeOurs && nodes.some((node) => nameOf(node) === ".cairn");
      return nodes.length === 0 || isRecordsAlone ? null : mended.tree;
    }
    if (!mayBeOurs) return mended.tree;
    // The manifest, or the folder that it is in.
    const records = mended.lost
      .filter(({ path }) => [".cairn", ".cairn/manifest.json"].includes(latin1(path)))
      .map((each) => ({ ...each, detail: `${each.detail}, with what only it says of entries, such as their holes` }));
    const below = [...records, ...lost.map((each) => ({ ...each, path: withoutFirst(each.path, depth) }))];
    let content: { manifest: Manifest | null; root: Uint8Array } | null = null;
    if (records.length === 0) content = await snapshotContent(reader, snapshot);
    else if (snapshot.paths.length === 1) {
      const saved = await savedEntry(reader, snapshot);
      content = saved && { manifest: LOST_MANIFEST, root: saved.root };
    }
    if (content === null || content.manifest === null || below.length === 0) return mended.tree;
    const bytes = await repairedManifest(walk, { reader, manifest: content.manifest, lost: below, root: content.root });
    return this.#withManifest(mended.tree, bytes, snapshot);
  }

  /** `/.cairn` and the manifest in it are made anew where they are lost. */
  async #withManifest(top: Uint8Array, manifest: Uint8Array, { time }: Snapshot): Promise<Uint8Array> {
    const { reader } = this.#session;
    const pieces: Uint8Array[] = [];
    for (let at = 0; at < manifest.length; at += PIECE) {
      const piece = manifest.subarray(at, at + PIECE);
      pieces.push(this.#add("data", sha256(piece), piece));
    }
    const withNode = (nodes: readonly TreeNode[], node: TreeNode): Uint8Array => {
      const others = nodes.filter((each) => nameOf(each) !== nameOf(node));
      const bytes = encodeTree([...others, node].toSorted((a, b) => compareBytes(a.name, b.name)));
      return this.#add("tree", sha256(bytes), bytes);
    };
    const nodes = await readNodes(reader, top);
    const folder = nodes.find((node) => nameOf(node) === ".cairn");
    const own = folder === undefined ? [] : await readNodes(reader, folder.subtree!);
    const file = { content: Buffer.concat(pieces), size: manifest.length };
    const recordedAt = Math.floor(Date.parse(time) / 1000);
    const known = own.find((node) => nameOf(node) === "manifest.json");
    const subtree = withNode(own, known === undefined ? manifestNode(recordedAt, file) : { ...known, ...file });
    return withNode(nodes, folder === undefined ? recordsNode(recordedAt, subtree) : { ...folder, subtree });
  }

  #add(type: BlobType, id: Uint8Array, bytes: Uint8Array): Uint8Array {
    this.#blobs?.addNew(type, id, bytes);
    return id;
  }

  /** The snapshot that takes its place: made before by a call that was killed, or now. */
  async #save({ listed }: Broken, top: Uint8Array, made: Map<string, ObjectId>): Promise<ObjectId> {
    const { id, snapshot } = listed;
    const now = new Date().toISOString();
    const rewritten: Snapshot = {
      ...snapshot,
      tree: objectIdOf(top),
      original: snapshot.original ?? id,
      tags: [...new Set([...(snapshot.tags ?? []), this.#rewriting.tag])],
      program_version: PROGRAM,
      // The counts of the old one are not true of it.
      summary: { backup_start: now, backup_end: now },
    };
    const identity = identityOf(rewritten);
    const before = made.get(identity);
    // Another like it gets one of its own.
    made.delete(identity);
    if (before !== undefined) return before;
    const newId = await this.#session.access.repository.saveSnapshot(rewritten);
    failpoint("rewrite-snapshots.snapshot-written");
    return newId;
  }
}

/**
 * Throws `refused` where what is lost is not known: what an index file that cannot be read lists is not lost, and a cut
 * pack may still give back most of what it held.
 */
export async function requireIndexed(access: OpenRepository, index: BlobIndex): Promise<void> {
  if (index.damaged.length > 0) throw firstRepair(`${index.damaged.length} index files cannot be read`);
  const lost = lostPacks(index, await packSizes(access.storage));
  if (lost.length > 0) throw firstRepair(`${lost.length} packs are missing or cut`);
}

function firstRepair(found: string): CairnError {
  return new CairnError("refused", `what is lost is not known yet: ${found}; nothing was changed`, {
    hint: "`cairn backup repair index` first (with --plan it says what it would do)",
  });
}

/** Tells a snapshot that a call before made from one that is something else: all but when and by what it was made. */
function identityOf(snapshot: Snapshot): string {
  const { summary: _summary, program_version: _program, ...rest } = snapshot;
  return latin1(encodeSnapshot(rest));
}

/** The number of directories that a snapshot of ours has above what was saved, and that one, or the file's name. */
function depthOf({ paths }: Pick<Snapshot, "paths">): number {
  return (paths[0] ?? "").split("/").filter((part) => part !== "").length;
}

/** Entries that go by their paths from the topmost tree; one that fits as a whole, as lists print it, goes too. */
function belowDepth({ fits, fitsWhole, isName, requireNot }: TakesOut, depth: number | null): TakenEntries {
  if (depth === null) return { fits: (path) => fits(`/${path}`), isAnywhere: () => isName };
  return {
    fits(path) {
      const parts = path.split("/");
      if (parts[0] === ".cairn") return false;
      if (parts.length > depth) return fits(`/${parts.slice(depth).join("/")}`) || fitsWhole(`/${path}`);
      requireNot(`/${path}`);
      return false;
    },
    isAnywhere(at) {
      const parts = at === "" ? [] : at.split("/");
      return isName && parts.length >= depth && parts[0] !== ".cairn";
    },
  };
}

function componentsOf(path: Uint8Array): string[] {
  return path.length === 0 ? [] : latin1(path).split("/");
}

function withoutFirst(path: Uint8Array, count: number): Uint8Array {
  return Buffer.from(componentsOf(path).slice(count).join("/"), "latin1");
}

/** A manifest that is lost: nothing is known of the folder but what its trees say. */
const LOST_MANIFEST: Manifest = {
  stateDigest: null,
  metadataDigest: null,
  complete: false,
  entries: { files: 0, directories: 0, links: 0, other: 0 },
  labels: [],
  holeMaps: [],
  fileHashes: [],
  omitted: [],
  lossless: [],
  extra: {},
};

interface RepairedContent {
  reader: BlobSource;
  /** Manifest of a snapshot that lacks something; entries are lost relative to its folder. */
  manifest: Manifest;
  lost: readonly LostEntry[];
  /** The folder's tree as it is now. */
  root: Uint8Array;
}

/**
 * Makes a manifest that is true of a folder without what was lost or taken out: digests and counts are those of what is
 * left, what is lost is listed as omitted, and it is not complete, so that no receipt is ever given for it.
 */
async function repairedManifest(
  walk: DigestWalk,
  { reader, manifest, lost, root }: RepairedContent,
): Promise<Uint8Array> {
  const gone = lost.map(({ path }) => latin1(path));
  const files = new Set(gone);
  const isGone = (path: Uint8Array): boolean => {
    const text = latin1(path);
    return files.has(text) || gone.some((each) => text.startsWith(`${each}/`));
  };
  const kept = <T extends { path: Uint8Array }>(list: readonly T[]): T[] => list.filter(({ path }) => !isGone(path));
  const entries = { files: 0, directories: 0, links: 0, other: 0 };
  const trees = [root];
  for (let tree = trees.pop(); tree !== undefined; tree = trees.pop()) {
    for (const node of await readNodes(reader, tree)) {
      if (node.subtree !== undefined) trees.push(node.subtree);
      countEntry(entries, node);
    }
  }
  const left: Manifest = {
    ...manifest,
    complete: false,
    entries,
    labels: manifest.labels.filter((label) => !isGone(rawPath(label))),
    holeMaps: kept(manifest.holeMaps),
    fileHashes: kept(manifest.fileHashes),
    omitted: [
      ...kept(manifest.omitted),
      ...lost.map(({ path, detail, isTakenOut }) => ({
        path,
        reason: isTakenOut === true ? detail : `lost in the repository: ${detail}`,
      })),
    ].toSorted((a, b) => comparePaths(a.path, b.path)),
    // An entry whose first name is gone is on its own.
    lossless: kept(manifest.lossless).filter(({ field, value }) => field !== "hard_link" || !isGone(value)),
  };
  const { state, meta } = await walk.folder(root, factsOf(left));
  const writer = new ByteWriter(4096);
  encodeManifest(writer, { ...left, stateDigest: state && hex(state), metadataDigest: meta && hex(meta) });
  return writer.copy();
}
