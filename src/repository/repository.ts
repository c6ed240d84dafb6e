import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { currentUser } from "../fs/users.ts";
import { deriveKeys, newMasterKeys, type ScryptParameters } from "../crypto/key-derivation.ts";
import { sha256 } from "../crypto/hash.ts";
import { openedOrNull, openMessage, sealMessage, type MasterKeys } from "../crypto/seal.ts";
import { adviceOf, CairnError, isBadSector, reworded, throwIfAborted, toCairnError } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { decodeConfig, encodeConfig, type RepositoryConfig } from "../formats/restic/config.ts";
import {
  decodeKeyFile,
  decodeMasterKeys,
  encodeKeyFile,
  encodeMasterKeys,
  type KeyFile,
} from "../formats/restic/key-file.ts";
import { decodeSnapshot, encodeSnapshot, type Snapshot } from "../formats/restic/snapshot.ts";
import { objectIdOf, parseObjectId, type ObjectId } from "../ids.ts";
import { giveBack } from "../native.ts";
import { newPacer } from "../pacer.ts";
import type { PackStyle } from "./packs/pack-style.ts";
import { IndexText } from "./index/index-text.ts";
import { ListedFiles } from "./listed-files.ts";
import { formatPolynomial, isUsable, randomPolynomial } from "./packs/polynomial.ts";
import { labelOf, mayBeDone, type SaveOptions, type Storage, type StoredFile } from "./storage/storage.ts";
import { SeenSnapshots } from "./seen-snapshots.ts";
import { packPlain, unpackPlain } from "./unpacked.ts";

/** For a password that is 32 random bytes: guessing is hopeless at any cost, so the cost is small. */
const CHEAP_SCRYPT: ScryptParameters = { N: 1024, r: 8, p: 1 };

/** restic reads larger index files, but keeps its own below this. */
const MAX_INDEX_BYTES = 8 * 1024 * 1024 - 64 * 1024;
const MAX_KEYS = 1000;
/** Files on their way at once: of snapshots each is small, of an index some are of 8 MiB. */
const LOADS = { snapshots: 16, index: 8, locks: 8 } as const;

/** The id of a snapshot that is in no repository. */
const NO_SNAPSHOT = "0".repeat(64);

/** Kinds of files that hold what was stored. */
export const CONTENT_KINDS = ["snapshots", "index", "data"] as const;

export type UnpackedKind = "index" | "snapshots" | "locks";

export interface CreateOptions {
  /** Opens the repository with this password; one key file is written. */
  password: Uint8Array | string;
  kdf?: ScryptParameters;
  /** Master keys to use; fresh ones by default. */
  keys?: MasterKeys;
  /** Lower-case hex; a fresh irreducible one by default. */
  chunkerPolynomial?: string;
  /** True: key files of a place that is empty else are leftovers of a creation that was killed; they go once this one is done. */
  replaceUnfinished?: boolean;
  signal?: AbortSignal | undefined;
}

export type OpenOptions = { keys: MasterKeys } | { password: Uint8Array | string };

export interface ListedSnapshot {
  readonly id: ObjectId;
  readonly snapshot: Snapshot;
}

/** A pack whose index is to be written. */
export interface NewPack {
  readonly id: Uint8Array;
  /** The plain bytes of its header. */
  readonly header: Uint8Array;
}

/** A file that is there and cannot be used. */
export interface DamagedFile {
  readonly name: string;
  readonly error: CairnError;
}

/** The snapshots of a repository. */
export interface SnapshotListing {
  readonly snapshots: readonly ListedSnapshot[];
  /** Those that are there and cannot be read. */
  readonly damaged: readonly DamagedFile[];
}

/** An open repository: its keys, its config and its sealed files. Knows nothing of what the blobs mean. */
export class Repository {
  readonly storage: Storage;
  readonly keys: MasterKeys;
  /** 64 hex digits. */
  readonly id: string;
  readonly version: 1 | 2;
  /** Lower-case hex. */
  readonly chunkerPolynomial: string;
  /** Name of the key file that it was made with, or that a password opened it with; null where it was opened by its keys. */
  readonly keyName: string | null;
  /** Form of the packs that this process makes. */
  style: PackStyle;
  /** The memory of snapshots that a list may lack; null for a store, whose points are a second list. */
  seen: SeenSnapshots | null = null;
  readonly #config: RepositoryConfig;

