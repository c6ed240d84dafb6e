import { randomBytes } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { lstat, open, readdir, stat, unlink, type FileHandle } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CairnError } from "../../errors.ts";
import { durableMkdir } from "../../fs/durable.ts";
import { SHARED_FILE, tellsOfGroup } from "../../repository/storage/sharing.ts";
import { FOLDER_KINDS, isFileName, type FileKind, type StoredFile } from "../../repository/storage/storage.ts";
import { changeMode, isAbsent, makeDirectory, syncDirectory } from "./folders.ts";
import { Upload } from "./upload.ts";

/** Folder of unfinished uploads; no request can name it, and no list shows it. */
const UPLOADS = ".cairn-uploads";
/** Milliseconds after which an upload counts as abandoned; an upload without traffic ends much earlier. */
const ABANDONED_MS = 3_600_000;
const STATS_AT_ONCE = 64;

let uploads = 0;
const uploadMark = randomBytes(6).toString("hex");

export interface OpenFile {
  readonly handle: FileHandle;
  /** Bytes. */
  readonly size: number;
}

/**
 * A repository in restic's default layout in a local folder. Several requests may use it at once without blocking each
 * other. Files are 0600, folders 0700, unless a group shares it (sharing.ts). Errors are system errors or CairnErrors.
 */
export class RepositoryFolder {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  /** Makes missing folders. Durable when this returns. */
  async create(): Promise<void> {
    durableMkdir(this.root);
    for (const kind of FOLDER_KINDS) await makeDirectory(join(this.root, kind), false);
    await syncDirectory(this.root);
  }

  /** True if a file of this kind can be stored. */
  async has(kind: FileKind): Promise<boolean> {
    if (kind === "locks" && (await this.size("config", "config")) !== null) return true;
    try {
      // The folder may be a link to another disk: only the machine's administrator can make one here.
      return (await stat(kind === "config" ? this.root : join(this.root, kind))).isDirectory();
    } catch (error) {
      if (isAbsent(error)) return false;
      throw error;
    }
  }

  /** Bytes of a file, or null if the file does not exist. */
  async size(kind: FileKind, name: string): Promise<number | null> {
    const facts = await factsOf(this.#path(kind, name));
    return facts?.isFile() === true ? facts.size : null;
  }

  /** Opens a file; null if it does not exist. The caller closes it. */
  async open(kind: FileKind, name: string): Promise<OpenFile | null> {
    let handle: FileHandle;
    try {
      // Opening a pipe would wait for its writer.
      handle = await open(this.#path(kind, name), constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      // A link or a socket is not a file of a repository.
      if (isAbsent(error) || ["ELOOP", "ENXIO"].includes((error as NodeJS.ErrnoException).code ?? "")) return null;
      throw error;
    }
    const facts = await handle.stat();
    if (facts.isFile()) return { handle, size: facts.size };
    await handle.close();
    return null;
  }

  /** Yields the files of a kind, in batches; null without a repository. A repository without a folder for locks has no locks. */
  async list(kind: FileKind, withSizes: boolean): Promise<AsyncIterable<StoredFile[]> | null> {
    const folder = join(this.root, kind);
    let names: string[];
    try {
      names = await readdir(folder);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      if (!(await this.has(kind))) return null;
      names = [];
    }
    return kind === "data" ? listData(folder, { names, withSizes }) : listOne(kind, folder, { names, withSizes });
  }

  /** Removes a file; false if it did not exist. Durable when this returns. */
  async remove(kind: FileKind, name: string): Promise<boolean> {
    const path = this.#path(kind, name);
    try {
      await unlink(path);
    } catch (error) {
      if (isAbsent(error)) return false;
      throw error;
    }
    await syncDirectory(dirname(path));
    return true;
  }

  /** Makes an existing file durable before a client counts it as saved. */
  async settle(kind: FileKind, name: string): Promise<void> {
    await syncDirectory(dirname(this.#path(kind, name)));
  }

  /** Starts the upload of a new file. */
  async upload(kind: FileKind, name: string): Promise<Upload> {
    const folder = join(this.root, UPLOADS);
    const temporary = join(folder, `${uploadMark}-${uploads++}`);
    const config = await factsOf(join(this.root, "config"));
    const group = config !== null && tellsOfGroup(config.mode) && config.gid;
    const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
    let handle: FileHandle;
    try {
      handle = await open(temporary, flags, 0o600);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      await makeDirectory(folder, group);
      handle = await open(temporary, flags, 0o600);
    }
    if (group !== false) {
      await changeMode(handle.chown(-1, group));
      await changeMode(handle.chmod(SHARED_FILE));
    }
    return new Upload({ kind, name, temporary, handle, path: this.#path(kind, name), group });
  }

  /** Removes unfinished uploads of killed servers. Ignores errors. */
  async clearUploads(): Promise<void> {
    const folder = join(this.root, UPLOADS);
    for (const name of await readdir(folder).catch(() => [])) {
      const path = join(folder, name);
      const facts = await factsOf(path).catch(() => null);
      if (facts?.isFile() !== true || name.startsWith(uploadMark) || Date.now() - facts.mtimeMs < ABANDONED_MS)
        continue;
      await unlink(path).catch(() => undefined);
    }
  }

  #path(kind: FileKind, name: string): string {
    if (!isFileName(kind, name)) throw new CairnError("invalid_id", `not a name of a file of ${kind}`);
    if (kind === "config") return join(this.root, "config");
    return kind === "data" ? join(this.root, kind, name.slice(0, 2), name) : join(this.root, kind, name);
  }
}

interface Listing {
  names: readonly string[];
  withSizes: boolean;
}

async function* listData(folder: string, { names, withSizes }: Listing): AsyncGenerator<StoredFile[]> {
  for (const part of names) {
    if (!/^[0-9a-f]{2}$/.test(part)) continue;
    let files: string[];
    try {
      files = await readdir(join(folder, part));
    } catch (error) {
      if (isAbsent(error)) continue;
      throw error;
    }
    yield* listOne("data", join(folder, part), { names: files, withSizes });
  }
}

async function* listOne(kind: FileKind, folder: string, { names, withSizes }: Listing): AsyncGenerator<StoredFile[]> {
  const wanted = names.filter((name) => isFileName(kind, name));
  for (let start = 0; start < wanted.length; start += STATS_AT_ONCE) {
    const portion = wanted.slice(start, start + STATS_AT_ONCE);
    if (!withSizes) yield portion.map((name) => ({ name, size: 0 }));
    else {
      const facts = await Promise.all(portion.map((name) => factsOf(join(folder, name))));
      yield portion.flatMap((name, place) => {
        const found = facts[place];
        return found?.isFile() === true ? [{ name, size: found.size, writtenAt: Math.floor(found.mtimeMs) }] : [];
      });
    }
  }
}

async function factsOf(path: string): Promise<Stats | null> {
  try {
    return await lstat(path);
  } catch (error) {
    if (isAbsent(error)) return null;
    throw error;
  }
}
