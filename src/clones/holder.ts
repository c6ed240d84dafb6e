import type { Degradation, EngineType } from "../contract/index.ts";

/** A clone driver: it holds whole trees as copies that share their content until one of them is written to. */
export interface TreeHolder {
  readonly type: Exclude<EngineType, "copy">;
  /** True if a capture is one moment of the whole tree. */
  readonly atomic: boolean;
  /** Announces a capture, so that preparations can start meanwhile. */
  prepare?(): void;
  /**
   * Holds the folder `root` (absolute, raw bytes) as it is at `place`: a read-only tree at a free absolute path of its
   * file system, durable when this returns. On failure nothing is left. Throws `unsupported` if the folder cannot be
   * held whole; `permission`, `already_exists`, `interrupted`, `no_space`.
   */
  capture(root: Uint8Array, place: string, call: HolderCall): Promise<Captured>;
  /**
   * True if the folder `root` is, at a moment of this call, unchanged since the held tree at `place` was made from it,
   * or it from the tree. Looks at no entries; `temporary` is a folder on the same file system for trials. Null if the
   * answer is not known.
   */
  isStill?(root: Uint8Array, place: string, temporary: string): Promise<boolean | null>;
  /**
   * Makes a writable copy of a held tree, or of any folder that the holder can copy, at `target` (absolute, raw bytes),
   * which must not exist but its parent must. On failure nothing is left at `target`. Throws as {@link capture} does.
   */
  materialise(place: string, target: Uint8Array, call: HolderCall): Promise<Captured>;
  /**
   * Removes a held or half-made tree; does nothing if there is none. Not durable by itself: after a power cut the tree
   * may exist again. Throws `permission`, or `refused` for a tree of another kind.
   */
  remove(place: string | Uint8Array): Promise<void>;
}

export interface HolderCall {
  /** Checked between steps; a running call to the file system is not interrupted, but its result is removed. */
  signal?: AbortSignal | undefined;
  /** Called with the number of finished entries, by holders that go entry by entry. */
  onProgress?: ((done: number) => void) | undefined;
  /** A folder on the same file system for trials; without it, behaviour that needs a trial is not used. */
  temporary?: string | undefined;
  /**
   * Called right before a whole tree is made at one moment, with the time of its last change (ms since 1970). Records
   * written in the call become durable with the tree. `Captured.announced` says that nothing changed meanwhile, and
   * `isAsAnnounced` checks that from the tree.
   */
  announce?: ((lastChange: number) => void) | undefined;
}

export interface Captured {
  /** Parts of the tree that are not held exactly, or not by this driver's own means. */
  degraded: Degradation[];
  /**
   * Raw paths of mounts and nested subvolumes, as far as known: their content is not in the tree, and the tree's own
   * entries at these paths are not the folder's.
   */
  apart: readonly Uint8Array[];
  /** Raw paths of files that changed during the capture. */
  torn: readonly Uint8Array[];
  /**
   * Raw paths of logs and journals of SQLite databases that are or were just in use, and of databases that changed
   * meanwhile. Given only if the tree is not of one moment.
   */
  logs?: readonly Uint8Array[];
  /** True if the tree is exactly the last announced state, held whole and at one moment. */
  announced?: boolean;
  /** Sources of its entries (`OriginList`), if the driver knows them. */
  origins?: readonly Uint32Array[];
}