  private constructor(storage: Storage, keys: MasterKeys, config: RepositoryConfig, keyName: string | null = null) {
    this.keyName = keyName;
    this.storage = storage;
    this.keys = keys;
    this.id = config.id;
    this.version = config.version === 1 ? 1 : 2;
    this.chunkerPolynomial = config.chunker_polynomial;
    this.style = { version: this.version };
    this.#config = config;
  }

  /** Returns this repository by way of another storage of its files, e.g. one that ends with a signal. */
  over(storage: Storage): Repository {
    const repository = new Repository(storage, this.keys, this.#config, this.keyName);
    repository.style = this.style;
    repository.seen = this.seen;
    return repository;
  }

  /** Remembers the snapshots of lists in a file of this host's cache. */
  rememberIn(path: string): void {
    this.seen = new SeenSnapshots(path);
  }

  /** To be called before anything but locks is removed. `refused` where the repository's config forbids that. */
  requireRemovals(): void {
    if (this.#config.append_only !== true) return;
    throw new CairnError(
      "refused",
      `${this.storage.location} is append-only by its config: nothing may be removed there`,
      {
        hint: "to allow removals, run: rustic config --set-append-only false",
      },
    );
  }

  /**
   * To be called before anything is written in the place of what is removed afterwards. Throws as `requireRemovals` does, and
   * `permission` where the storage lets nothing but locks go: it is asked to remove a snapshot that is nowhere.
   */
  async tryRemoval(): Promise<void> {
    this.requireRemovals();
    const { storage } = this;
    await storage.remove("snapshots", NO_SNAPSHOT).catch((error: unknown) => {
      const known = toCairnError(error);
      if (known.code === "not_found") return;
      if (known.code !== "permission") throw known;
      throw reworded(known, {
        message: `nothing may be removed from ${storage.location}, so nothing was changed there: ${known.message}`,
        hint: "use access that allows removals: a key that may delete, or a server that is not append-only",
      });
    });
  }

  /**
   * Writes a key file, then the config, which is the commit point: of several at once one wins, and only that one removes
   * the key files that were there before. `already_exists` when there is a config, or what a lost one has left.
   */
  static async create(storage: Storage, options: CreateOptions): Promise<Repository> {
    if (await storage.exists("config", "config")) {
      throw new CairnError("already_exists", `there is a repository in ${storage.location} already`);
    }
    const leftovers = await leftoverKeys(storage, options.replaceUnfinished === true);
    const keys = options.keys ?? newMasterKeys();
    const polynomial = options.chunkerPolynomial ?? formatPolynomial(randomPolynomial());
    if (!isUsable(polynomial)) throw new CairnError("usage", "the chunker polynomial is not irreducible of degree 53");
    const config = { id: randomBytes(32).toString("hex"), version: 2, chunker_polynomial: polynomial };
    const repository = new Repository(storage, keys, config);
    const key = await repository.addKey(options.password, options.kdf ?? CHEAP_SCRYPT, options.signal);
    failpoint("repository.key-written");
    try {
      await storage.save("config", "config", sealMessage(keys, encodeConfig(config)));
    } catch (error) {
      // Another one was faster; after any other failure the config may be there all the same.
      if (error instanceof CairnError && error.code === "already_exists") await removeQuietly(storage, key);
      throw error;
    }
    failpoint("repository.config-written");
    for (const name of leftovers) await removeQuietly(storage, name);
    return new Repository(storage, keys, config, key);
  }

  /** Opens with the master keys (no key derivation) or with a password that fits one of the key files. */
  static async open(storage: Storage, options: OpenOptions): Promise<Repository> {
    // Asked for at once, where each is a round trip.
    const names = "keys" in options ? Promise.resolve([]) : storage.list("keys");
    names.catch(() => undefined);
    let sealed: Uint8Array;
    try {
      sealed = await storage.load("config", "config");
    } catch (error) {
      // One with a hint knows more than that the file is absent: there is no bucket.
      if (!(error instanceof CairnError) || error.code !== "not_found" || error.hint !== undefined) throw error;
      throw new CairnError("not_found", `no repository in ${storage.location}: it has no config`, { cause: error });
    }
    const keyFiles = await names.catch((error: unknown): StoredFile[] => {
      // A folder that is gone holds none, and more is said of that than that it is gone.
      if (error instanceof CairnError && error.details?.["missing_folder"] === "keys") return [];
      throw error;
    });
    const opensConfig = (keys: MasterKeys): boolean => openedOrNull(keys, sealed) !== null;
    const found =
      "keys" in options ? null : await findKey(storage, options.password, { names: keyFiles, right: opensConfig });
    const keys = "keys" in options ? options.keys : found!.keys;
    const isRight = (bytes: Uint8Array): boolean => openedOrNull(keys, bytes) !== null;
    const plain =
      openedOrNull(keys, sealed) ?? openedOrNull(keys, await storage.load("config", "config", undefined, { isRight }));
    if (plain === null)
      throw new CairnError("damaged", `the config of ${storage.location} does not open with the repository's key`, {
        hint: 'put the file "config" back from a copy of the repository',
      });
    return new Repository(storage, keys, decodeConfig(plain), found?.name ?? null);
  }

  /** Writes one more key file; the password then opens the repository, here and in restic. `signal`: until it is written. */
  async addKey(
    password: Uint8Array | string,
    kdf: ScryptParameters = CHEAP_SCRYPT,
    signal?: AbortSignal,
  ): Promise<ObjectId> {
    const salt = randomBytes(64);
    const derived = await deriveKeys(password, salt, kdf);
    const file: KeyFile = {
      created: new Date().toISOString(),
      username: currentUser().username,
      hostname: hostname(),
      kdf: "scrypt",
      ...kdf,
      salt,
      data: sealMessage(derived, encodeMasterKeys(this.keys)),
    };
    const bytes = encodeKeyFile(file);
    const name = objectIdOf(sha256(bytes));
    throwIfAborted(signal);
    await this.storage.save("keys", name, bytes);
    return name;
  }

  /** Seals and stores a file under the digest of its sealed bytes. */
  async saveUnpacked(kind: UnpackedKind, json: Uint8Array, options?: SaveOptions): Promise<ObjectId> {
    const { name, sealed } = await this.sealUnpacked(json);
    await this.storage.save(kind, name, sealed, options);
    return name;
  }

  /** The bytes of such a file and the name that it will have. */
  async sealUnpacked(json: Uint8Array): Promise<{ name: ObjectId; sealed: Uint8Array }> {
    const plain = this.version === 1 ? json : await packPlain(json);
    const sealed = sealMessage(this.keys, plain);
    if (plain !== json) giveBack(plain);
    return { name: objectIdOf(sha256(sealed)), sealed };
  }

  /** The JSON bytes of a sealed file. `damaged` when its name, its seal or its frame is wrong, or a sector of it cannot be read. */
  async loadUnpacked(kind: UnpackedKind, name: string): Promise<Uint8Array> {
    return this.#opened(kind, name, await this.#load(async () => this.storage.load(kind, name)));
  }

  async #load(load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    try {
      return await load();
    } catch (error) {
      throw unlessWorn(error);
    }
  }

