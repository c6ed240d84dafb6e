import { manifestNode, recordsNode } from "../../engines/copy/snapshot-tree.ts";
import { StoreReader } from "../../engines/verify/store-reader.ts";
import { TreeWalk } from "../../engines/verify/tree-walk.ts";
import { sha256 } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { BlobType, IndexBlob } from "../../formats/pack-header.ts";
import { compareBytes } from "../../formats/bytes.ts";
import type { Manifest } from "../../formats/manifest.ts";
import { PROGRAM } from "../../formats/program.ts";
import { encodeSnapshot, type Snapshot } from "../../formats/snapshot.ts";
import { encodeTree, type TreeNode } from "../../formats/tree.ts";
import { objectIdOf, type ObjectId } from "../../ids.ts";
import type { BlobIndex } from "../../repository/blob-index.ts";
import type { RepositoryLock } from "../../repository/locks.ts";
import { lostPacks } from "../../repository/near-packs.ts";
import type { PackedBlobs } from "../../repository/packed-blobs.ts";
import { removeSnapshots } from "../../repository/remove.ts";
import { loadPackHeader } from "../../repository/repair.ts";
import type { ListedSnapshot } from "../../repository/repository.ts";
import { packSizes } from "../../repository/storage/storage.ts";
import { type LostEntry, type MendedTree, type TakenEntries, TreeMender } from "../../repository/tree-mender.ts";
import type { CallOptions, SnapshotChoice, UnreadableSnapshot } from "../contract.ts";
import type { Fitting } from "./chosen-paths.ts";
import { changedSnapshots } from "./list.ts";
import type { Look } from "./look.ts";
import { LOST_MANIFEST, repairedManifest } from "./repaired-manifest.ts";
import { lockCall, type RepositoryAccess } from "./repository-access.ts";
import { mayHaveManifest, nameOf, readNodes, savedEntry, snapshotContent } from "./snapshot-content.ts";

/** Files up to this size are one blob. */
const PIECE = 512 * 1024;

/** What is to be done with snapshots. */
export interface Rewriting {
  /** Which ones. */
  choice: SnapshotChoice;
  /** Of a new one, beside those of the one whose place it takes. */
  tag: string;
  /** Null: only what is lost goes. */
  takesOut: TakesOut | null;
}

/** What goes, by its path in latin1 with a slash before it. */
export interface TakesOut extends Fitting {
  /** Throws where a folder that was saved would go, or one above it. */
  requireNot(path: string): void;
  /** Throws where one pattern has met something either way: only one of them can be meant. */
  requireOneWay(): void;
}

/** A snapshot of which something goes. */
export interface RewrittenSnapshot {
  listed: ListedSnapshot;
  /** By paths from the topmost tree. */
  lost: readonly LostEntry[];
  /** Null where nothing is written, and where nothing is left of it. */
  newId: ObjectId | null;
}

export interface Rewritten {
  /** Oldest first. */
  rewritten: RewrittenSnapshot[];
  /** Snapshots of which nothing goes. */
  others: number;
  /** Those that stay as they are, because nobody knows what they hold. */
  unreadable: UnreadableSnapshot[];
  /** Those that do because something of them is lost, which a repair alone gives up. */
  lacking: ObjectId[];
}

interface RewriterParts extends Look {
  access: RepositoryAccess;
  options: CallOptions;
  rewriting: Rewriting;
  /** Null: nothing is written. */
  lock: RepositoryLock | null;
}

interface Broken {
  listed: ListedSnapshot;
  mended: MendedTree;
}

/**
 * Makes new snapshots of those of which something is lost, or is to go, without it. Only what the index does not know counts
 * as lost: `repair index` and `repair packs` come first, and it is refused while they have work.
 *
 * Steps, under a shared lock: new trees → their index → manifests and the trees above them → their index → each snapshot's
 * file ●. A kill anywhere leaves the old snapshots or both; the next call finds what was made.
 */
