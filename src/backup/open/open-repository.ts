import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { THREADS_BESIDE, warmThreads, withJobs } from "../../threads/threads.ts";
import { VERIFY } from "../../repository/verify/verify-task.ts";
import { WRITE } from "../../archive/write/write-jobs.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { userCacheDirectory, userStateDirectory } from "../../fs/users.ts";
import { DEFAULT_SCRYPT } from "../../crypto/key-derivation.ts";
import { advice, CairnError, call, option, reworded, throwIfAborted, word } from "../../errors.ts";
import { newWorkDirectory, removeDeadWorkDirectories } from "../../fs/work-directory.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { type LockCall, type RepositoryLock, whileReading, withLock } from "../../repository/locks.ts";
import { CONTENT_KINDS, Repository } from "../../repository/repository.ts";
import type { OpenStorageOptions, StorageFactory } from "../../repository/storage/location.ts";
import { CachedStorage } from "../../repository/storage/cached.ts";
import { makeRepositoryFolder, sharingGroup } from "../../repository/storage/sharing.ts";
import { CallStorage } from "../../repository/storage/call-storage.ts";
import type { Storage, StorageCall } from "../../repository/storage/storage.ts";
import { requireOwnRepository, unlessOthersWrote } from "../../workspace/place/owners.ts";
import type { CallOptions, InitRepositoryOptions, RepositoryInfo, RepositoryOptions } from "../../contract/index.ts";
import { clearAway } from "../../fs/remove-all.ts";

const LOCK_WAIT_MS = 10_000;
/** Work that the threads of a call begin with. */
const WORK: Record<"verify" | "restore", [kind: string, count?: number]> = {
  verify: [VERIFY, THREADS_BESIDE],
  restore: [WRITE],
};
/** Tells backup programs that this is a cache, as https://bford.info/cachedir/ defines. */
const CACHE_TAG =
  "Signature: 8a477f597d28d172789f06886806bc55\n# Cairn's cache: all that lies here can be made again.\n";

/** The part of an open repository that all its calls share. */
interface Shared {
  /** Has the connections, limits and caches; belongs to no call. */
  readonly storage: Storage;
  readonly onWarning: CallOptions["onWarning"];
  /** Folders of this user that calls write to. */
  readonly places: readonly string[];
  keyName: string | null;
  work: string | null;
  calls: number;
  isClosed: boolean;
  isRootWarned: boolean;
}

/**
 * A repository that was opened by its location and a password, for any number of calls. Each call works on a view of its own
 * (`during`), with its signal and its warnings.
 */
export class OpenRepository {
  /** Contains no secret. */
  readonly location: string;
  readonly repository: Repository;
  /** Folder of this user for files that can be made again. */
  readonly cache: string;
  readonly #shared: Shared;

  private constructor(repository: Repository, cache: string, shared: Shared) {
    this.location = repository.storage.location;
    this.repository = repository;
    this.cache = cache;
    this.#shared = shared;
  }

  static async open(open: StorageFactory, options: RepositoryOptions): Promise<OpenRepository> {
    checkPackSize(options);
    warnOfOldVariables(options);
    const opened = await open(options.repository, storageOptions(options));
    const storage = opened.localPath === undefined ? new CachedStorage(opened) : opened;
    try {
      const password = await passwordOf(options);
      throwIfAborted(options.signal);
      if (options.soon !== undefined) warmThreads(...WORK[options.soon]);
      const callStorage = new CallStorage(storage, storageCall(options));
      const repository = await Repository.open(callStorage, { password }).catch(async (error: unknown) => {
        throw await withHint(error, callStorage);
      });
      throwIfAborted(options.signal);
      const access = OpenRepository.over(options, storage, repository);
      if (storage instanceof CachedStorage) storage.keepIn(join(access.cache, "snapshots"));
      return access;
    } catch (error) {
      await storage.close?.();
      throw error;
    }
  }

  /**
   * Makes an empty repository. Steps: folders of the storage → the key file → the config ●. A kill before ● leaves a
   * useless key file, which the next call removes. Throws `already_exists` if there is a repository.
   * `chunkerPolynomial`: shared with the workspace, or given by the user to share cuts with restic.
   */
  static async create(
    open: StorageFactory,
    options: InitRepositoryOptions,
    chunkerPolynomial: string,
  ): Promise<OpenRepository> {
    checkPackSize(options);
    const password = await passwordOf(options);
    throwIfAborted(options.signal);
    const storage = await open(options.repository, { ...storageOptions(options), create: true });
    try {
      const repository = await Repository.create(new CallStorage(storage, storageCall(options)), {
        password,
        kdf: DEFAULT_SCRYPT,
        replaceUnfinished: true,
        signal: options.signal,
        chunkerPolynomial,
      });
      return OpenRepository.over(options, storage, repository);
    } catch (error) {
      await storage.close?.();
      throw error;
    }
  }

