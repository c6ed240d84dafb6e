import type { MasterKeys } from "../../crypto/seal.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { SharedIndex } from "../../repository/index/blob-index.ts";
import type { HeldTree } from "./held-files.ts";
import type { LosslessByPath } from "./exact-nodes.ts";
import type { HoleList } from "./data-runs.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { NotSet } from "./node-writer.ts";

/** A task that every thread that writes a tree gets. */
export interface WriteTask {
  keys: MasterKeys;
  index: SharedIndex;
  /** the repository's `data` folder */
  packs: string;
  /** absolute path of the folder being filled, raw bytes */
  target: Uint8Array;
  /** exact holes of sparse files: path in latin1 → [offset, length] pairs */
  holes: ReadonlyMap<string, HoleList>;
  lossless: LosslessByPath;
  /** raw paths to be written with their parents; null: everything */
  paths: readonly Uint8Array[] | null;
  /** see `WriteTreeOptions` */
  comparesPieces: boolean;
  readOnly: boolean;
  /** see `WriteTreeOptions` */
  sparse: boolean;
  /** see `bitsOfNewFiles` */
  newBits: number;
  /** the folder holds files of a killed restore of the same content */
  resumes: boolean;
  held: HeldTree | null;
  /** by number of a pack: 0 while some of it is still being fetched; null: all are there. In shared memory */
  here: Uint8Array | null;
  /** word 0: threads that wait for work; word 1: stop */
  control: SharedArrayBuffer;
}

export interface DirectoryJob {
  /** path below the target, raw bytes, empty for the target itself */
  path: Uint8Array;
  tree: Uint8Array;
  /** own metadata, set when the content is complete; null for the target itself */
  node: Omit<TreeNode, "content"> | null;
  /** everything below is selected, whatever the task's paths are */
  whole: boolean;
}

/** Files of one directory that exists and that other threads write into as well. */
export interface FilesJob {
  /** of the directory */
  path: Uint8Array;
  tree: Uint8Array;
  /** numbers of the tree's nodes in writing order: nodes would take longer to hand over than to read */
  nodes: Uint32Array;
}

/** Gives work to a waiting thread. */
export type Share = (work: DirectoryJob[] | FilesJob) => void;

export interface LargeFile {
  path: Uint8Array;
  node: TreeNode;
  /** true: an interrupted restore left the file with some or all of its content */
  isLeft?: boolean;
}

/** A member of a hard-link group; members with equal groups are one file. */
export interface LinkedEntry extends LargeFile {
  group: string;
}

/** A run of chunks of a large file. */
export interface RangeJob {
  file: number;
  path: Uint8Array;
  content: Uint8Array;
  /** offset of the run's first byte in the file; sizes are looked up in the index */
  position: number;
  /** some of it may exist already */
  compares: boolean;
  /** mode of the file */
  mode: number;
}

/** Result of one thread with one batch of work. */
export interface WriteOutcome {
  /** directories, links, pipes, … */
  others: number;
  files: number;
  bytes: number;
  /** of these, bytes that existed already */
  keptBytes: number;
  /** files to be written in several runs, created and sized already */
  large: LargeFile[];
  /** directories not begun, because content of their files is still being fetched in these packs */
  waiting: { job: DirectoryJob; packs: number[] }[];
  /** members of hard-link groups, left to the caller */
  linked: LinkedEntry[];
  /** directories that the caller finishes at the end: their mode would lock their owner out, or other threads still write into them */
  closed: { path: Uint8Array; node: Omit<TreeNode, "content"> }[];
  notSet: NotSet[];
  damaged: { path: Uint8Array; detail: string }[];
}

export function newOutcome(): WriteOutcome {
  return {
    others: 0,
    files: 0,
    bytes: 0,
    keptBytes: 0,
    large: [],
    waiting: [],
    linked: [],
    closed: [],
    notSet: [],
    damaged: [],
  };
}

export type WriteRequest =
  | { kind: "write-begin"; task: WriteTask }
  | { kind: "write-directories"; jobs: DirectoryJob[] }
  | { kind: "write-files"; job: FilesJob }
  | { kind: "write-range"; job: RangeJob }
  | { kind: "write-finish"; file: LargeFile }
  | { kind: "write-end" };

/**
 * Work that a thread gives away because another waits; or the name of a damaged or missing pack whose content was read
 * from another pack (`elsewhere`) or is sound nowhere (`unsound`).
 */
export type WriteEvent = { work: DirectoryJob[] | FilesJob } | { elsewhere: string } | { unsound: string };

export interface WriteWork {
  requests: WriteRequest;
  replies: {
    "write-begin": null;
    "write-directories": WriteOutcome;
    "write-files": WriteOutcome;
    "write-range": { bytes: number; kept: number; damaged: string | null };
    "write-finish": NotSet[];
    "write-end": null;
  };
  events: WriteEvent;
}

/** Kind of work of threads that write trees. */
export const WRITE = "write" as KindOfWork<WriteWork>;
