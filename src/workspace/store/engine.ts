import type { ConsistencyLabel } from "../../formats/records/descriptor.ts";
import type { Manifest } from "../../formats/records/manifest.ts";
import type { FoundIgnoreFile, IgnoreRecord } from "../../fs/ignore.ts";
import type { BlobIndex } from "../../repository/index/blob-index.ts";
import type { BlobSource } from "../../repository/read/blob-source.ts";
import type { ForwardTarget } from "../../repository/transfer/forward.ts";
import type { NearPacks } from "../../repository/read/near-packs.ts";
import type { Repository } from "../../repository/repository.ts";
import type { TransferProgress } from "../../repository/transfer/transfer.ts";
import type { ClonedFrom } from "../../archive/cache/origins.ts";
import type { StatCache } from "../../archive/cache/stat-cache.ts";
import type { TouchedFolder } from "../../archive/cache/unchanged.ts";
import type { HeldAs } from "../../archive/scan/databases.ts";
import type { ScanProgress, ScanResult } from "../../archive/scan/scan.ts";
import type { Degradation } from "../../contract/index.ts";
import type { PointContent, VerifyStoreRequest } from "./store-care.ts";
import type { RootMetadata } from "../../archive/write/root-metadata.ts";
import type { HeldTree } from "../../archive/write/held-files.ts";
import type { EntryCounts, ScanSummary } from "../../archive/scan/summary.ts";
import type { NotSet } from "../../archive/write/node-writer.ts";

export type { Degradation, EngineType } from "../../contract/index.ts";
export type { PointContent } from "./store-care.ts";

/** Content of head: taken over when the folder is found to be the same. */
export interface HeadContent {
  content: PointContent;
  entries: EntryCounts;
  bytes: number;
  complete: boolean;
  /** hex; null until sealed. Trees do not hold all that it covers */
  metadataDigest: string | null;
  labels: readonly ConsistencyLabel[];
}

/** A database whose rows name files of a folder: raw paths below the root. */
export interface Attachments {
  database: Uint8Array;
  folder: Uint8Array;
}

/** A save's request to the store. */
export interface StageRequest {
  /** the folder's absolute path, raw bytes */
  root: Uint8Array;
  /** the path that is recorded, where the folder only lies at its root for now */
  recordedRoot?: Uint8Array;
  excludes: readonly string[];
  rules: IgnoreRecord | null;
  /** An ignore file that is too long to be read hides nothing; absent: it is refused. */
  passesLongRules?: boolean;
  /** entries that are never part of a state, by path in latin1 */
  skip: readonly string[];
  reread: boolean;
  /** The folder is a tree that nothing changes any more, held at or after this moment: milliseconds since 1970. */
  heldAt?: number;
  /** The folder is a clone, made after `heldAt`; what is said of its entries is what their sources were then. */
  clonedFrom?: ClonedFrom;
  /** what was found out of its entries when it was taken, and cannot be seen in it */
  labels?: readonly ConsistencyLabel[];
  /** `auto`: databases in use are captured. `copy`: databases are ordinary files. Else: databases of a held tree, recovered in a copy. */
  databases: "auto" | "copy" | (Pick<HeldAs, "folders"> & { still: readonly Uint8Array[] });
  /** databases that are captured before anything is read */
  attachments?: readonly Attachments[];
  crossMounts: boolean;
  /** The folder is there for this one reading alone: no stat cache is kept of it. */
  passing?: boolean;
  /** the point that head names, or null */
  head: HeadContent | null;
  /** A look reads no large file whose times, size and inode are as they were, however young: it may miss what was stored through a mapping. */
  byTimes?: boolean;
  /** A look ends with `FoundDifference` as soon as an entry shows, unread, that it is not head's, where the last scan was of that. */
  untilDifferent?: boolean;
  /** tags its snapshot carries, when the engine makes one */
  pointId: string;
  message: string;
  /** bytes that may be stored, else `no_space` with `most_bytes` in its details; null: any number */
  mostBytes?: number | null;
  /** another repository, which gets everything new too */
  forward?: ForwardTarget | undefined;
  signal?: AbortSignal;
  onProgress?: ((progress: ScanProgress) => void) | undefined;
  /** told what the engine has lost, which does not keep anything from being recorded */
  onWarning?: ((message: string) => void) | undefined;
}

/** Content that is durable but belongs to no point yet; `discard` or a kill leaves only what the next clean-up takes. */
export interface StagedContent {
  content: PointContent;
  scan: ScanResult;
  summary: ScanSummary;
  bytesStored: number;
  /** tree, hex, of the state that the scan was compared with; null when there was none */
  previousTree: string | null;
  degraded: Degradation[];
  /** After the descriptor is in place: caches, maintenance. Never fails. */
  settled(): Promise<void>;
  /** Instead of a descriptor: takes back what would be seen as a point's; content stays for the next clean-up. Never fails. */
  discard(): Promise<void>;
}

/** A folder as it is, without anything having been stored. */
export interface LookedAt {
  scan: ScanResult;
  /** tree, hex, of the state that the scan was compared with; null when there was none */
  previousTree: string | null;
}

/** State of a folder that changes are counted from: the stat cache of a scan, and the rules that it went by. */
export interface ScanBasis {
  cache: string;
  rules: string;
}