  static over(options: RepositoryOptions, storage: Storage, repository: Repository): OpenRepository {
    const { env, onWarning, compression, packSize } = options;
    const places = [userStateDirectory(), userCacheDirectory(env)];
    const cache = join(userCacheDirectory(env), "repositories", repository.id);
    const { keyName } = repository;
    // The signal of the opening ends with the opening.
    const within = repository.over(new CallStorage(storage, storageCall({ onWarning })));
    within.style = { version: repository.version, compression, packSize };
    within.rememberIn(cache);
    const shared = { storage, onWarning, places, keyName, work: null, calls: 0, isClosed: false, isRootWarned: false };
    return new OpenRepository(within, cache, shared);
  }

  /**
   * Runs a call, with its number of threads if it has one. Without its own `onWarning`, warnings go to the handler given at
   * opening. Throws `usage` for a wrong number.
   */
  async during<T>(
    options: CallOptions & { jobs?: number | undefined },
    run: (access: OpenRepository) => Promise<T>,
  ): Promise<T> {
    const { jobs, signal, onWarning = this.#shared.onWarning } = options;
    if (jobs !== undefined && !(Number.isInteger(jobs) && jobs >= 1 && jobs <= MOST_JOBS))
      throw new CairnError("usage", `not a number of jobs: ${jobs}`, { hint: `1 to ${MOST_JOBS}` });
    const call = async (access: OpenRepository): Promise<T> => withJobs(jobs, async () => run(access));
    throwIfAborted(signal);
    this.#shared.calls++;
    try {
      if (signal === undefined && onWarning === this.#shared.onWarning) return await call(this);
      const storage = new CallStorage(this.#shared.storage, storageCall({ signal, onWarning }));
      return await call(new OpenRepository(this.repository.over(storage), this.cache, this.#shared));
    } catch (error) {
      throw unlessOthersWrote(this.#shared.places, error);
    } finally {
      this.#shared.calls--;
      this.#clearAway();
    }
  }

  /** The key file that the password opens; null if it is not known. */
  get keyName(): string | null {
    return this.#shared.keyName;
  }

  set keyName(name: string | null) {
    this.#shared.keyName = name;
  }

  get info(): RepositoryInfo {
    const { id, version } = this.repository;
    return { location: this.location, repository_id: id, version };
  }

  get storage(): Storage {
    return this.repository.storage;
  }

  /** The present index; a machine that cannot write a cache reads it anew each time. */
  async index(signal?: AbortSignal): Promise<BlobIndex> {
    return BlobIndex.load(this.repository, this.indexCache(), signal);
  }

  /** The file that caches the index; null if nothing can be cached. */
  indexCache(): string | null {
    try {
      makeFolder(this.cache);
    } catch {
      return null;
    }
    try {
      writeFileSync(join(dirname(dirname(this.cache)), "CACHEDIR.TAG"), CACHE_TAG, { flag: "wx", mode: 0o600 });
    } catch {
      // The file exists, or the folder cannot be written.
    }
    return join(this.cache, "index");
  }

  /** A folder for unfinished files, on the repository's own file system if it is local. Removed by `close` and the last running call. */
  workDirectory(): string {
    const { work } = this.#shared;
    if (work !== null) return work;
    let parent = this.storage.temporaryDirectory;
    try {
      // Fetched packs can be large, and the system's temporary folder is often in memory.
      if (parent === undefined) makeFolder((parent = join(this.cache, "work")));
    } catch {
      return (this.#shared.work = mkdtempSync(join(tmpdir(), "cairn-")));
    }
    removeDeadWorkDirectories(parent);
    const made = newWorkDirectory(parent);
    this.#shared.work = made;
    const { localPath } = this.storage;
    if (localPath !== undefined && parent === this.storage.temporaryDirectory)
      makeRepositoryFolder(parent, sharingGroup(dirname(localPath("config", "config"))));
    makeFolder(made);
    return made;
  }

  /** Works under a lock that other programs honour, restic too. Refuses, or warns root once, before it changes another user's repository. */
  async locked<T>(exclusive: boolean, options: CallOptions, work: (lock: RepositoryLock) => Promise<T>): Promise<T> {
    const { location, localPath } = this.storage;
    if (!this.#shared.isRootWarned && localPath !== undefined) {
      this.#shared.isRootWarned = true;
      if (sharingGroup(location) === false) requireOwnRepository(location, options.onWarning ?? this.#shared.onWarning);
    }
    return withLock(this.repository, { ...lockCall(options), exclusive }, work);
  }

  /** Works under a shared lock, or without one if this user cannot write. `over` releases the lock before the work ends. */
  async reading<T>(options: CallOptions, work: (over: () => void) => Promise<T>): Promise<T> {
    return whileReading(this.repository, lockCall(options), work);
  }

  /** Runs work that must see the storage itself, without this machine's cache. */
  async asStored<T>(work: () => Promise<T>): Promise<T> {
    const { storage } = this.#shared;
    return storage instanceof CachedStorage ? storage.withoutCache(work) : work();
  }

  async close(): Promise<void> {
    this.#shared.isClosed = true;
    this.#clearAway();
    await this.#shared.storage.close?.();
  }

  #clearAway(): void {
    const { work, calls, isClosed } = this.#shared;
    if (work === null || calls > 0 || !isClosed) return;
    clearAway(work);
    this.#shared.work = null;
  }
}

/** The options that every call has, without options that mean something else to an inner operation. */
export function callOf({ signal, onProgress, onWarning, lockTimeoutMs }: CallOptions): CallOptions {
  return { signal, onProgress, onWarning, lockTimeoutMs };
}

const MOST_JOBS = 64;

/** Returns how a call waits for locks. */
export function lockCall({ signal, lockTimeoutMs, onWarning }: CallOptions): LockCall {
  return { waitMs: lockTimeoutMs ?? LOCK_WAIT_MS, signal, onWarning };
}

/** Throws `usage` for a size that restic does not take. */
function checkPackSize({ packSize }: RepositoryOptions): void {
  const isSize =
    packSize === undefined || (Number.isSafeInteger(packSize) && packSize >= 4 << 20 && packSize <= 128 << 20);
  if (!isSize) throw new CairnError("usage", `a pack must have 4 to 128 MiB; found ${packSize} bytes`);
}

function storageOptions({ env, signal, limits }: RepositoryOptions): OpenStorageOptions {
  const { uploadRate, downloadRate, connections: calls } = limits ?? {};
  return { signal, env, limits: limits && { uploadRate, downloadRate, calls } };
}

/** A call's options for the storage. */
function storageCall({ signal, onWarning }: Pick<LockCall, "signal" | "onWarning">): StorageCall {
  const told = new Set<string>();
  return {
    signal,
    onWrong: (message) => {
      if (!told.has(message)) onWarning?.(message);
      told.add(message);
    },
    onRetry: ({ delayMs, error }) => {
      onWarning?.(`${error.message}; trying again in ${Math.ceil(delayMs / 1000)} s`);
    },
  };
}

/** Variables that versions with an SSH client of their own read. */
const OLD_VARIABLES = ["CONFIG", "KEY_FILE", "KNOWN_HOSTS", "PASSPHRASE", "PASSWORD"].map(
  (name) => `CAIRN_SFTP_${name}`,
);

function warnOfOldVariables({ repository, env = process.env, onWarning }: RepositoryOptions): void {
  const set = repository.startsWith("sftp:") ? OLD_VARIABLES.filter((name) => (env[name] ?? "") !== "") : [];
  if (set.length > 0)
    onWarning?.(
      `${set.join(", ")} ${set.length === 1 ? "is" : "are"} ignored because Cairn uses the system's ssh: set up the login in ~/.ssh/config, ssh-agent or CAIRN_SSH_COMMAND`,
    );
}

/** Throws `usage` for an empty password, which restic treats as none. */
export async function passwordOf({ password }: Pick<RepositoryOptions, "password">): Promise<string | Uint8Array> {
  const given = typeof password === "function" ? await password() : password;
  if (given.length > 0) return given;
  throw new CairnError("usage", "the repository's password is empty", {
    hint: advice`name a file or a command that gives the password: ${option("password", "--password-file FILE, --password-command COMMAND")}`,
  });
}

/** Adds advice to an error. Returns `damaged` if there is a repository whose config is lost. */
async function withHint(error: unknown, storage: Storage): Promise<unknown> {
  if (!(error instanceof CairnError) || error.hint !== undefined) return error;
  if (error.code === "wrong_password") {
    const hint = advice`check the password file or variable; with a password that opens the repository, ${call("backup key add", "addKey", word("password"))} adds another`;
    return reworded(error, { hint });
  }
  if (error.code !== "not_found") return error;
  const left = await hasContent(storage);
  if (left === null) return error;
  // A repository made below an unmounted disk hides the real one until the disk is unmounted again.
  const look = storage.localPath === undefined ? "check the address." : "check the path, and that its disk is mounted.";
  if (!left)
    return reworded(error, {
      hint: advice`${look} To create a repository there: ${call(`backup init -r ${storage.location}`, "initRepository", { repository: storage.location })}`,
    });
  return new CairnError("damaged", `the config of ${storage.location} is lost, although there are snapshots or packs`, {
    hint: 'put the file "config" back from a copy of the repository',
    cause: error,
  });
}

/** True if a place without a config has content of a repository; null if that cannot be checked. */
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
