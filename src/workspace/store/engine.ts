import type { ConsistencyLabel, Descriptor } from "../../formats/records/descriptor.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { FoundIgnoreFile } from "../../fs/ignore.ts";
import type { BlobSource, OnDamagedPack } from "../../repository/read/blob-source.ts";
import type { ForwardTarget } from "../../repository/transfer/forward.ts";
import type { NearPacks } from "../../repository/read/near-packs.ts";
import type { Repository } from "../../repository/repository.ts";
import type { TransferProgress } from "../../repository/transfer/transfer.ts";
import type { StatCache } from "../../archive/cache/stat-cache.ts";
import type { TouchedFolder } from "../../archive/cache/unchanged.ts";
import type { HeldAs } from "../../archive/scan/databases.ts";
import type { ScanProgress, ScanResult } from "../../archive/scan/scan.ts";
import type { ScanRequest } from "../../archive/scan/task.ts";
import type { PointContent, ExamineRequest } from "./store-care.ts";
import type { RootMetadata } from "../../archive/write/root-metadata.ts";
import type { HeldTree } from "../../archive/write/held-files.ts";
import type { EntryCounts, ScanSummary } from "../../archive/scan/summary.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";

type BlobIndex = BlobSource["index"];

export type { Degradation, EngineType } from "../../contract/index.ts";
export type { PointContent } from "./store-care.ts";

/** Content of the head point. A save takes it over if tree and digest, which covers more metadata, are unchanged. */
export type HeadContent = Pick<Descriptor, "content" | "entries" | "bytes" | "complete" | "metadata_digest" | "labels">;

/** A database whose rows name files of a folder: raw paths below the root. */
export interface Attachments {
  database: Uint8Array;
  folder: Uint8Array;
  /** The query that names the files; null: they are not compared. */
  query: string | null;
}

/** A save's request to the store. */
export interface StageRequest {
  scan: ScanRequest;
  /** the path to record, raw bytes: of the folder, even if a clone of it is scanned */
  recordedRoot: Uint8Array;
  /** labels that were found when the tree was taken, and cannot be seen in it */
  labels?: readonly ConsistencyLabel[];
  /** `auto`: databases in use are captured. `copy`: databases are ordinary files. Else: databases of a held tree, recovered in a copy. */
  databases: "auto" | "copy" | (Omit<HeldAs, "tree"> & { still: readonly Uint8Array[] });
  /** databases that are captured before anything is read */
  attachments?: readonly Attachments[] | undefined;
  /** The folder exists for this one scan only: no stat cache of it is kept. */
  passing?: boolean;
  /** the point that head names, or null */
  head: HeadContent | null;
  /** id in the tag of the new snapshot */
  pointId: string;
  /** bytes that may be stored, else `no_space` with `most_bytes` in its details; null: any number */
  mostBytes?: number | null | undefined;
  /** another repository, which also gets all new blobs */
  forward?: ForwardTarget | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: ScanProgress) => void) | undefined;
  /** called with warnings about content that the engine lost; the save goes on */
  onWarning?: ((message: string) => void) | undefined;
}

/** Content that is durable but belongs to no point yet. After `discard` or a kill the next clean-up removes the rest. */
export interface StagedContent {
  content: PointContent;
  scan: ScanResult;
  summary: ScanSummary;
  bytesStored: number;
  /** tree, hex, of the state that the scan was compared with; null if there was none */
  previousTree: string | null;
  /** Writes caches and does maintenance once the descriptor is in place. Never fails. */
  settled(): Promise<void>;
  /** Removes the snapshot if no descriptor is written; the next clean-up removes the blobs. Never fails. */
  discard(): Promise<void>;
}

/** A call that scans and stores nothing. */
export interface LookCall {
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: ScanProgress) => void) | undefined;
}

/** Result of a scan that stored nothing. */
export interface LookedAt {
  scan: ScanResult;
  /** tree, hex, of the state that the scan was compared with; null if there was none */
  previousTree: string | null;
}

/** The state from which changes of a folder are counted: the stat cache of a scan, and its ignore rules. */
export interface ScanBasis {
  cache: string;
  rules: string;
}

/** Changes of one folder, reported by a watcher as they happen. */
export interface FolderChanges {
  /** the folder's absolute path, raw bytes */
  readonly root: Uint8Array;
  /** Notes all changes until now. Returns a mark; later changes come after this mark. */
  mark(): number;
  /** Changes since the state that was kept last; null if `basis` is another state, or some changes may have been missed. */
  since(basis: ScanBasis): TouchedFolder | null;
  /**
   * Directories in which a name was added, removed or renamed after `mark`, as {@link TouchedFolder} has them; null if
   * some changes may have been missed.
   */
  renamedIn(mark: number): string[] | null;
  /** Counts changes from the state that a scan which began after `mark` found. `isWhole`: the scan also read young files. */
  keep(basis: ScanBasis, mark: number, isWhole: boolean): void;
  /** The stat cache of that state, for one scan at a time; null if none is in memory. */
  readonly held: HeldCache | null;
  /** Keeps a stat cache in memory. `save`, called some time later, writes it into a file and returns the file's name, or null. */
  hold(held: HeldCache, save: () => string | null): void;
  /** The store's index as the last operation left it, for one operation; null if the index must be read. */
  takeIndex(): BlobIndex | null;
  giveIndex(index: BlobIndex): void;
}