/** Changes of one folder, from somebody who is told of each as it is made. */
export interface FolderChanges {
  /** the folder's absolute path, raw bytes */
  readonly root: Uint8Array;
  /** Takes note of all that has changed until now: what changes later is after the mark that it returns. */
  mark(): number;
  /** Changes since the state that was kept last; null where it is another one, or some may have been missed. */
  since(basis: ScanBasis): TouchedFolder | null;
  /** Counts from the state that a scan which began after the mark has found. `isWhole`: it has read what was young, too. */
  keep(basis: ScanBasis, mark: number, isWhole: boolean): void;
  /** The stat cache of that state, to be used by one scan after the other; null where none is in memory. */
  readonly held: HeldCache | null;
  /** Keeps a stat cache in memory. `save`, called some time later, writes it into its file: that file's name, or null. */
  hold(held: HeldCache, save: () => string | null): void;
  /** The index of the store as the last operation left it, for one operation; null where it has to be read. */
  takeIndex(): BlobIndex | null;
  giveIndex(index: BlobIndex): void;
}

/** A stat cache in memory. */
export interface HeldCache {
  /** File that lay in the cache's place when this one was made: with another one there it is not the last any more. */
  file: string;
  readonly name: string;
  readonly cache: StatCache;
  /** Index files that it relies on; null: as the file beside it says. */
  readonly indexes: ReadonlySet<string> | null;
}

export type ChangesOf = (root: Uint8Array) => FolderChanges | null;

export interface StoreFacts {
  /** Bytes of the packs that the index knows; what a killed save left is not counted. */
  bytes: number;
  repositoryId: string;
  /** True when snapshots that are not ours lie in it; asked for, else false. */
  foreign: boolean;
}

/** A request to write a point: what of it, and into which folder. */
export interface WriteRequest {
  /** an empty folder that exists, absolute, raw bytes; its own metadata is the caller's */
  target: Uint8Array;
  /** raw paths below the root with what they are in; null: everything */
  paths: readonly Uint8Array[] | null;
  /** nothing may be written to: for people to look into */
  readOnly?: boolean;
  /** a held tree that should have the content too, and when it was complete (ms since 1970): what is as it was made is cloned */
  held?: HeldTree | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: (progress: { done: number; bytes: number }) => void;
}

export interface ShareRequest {
  pointId: string;
  /** the workspace's path; raw bytes */
  root: Uint8Array;
  /** of a new workspace: where its stat cache will lie, and its folder until that gets its path */
  fork?: { statCache: string; folder: Uint8Array };
}

export interface WrittenContent {
  /** of all kinds, without the folder itself */
  entries: number;
  bytes: number;
  /** what the system refused to set; the entry is there */
  notSet: NotSet[];
  /** what the engine does not hold whole any more; it is not there */
  damaged: { path: Uint8Array; detail: string }[];
  /** says what the content lacks, since it could not be read; of all of it, whatever was asked for */
  lacks: Pick<Manifest, "omitted" | "labels"> | null;
}

/** Place of a point's content, to be taken elsewhere as it is stored; while the store is `reading`. */
export interface StoredContent {
  readonly repository: Repository;
  /** As it is now. */
  readonly index: BlobIndex;
  readonly blobs: BlobSource;
  /** told of each pack that is damaged or missing, and of which something is read from others */
  readonly onElsewhere: (pack: string) => void;
  /** id of the tree that the point's snapshot names: the path from `/` down to the folder, and its manifest */
  readonly snapshotTree: Uint8Array;
}

/** A repository that is none of the engine's, to be read under its lock. */
export interface ContentElsewhere {
  readonly repository: Repository;
  readonly index: BlobIndex;
  readonly near: NearPacks;
  readonly blobs: BlobSource;
  /** told of each pack that is damaged or missing, and of which something is read from others */
  readonly onElsewhere: (pack: string) => void;
}

export interface ReceiveRequest {
  from: ContentElsewhere;
  /** of the folder that was saved, 32 bytes */
  tree: Uint8Array;
  rootMetadata: RootMetadata;
  manifest: Manifest;
  /** raw paths below it with what they are in; null: everything */
  paths: readonly Uint8Array[] | null;
  pointId: string;
  /** the workspace's path, raw bytes */
  root: Uint8Array;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: TransferProgress) => void) | undefined;
}

export interface ReceivedContent {
  content: PointContent;
  /** of what was received */
  manifest: Manifest;
  entries: EntryCounts;
  bytes: number;
  bytesStored: number;
  /** of the whole tree, whatever of it was asked for */
  ignoreFiles: FoundIgnoreFile[];
}

/** A signal that stops a call which changes nothing. */
export interface StoppableCall {
  signal?: AbortSignal | undefined;
}

export interface ReadingCall extends StoppableCall {
  /** told of what is damaged, and read from where it is there too */
  onWarning?: ((message: string) => void) | undefined;
}

export interface LostRequest extends StoppableCall {
  /** reads everything, and so finds what is there and not what was written */
  reads?: boolean | undefined;
  onProgress?: VerifyStoreRequest["onProgress"];
  /** told what is lost */
  onWarning?: ((message: string) => void) | undefined;
}
