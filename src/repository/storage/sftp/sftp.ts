import { randomBytes } from "node:crypto";
import { open as openLocal, unlink } from "node:fs/promises";
import { posix } from "node:path";
import { CairnError, reworded, toCairnError } from "../../../errors.ts";
import { failpoint } from "../../../failpoint.ts";
import { paceOf, type Pace } from "../limited.ts";
import { sharedFolder, SHARED_FILE, tellsOfGroup } from "../sharing.ts";
import {
  type ByteSource,
  flush,
  ifThere,
  makeFolder,
  openToGroup,
  readRange,
  readWhole,
  renameNew,
  renameWithout,
  sourceOf,
  writeAll,
} from "./files.ts";
import { parseSftpLocation, printSftpLocation } from "./location.ts";
import { type Connect, SftpPool } from "./pool.ts";
import { FSYNC, isDirectory, isFile, POSIX_RENAME, type SftpFacts, type SftpHandle, SftpSession } from "./session.ts";
import { concurrently } from "../concurrently.ts";
import { SFTP_STATUS, statusOf } from "./wire.ts";
import type { OpenStorageOptions } from "../location.ts";
import {
  comesWithFolder,
  FOLDER_KINDS,
  FULL_HINT,
  isFileName,
  labelOf,
  labelOfAll,
  missingFolder,
  signalOf,
  signalOfWrite,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StorageCall,
  type StoredFile,
} from "../storage.ts";

/**
 * Opens an SFTP repository from the text after `sftp:` in its location. Connects at the first call, or now if `create`
 * is set. `CAIRN_SSH_COMMAND` is a shell command that replaces `ssh`.
 */
export async function openSftpStorage(
  rest: string,
  options: OpenStorageOptions & { pace?: Pace } = {},
): Promise<SftpStorage> {
  const { env = process.env, pace } = options;
  const { host, user, port, path } = parseSftpLocation(rest);
  const target = { host, user, port, command: env["CAIRN_SSH_COMMAND"] || undefined, env };
  const isAtTerminal = process.stdin.isTTY && process.stderr.isTTY;
  const storage: SftpStorageOptions = {
    location: printSftpLocation({ host, user, port, path }),
    connect: ({ signal, mayAsk }) => SftpSession.open(target, { signal, mayAsk: mayAsk && isAtTerminal }),
    pace,
  };
  if (options.create === true) return SftpStorage.create(path, storage, { signal: options.signal });
  return new SftpStorage(path, storage);
}

export interface SftpStorageOptions {
  /** The location for messages. */
  readonly location: string;
  /** Called for the first call, and again after a lost connection. */
  readonly connect: Connect;
  /**
   * Number of sessions, i.e. of calls that the server works on at once; more calls share a session. Default 4. Each
   * session needs a process on this machine and on the server.
   */
  readonly sessions?: number | undefined;
  /** Limits the bytes a second, piece by piece. */
  readonly pace?: Pace | undefined;
}

/** The name to which a released lock is renamed if it cannot be removed; not a valid name of a lock. */
const RELEASED = "released";
const DATA_FOLDERS = Array.from({ length: 256 }, (_, i) => i.toString(16).padStart(2, "0"));
const TEMPORARY = /-cairn-temp-[0-9a-f]{16}$/;
/** Concurrent short requests, over all sessions. */
const AT_ONCE = 128;

/**
 * A repository in restic's default layout on an SFTP server. OpenSSH's server flushes a file before and after its
 * rename. Without `fsync@openssh.com` nothing is promised, and a removal is durable with the next file. A lost
 * connection is `io`; the next call connects again.
 */
export class SftpStorage implements Storage {
  readonly location: string;
  readonly #root: string;
  readonly #pool: SftpPool;
  readonly #pace: Pace;
  /** Path → size of saved files that are not flushed. */
  readonly #unsynced = new Map<FileKind, Map<string, number>>();
  /** Path → modification time by the server's clock, in seconds, of unfinished files seen in lists. */
  readonly #leftovers = new Map<string, number>();
  /** True if a group shares the repository. Null if unknown, or without a `config`. */
  #shared: Promise<boolean | null> | null = null;

  constructor(root: string, options: SftpStorageOptions) {
    this.location = options.location;
    this.#root = root;
    this.#pool = new SftpPool(options.connect, options.sessions ?? 4);
    this.#pace = options.pace ?? paceOf({});
  }

