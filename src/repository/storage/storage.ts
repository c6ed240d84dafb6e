import { advice, CairnError, call } from "../../errors.ts";

/** The kinds of files of a repository; all but `config` are named by the SHA-256 of their bytes. */
export type FileKind = "config" | "keys" | "locks" | "snapshots" | "index" | "data";

/** The kinds that are folders of files. */
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

/** Names a file in messages: `pack 1a2b3c4d`, `config`. */
export function labelOf(kind: FileKind, name: string): string {
  return kind === "config" ? ONE_OF.config : `${ONE_OF[kind]} ${name.slice(0, 8)}`;
}

/** All files of a kind, for messages: `packs`, `config`. */
export function labelOfAll(kind: FileKind): string {
  if (kind === "config") return ONE_OF.config;
  return kind === "index" ? "indexes" : `${ONE_OF[kind]}s`;
}

/** A repository that is there lacks a folder: were it taken for an empty one, a prune would remove what it led to. */
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

/** A living writer touches its unfinished files more often. */
export const STALE_TEMPORARY_MS = 60 * 60_000;

export interface StoredFile {
  readonly name: string;
  /** Bytes. */
  readonly size: number;
}

export type StorageOperation = "save" | "saveFile" | "load" | "list" | "exists" | "remove" | "sync";

/** A call that failed and is to be made again. */
export interface RetryEvent {
  readonly operation: StorageOperation;
  readonly kind: FileKind;
  /** Number of the attempt that failed, from 1. */
  readonly attempt: number;
  /** Pause until the next attempt, milliseconds. */
  readonly delayMs: number;
  readonly error: CairnError;
}

/** The caller of a storage. Calls for different callers run at once, and each caller may stop alone. */
export interface StorageCall {
  /**
   * Ends the call with `interrupted` when it fires meanwhile. One that begins later is made all the same, so that whoever was
   * stopped can end what was decided, and take their lock away.
   */
  signal?: AbortSignal | undefined;
  /** Told before a pause, so that a long one does not look like a hang; of several for one problem at a time only before the first. */
  onRetry?: ((event: RetryEvent) => void) | undefined;
  /**
   * Tells of loaded bytes whether they are what was written. Where others come from far away they are asked for twice more, since
   * the way here may have changed them. Absent: a whole file is compared with its name, a part of one with nothing.
   */
  isRight?: ((bytes: Uint8Array) => boolean) | undefined;
  /** Told where bytes were not what was written: on the way here, or in the repository. */
  onWrong?: ((message: string) => void) | undefined;
}

/** Gives the signal of a call that begins now; a signal that fired before does not end it. */
export function signalOf(call: StorageCall | undefined): AbortSignal | undefined {
  return call?.signal?.aborted === true ? undefined : call?.signal;
}

export interface SaveOptions extends StorageCall {
  /** False: the bytes may still be lost in a power cut until `sync` of that kind returns. Default true. */
  durable?: boolean;
  /**
   * Told now and then how many bytes of a file that `saveFile` sends have reached the other machine; it begins anew where the call is
   * made again. Nothing is told by storages of this machine.
   */
  onSent?: ((bytes: number) => void) | undefined;
}

/** Bytes `offset` to `offset + length` of a file; both in bytes. */
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
 *   only after `sync` of its kind. `sync` covers what this object saved or removed.
 * - The caller decides the order; nothing is reordered or written behind.
 * - `load` of a range that is not wholly inside the file is `damaged`; of an absent file `not_found`.
 * - `list` names only files with a valid name (64 hex digits, or `config`). A repository without a folder for locks has
 *   no locks.
 * - `remove` of an absent file is `not_found`.
 * - A caller that stops is told `interrupted`: nothing was done, unless the details say `undecided`. A write or a
 *   removal that decides (`decides`) goes on to its end once it is under way.
 * - Nothing here retries. A `retryable` error (`io`, `busy`) may pass by itself, any other is permanent. After a failed
 *   `save` the file may be there all the same (a late success): saving again is always right.
 */
export interface Storage {
  /** The location as messages name it: a path or an address, never with a secret. */
  readonly location: string;
  /** A folder of this machine from which `saveFile` only renames; absent where there is none. */
  readonly temporaryDirectory?: string;
  /** True: a control directory's store. Whoever writes there renames, so that no file is ever seen in part. */
  readonly isStore?: boolean;
  save(kind: FileKind, name: string, bytes: Uint8Array, options?: SaveOptions): Promise<void>;
  /** Takes over the file at `temporaryPath` (same file system preferred): it is gone from there afterwards. */
  saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void>;
  load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array>;
  list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]>;
  exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean>;
  remove(kind: FileKind, name: string, call?: StorageCall): Promise<void>;
  sync(kinds: readonly FileKind[], call?: StorageCall): Promise<void>;
  /** The path of the file where it is an ordinary local one, for synchronous readers in worker threads. */
  localPath?(kind: FileKind, name: string): string;
  /** Removes unfinished files of killed writers that are older than `ageMs`. Best effort; returns how many. */
  clearTemporaries?(ageMs: number, call?: StorageCall): number | Promise<number>;
  /** Gives connections back, those of calls under way too; only who holds a lock may still take it away. Absent where there is nothing to close. */
  close?(): Promise<void>;
}

/** Bytes of each pack that a storage has, by name. */
export type PackSizes = ReadonlyMap<string, number>;

export async function packSizes(storage: Storage): Promise<Map<string, number>> {
  return new Map((await storage.list("data")).map(({ name, size }) => [name, size]));
}

/** Kinds whose folder is made with the first file in it: those below `data` where they are missing, and rustic makes none for locks. */
export function comesWithFolder(kind: FileKind): boolean {
  return kind === "data" || kind === "locks";
}

/**
 * True when a write or a removal of this kind changes what a repository holds: packs count only once an index lists
 * them.
 */
export function decides(kind: FileKind): boolean {
  return kind !== "data";
}

const LOOKS: ReadonlySet<StorageOperation> = new Set(["load", "list", "exists"]);

/** Gives the signal that ends a write or a removal that begins now; none where it decides. */
export function signalOfWrite(kind: FileKind, call: StorageCall | undefined): AbortSignal | undefined {
  return decides(kind) ? undefined : signalOf(call);
}

/** True for a call that decides nothing and may be cut once its caller stops. */
export function isCutOff(operation: StorageOperation, kind: FileKind): boolean {
  return LOOKS.has(operation) || !decides(kind);
}

/** True when a write or a removal that failed with this may have been done all the same. */
export function mayBeDone(error: CairnError): boolean {
  return error.retryable || error.details?.["undecided"] === true;
}

const NAME = /^[0-9a-f]{64}$/;

/** True for a name that a file of this kind may have. Checked before a name is used in a path. */
export function isFileName(kind: FileKind, name: string): boolean {
  return kind === "config" ? name === "config" : NAME.test(name);
}