export class SnapshotRewriter {
  readonly #parts: RewriterParts;
  readonly #blobs: PackedBlobs | null;
  readonly #unreadable: UnreadableSnapshot[] = [];
  readonly #menders = new Map<string, TreeMender>();

  constructor(parts: RewriterParts) {
    const { access, index, lock } = parts;
    this.#parts = parts;
    this.#blobs = lock === null ? null : access.packedBlobs(index, lock);
  }

  async run(): Promise<Rewritten> {
    const { access, options, rewriting } = this.#parts;
    await requireIndexed(access, this.#parts.index);
    const listing = await access.repository.listSnapshots(options.signal);
    const { snapshots, damaged } = listing;
    const chosen = changedSnapshots(listing, rewriting.choice);
    for (const { name, error } of damaged) this.#leave(name, error);
    try {
      const broken = await this.#findBroken(chosen);
      const others = chosen.length - broken.length;
      const isWhole = ({ mended }: Broken): boolean =>
        rewriting.takesOut === null || mended.lost.every(({ isTakenOut }) => isTakenOut === true);
      const rewritten = await this.#rewrite(broken.filter(isWhole), snapshots);
      const lacking = broken.flatMap((each) => (isWhole(each) ? [] : [each.listed.id]));
      return { rewritten, others, unreadable: this.#unreadable, lacking };
    } catch (error) {
      await this.#blobs?.abort();
      throw error;
    }
  }

  #leave(id: string, { message }: CairnError): void {
    this.#unreadable.push({ snapshot_id: id, reason: message });
  }

  /** Throws `refused` when a pack that no index lists has something of what is missing. */
  async #requireLost(missing: ReadonlySet<string>): Promise<void> {
    if (missing.size === 0) return;
    const { access, index } = this.#parts;
    const listed = new Set<string>();
    for (let pack = 0; pack < index.table.packCount; pack++) listed.add(objectIdOf(index.table.packId(pack)));
    for (const [name, size] of await packSizes(access.storage)) {
      if (listed.has(name)) continue;
      const blobs = await headerOf(access, name, size);
      if (blobs.some(({ id }) => missing.has(objectIdOf(id))))
        throw firstRepair(`pack ${name.slice(0, 12)}, which is in no index, has some of what seems lost`);
    }
  }