  /** Makes the folders of an empty repository, including the 256 below `data`. Existing ones are kept. */
  static async create(root: string, options: SftpStorageOptions, call?: StorageCall): Promise<SftpStorage> {
    const storage = new SftpStorage(root, options);
    const how = { doing: "cannot make the repository's folders", signal: signalOf(call) };
    try {
      await storage.#call(how, (session) => storage.#explaining(session, 1, () => storage.#makeFolders(session)));
      return storage;
    } catch (error) {
      await storage.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    this.#pool.close();
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options: SaveOptions = {}): Promise<void> {
    await this.#save(kind, name, { source: sourceOf(bytes), options });
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options: SaveOptions = {}): Promise<void> {
    this.#path(kind, name);
    const doing = `cannot take ${labelOf(kind, name)} over`;
    try {
      const file = await openLocal(temporaryPath, "r");
      try {
        const { size } = await file.stat();
        const read = async (position: number, length: number): Promise<Buffer> => {
          const { bytesRead, buffer } = await file.read(Buffer.allocUnsafeSlow(length), 0, length, position);
          if (bytesRead < length) throw new CairnError("damaged", `${temporaryPath} ends at ${position + bytesRead}`);
          return buffer;
        };
        await this.#save(kind, name, { source: { size, read }, options });
      } finally {
        await file.close();
      }
      await unlink(temporaryPath);
    } catch (error) {
      throw toCairnError(error, doing);
    }
  }

  async load(kind: FileKind, name: string, range?: ByteRange, call?: StorageCall): Promise<Uint8Array> {
    const path = this.#path(kind, name);
    const signal = signalOf(call);
    const paced = async (bytes: number): Promise<void> => {
      if (kind !== "locks") await this.#pace.download(bytes, signal);
    };
    return this.#call({ doing: `cannot read ${labelOf(kind, name)}`, signal }, async (session) => {
      // Asked together with the config, so that later calls need not wait.
      if (kind === "config") this.#isShared(session).catch(() => undefined);
      const handle = await session.open(path);
      try {
        if (range === undefined) return await readWhole(session, handle, paced);
        return await readRange(session, handle, { range, paced });
      } finally {
        session.closeLater(handle);
      }
    });
  }

  async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const found: StoredFile[] = [];
    const how = { doing: `cannot list ${labelOfAll(kind)}`, signal: signalOf(call) };
    if (kind === "config") {
      const facts = await this.#call(how, (session) => session.statIfThere(this.#path("config", "config")));
      return isFile(facts) ? [{ name: "config", size: facts.size ?? 0 }] : [];
    }
    const folder = posix.join(this.#root, kind);
    if (kind !== "data") {
      await this.#inFolder(kind, how, async (session) => this.#listFolder(session, kind, { folder, found }));
      return found;
    }
    let names: string[] = [];
    await this.#inFolder(kind, how, async (session) => {
      names = (await session.list(folder)).map((entry) => entry.name);
    });
    const folders = names.filter((name) => /^[0-9a-f]{2}$/.test(name)).map((name) => posix.join(folder, name));
    await concurrently(folders.length, AT_ONCE, async (index) => {
      const each = { folder: folders[index]!, found };
      await this.#call(how, (session) => ifThere(() => this.#listFolder(session, kind, each)));
    });
    return found;
  }

  /** Lists a folder. The folder of locks may be missing, as in repositories of rustic. */
  async #inFolder(kind: FileKind, how: Doing, list: (session: SftpSession) => Promise<void>): Promise<void> {
    await this.#call(how, async (session) => {
      try {
        await list(session);
      } catch (error) {
        if (statusOf(error) !== SFTP_STATUS.noSuchFile) throw error;
        if ((await session.statIfThere(this.#path("config", "config"))) === null) throw error;
        if (kind !== "locks") throw missingFolder(kind);
      }
    });
  }

  async exists(kind: FileKind, name: string, call?: StorageCall): Promise<boolean> {
    const path = this.#path(kind, name);
    const how = { doing: `cannot look for ${labelOf(kind, name)}`, signal: signalOf(call) };
    const facts = await this.#call(how, (session) => session.statIfThere(path));
    return isFile(facts);
  }

  async remove(kind: FileKind, name: string, call?: StorageCall): Promise<void> {
    const path = this.#path(kind, name);
    const how = { doing: `cannot remove ${labelOf(kind, name)}`, signal: signalOfWrite(kind, call) };
    await this.#call(how, (session) =>
      this.#explaining(session, 0, async () => {
        await session.remove(path).catch(async (error: unknown) => {
          // A user without the right to remove may often rename: all its released locks become one file.
          if (kind !== "locks" || statusOf(error) !== SFTP_STATUS.permissionDenied || !session.has(POSIX_RENAME))
            throw error;
          await session.renameOver(path, posix.join(posix.dirname(path), RELEASED)).catch(() => {
            throw error;
          });
        });
      }),
    );
    this.#unsynced.get(kind)?.delete(path);
  }

  async sync(kinds: readonly FileKind[], call?: StorageCall): Promise<void> {
    for (const kind of kinds) {
      const how = { doing: `cannot flush ${labelOfAll(kind)}`, signal: signalOfWrite(kind, call) };
      const waiting = this.#unsynced.get(kind);
      const files = [...(waiting ?? [])];
      await concurrently(files.length, AT_ONCE, async (index) => {
        const [path, size] = files[index]!;
        await this.#call(how, (session) => flush(session, path, size));
        waiting?.delete(path);
      });
    }
  }

  async now(call?: StorageCall): Promise<number> {
    const how = { doing: "cannot ask for the time", signal: signalOf(call) };
    return this.#call(how, async (session) => (await this.#serverTime(session)) * 1000);
  }

  /** Removes unfinished files that were seen in lists; measures their age by the server's clock. */
  async clearTemporaries(ageMs: number, call?: StorageCall): Promise<number> {
    let removed = 0;
    try {
      await this.#pool.run(async (session) => {
        await this.#listFolder(session, "config", { folder: this.#root, found: [] });
        if (this.#leftovers.size === 0) return;
        const now = await this.#serverTime(session);
        for (const [path, written] of this.#leftovers) {
          this.#leftovers.delete(path);
          if ((now - written) * 1000 < ageMs) continue;
          await ifThere(() => session.remove(path));
          removed++;
        }
      }, signalOf(call));
    } catch {
      return removed;
    }
    return removed;
  }

  /**
   * Temporary file in the same folder → bytes → flush → rename ● → flush. The rename is the commit: a kill or a lost
   * connection before it leaves an unfinished file that no list shows, after it the whole file.
   */
  async #save(kind: FileKind, name: string, what: { source: ByteSource; options: SaveOptions }): Promise<void> {
    const path = this.#path(kind, name);
    const { source, options } = what;
    const how = { doing: `cannot write ${labelOf(kind, name)}`, signal: signalOfWrite(kind, options) };
    const paced = async (bytes: number): Promise<void> => {
      // A lock that comes too late counts as lost.
      if (kind !== "locks") await this.#pace.upload(bytes, options.signal);
    };
    await this.#call(how, async (session) => {
      const durable = options.durable !== false && session.has(FSYNC);
      const isFlushed = durable || (kind === "locks" && session.has(FSYNC));
      const temporary = `${path}-cairn-temp-${randomBytes(8).toString("hex")}`;
      let handle: SftpHandle | null = null;
      try {
        const shared = await this.#isShared(session);
        handle = await this.#create(session, kind, { temporary, shared });
        if (shared) await openToGroup(session, temporary, SHARED_FILE);
        failpoint("sftp.created");
        await writeAll(session, handle, { source, paced, onSent: options.onSent });
        failpoint("sftp.written");
        if (isFlushed) await session.sync(handle);
        if (!durable) {
          // Some file systems report a failed write only when the file is closed.
          const written = handle;
          handle = null;
          await session.close(written);
        }
        await this.#moveIn(session, kind, { temporary, path, source });
        failpoint("sftp.renamed");
        if (handle !== null) await session.sync(handle);
      } catch (error) {
        const explained = await this.#explained(session, error, Math.max(source.size, 1));
        const remove = session.until(undefined).remove(temporary);
        await remove.catch(() => undefined);
        throw explained;
      } finally {
        if (handle !== null) session.closeLater(handle);
      }
    });
    if (options.durable === false) remember(this.#unsynced, kind, { path, size: source.size });
  }

  async #create(
    session: SftpSession,
    kind: FileKind,
    { temporary, shared }: { temporary: string; shared: boolean },
  ): Promise<SftpHandle> {
    const open = async (): Promise<SftpHandle> => session.create(temporary, shared ? SHARED_FILE : undefined);
    try {
      return await open();
    } catch (error) {
      if (!comesWithFolder(kind) || statusOf(error) !== SFTP_STATUS.noSuchFile) throw error;
      const folder = posix.dirname(temporary);
      await makeFolder(session, folder);
      if (shared) {
        const { mode = 0 } = await session.stat(posix.dirname(folder));
        await openToGroup(session, folder, sharedFolder(mode));
      }
      return open();
    }
  }

  /** Tells whether a group shares the repository. The first caller asks the server. */
  async #isShared(session: SftpSession): Promise<boolean> {
    this.#shared ??= session
      .statIfThere(this.#path("config", "config"))
      .then((config) => (config === null ? null : tellsOfGroup(config.mode ?? 0)));
    const asked = this.#shared;
    try {
      const shared = await asked;
      if (shared === null && this.#shared === asked) this.#shared = null;
      return shared === true;
    } catch (error) {
      if (this.#shared === asked) this.#shared = null;
      throw error;
    }
  }

  async #moveIn(
    session: SftpSession,
    kind: FileKind,
    move: { temporary: string; path: string; source: ByteSource },
  ): Promise<void> {
    const { temporary, path, source } = move;
    try {
      if (kind === "config") await renameNew(session, temporary, path);
      else if (session.has(POSIX_RENAME)) await session.renameOver(temporary, path);
      else await renameWithout(session, temporary, { path, source });
    } catch (error) {
      if (statusOf(error) !== SFTP_STATUS.noSuchFile) throw error;
      throw new CairnError("io", "another program removed the unfinished file", { cause: error });
    }
  }

  async #listFolder(
    session: SftpSession,
    kind: FileKind,
    into: { folder: string; found: StoredFile[] },
  ): Promise<void> {
    for (const { name, facts } of await session.list(into.folder)) {
      const path = posix.join(into.folder, name);
      if (TEMPORARY.test(name) && facts.mtime !== undefined) this.#leftovers.set(path, facts.mtime);
      // Skip a file in a wrong folder: a lookup by its name would not find it.
      if (!isFileName(kind, name) || this.#path(kind, name) !== path) continue;
      const looked = needsLook(facts) ? await session.statIfThere(path) : facts;
      if (isFile(looked))
        into.found.push({ name, size: looked.size ?? 0, writtenAt: looked.mtime && looked.mtime * 1000 });
    }
  }

  async #makeFolders(session: SftpSession): Promise<void> {
    if (!isDirectory(await session.statIfThere(this.#root))) {
      const parts = this.#root.split("/");
      for (let i = 1; i <= parts.length; i++) {
        const path = parts.slice(0, i).join("/");
        if (path !== "" && path !== "." && path !== "..") await makeFolder(session, path);
      }
    }
    await Promise.all(FOLDER_KINDS.map((kind) => makeFolder(session, posix.join(this.#root, kind))));
    const data = posix.join(this.#root, "data");
    const there = new Set((await session.list(data)).map((entry) => entry.name));
    const missing = DATA_FOLDERS.filter((name) => !there.has(name));
    await concurrently(missing.length, AT_ONCE, (index) => makeFolder(session, posix.join(data, missing[index]!)));
  }

  /** Returns the server's time in seconds, from a file that it creates and removes. */
  async #serverTime(session: SftpSession): Promise<number> {
    const path = posix.join(this.#root, `clock-cairn-temp-${randomBytes(8).toString("hex")}`);
    session.closeLater(await session.create(path));
    const { mtime = 0 } = await session.stat(path);
    await session.remove(path);
    return mtime;
  }

  async #explaining(session: SftpSession, bytes: number, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      throw await this.#explained(session, error, bytes);
    }
  }

  /**
   * Explains a plain failure of work that needs `bytes` on the server, by the state of the file system: most servers
   * have no status for a full or read-only disk, and a plain failure is retried.
   */
  async #explained(session: SftpSession, error: unknown, bytes: number): Promise<unknown> {
    if (statusOf(error) !== SFTP_STATUS.failure) return error;
    // A missing repository folder will be on the file system of the folder above it.
    let room = await session.room(this.#root);
    for (let folder = this.#root; room === null && folder !== posix.dirname(folder);)
      room = await session.room((folder = posix.dirname(folder)));
    if (room === null) return error;
    const cause = error instanceof Error ? error.message : "";
    if (room.readOnly)
      return new CairnError("permission", `the server's file system is read-only: ${cause}`, { cause: error });
    if (room.free >= bytes) return error;
    return new CairnError("no_space", `${room.free} bytes are free, ${bytes} are needed: ${cause}`, {
      hint: FULL_HINT,
      cause: error,
    });
  }

  #path(kind: FileKind, name: string): string {
    if (!isFileName(kind, name)) {
      throw new CairnError("invalid_id", `not a name of a file of ${kind}: ${JSON.stringify(name.slice(0, 80))}`);
    }
    if (kind === "config") return posix.join(this.#root, "config");
    if (kind === "data") return posix.join(this.#root, "data", name.slice(0, 2), name);
    return posix.join(this.#root, kind, name);
  }

  async #call<T>({ doing, signal }: Doing, work: (session: SftpSession) => Promise<T>): Promise<T> {
    try {
      return await this.#pool.run(work, signal);
    } catch (error) {
      const known = toCairnError(error);
      throw reworded(known, { message: `${doing} in ${this.location}: ${known.message}`, cause: error });
    }
  }
}

interface Doing {
  readonly doing: string;
  readonly signal: AbortSignal | undefined;
}

/** True for a link, or if the server omitted type or size: these files need a stat. */
function needsLook({ mode = 0, size }: SftpFacts): boolean {
  return (mode & 0o170000) === 0 || (mode & 0o170000) === 0o120000 || size === undefined;
}

function remember(map: Map<FileKind, Map<string, number>>, kind: FileKind, file: { path: string; size: number }): void {
  const files = map.get(kind) ?? new Map<string, number>();
  map.set(kind, files.set(file.path, file.size));
}
