import {
  closeSync,
  constants,
  copyFileSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  unlinkSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { CairnError, codeOfErrno, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { fsyncDirectories, fsyncDirectory, giveFreeName, writeAll } from "../../fs/durable.ts";
import { fsyncAsync } from "../../fs/linux/flush.ts";
import { makeFolder } from "../../fs/make-folder.ts";
import { openRegular } from "../../fs/regular-file.ts";
import { hintOfClosed, makeRepositoryFolder, openFileToGroup, sharingGroup } from "./sharing.ts";
import {
  comesWithFolder,
  FOLDER_KINDS,
  isFileName,
  labelOf,
  labelOfAll,
  missingFolder,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StoredFile,
} from "./storage.ts";

export interface LocalStorageOptions {
  /** Folder of unfinished files, on the same file system and outside the repository. Created if missing. */
  temporaryDirectory: string;
  /**
   * True: an error for missing rights has a hint with a command that opens the repository. False for a store, whose
   * owner adds the hint.
   */
  tellsWhatOpens?: boolean;
  isStore?: boolean;
}

let counter = 0;

/**
 * A repository in restic's default layout in a local folder. Files have mode 0600, folders 0700, unless a group shares
 * the repository (sharing.ts).
 */
export class LocalStorage implements Storage {
  readonly location: string;
  readonly temporaryDirectory: string;
  readonly isStore: boolean;
  readonly #unsyncedFiles = new Map<FileKind, Set<string>>();
  readonly #unsyncedDirectories = new Map<FileKind, Set<string>>();
  readonly #tellsWhatOpens: boolean;
  /** The sharing group; false if none. Null until a `config` exists. */
  #group: number | false | null = null;

  constructor(root: string, options: LocalStorageOptions) {
    this.location = root;
    this.temporaryDirectory = options.temporaryDirectory;
    this.isStore = options.isStore === true;
    this.#tellsWhatOpens = options.tellsWhatOpens === true;
  }

  /** Makes the folders of an empty repository, including the 256 below `data`. Existing ones are kept. */
  static create(root: string, options: LocalStorageOptions): LocalStorage {
    try {
      makeFolder(root);
      makeFolder(options.temporaryDirectory);
      for (const kind of FOLDER_KINDS) makeRepositoryFolder(join(root, kind), false);
      for (let i = 0; i < 256; i++) makeRepositoryFolder(join(root, "data", i.toString(16).padStart(2, "0")), false);
      for (const path of [join(root, "data"), root, dirname(root)]) fsyncDirectory(path);
    } catch (error) {
      throw toCairnError(error, `cannot make the repository's folders in ${root}`);
    }
    return new LocalStorage(root, options);
  }

  localPath(kind: FileKind, name: string): string {
    if (!isFileName(kind, name)) {
      throw new CairnError("invalid_id", `not a name of a file of ${kind}: ${JSON.stringify(name.slice(0, 80))}`);
    }
    if (kind === "config") return join(this.location, "config");
    if (kind === "data") return join(this.location, "data", name.slice(0, 2), name);
    return join(this.location, kind, name);
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, options: SaveOptions = {}): Promise<void> {
    const path = this.localPath(kind, name);
    const temporary = this.#temporaryPath();
    const { after } = options;
    const durable = options.durable !== false;
    // An empty index would be damage. A store's empty lock counts as dead at once.
    const isFlushed = durable || kind === "index" || (kind === "locks" && !this.isStore);
    try {
      const fd = this.#openTemporary(temporary);
      try {
        this.#openToGroup(fd);
        writeAll(fd, bytes);
        if (isFlushed && after === undefined) fsyncSync(fd);
        else if (isFlushed) await fsyncAsync(fd);
      } finally {
        closeSync(fd);
      }
      if (after !== undefined) {
        failpoint("storage.file-staged");
        await after;
      }
      this.#moveIn(kind, temporary, path);
    } catch (error) {
      removeQuietly(temporary);
      throw this.#error(error, `cannot write ${labelOf(kind, name)}`);
    }
    this.#written(kind, path, durable);
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options: SaveOptions = {}): Promise<void> {
    const path = this.localPath(kind, name);
    const durable = options.durable !== false;
    try {
      if (durable || this.#sharedBy() !== false) await this.#finish(temporaryPath, durable);
      await this.#takeOver(kind, temporaryPath, { path, durable });
    } catch (error) {
      throw this.#error(error, `cannot take ${labelOf(kind, name)} over`);
    }
    this.#written(kind, path, durable);
  }

  /**
   * Moves several files into the repository durably. All are flushed, which may take long, before the first is moved: a
   * kill meanwhile moves none.
   */
  async saveFiles(kind: FileKind, files: readonly { name: string; path: string }[]): Promise<void> {
    const folders = new Set<string>();
    try {
      await Promise.all(files.map(async ({ path }) => this.#finish(path, true)));
      failpoint("storage.files-flushed");
      for (const { name, path: from } of files) {
        const path = this.localPath(kind, name);
        await this.#takeOver(kind, from, { path, durable: true });
        folders.add(dirname(path));
        failpoint("storage.file-moved");
      }
      await fsyncDirectories(folders);
    } catch (error) {
      throw this.#error(error, `cannot take ${labelOfAll(kind)} over`);
    }
  }

  async load(kind: FileKind, name: string, range?: ByteRange): Promise<Uint8Array> {
    const path = this.localPath(kind, name);
    try {
      const fd = openRegular(path);
      try {
        return readRange(fd, range);
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw this.#error(error, `cannot read ${labelOf(kind, name)}`);
    }
  }

  async list(kind: FileKind): Promise<StoredFile[]> {
    const found: StoredFile[] = [];
    if (kind === "config") {
      const size = sizeOf(join(this.location, "config"));
      return size === null ? [] : [{ name: "config", size }];
    }
    const folder = join(this.location, kind);
    try {
      for (const entry of readdirSync(folder)) {
        if (kind === "data") {
          if (/^[0-9a-f]{2}$/.test(entry)) listFolder(kind, join(folder, entry), found);
        } else pushFile(kind, folder, { name: entry, found });
      }
    } catch (error) {
      if (!isAbsent(error) || sizeOf(join(this.location, "config")) === null)
        throw this.#error(error, `cannot list ${labelOfAll(kind)}`);
      if (kind === "locks") return [];
      throw missingFolder(kind, `cannot list ${labelOfAll(kind)} in ${this.location}: `);
    }
    return found;
  }

  async exists(kind: FileKind, name: string): Promise<boolean> {
    return this.sizeOf(kind, name) !== null;
  }

  /** Returns the time that a file gets which is written now: of a shared folder the time of its server. */
  async now(): Promise<number> {
    const temporary = this.#temporaryPath();
    try {
      const fd = this.#openTemporary(temporary);
      try {
        writeAll(fd, Buffer.of(0));
        return fstatSync(fd).mtimeMs;
      } finally {
        closeSync(fd);
      }
    } catch (error) {
      throw this.#error(error, "cannot ask for the time");
    } finally {
      removeQuietly(temporary);
    }
  }

  /** Returns null if the file is missing. */
  sizeOf(kind: FileKind, name: string): number | null {
    return sizeOf(this.localPath(kind, name));
  }

  async remove(kind: FileKind, name: string): Promise<void> {
    const path = this.localPath(kind, name);
    try {
      unlinkSync(path);
    } catch (error) {
      if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === true)
        throw new CairnError("damaged", `${path} is a folder; a regular file is wanted`, { hint: "move it away" });
      throw this.#error(error, `cannot remove ${labelOf(kind, name)}`);
    }
    this.#unsyncedFiles.get(kind)?.delete(path);
    remember(this.#unsyncedDirectories, kind, dirname(path));
  }

  async sync(kinds: readonly FileKind[]): Promise<void> {
    for (const kind of kinds) {
      const files = this.#unsyncedFiles.get(kind);
      const directories = this.#unsyncedDirectories.get(kind);
      // Files saved from here on are left for the next `sync`.
      const [ownFiles, ownDirectories] = [[...(files ?? [])], [...(directories ?? [])]];
      try {
        await Promise.all(ownFiles.map(syncIfPresent));
        for (const path of ownDirectories) fsyncDirectory(path);
      } catch (error) {
        throw this.#error(error, `cannot flush ${labelOfAll(kind)}`);
      }
      for (const path of ownFiles) files?.delete(path);
      for (const path of ownDirectories) directories?.delete(path);
    }
  }

  /**
   * Removes unfinished files that are older than `ageMs` by the storage's clock. Choose an age that no running write
   * reaches. Errors are ignored.
   */
  async clearTemporaries(ageMs: number): Promise<number> {
    let removed = 0;
    let names: string[] = [];
    let now: number;
    try {
      names = readdirSync(this.temporaryDirectory);
      if (names.length === 0) return 0;
      now = await this.now();
    } catch {
      return 0;
    }
    for (const name of names) {
      const path = join(this.temporaryDirectory, name);
      try {
        const facts = lstatSync(path);
        if (!facts.isFile() || now - facts.mtimeMs < ageMs) continue;
        unlinkSync(path);
        removed++;
      } catch {
        continue;
      }
    }
    return removed;
  }

  #sharedBy(): number | false {
    this.#group ??= sharingGroup(this.location);
    return this.#group ?? false;
  }

  #openToGroup(fd: number): void {
    const group = this.#sharedBy();
    if (group !== false) openFileToGroup(fd, group);
  }

  #temporaryPath(): string {
    return join(this.temporaryDirectory, `file-${process.pid}-${Date.now().toString(36)}-${counter++}`);
  }

  #openTemporary(path: string): number {
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL;
    try {
      return openSync(path, flags, 0o600);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      makeFolder(dirname(this.temporaryDirectory));
      makeRepositoryFolder(this.temporaryDirectory, this.#sharedBy());
      return openSync(path, flags, 0o600);
    }
  }

  /** Sets the mode for the sharing group, and flushes, before the file gets its name. */
  async #finish(path: string, durable: boolean): Promise<void> {
    const fd = openRegular(path, { flags: constants.O_RDWR });
    try {
      this.#openToGroup(fd);
      if (durable) await fsyncAsync(fd);
    } finally {
      closeSync(fd);
    }
  }

  async #takeOver(kind: FileKind, from: string, to: { path: string; durable: boolean }): Promise<void> {
    try {
      this.#moveIn(kind, from, to.path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EXDEV") throw error;
      await this.#copyIn(kind, from, to);
    }
  }

  #moveIn(kind: FileKind, temporary: string, path: string): void {
    if (kind === "config") {
      giveFreeName(temporary, path);
      return;
    }
    try {
      renameSync(temporary, path);
    } catch (error) {
      if (!isAbsent(error) || !comesWithFolder(kind)) throw error;
      makeRepositoryFolder(dirname(path), this.#sharedBy());
      fsyncDirectory(dirname(dirname(path)));
      renameSync(temporary, path);
    }
  }

  async #copyIn(kind: FileKind, from: string, to: { path: string; durable: boolean }): Promise<void> {
    const temporary = this.#temporaryPath();
    try {
      makeFolder(dirname(this.temporaryDirectory));
      makeRepositoryFolder(this.temporaryDirectory, this.#sharedBy());
      copyFileSync(from, temporary, constants.COPYFILE_EXCL);
      if (to.durable || this.#sharedBy() !== false) await this.#finish(temporary, to.durable);
      this.#moveIn(kind, temporary, to.path);
    } catch (error) {
      removeQuietly(temporary);
      throw error;
    }
    unlinkSync(from);
  }

  #written(kind: FileKind, path: string, durable: boolean): void {
    if (durable) {
      try {
        fsyncDirectory(dirname(path));
      } catch (error) {
        throw this.#error(error, `cannot flush the folder of ${labelOfAll(kind)}`);
      }
      return;
    }
    remember(this.#unsyncedFiles, kind, path);
    remember(this.#unsyncedDirectories, kind, dirname(path));
  }

  #error(error: unknown, doing: string): CairnError {
    if (error instanceof CairnError) return error;
    const code = (error as NodeJS.ErrnoException).code;
    if (code === undefined) return toCairnError(error, doing);
    const isClosed = this.#tellsWhatOpens && ["EACCES", "EPERM"].includes(code);
    const hint = isClosed ? hintOfClosed(this.location) : undefined;
    return new CairnError(codeOfErrno(code), `${doing} in ${this.location}: ${(error as Error).message}`, {
      ...(hint === undefined ? {} : { hint }),
      cause: error,
    });
  }
}

function remember(map: Map<FileKind, Set<string>>, kind: FileKind, path: string): void {
  const set = map.get(kind);
  if (set === undefined) map.set(kind, new Set([path]));
  else set.add(path);
}

function isAbsent(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === "ENOENT";
}

function readRange(fd: number, range: ByteRange | undefined): Uint8Array {
  const size = fstatSync(fd).size;
  const offset = range?.offset ?? 0;
  const length = range?.length ?? size;
  if (offset < 0 || length < 0 || offset + length > size) {
    throw new CairnError("damaged", `the file has ${size} bytes; bytes ${offset} to ${offset + length} were wanted`);
  }
  const bytes = Buffer.allocUnsafeSlow(length);
  let done = 0;
  while (done < length) {
    const count = readSync(fd, bytes, done, length - done, offset + done);
    if (count === 0)
      throw new CairnError("damaged", `the file ends after ${offset + done} bytes; ${offset + length} were wanted`);
    done += count;
  }
  return bytes;
}

function listFolder(kind: FileKind, folder: string, found: StoredFile[]): void {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (isAbsent(error) || (error as NodeJS.ErrnoException).code === "ENOTDIR") return;
    throw error;
  }
  for (const name of names) {
    // Skip a file in a wrong folder: a lookup by its name would not find it.
    if (name.startsWith(basename(folder))) pushFile(kind, folder, { name, found });
  }
}

/** Kinds for which a folder, link or pipe in the place of a file is listed: reading it then reports the damage. */
const DAMAGE_IS_LISTED: ReadonlySet<FileKind> = new Set(["keys", "snapshots", "index"]);

function pushFile(kind: FileKind, folder: string, to: { name: string; found: StoredFile[] }): void {
  if (!isFileName(kind, to.name)) return;
  const facts = lstatSync(join(folder, to.name), { throwIfNoEntry: false });
  if (facts === undefined || (!facts.isFile() && !DAMAGE_IS_LISTED.has(kind))) return;
  to.found.push({ name: to.name, size: facts.isFile() ? facts.size : 0, writtenAt: facts.mtimeMs });
}

/** Returns null if the path is no regular file. */
function sizeOf(path: string): number | null {
  const facts = lstatSync(path, { throwIfNoEntry: false });
  return facts?.isFile() === true ? facts.size : null;
}

/** Flushes a file; a file that was removed meanwhile needs no flush. */
async function syncIfPresent(path: string): Promise<void> {
  try {
    await syncFile(path);
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}

async function syncFile(path: string): Promise<void> {
  const fd = openRegular(path, { flags: constants.O_RDWR });
  try {
    await fsyncAsync(fd);
  } finally {
    closeSync(fd);
  }
}

function removeQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    return;
  }
}
