import type { DerivedContent } from "../../repository/read/derived-blobs.ts";
import type { MasterKeys } from "../../crypto/seal.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import type { SharedIndex } from "../../repository/index/blob-index.ts";
import type { HeldTree } from "./held-files.ts";
import type { LosslessByPath } from "./exact-nodes.ts";
import type { HoleList } from "./data-runs.ts";
import type { KindOfWork } from "../../threads/worker-thread.ts";
import type { NotSet } from "./node-writer.ts";

/** Options of a writer of trees that each thread gets, too. */
export interface WriteHow {
  keys: MasterKeys;
  /** the repository's `data` folder */
  packs: string;
  /** an empty folder that exists, absolute, raw bytes */
  target: Uint8Array;
  /** raw paths with their parents; null or absent: everything */
  paths?: readonly Uint8Array[] | null;
  /**
   * Compares each piece of content with its id. Default true; false if the written folder is read again and compared as
   * a whole: then only files that their owner may not read.
   */
  comparesPieces?: boolean;
  /** modes without write permission, and no metadata that only the owner may set */
  readOnly?: boolean;
  /** the folder holds files of a killed restore of the same content */
  resumes?: boolean;
  /** a held tree whose files are cloned if they have not changed */
  held?: HeldTree | undefined;
  /** exact holes of sparse files: path in latin1 → [offset, length] pairs */
  holes: ReadonlyMap<string, HoleList>;
  /** blocks of zeros become holes in files without recorded holes */
  sparse?: boolean;
  /** owners and groups get the ids that their names have on this machine */
  ownersByName?: boolean;
  /** the manifest's facts of entries that nodes cannot hold */
  lossless?: LosslessByPath;
  /** blobs that the index lists and no pack has */
  derived?: DerivedContent | null;
}

/** A task that every thread that writes a tree gets. */
export interface WriteTask extends WriteHow {
  index: SharedIndex;
  /** see `bitsOfNewFiles` */
  newBits: number;
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
  /** members of hard-link groups, made at the end */
  linked: LinkedEntry[];
  /** directories to finish at the end: their mode would lock their owner out, or other threads still write into them */
  closed: { path: Uint8Array; node: Omit<TreeNode, "content"> }[];
  notSet: NotSet[];
  damaged: { path: Uint8Array; detail: string }[];
  /** names of owners that this machine lacks; only with `ownersByName` */
  unknownOwners: string[];
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
    unknownOwners: [],
  };
}

export type WriteRequest =
  | { kind: "write-begin"; task: WriteTask }
  | { kind: "write-directories"; jobs: DirectoryJob[] }
  | { kind: "write-files"; job: FilesJob }
  | { kind: "write-range"; job: RangeJob }
  | { kind: "write-finish"; file: LargeFile; isDamaged: boolean }
  | ({ kind: "write-last" } & Pick<WriteOutcome, "linked" | "closed">)
  | { kind: "write-end" };

/**
 * Work that a thread gives away because another waits; or the name of a damaged or missing pack. `isElsewhere`: its
 * content was read from another pack.
 */
export type WriteEvent = { work: DirectoryJob[] | FilesJob } | { damaged: string; isElsewhere: boolean };

export interface WriteWork {
  requests: WriteRequest;
  replies: {
    "write-begin": null;
    "write-directories": WriteOutcome;
    "write-files": WriteOutcome;
    "write-range": { bytes: number; kept: number; damaged: string | null };
    "write-finish": NotSet[];
    "write-last": WriteOutcome;
    "write-end": null;
  };
  events: WriteEvent;
}

/** Kind of work of threads that write trees. */
export const WRITE = "write" as KindOfWork<WriteWork>;