  async #findBroken(snapshots: readonly ListedSnapshot[]): Promise<Broken[]> {
    const { options, rewriting } = this.#parts;
    const broken: Broken[] = [];
    const phase = rewriting.takesOut === null ? "repairing" : "rewriting";
    for (const [done, listed] of snapshots.entries()) {
      options.onProgress?.({ phase, done, total: snapshots.length });
      const mender = await this.#menderOf(listed.snapshot);
      const mended = await mender.mend(Buffer.from(listed.snapshot.tree, "hex"));
      if (mended.lost.length > 0) broken.push({ listed, mended });
      await this.#blobs?.settle();
    }
    rewriting.takesOut?.requireOneWay();
    await this.#requireLost(new Set([...this.#menders.values()].flatMap(({ missing }) => [...missing])));
    return broken;
  }

  /** One for all snapshots whose trees begin alike: each tree is read once by it. */
  async #menderOf(snapshot: Snapshot): Promise<TreeMender> {
    const { index, reader, options, rewriting } = this.#parts;
    const { takesOut } = rewriting;
    const depth = takesOut === null ? null : await this.#depthOf(snapshot);
    const key = String(depth);
    const known = this.#menders.get(key);
    if (known !== undefined) return known;
    const mender = new TreeMender({
      index,
      readTree: reader.readTree,
      onTree: (id, bytes) => this.#add("tree", id, bytes),
      takesOut: takesOut === null ? undefined : belowDepth(takesOut, depth),
      signal: options.signal,
    });
    this.#menders.set(key, mender);
    return mender;
  }

  /** How many directories lead to what was saved; null in snapshots of other programs, where all of it counts. */
  async #depthOf(snapshot: Snapshot): Promise<number | null> {
    try {
      const { manifest, manifestDamage, only } = await snapshotContent(this.#parts, snapshot);
      if (manifest === null && manifestDamage === null) return null;
      return depthOf(snapshot) - (only === null ? 0 : 1);
    } catch (error) {
      // It stays as it is then.
      if (error instanceof CairnError && error.code === "damaged") return null;
      throw error;
    }
  }

  async #rewrite(broken: readonly Broken[], snapshots: readonly ListedSnapshot[]): Promise<RewrittenSnapshot[]> {
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
    await this.#parts.lock!.recheck();
    for (const [each, tree] of tops)
      rewritten.push(result(each, tree === null ? null : await this.#save(each, tree, made)));
    return rewritten;
  }

  /** Of each snapshot the new topmost tree; null where nothing is left of its folder. */
  async #topTrees(broken: readonly Broken[]): Promise<Map<Broken, Uint8Array | null>> {
    const { access, index, near, options } = this.#parts;
    const store = new StoreReader(access.repository.keys, index, near.folder);
    const walk = new TreeWalk({ store, onPack: () => undefined, signal: options.signal });
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
      store.close();
    }
    return tops;
  }

  /** With a manifest that is true of what is left, where there is one. */
  async #topTree({ listed, mended }: Broken, walk: TreeWalk): Promise<Uint8Array | null> {
    const { index, reader } = this.#parts;
    if (mended.tree === null) return null;
    const tree = objectIdOf(mended.tree);
    const { paths } = listed.snapshot;
    const mayBeOurs = mayHaveManifest(listed.snapshot);
    const depth = depthOf(listed.snapshot);
    const lost = mended.lost.filter(({ path }) => !mayBeOurs || !isOwn(path));
    if (paths.length === 1 && lost.some(({ path }) => componentsOf(path).length <= depth)) {
      // In a snapshot of a save point that is its folder, or one above it. Other programs may have laid it out otherwise.
      const nodes = await readNodes({ reader, index }, mended.tree);
      const isRecordsAlone = mayBeOurs && nodes.some((node) => nameOf(node) === ".cairn");
      return nodes.length === 0 || isRecordsAlone ? null : mended.tree;
    }
    if (!mayBeOurs) return mended.tree;
    const records = mended.lost.filter(isManifest).map(tellingWhatItCosts);
    const content = await (records.length > 0 ? savedWithoutManifest : snapshotContent)(
      { reader, index },
      { ...listed.snapshot, tree },
    );
    const below = [...records, ...lost.map((entry) => ({ ...entry, path: withoutFirst(entry.path, depth) }))];
    if (content === null || content.manifest === null || below.length === 0) return mended.tree;
    const { manifest, root } = content;
    const bytes = await repairedManifest({ reader, index, walk }, { manifest, lost: below, root });
    return this.#withManifest(mended.tree, bytes, listed.snapshot);
  }

  /** `/.cairn` and the manifest in it are made anew where they are lost. */
  async #withManifest(top: Uint8Array, manifest: Uint8Array, { time }: Snapshot): Promise<Uint8Array> {
    const { index, reader } = this.#parts;
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
    const nodes = await readNodes({ reader, index }, top);
    const folder = nodes.find((node) => nameOf(node) === ".cairn");
    const own = folder === undefined ? [] : await readNodes({ reader, index }, folder.subtree!);
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
    const { access } = this.#parts;
    const { id, snapshot } = listed;
    const now = new Date().toISOString();
    const rewritten: Snapshot = {
      ...snapshot,
      tree: objectIdOf(top),
      original: snapshot.original ?? id,
      tags: [...new Set([...(snapshot.tags ?? []), this.#parts.rewriting.tag])],
      program_version: PROGRAM,
      // The counts of the old one are not true of it.
      summary: { backup_start: now, backup_end: now },
    };
    const identity = identityOf(rewritten);
    const before = made.get(identity);
    // Another like it gets one of its own.
    made.delete(identity);
    if (before !== undefined) return before;
    const newId = await access.repository.saveSnapshot(rewritten);
    failpoint("rewrite-snapshots.snapshot-written");
    return newId;
  }
}

/**
 * What an index file that cannot be read lists is not lost, and a cut pack may still give back most of what it held: throws
 * `refused`.
 */
export async function requireIndexed(access: RepositoryAccess, index: BlobIndex): Promise<void> {
  if (index.damaged.length > 0) throw firstRepair(`${index.damaged.length} index files cannot be read`);
  const lost = lostPacks(index, await packSizes(access.storage));
  if (lost.length > 0) throw firstRepair(`${lost.length} packs are missing or cut`);
}

/** Nothing for a file that is no pack: a leftover, which `repair index` leaves alone too. */
async function headerOf({ repository }: RepositoryAccess, pack: string, size: number): Promise<readonly IndexBlob[]> {
  try {
    return await loadPackHeader(repository, pack, size);
  } catch (error) {
    if (error instanceof CairnError && error.code === "damaged") return [];
    throw error;
  }
}

/** What tells a snapshot that a call before made from one that is something else: all but when and by what it was made. */
function identityOf(snapshot: Snapshot): string {
  const { summary: _summary, program_version: _program, ...rest } = snapshot;
  return Buffer.from(encodeSnapshot(rest)).toString("latin1");
}

function firstRepair(found: string): CairnError {
  return new CairnError("refused", `what is lost is not known yet: ${found}; nothing was changed`, {
    hint: "`cairn backup repair index` first (with --plan it says what it would do)",
  });
}

/** The old ones go, each a file ●, under an exclusive lock, once those that take their place are there for sure. */
export async function forgetRewritten(
  access: RepositoryAccess,
  rewritten: readonly RewrittenSnapshot[],
  options: CallOptions,
): Promise<void> {
  if (rewritten.length === 0) return;
  await removeSnapshots(
    access.repository,
    rewritten.map(({ listed }) => listed.id),
    {
      ...lockCall(options),
      confirm: async () => {
        for (const { newId } of rewritten)
          if (newId !== null) await access.asStored(async () => access.repository.loadSnapshot(newId));
      },
    },
  );
}

/** How many directories a snapshot of ours has above what was saved, and that one, or the file's name. */
function depthOf({ paths }: Pick<Snapshot, "paths">): number {
  return (paths[0] ?? "").split("/").filter((part) => part !== "").length;
}

/** The same of paths from the topmost tree; one that fits as a whole, as lists print it, fits too. */
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

/** Below `/.cairn`: what Cairn itself keeps beside the folder. */
function isOwn(path: Uint8Array): boolean {
  return componentsOf(path)[0] === ".cairn";
}

/** The manifest, or the folder that it is in. */
function isManifest({ path }: LostEntry): boolean {
  return [".cairn", ".cairn/manifest.json"].includes(Buffer.from(path).toString("latin1"));
}

function tellingWhatItCosts(entry: LostEntry): LostEntry {
  return { ...entry, detail: `${entry.detail}, with what only it says of entries, such as their holes` };
}

/** Of a snapshot whose manifest is lost; null where the rest of it is none of ours either. */
async function savedWithoutManifest(
  from: Pick<Look, "reader" | "index">,
  snapshot: Pick<Snapshot, "tree" | "paths">,
): Promise<{ manifest: Manifest; root: Uint8Array } | null> {
  const saved = snapshot.paths.length === 1 ? await savedEntry(from, snapshot) : null;
  return saved === null ? null : { manifest: LOST_MANIFEST, root: saved.root };
}

function componentsOf(path: Uint8Array): string[] {
  return path.length === 0 ? [] : Buffer.from(path).toString("latin1").split("/");
}

function withoutFirst(path: Uint8Array, count: number): Uint8Array {
  return Buffer.from(componentsOf(path).slice(count).join("/"), "latin1");
}
