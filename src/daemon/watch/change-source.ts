import type { Change } from "../../fs/linux/fanotify.ts";

/** A folder as a source watches it. */
export interface WatchedPlace {
  /** The folder's path as latin1. */
  readonly root: string;
  fileSystem: string;
  /** Number of the mount that it lies on. */
  mount: number;
  device: number;
}

/** Tells of a change: the path of its directory as latin1, or null where it is in no watched folder. */
export type Told = (directory: string | null, change: Change) => void;

/** Says that changes may not have been told. */
export interface Lost {
  /** Those of all folders. */
  all(why: string): void;
  /** Those of one, which is not at its path now. */
  away(root: string): void;
  /** Those of one, which is watched no more. */
  ended(root: string, why: string): void;
}

/** Somebody who is told by the kernel what changes. */
export interface ChangeSource {
  /** Something can be read from it when there is something to tell. */
  readonly fd: number;
  /** True where it tells of each change, by whichever name and mount it is made, so that a scan may go by it. */
  readonly isWhole: boolean;
  /** False for a type of file system on which it is not told of each change. */
  tells(type: string): boolean;
  /** Watches a folder from when it resolves on. False where that is not possible; `why` is in the log then. */
  watch(place: WatchedPlace): Promise<boolean> | boolean;
  unwatch(place: WatchedPlace): void;
  /** Tells what waits, or a part of it. False: nothing waits. */
  read(told: Told, lost: Lost): boolean;
  /** Paths may be others now than those that it knows. */
  forget(): void;
  /** Nothing more is read for now. */
  pause(): void;
  close(): void;
}
