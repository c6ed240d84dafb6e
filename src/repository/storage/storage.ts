import { advice, CairnError, call } from "../../errors.ts";

/** The kinds of files of a repository. The name of a file is the SHA-256 of its bytes, except for `config`. */
export type FileKind = "config" | "keys" | "locks" | "snapshots" | "index" | "data";

/** The kinds that have a folder of files. */
export const FOLDER_KINDS: readonly FileKind[] = ["keys", "locks", "snapshots", "index", "data"];

export const FILE_KINDS: readonly FileKind[] = ["config", ...FOLDER_KINDS];

const ONE_OF: Readonly<Record<FileKind, string>> = {
  config: "config",
  keys: "key",
  locks: "lock",
  snapshots: "snapshot",
  index: "index",
  data: "pack",
};

/** Names a file for messages: `pack 1a2b3c4d`, `config`. */
export function labelOf(kind: FileKind, name: string): string {
  return kind === "config" ? ONE_OF.config : `${ONE_OF[kind]} ${name.slice(0, 8)}`;
}

/** Names all files of a kind for messages: `packs`, `config`. */
export function labelOfAll(kind: FileKind): string {
  if (kind === "config") return ONE_OF.config;
  return kind === "index" ? "indexes" : `${ONE_OF[kind]}s`;
}

/**
 * Returns the error for an existing repository without one of its folders. A missing folder must not count as empty: a
 * prune would remove content that is still needed.
 */
export function missingFolder(kind: FileKind, listing = ""): CairnError {
  const rebuild = advice`make the folder and run ${call("backup repair index", "repair", { what: "index" })}, which rebuilds the index from the packs`;
  return new CairnError("damaged", `${listing}the repository has no folder ${kind}`, {
    hint:
      kind === "index"
        ? rebuild
        : "put the folder back from a copy of the repository, or from the place it was moved to",
    details: { missing_folder: kind },
  });
}

/** Hint for a full disk or quota of another machine. */
export const FULL_HINT = "make room there and run the command again: content that is already stored is used";

/** Milliseconds after which an unfinished file is a leftover. A running writer touches its files more often. */
export const STALE_TEMPORARY_MS = 60 * 60_000;

export interface StoredFile {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** When the file was written, by the storage's own clock, in milliseconds since 1970; absent if it does not tell. */
  readonly writtenAt?: number | undefined;
}

export type StorageOperation = "save" | "saveFile" | "load" | "list" | "exists" | "remove" | "sync";

/** A failed call that is about to be repeated. */
export interface RetryEvent {
  readonly operation: StorageOperation;
  readonly kind: FileKind;
  /** Number of the failed attempt, from 1. */
  readonly attempt: number;
  /** Pause until the next attempt, in milliseconds. */
  readonly delayMs: number;
  readonly error: CairnError;
}

/** The caller of a storage. Calls of different callers run concurrently, and each caller may abort alone. */
export interface StorageCall {
  /**
   * Ends a running call with `interrupted`. A call that starts after the abort runs to its end, so that an aborted
   * caller can finish a commit and remove its lock.
   */
  signal?: AbortSignal | undefined;
  /**
   * Called before a pause, so that a long one does not look like a hang. Of several calls that wait for one problem,
   * only the first reports it.
   */
  onRetry?: ((event: RetryEvent) => void) | undefined;
  /**
   * Tells whether loaded bytes are sound. If not, a remote storage loads them up to twice more, since the transfer may
   * have changed them. Absent: a whole file is compared with its name, a range is not checked.
   */
  isRight?: ((bytes: Uint8Array) => boolean) | undefined;
  /** Gets a message about wrong bytes: damaged in the transfer, or in the repository. */
  onWrong?: ((message: string) => void) | undefined;
}

/** Returns the signal for a call that starts now; a signal that has fired is ignored. */
export function signalOf(call: StorageCall | undefined): AbortSignal | undefined {
  return call?.signal?.aborted === true ? undefined : call?.signal;
}

export interface SaveOptions extends StorageCall {
  /** False: a power cut may lose the bytes until `sync` of this kind returns. Default true. */
  durable?: boolean;
  /**
   * The file gets its name only after this promise, and not if it rejects. Given only to `save` of a store, which
   * writes and flushes the bytes meanwhile.
   */
  after?: Promise<unknown> | undefined;
  /**
   * Called repeatedly with the number of bytes of `saveFile` that have reached the other machine. A retry starts again
   * from 0. Local storages do not call `onSent`.
   */
  onSent?: ((bytes: number) => void) | undefined;
}

