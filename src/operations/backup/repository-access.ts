import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { warmThreads } from "../../engines/threads.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { userCacheDirectory } from "../../fs/users.ts";
import { CairnError, reworded, throwIfAborted } from "../../errors.ts";
import { newWorkDirectory, removeDeadWorkDirectories } from "../../fs/work-directory.ts";
import { BlobIndex } from "../../repository/blob-index.ts";
import { type LockCall, type RepositoryLock, whileReading, withLock } from "../../repository/locks.ts";
import { NearPacks } from "../../repository/near-packs.ts";
import { PackedBlobs } from "../../repository/packed-blobs.ts";
import { CONTENT_KINDS, Repository } from "../../repository/repository.ts";
import type { OpenStorageOptions, StorageFactory } from "../../repository/storage/location.ts";
import { CachedStorage } from "../../repository/storage/cached.ts";
import { makeRepositoryFolder, sharingGroup } from "../../repository/storage/sharing.ts";
import { CallStorage } from "../../repository/storage/call-storage.ts";
import type { Storage, StorageCall } from "../../repository/storage/storage.ts";
import { unlessOthersWrote, warnRootOfPlaces } from "../../workspace/not-the-owner.ts";
import { userStateDirectory } from "../../workspace/registry.ts";
import type { CallOptions, RepositoryInfo, RepositoryOptions } from "../contract.ts";
import { clearAway } from "../../fs/remove-all.ts";

const LOCK_WAIT_MS = 10_000;
/** What threads do first in a call. */
const WORK = { verify: "verify", restore: "write" } as const;

/** Tells programs that copy homes that this is a cache, as https://bford.info/cachedir/ has it. */
function tagCache(folder: string): void {
  const text = "Signature: 8a477f597d28d172789f06886806bc55\n# Cairn's cache: all that lies here can be made again.\n";
  try {
    writeFileSync(join(folder, "CACHEDIR.TAG"), text, { flag: "wx", mode: 0o600 });
  } catch {
    // It is there, or nothing can be written.
  }
}

/** What all calls on an open repository share. */
interface Opened {
  /** With its connections, limits and caches; of no call. */
  readonly storage: Storage;
  readonly onWarning: CallOptions["onWarning"];
  /** Where calls write what is this user's own. */
  readonly places: readonly string[];
  keyName: string | null;
  work: string | null;
  /** Calls under way. */
  calls: number;
  isClosed: boolean;
  isRootWarned: boolean;
}

/**
 * A repository that was opened by its location and a password, for any number of calls. What opened it ends with it: each call
 * has its own by `during`, with its signal, and is told of what its storage has to repeat.
 */
export class RepositoryAccess {
  /** As its storage says it: never with a secret in it. */
  readonly location: string;
  readonly repository: Repository;
  /** For what can be made again: of this repository, on this machine, for this user. */
  readonly cache: string;
  readonly #opened: Opened;

  private constructor(repository: Repository, cache: string, opened: Opened) {
    this.location = repository.storage.location;
    this.repository = repository;
    this.cache = cache;
    this.#opened = opened;
  }

  static async open(open: StorageFactory, options: RepositoryOptions): Promise<RepositoryAccess> {
    const opened = await open(options.repository, storageOptions(options));
    const storage = opened.localPath === undefined ? new CachedStorage(opened) : opened;
    try {
      const password = await passwordOf(options);
      throwIfAborted(options.signal);
      if (options.soon !== undefined) warmThreads(WORK[options.soon]);
      const repository = await openedBy(new CallStorage(storage, storageCall(options)), password);
      throwIfAborted(options.signal);
      const access = RepositoryAccess.over(options, storage, repository);
      if (storage instanceof CachedStorage) storage.keepIn(join(access.cache, "snapshots"));
      return access;
    } catch (error) {
      await storage.close?.();
      throw error;
    }
  }

  /** `repository`: as it was opened, for which its calls were made with the signal of that. */
  static over(options: RepositoryOptions, storage: Storage, repository: Repository): RepositoryAccess {
    const { env, onWarning } = options;
    const places = [userStateDirectory(), userCacheDirectory(env)];
    warnRootOfPlaces(places, "with HOME, XDG_STATE_HOME and XDG_CACHE_HOME of root's own (sudo -H)", onWarning);
    const cache = join(userCacheDirectory(env), "repositories", repository.id);
    const within = repository.over(new CallStorage(storage, storageCall({ onWarning })));
    const { keyName } = repository;
    const opened = { storage, onWarning, places, keyName, work: null, calls: 0, isClosed: false, isRootWarned: false };
    return new RepositoryAccess(within, cache, opened);
  }

