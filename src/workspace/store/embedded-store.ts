import { hex } from "../../formats/bytes.ts";
import fs from "node:fs";
import { randomBytes } from "node:crypto";
import path from "node:path";
import { advice, CairnError, call, option, reworded, see, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { decodeMasterKeys, encodeMasterKeys } from "../../formats/restic/key-file.ts";
import { formerPassword, passwordOfFile } from "../../formats/restic/password-bytes.ts";
import { decodeTree, type TreeNodes } from "../../formats/restic/tree.ts";
import { durableWrite } from "../../fs/durable.ts";
import { newWorkDirectory } from "../../fs/work-directory.ts";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import { BlobSource } from "../../repository/read/blob-source.ts";
import { indexFilesHere } from "../../repository/index/index-set.ts";
import { NearPacks } from "../../repository/read/near-packs.ts";
import { DamagedPacks } from "../../repository/damaged-packs.ts";
import { Repository } from "../../repository/repository.ts";
import { LocalStorage } from "../../repository/storage/local.ts";
import type { FinishedPack } from "../../repository/packs/pack-writer.ts";
import { clearAway } from "../../fs/remove-all.ts";
import { readRegular } from "../../fs/regular-file.ts";
import { type StorePaths, storePaths } from "./store-paths.ts";

/**
 * Makes the repository of a new control directory. The password is 32 random bytes in hex, so deriving its key is
 * cheap. The master keys lie beside the repository, so opening it derives nothing. `chunkerPolynomial` cuts large
 * files; absent: a new one.
 */
export async function createEmbeddedStore(control: string, chunkerPolynomial?: string): Promise<void> {
  const paths = storePaths(control);
  const password = randomBytes(32).toString("hex");
  durableWrite(paths.passwordFile, Buffer.from(`${password}\n`), { mode: 0o600 });
  failpoint("store.password-written");
  const storage = LocalStorage.create(paths.repository, { temporaryDirectory: paths.temporary });
  const repository = await Repository.create(storage, {
    password,
    replaceUnfinished: true,
    ...(chunkerPolynomial === undefined ? {} : { chunkerPolynomial }),
  });
  failpoint("store.created");
  durableWrite(paths.keyFile, Buffer.from(encodeMasterKeys(repository.keys)), { mode: 0o600 });
}

/** Reads the chunker polynomial by which a store cuts large files. */
export async function storePolynomial(control: string): Promise<string> {
  const paths = storePaths(control);
  const storage = new LocalStorage(paths.repository, { temporaryDirectory: paths.temporary });
  return (await openRepository(paths, storage)).chunkerPolynomial;
}

/** The store's files, whether or not it can be opened. */
export function embeddedStorage(paths: StorePaths): LocalStorage {
  return new LocalStorage(paths.repository, { temporaryDirectory: paths.temporary, isStore: true });
}

const LOST = advice`run ${call("doctor")} to see the missing content and the possible repairs`;

/** The repository inside a control directory, opened without key derivation. */
export class EmbeddedStore {
  readonly paths: StorePaths;
  readonly repository: Repository;
  index: BlobIndex;
  /** Called once for each pack that is damaged or missing if its blobs were read from other packs. */
  onWarning: ((message: string) => void) | undefined;
  #blobs: { of: BlobSource; index: BlobIndex } | null = null;
  readonly #told = new Set<string>();

  private constructor(paths: StorePaths, repository: Repository, index: BlobIndex) {
    this.paths = paths;
    this.repository = repository;
    this.index = index;
  }

  /** Opens a control directory's store. `known`: an earlier loaded index of the store; only newer index files are read. */
  static async open(
    control: string,
    { signal, known = null }: { signal?: AbortSignal | undefined; known?: BlobIndex | null } = {},
  ): Promise<EmbeddedStore> {
    const paths = storePaths(control);
    const temporaryDirectory = newWorkDirectory(paths.temporary);
    const storage = new LocalStorage(paths.repository, { temporaryDirectory, isStore: true });
    const repository = await openRepository(paths, storage).catch((error: unknown) => {
      const failed = toCairnError(error);
      if (failed.code !== "not_found" && failed.code !== "damaged") throw error;
      // There is no other copy of a control directory's store, and doctor can make most of its files again.
      throw new CairnError("damaged", failed.message, { hint: see("doctor"), cause: error });
    });
    repository.damaged = new DamagedPacks(paths.damagedPacks);
    const isUpToDate = (await known?.refresh(repository, { signal })) === true;
    const index = isUpToDate ? known! : await BlobIndex.load(repository, paths.indexCache, signal);
    return new EmbeddedStore(paths, repository, index);
  }

  /** Reads the changes that other processes made to the index since it was loaded. */
  async refresh(signal?: AbortSignal): Promise<void> {
    if (!(await this.index.refresh(this.repository, { signal })))
      this.index = await BlobIndex.load(this.repository, this.paths.indexCache, signal);
  }

  get storage(): LocalStorage {
    return this.repository.storage as LocalStorage;
  }

  /** Folder for this operation's unfinished files; `close` removes it. */
  get workDirectory(): string {
    return this.storage.temporaryDirectory;
  }

  /** Makes packs, then their index durable: each file before it gets its name, so that a power cut leaves no torn file. */
  async publish(packs: readonly FinishedPack[]): Promise<void> {
    if (packs.length === 0) return;
    const { repository, index } = this;
    const names = await repository.saveIndex(packs, { after: this.#makeDurable(packs) });
    index.addIndexed(packs, names);
    failpoint("store.index-written");
  }

  async #makeDurable(packs: readonly FinishedPack[]): Promise<void> {
    const { storage } = this;
    await storage.saveFiles(
      "data",
      packs.map(({ id, path: from }) => ({ name: hex(id), path: from })),
    );
    await storage.sync(["data"]);
    failpoint("store.packs-durable");
  }

  /** Reads blobs by their index entries. A blob that is damaged in one pack is read from another one. */
  get blobs(): BlobSource {
    const { repository, index, storage } = this;
    if (this.#blobs?.index !== index) {
      this.#blobs?.of.close();
      const packs = new NearPacks(storage, "");
      const { onDamagedPack } = this;
      const of = new BlobSource({ keys: repository.keys, index, packs, onDamagedPack });
      this.#blobs = { of, index };
    }
    return this.#blobs.of;
  }

  /** Returns a fresh copy of a blob's plain bytes. Throws `damaged` if the blob is missing or differs from its id. */
  read(
    id: Uint8Array,
    type: "data" | "tree",
    { index, blobs }: Pick<EmbeddedStore, "index" | "blobs"> = this,
  ): Uint8Array {
    const entry = index.entryOf({ id, type });
    if (entry < 0) {
      throw new CairnError("damaged", `the store has no ${type} blob ${hex(id).slice(0, 12)}`, {
        hint: LOST,
        details: { blob: hex(id), type },
      });
    }
    try {
      return blobs.read(entry);
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged" || known.hint !== undefined) throw error;
      throw reworded(known, { hint: LOST });
    }
  }

  #isCurrent(): boolean {
    const present = new Set(indexFilesHere(this.repository));
    return [...this.index.covered].every((name) => present.has(name));
  }

  /** Remembers a damaged pack. Warns once if its blobs are elsewhere. A pack that another process moved is no damage. */
  readonly onDamagedPack = (pack: string, isElsewhere: boolean): void => {
    if (this.#told.has(pack) || !this.#isCurrent()) return;
    this.repository.damaged.learn([pack]);
    if (!isElsewhere) return;
    this.#told.add(pack);
    this.onWarning?.(
      `pack ${pack.slice(0, 12)} of the workspace's store is damaged or missing: Cairn reads its blobs from other packs, if they have copies; \`cairn doctor --repair\` repairs the store`,
    );
  };

  tree(id: Uint8Array): TreeNodes {
    return decodeTree(this.read(id, "tree"));
  }

  close(): void {
    this.#blobs?.of.close();
    this.#blobs = null;
    clearAway(this.workDirectory);
  }
}

async function openRepository(paths: StorePaths, storage: LocalStorage): Promise<Repository> {
  try {
    return await Repository.open(storage, { keys: decodeMasterKeys(readRegular(paths.keyFile)) });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return openByPassword(paths, storage);
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
    // The password tells whether the keys or the repository's files are damaged.
    return openByPassword(paths, storage).catch(() => {
      throw error;
    });
  }
}

/** Opens the repository by the password if the file with the master keys is lost or damaged, and writes that file again. */
async function openByPassword(paths: StorePaths, storage: LocalStorage): Promise<Repository> {
  let password: string;
  try {
    password = readRegular(paths.passwordFile).toString("utf8").trimEnd();
  } catch (error) {
    throw new CairnError(
      "damaged",
      `neither ${paths.keyFile} nor ${paths.passwordFile} can be read, so the store cannot be opened`,
      {
        hint: "put either file back from a copy",
        cause: error,
      },
    );
  }
  const repository = await Repository.open(storage, { password });
  try {
    durableWrite(paths.keyFile, Buffer.from(encodeMasterKeys(repository.keys)), { mode: 0o600 });
  } catch {
    // A read-only control directory: the next call opens the store slowly again.
  }
  return repository;
}

/**
 * Opens any repository for reading: with a password file, else with the keys or the password beside it in a control
 * directory. Writes nothing. Throws `not_found` if no key or password can be read, or `wrong_password`.
 */
export async function lookIntoRepository(root: string, passwordFile?: string): Promise<Repository> {
  const storage = new LocalStorage(root, { temporaryDirectory: path.join(root, "tmp") });
  const { keyFile, passwordFile: beside } = storePaths(path.dirname(root));
  try {
    if (passwordFile === undefined && fs.existsSync(keyFile))
      return await Repository.open(storage, { keys: decodeMasterKeys(readRegular(keyFile)) });
    return await openByFile(storage, passwordFile ?? beside, passwordFile !== undefined);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw toCairnError(error, `open ${root}`);
    throw new CairnError(
      "not_found",
      `${root} is encrypted, and ${passwordFile ?? `${keyFile} and ${beside}`} cannot be read`,
      { hint: advice`name its password file: ${option("passwordFile", "--password-file FILE")}`, cause: error },
    );
  }
}

async function openByFile(storage: LocalStorage, file: string, named: boolean): Promise<Repository> {
  const all = readRegular(file, { named });
  const password = passwordOfFile(all);
  try {
    return await Repository.open(storage, { password });
  } catch (error) {
    const former = formerPassword(all, password);
    if (former === null || !(error instanceof CairnError && error.code === "wrong_password")) throw error;
    return await Repository.open(storage, { password: former });
  }
}
