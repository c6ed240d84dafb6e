import type { Change } from "../../fs/linux/fanotify.ts";

/** A folder as a source watches it. */
export interface WatchedPlace {
  /** The folder's path as latin1. */
  readonly root: string;
  fileSystem: string;
  /** Number of the folder's mount. */
  mount: number;
  device: number;
}

/** Receives a change: the path of its directory as latin1, or null if the directory is in no watched folder. */
export type Told = (directory: string | null, change: Change) => void;

/** Receives reports that changes may be missing. */
export interface Lost {
  /** Changes of all folders may be missing. */
  all(why: string): void;
  /** Events of one folder were lost because the folder was moved. */
  away(root: string): void;
  /** One folder is no longer watched. */
  ended(root: string, why: string): void;
}

/** A queue of the kernel that reports changes. */
export interface ChangeSource {
  /** The descriptor can be read when changes wait. */
  readonly fd: number;
  /** True if the source reports each change, by every name and mount, so that a scan may rely on it. */
  readonly isWhole: boolean;
  /** False for a type of file system on which the source misses changes. */
  tells(type: string): boolean;
  /** Watches a folder from when the call resolves. False if that is impossible; the source then logs the reason. */
  watch(place: WatchedPlace): Promise<boolean> | boolean;
  unwatch(place: WatchedPlace): void;
  /** False if another directory is at the folder's path than the one that is watched. */
  isAt(place: WatchedPlace): boolean;
  /** False if changes in some directories of a watched folder are not reported. */
  seesAll(place: WatchedPlace): boolean;
  /** Reports waiting changes, or some of them. False: no change waits. */
  read(told: Told, lost: Lost): boolean;
  /** Drops known paths, which may have changed. */
  forget(): void;
  /** Stops reading for now. */
  pause(): void;
  close(): void;
}
