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

/** Somebody who is told by the kernel what changes. */
export interface ChangeSource {
  /** Something can be read from it when there is something to tell. */
  readonly fd: number;
  /** True where it tells of a file of a folder whatever the name is by which it is changed. */
  readonly byAnyName: boolean;
  /** False for a type of file system on which it is not told of each change. */
  tells(type: string): boolean;
  /** Watches a folder from when it resolves on. False where that is not possible; `why` is in the log then. */
  watch(place: WatchedPlace): Promise<boolean> | boolean;
  unwatch(place: WatchedPlace): void;
  /** Tells what waits, or a part of it. False: nothing waits. `lost`: changes in some folder, or in all, may not be told. */
  read(told: Told, lost: (why: string, root: string | null) => void): boolean;
  /** Paths may be others now than those that it knows. */
  forget(): void;
  /** Nothing more is read for now. */
  pause(): void;
  close(): void;
}