  #opened(kind: UnpackedKind, name: string, sealed: Uint8Array): Uint8Array {
    if (objectIdOf(sha256(sealed)) !== name) {
      throw new CairnError(
        "damaged",
        `${labelOf(kind, name)} is not what was written: its SHA-256 does not match its name`,
      );
    }
    try {
      const plain = openMessage(this.keys, sealed);
      const json = unpackPlain(plain);
      if (json !== plain) giveBack(plain);
      return json;
    } catch (error) {
      const known = toCairnError(error);
      if (known.code !== "damaged") throw known;
      throw new CairnError("damaged", `${labelOf(kind, name)} cannot be opened: ${known.message}`, {
        cause: error,
      });
    }
  }

  async saveSnapshot(snapshot: Snapshot, options?: SaveOptions): Promise<ObjectId> {
    const { name, sealed } = await this.sealUnpacked(encodeSnapshot(snapshot));
    // First: after a kill a list may lack what was saved.
    this.seen?.made(name, snapshot);
    failpoint("repository.snapshot-seen");
    try {
      await this.storage.save("snapshots", name, sealed, options);
    } catch (error) {
      if (!mayBeDone(toCairnError(error))) this.seen?.forgot([name]);
      throw error;
    }
    return name;
  }

  async loadSnapshot(id: string): Promise<Snapshot> {
    return snapshotFrom(id, await this.loadUnpacked("snapshots", id));
  }

  /**
   * Loads files of a kind that a list named in turn: the caller awaits each before it asks for the next. Where each is a
   * request of its own, some that follow are on their way already, and wait as they are stored. One that is listed and
   * not there when it is read is `damaged`.
   */
  *loadInTurn(kind: UnpackedKind, names: Iterable<string>): Generator<{ name: string; json: Promise<Uint8Array> }> {
    const ahead = this.storage.localPath === undefined ? LOADS[kind] : 1;
    const listed = new ListedFiles(this.storage, kind);
    const coming: { name: string; sealed: Promise<Uint8Array> }[] = [];
    const next = (): { name: string; json: Promise<Uint8Array> } => {
      const { name, sealed } = coming.shift()!;
      const json = sealed.then((bytes) => this.#opened(kind, name, bytes));
      // The caller may pause before it awaits this one, or stop there.
      json.catch(() => undefined);
      return { name, json };
    };
    for (const name of names) {
      const sealed = this.#load(async () => listed.load(name));
      // Whoever stops before its turn does not ask what became of it.
      sealed.catch(() => undefined);
      coming.push({ name, sealed });
      if (coming.length >= ahead) yield next();
    }
    while (coming.length > 0) yield next();
  }

  /**
   * Every snapshot that can be read, in no order, and the damaged ones by name. One that vanishes meanwhile is neither.
   * `onNamed` is called once it is known which there are.
   */
  async listSnapshots(
    signal?: AbortSignal,
    onNamed?: () => void,
  ): Promise<{ snapshots: ListedSnapshot[]; damaged: DamagedFile[] }> {
    const pace = newPacer(signal);
    const snapshots: ListedSnapshot[] = [];
    const damaged: DamagedFile[] = [];
    const names = (await this.storage.list("snapshots")).map(({ name }) => name);
    onNamed?.();
    for (const { name, json } of this.loadInTurn("snapshots", names)) {
      await pace();
      try {
        snapshots.push({ id: parseObjectId(name), snapshot: snapshotFrom(name, await json) });
      } catch (error) {
        if (!(error instanceof CairnError)) throw error;
        if (error.code === "damaged") damaged.push({ name, error });
        else if (error.code !== "not_found") throw error;
      }
    }
    this.seen?.listed(
      [...snapshots, ...damaged].map((file) => ("id" in file ? file.id : file.name)),
      snapshots,
    );
    return { snapshots, damaged };
  }

  /**
   * Writes the index of these packs, several files when one would pass 8 MiB. `after`: what has to be done before the
   * first is written, while which it is made. `durable: false` leaves flushing to the caller's `storage.sync(["index"])`.
   */
  async saveIndex(
    packs: readonly NewPack[],
    options: SaveOptions & { after?: Promise<unknown> } = {},
  ): Promise<ObjectId[]> {
    const { after, ...save } = options;
    // It may fail while nobody waits for it yet.
    after?.catch(() => undefined);
    const names: ObjectId[] = [];
    const text = new IndexText(MAX_INDEX_BYTES, packs);
    // One file after the other: two in hand would double what a large save needs at its peak.
    const write = async (): Promise<void> => {
      const json = text.finish();
      if (json.length === 0) return;
      const { name, sealed } = await this.sealUnpacked(json);
      await after;
      await this.storage.save("index", name, sealed, save);
      names.push(name);
    };
    try {
      for (const { id, header } of packs) {
        if (text.add(id, header)) continue;
        await write();
        text.add(id, header);
      }
      await write();
    } finally {
      text.release();
    }
    return names;
  }
}