/** A stat cache in memory. */
export interface HeldCache {
  /** Name of the file at the cache's path when this cache was made. If another file lies there now, this cache is out of date. */
  file: string;
  readonly name: string;
  readonly cache: StatCache;
  /** Index files that the cache relies on; null: those that the file beside the stat cache lists. */
  readonly indexes: ReadonlySet<string> | null;
}

export type ChangesOf = (root: Uint8Array) => FolderChanges | null;

/** Entries of one folder that a watcher sees being created, renamed or written. */
export interface SeenEntries {
  /** Databases that saves have found, for the next save: raw paths below the folder, as latin1. */
  readonly databases: Set<string>;
  /**
   * Returns the files and the new directories seen since the last call, as `databases` has them. Null if some may be
   * missing, and at the first call: nothing is known of entries from before the watch.
   */
  takeSeen(): ReadonlySet<string> | null;
  /** The next {@link takeSeen} returns null, because the entries of the last one were not used. */
  loseSeen(): void;
}

export type SeenIn = (root: Uint8Array) => SeenEntries | null;

export interface StoreFacts {
  /** Bytes of the packs that the index lists. Leftovers of a killed save are not counted. */
  bytes: number;
  repositoryId: string;
  /** True if the store has snapshots of other programs; false if the caller did not ask. */
  foreign: boolean;
}

/** A request to write a point, or some of its paths, into a folder. */
export interface WriteRequest {
  /** an empty folder that exists, absolute, raw bytes; its own metadata is the caller's */
  target: Uint8Array;
  /** only this folder of the content: `target` gets its entries */
  part?: { path: Uint8Array; tree: Uint8Array } | undefined;
  /** raw paths below the root, or below `part`, each with everything below it; null: everything */
  paths: readonly Uint8Array[] | null;
  /** files and directories get no write permission, so that people only look at them */
  readOnly?: boolean;
  /** a held tree with the same content, and when it was complete (ms since 1970): files unchanged since then are cloned */
  held?: HeldTree | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: (progress: { done: number; bytes: number }) => void;
}

export interface ShareRequest {
  pointId: string;
  /** the workspace's path; raw bytes */
  root: Uint8Array;
  /** of a new workspace: path of its stat cache, and its folder until the folder gets its path */
  fork?: { statCache: string; folder: Uint8Array };
}

export interface WrittenContent {
  /** of all kinds, without the folder itself */
  entries: number;
  bytes: number;
  /** attributes that the system refused to set; the entries are there */
  notSet: NotSet[];
  /** paths that were not written, because their content is damaged or missing */
  damaged: { path: Uint8Array; detail: string }[];
  /** lists entries that the content lacks, since they could not be read: of the whole point, whichever paths were asked for */
  lacks: Pick<Manifest, "omitted" | "labels"> | null;
}

/** Place of a point's content in the store, for copying it elsewhere while the store is `reading`. */
export interface StoredContent {
  readonly repository: Repository;
  /** The present index. */
  readonly index: BlobIndex;
  readonly blobs: BlobSource;
  /** called with each pack that is damaged or missing if its blobs were read from other packs */
  readonly onDamagedPack: OnDamagedPack;
  /** id of the tree that the point's snapshot names: the path from `/` down to the folder, and its manifest */
  readonly snapshotTree: Uint8Array;
}

/** A repository other than the engine's, to be read under its lock. */
export interface ContentElsewhere {
  readonly repository: Repository;
  readonly index: BlobIndex;
  readonly near: NearPacks;
  readonly blobs: BlobSource;
  /** called with each pack that is damaged or missing if its blobs were read from other packs */
  readonly onDamagedPack: OnDamagedPack;
}

/** A file of a folder whose tree lacks it; `path`: raw, below that tree. */
export interface FileBesideTree {
  path: Uint8Array;
  /** Calls `take` with each blob, and returns the file's node. */
  read(take: (id: Uint8Array, bytes: Uint8Array) => void): Promise<TreeNode>;
}

export interface ReceiveRequest {
  from: ContentElsewhere;
  /** of the saved folder, 32 bytes */
  tree: Uint8Array;
  rootMetadata: RootMetadata;
  manifest: Manifest;
  /** raw paths below `tree`, each with everything below it; null: everything */
  paths: readonly Uint8Array[] | null;
  /** files that are part of the content, but not of `tree` */
  files?: readonly FileBesideTree[];
  pointId: string;
  /** the workspace's path, raw bytes */
  root: Uint8Array;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: TransferProgress) => void) | undefined;
}

export interface ReceivedContent {
  content: PointContent;
  /** of the received entries */
  manifest: Manifest;
  entries: EntryCounts;
  bytes: number;
  bytesStored: number;
  /** of the whole tree, whichever paths were asked for */
  ignoreFiles: FoundIgnoreFile[];
}

/** A signal that stops a call which changes nothing. */
export interface StoppableCall {
  signal?: AbortSignal | undefined;
}

export interface ReadingCall extends StoppableCall {
  /** called with warnings about damaged packs whose blobs are read from other packs */
  onWarning?: ((message: string) => void) | undefined;
}

export interface LostRequest extends StoppableCall {
  /** True: read all packs, which also finds damaged content. False: find only missing and short packs. */
  reads?: boolean | undefined;
  onProgress?: ExamineRequest["onProgress"];
  /** called with a warning about lost packs */
  onWarning?: ((message: string) => void) | undefined;
}