/** Bytes `offset` to `offset + length` of a file. */
export interface ByteRange {
  offset: number;
  length: number;
}

/**
 * A place for the files of a repository. Every implementation promises:
 *
 * - `save` and `saveFile` are atomic: a reader sees no file or the whole file, also after a kill. A file that exists is
 *   replaced by the same bytes (names are digests), except `config`: `already_exists`.
 * - Saved with `durable: false`, a file is visible at once, survives a kill of the process, and survives a power cut
 *   only after `sync` of its kind. `sync` covers the files that this object saved or removed. An index, and a lock
 *   except in a store, is flushed before it gets its name, so that a power cut leaves no empty one.
 * - The caller decides the order of writes by awaiting each call: a file is visible once its call has returned.
 * - `load` of a range that is not wholly inside the file is `damaged`; of an absent file `not_found`.
 * - `list` names only files with a valid name (64 hex digits, or `config`). A repository without a folder for locks has
 *   no locks.
 * - `remove` of an absent file is `not_found`.
 * - An aborted call throws `interrupted`: nothing was done, unless the details say `undecided`. A commit (`decides`)
 *   that has started goes on to its end.
 * - No call is retried. A `retryable` error (`io`, `busy`) may be temporary; any other is permanent. After a failed
 *   `save` the file may exist all the same (a late success): saving again is always right.
 */
export interface Storage {
  /** The location for messages: a path or an address, without secrets. */
  readonly location: string;
  /** Local folder whose files `saveFile` takes over by a rename, without a copy; absent for storages on other machines. */
  readonly temporaryDirectory?: string;
  /** True: the store of a control directory. All writers rename there, so a file is never seen in part. */
  readonly isStore?: boolean;
  save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void>;
  /** Moves the file at `temporaryPath` into the storage, best on the same file system. Afterwards the path is gone. */
  saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void>;
  load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array>;
  list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]>;
  exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean>;
  remove(kind: FileKind, name: string, call?: StorageCall): Promise<void>;
  sync(kinds: readonly FileKind[], call?: StorageCall): Promise<void>;
  /** Returns the storage's own time, in milliseconds since 1970, to compare with `writtenAt`; null if it is not told. */
  now?(call?: StorageCall): Promise<number | null>;
  /** Returns the path of a file for synchronous readers. Only local storages have this method. */
  localPath?(kind: FileKind, name: string): string;
  /** Removes unfinished files of killed writers that are older than `ageMs`. Best effort; returns the number. */
  clearTemporaries?(ageMs: number, call?: StorageCall): Promise<number>;
  /**
   * Closes the connections, also those in use; afterwards a lock can still be removed. Absent if there is nothing to
   * close.
   */
  close?(): Promise<void>;
}

/** Bytes of each stored pack, by name. */
export type PackSizes = ReadonlyMap<string, number>;

export async function packSizes(storage: Storage): Promise<Map<string, number>> {
  return new Map((await storage.list("data")).map(({ name, size }) => [name, size]));
}

/**
 * Kinds whose folder is made with its first file: missing folders below `data`, and that of locks, which rustic does
 * not make.
 */
export function comesWithFolder(kind: FileKind): boolean {
  return kind === "data" || kind === "locks";
}

/** True if writes and removals of this kind are commits. Packs are not: they count only once an index lists them. */
export function decides(kind: FileKind): boolean {
  return kind !== "data";
}

const LOOKS: ReadonlySet<StorageOperation> = new Set(["load", "list", "exists"]);

/** Returns the signal for a write or removal that starts now; none for a commit. */
export function signalOfWrite(kind: FileKind, call: StorageCall | undefined): AbortSignal | undefined {
  return decides(kind) ? undefined : signalOf(call);
}

/** True for a call that an abort may end at once: reads, and writes that are not commits. */
export function isCutOff(operation: StorageOperation, kind: FileKind): boolean {
  return LOOKS.has(operation) || !decides(kind);
}

/** True if a write or removal with this error may have taken effect. */
export function mayBeDone(error: CairnError): boolean {
  return error.retryable || error.details?.["undecided"] === true;
}

const NAME = /^[0-9a-f]{64}$/;

/** True for a valid file name of this kind. Checked before the name is used in a path. */
export function isFileName(kind: FileKind, name: string): boolean {
  return kind === "config" ? name === "config" : NAME.test(name);
}