function snapshotFrom(id: string, json: Uint8Array): Snapshot {
  try {
    return decodeSnapshot(json);
  } catch (error) {
    throw new CairnError("damaged", `snapshot ${id.slice(0, 8)} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Key files without a config; `already_exists` where they may be those of a repository whose config was lost, or where there is content. */
async function leftoverKeys(storage: Storage, mayBeThere: boolean): Promise<string[]> {
  const names = (await storage.list("keys")).map((file) => file.name);
  if (names.length > 0 && !mayBeThere)
    throw new CairnError("already_exists", `${storage.location} has key files but no config; it is not empty`);
  for (const kind of CONTENT_KINDS) {
    if ((await storage.list(kind)).length === 0) continue;
    throw new CairnError("already_exists", `${storage.location} has content but no config`, {
      hint: "nothing was changed; a repository's config was lost there: put the config back from a copy, or choose another place",
    });
  }
  return names;
}

const KEY_COPY =
  "put a copy of a key file back into the repository's folder keys, under its own name: without a key file no password opens the repository";

async function removeQuietly(storage: Storage, key: string): Promise<void> {
  await storage.remove("keys", key).catch(() => undefined);
}

/**
 * The master keys that one of the key files gives for a password. `wrong_password`; when no key file can be read `damaged`,
 * or what keeps them from being read, as `permission`.
 */
export async function keysFromPassword(storage: Storage, password: Uint8Array | string): Promise<MasterKeys> {
  return (await findKey(storage, password, { names: await storage.list("keys"), right: () => true })).keys;
}

/** A key file that the password opens; of several the one that is `right`: a killed creation may have left one. */
interface FoundKey {
  readonly name: string;
  readonly keys: MasterKeys;
}

async function findKey(
  storage: Storage,
  password: Uint8Array | string,
  { names, right }: { names: readonly StoredFile[]; right: (keys: MasterKeys) => boolean },
): Promise<FoundKey> {
  let damaged: unknown;
  // Of those nobody knows what is in them: they say nothing against the repository or the password.
  let unread: CairnError | null = null;
  let tried = 0;
  let wrong: FoundKey | null = null;
  for (const { name } of names.slice(0, MAX_KEYS)) {
    let file: KeyFile;
    let derived: MasterKeys;
    try {
      const bytes = await storage.load("keys", name);
      if (objectIdOf(sha256(bytes)) !== name)
        throw new CairnError("damaged", `key ${name.slice(0, 8)}: its SHA-256 does not match its name`);
      file = decodeKeyFile(bytes);
      derived = await deriveKeys(password, file.salt, file);
    } catch (error) {
      if (error instanceof CairnError && error.code === "interrupted") throw error;
      if (error instanceof CairnError && error.code !== "damaged" && error.code !== "not_found") unread ??= error;
      else damaged ??= error;
      continue;
    }
    tried++;
    const plain = openedOrNull(derived, file.data);
    if (plain === null) continue;
    const keys = decodeMasterKeys(plain);
    if (right(keys)) return { name, keys };
    wrong ??= { name, keys };
  }
  if (wrong !== null) return wrong;
  if (tried === 0 && unread !== null) {
    const { code, message } = unread;
    const hint =
      code === "permission"
        ? "give this user the right to read the files in the repository's folder keys"
        : adviceOf(unread);
    throw new CairnError(code, `no key file of ${storage.location} can be read: ${message}`, { cause: unread, hint });
  }
  if (tried === 0 && damaged !== undefined) {
    throw new CairnError("damaged", `no key file of ${storage.location} can be read`, {
      cause: damaged,
      hint: KEY_COPY,
    });
  }
  if (tried === 0) throw new CairnError("damaged", `${storage.location} has no key files`, { hint: KEY_COPY });
  const others = unread === null ? "" : `; other keys cannot be read: ${unread.message}`;
  throw new CairnError("wrong_password", `no key of ${storage.location} opens with this password${others}`, {
    cause: unread ?? damaged,
  });
}

/** A sector that cannot be read is damage of what lies in it. */
function unlessWorn(error: unknown): CairnError {
  const known = toCairnError(error);
  return isBadSector(known) ? new CairnError("damaged", known.message, { cause: error }) : known;
}