  /**
   * Runs a call; `interrupted` for one who has stopped already. Whoever has no warnings of their own hears them as was asked
   * for when it was opened.
   */
  async during<T>(options: CallOptions, call: (access: RepositoryAccess) => Promise<T>): Promise<T> {
    throwIfAborted(options.signal);
    this.#opened.calls++;
    try {
      return await call(this.#forCall(options));
    } catch (error) {
      throw unlessOthersWrote(this.#opened.places, error);
    } finally {
      this.#opened.calls--;
      this.#clearAway();
    }
  }

  #forCall({ signal, onWarning = this.#opened.onWarning }: CallOptions): RepositoryAccess {
    if (signal === undefined && onWarning === this.#opened.onWarning) return this;
    const storage = new CallStorage(this.#opened.storage, storageCall({ signal, onWarning }));
    return new RepositoryAccess(this.repository.over(storage), this.cache, this.#opened);
  }

  /** The key file that the password in hand opens; null where that is not known. */
  get keyName(): string | null {
    return this.#opened.keyName;
  }

  set keyName(name: string | null) {
    this.#opened.keyName = name;
  }

  get info(): RepositoryInfo {
    const { id, version } = this.repository;
    return { location: this.location, repository_id: id, version };
  }

  get storage(): Storage {
    return this.repository.storage;
  }

  /** Its index as it is now; on a machine that cannot write a cache it is read anew each time. */
  async index(signal?: AbortSignal): Promise<BlobIndex> {
    return BlobIndex.load(this.repository, this.indexCache(), signal);
  }

  /** Where the index is cached; null where nothing can be. */
  indexCache(): string | null {
    try {
      makeFolder(this.cache);
      tagCache(dirname(dirname(this.cache)));
      return join(this.cache, "index");
    } catch {
      return null;
    }
  }

  /** A folder for unfinished files, on the repository's own file system where it is local; gone with `close` and the last call under way. */
  workDirectory(): string {
    const { work } = this.#opened;
    if (work !== null) return work;
    const parent = this.storage.temporaryDirectory ?? this.#besideCache();
    if (parent === null) return (this.#opened.work = mkdtempSync(join(tmpdir(), "cairn-")));
    removeDeadWorkDirectories(parent);
    const made = newWorkDirectory(parent);
    this.#opened.work = made;
    const { localPath } = this.storage;
    if (localPath !== undefined && parent === this.storage.temporaryDirectory)
      makeRepositoryFolder(parent, sharingGroup(dirname(localPath("config", "config"))));
    makeFolder(made);
    return made;
  }

  /** What is fetched can be large, and the system's temporary folder is often in memory; null where no cache can be written. */
  #besideCache(): string | null {
    const folder = join(this.cache, "work");
    try {
      makeFolder(folder);
      return folder;
    } catch {
      return null;
    }
  }

  near(): NearPacks {
    return new NearPacks(this.storage, this.storage.localPath === undefined ? this.workDirectory() : "");
  }

  /** For new blobs; the index is kept in step. */
  packedBlobs(index: BlobIndex, lock: RepositoryLock): PackedBlobs {
    const directory = join(this.workDirectory(), "packs");
    return new PackedBlobs({ repository: this.repository, index, directory, stillHeld: async () => lock.recheck() });
  }

  /** Under a lock of the repository that others honour, restic too; given back whatever happens. */
  async locked<T>(exclusive: boolean, options: CallOptions, work: (lock: RepositoryLock) => Promise<T>): Promise<T> {
    this.#warnRoot(options);
    return withLock(this.repository, { ...lockCall(options), exclusive }, work);
  }

  /** Once, before something is added to or removed from another user's repository. */
  #warnRoot({ onWarning = this.#opened.onWarning }: CallOptions): void {
    const { location, localPath } = this.storage;
    if (this.#opened.isRootWarned || localPath === undefined) return;
    this.#opened.isRootWarned = true;
    if (sharingGroup(location) === false) warnRootOfPlaces([location], null, onWarning);
  }

  /** Under a shared lock, or without one where this user may write nothing. `over` gives it back before the work ends. */
  async reading<T>(options: CallOptions, work: (over: () => void) => Promise<T>): Promise<T> {
    return whileReading(this.repository, lockCall(options), work);
  }

  /** For work that has to see what the storage itself gives, and not what is kept of it here. */
  async asStored<T>(work: () => Promise<T>): Promise<T> {
    const { storage } = this.#opened;
    return storage instanceof CachedStorage ? storage.withoutCache(work) : work();
  }

  async close(): Promise<void> {
    this.#opened.isClosed = true;
    this.#clearAway();
    await this.#opened.storage.close?.();
  }

  #clearAway(): void {
    const { work, calls, isClosed } = this.#opened;
    if (work === null || calls > 0 || !isClosed) return;
    clearAway(work);
    this.#opened.work = null;
  }
}

/** What all calls have, without what else was asked for, which has other meanings for the operation below. */
export function callOf({ signal, onProgress, onWarning, lockTimeoutMs }: CallOptions): CallOptions {
  return {
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(onWarning === undefined ? {} : { onWarning }),
    ...(lockTimeoutMs === undefined ? {} : { lockTimeoutMs }),
  };
}

/** How the locks of a call are waited for. */
export function lockCall({ signal, lockTimeoutMs, onWarning }: CallOptions): LockCall {
  return { waitMs: lockTimeoutMs ?? LOCK_WAIT_MS, signal, onWarning };
}

export function storageOptions(options: RepositoryOptions): OpenStorageOptions {
  const { env, signal, limits } = options;
  const open: OpenStorageOptions = { signal };
  if (env !== undefined) open.env = env;
  if (limits !== undefined)
    open.limits = { uploadRate: limits.uploadRate, downloadRate: limits.downloadRate, calls: limits.connections };
  return open;
}

/** How a call of the library makes those of a storage. */
export function storageCall({ signal, onWarning }: Pick<LockCall, "signal" | "onWarning">): StorageCall {
  return {
    signal,
    onRetry: ({ delayMs, error }) => {
      onWarning?.(`${error.message}; again in ${Math.ceil(delayMs / 1000)} s`);
    },
  };
}

/** Throws `usage` for an empty one, which restic takes for none. */
export async function passwordOf({ password }: Pick<RepositoryOptions, "password">): Promise<string | Uint8Array> {
  const given = typeof password === "function" ? await password() : password;
  if (given.length > 0) return given;
  throw new CairnError("usage", "the repository's password is empty", {
    hint: "name a file or a command that has it: --password-file FILE, --password-command COMMAND",
  });
}

async function openedBy(storage: Storage, password: string | Uint8Array): Promise<Repository> {
  try {
    return await Repository.open(storage, { password });
  } catch (error) {
    if (!(error instanceof CairnError) || error.hint !== undefined) throw error;
    throw await toldApart(error, storage);
  }
}

/** With what to do about it; `damaged` where there is a repository whose config was lost. */
async function toldApart(error: CairnError, storage: Storage): Promise<CairnError> {
  if (error.code === "wrong_password") {
    const hint = "check the password file or variable; `cairn backup key` with a password that opens it adds another";
    return reworded(error, { hint });
  }
  if (error.code !== "not_found") return error;
  const left = await hasContent(storage);
  if (left === null) return error;
  // Whoever makes one below a disk that is not mounted has two from then on, and does not see the one.
  const look = storage.localPath === undefined ? "is the address right?" : "is the path right, and its disk mounted?";
  if (!left) return reworded(error, { hint: `${look} A new one: \`cairn backup init -r ${storage.location}\`` });
  return new CairnError("damaged", `the config of ${storage.location} is lost; snapshots or content are there`, {
    hint: "put the file config back from a copy of the repository",
    cause: error,
  });
}

/** Whether a place without a config has what a repository holds; null where that cannot be told. */
async function hasContent(storage: Storage): Promise<boolean | null> {
  for (const kind of CONTENT_KINDS) {
    try {
      if ((await storage.list(kind)).length > 0) return true;
    } catch (error) {
      if (!(error instanceof CairnError) || error.code !== "not_found") return null;
    }
  }
  return false;
}
