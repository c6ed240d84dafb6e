import type { Degradation, EngineType } from "../contract/index.ts";

/** A clone driver: it holds whole trees as copies that share their content until one of them is written to. */
export interface TreeHolder {
  readonly type: Exclude<EngineType, "copy">;
  /** True when a capture is one moment of the whole tree. */
  readonly atomic: boolean;
  /** Says that a tree is about to be held, so that what that needs can start meanwhile. */
  prepare?(): void;
  /**
   * Holds the folder `root` (absolute, raw bytes) as it is at `place`: a read-only tree at a free absolute path of its
   * file system, durable when this returns. On failure nothing is left. Throws `unsupported` where the folder cannot be
   * held whole; `permission`, `already_exists`, `interrupted`, `no_space`.
   */
  capture(root: Uint8Array, place: string, call: HolderCall): Promise<Captured>;
  /**
   * True when the folder `root` has, at a moment of this call, just what it had when the held tree at `place` was made
   * of it, or it of the tree. Found out without looking at entries; `temporary` is a folder on the same file system to
   * try things in. Null where it cannot be told.
   */
  isStill?(root: Uint8Array, place: string, temporary: string): Promise<boolean | null>;
  /**
   * A writable copy of a held tree, or of any folder that the holder can copy, at `target` (absolute, raw bytes),
   * which does not exist yet and whose parent does. On failure nothing is left at `target`.
   * Throws as {@link capture} does.
   */
  materialise(place: string, target: Uint8Array, call: HolderCall): Promise<Captured>;
  /**
   * Removes a held or half-made tree; done again, or with nothing there, it does nothing. Not durable by itself:
   * after a power cut the tree may be there again. Throws `permission`, or `refused` for what is no tree of this holder.
   */
  remove(place: string | Uint8Array): Promise<void>;
}

export interface HolderCall {
  /** Seen between steps; one call to the file system is not stopped, but what it made is taken back. */
  signal?: AbortSignal | undefined;
  /** Told how many entries are done, by holders that go from entry to entry. */
  onProgress?: ((done: number) => void) | undefined;
  /** A folder on the same file system to try things in; without one, what has to be tried is not relied on. */
  temporary?: string | undefined;
  /**
   * Told right before a whole tree is made in one moment, with the time of the last change in it (ms since 1970). What
   * is written then becomes durable with the tree. `Captured.announced` says that nothing was changed meanwhile, and
   * `isAsAnnounced` finds it out of the tree.
   */
  announce?: ((lastChange: number) => void) | undefined;
}

export interface Captured {
  /** Parts of the tree that are not held as they were, or not by this driver's own means. */
  degraded: Degradation[];
  /**
   * Raw paths of what is another file system's or another subvolume's, as far as they are known: it is not in the
   * tree, and whatever the tree has at these places is not the folder's.
   */
  apart: readonly Uint8Array[];
  /** Raw paths of files that were changed while they were held. */
  torn: readonly Uint8Array[];
  /**
   * Raw paths of logs and journals of SQLite databases that have something in them or had until just now, and of databases that
   * were changed meanwhile; where the tree is of no one moment.
   */
  logs?: readonly Uint8Array[];
  /** True when it is what was announced last: whole, of one moment, all by this holder's own means. */
  announced?: boolean;
  /** Sources of its entries (`OriginList`), where the driver knows. */
  origins?: readonly Uint32Array[];
}
