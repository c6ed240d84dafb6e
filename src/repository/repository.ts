import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { join } from "node:path";
import { currentUser } from "../fs/users.ts";
import { deriveKeys, newMasterKeys, type ScryptParameters } from "../crypto/key-derivation.ts";
import { sha256 } from "../crypto/hash.ts";
import { openedOrNull, openMessage, sealMessage, type MasterKeys } from "../crypto/seal.ts";
import { advice, adviceOf, CairnError, call, isBadSector, reworded, throwIfAborted, toCairnError } from "../errors.ts";
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
import { DamagedPacks } from "./damaged-packs.ts";
import { SeenSnapshots } from "./seen-snapshots.ts";
import { packPlain, unpackPlain } from "./unpacked.ts";

/** For a password of 32 random bytes, which cannot be guessed: a cheap key derivation is enough. */
const CHEAP_SCRYPT: ScryptParameters = { N: 1024, r: 8, p: 1 };

/** The most bytes of an index file. restic reads larger ones, but writes none. */
const MAX_INDEX_BYTES = 8 * 1024 * 1024 - 64 * 1024;
const MAX_KEYS = 1000;
/** Files that are loaded at the same time from a remote storage. Snapshots are small; index files have up to 8 MiB. */
const LOADS = { snapshots: 16, index: 8, locks: 8 } as const;

/** The id of a snapshot that is in no repository. */
const NO_SNAPSHOT = "0".repeat(64);

/** Kinds of files that hold saved content. */
export const CONTENT_KINDS = ["snapshots", "index", "data"] as const;

export type UnpackedKind = "index" | "snapshots" | "locks";

export interface CreateOptions {
  /** The password that opens the new repository; one key file is written. */
  password: Uint8Array | string;
  kdf?: ScryptParameters;
  /** Master keys of the new repository; default: new ones. */
  keys?: MasterKeys;
  /** Lower-case hex; default: a new irreducible polynomial. */
  chunkerPolynomial?: string;
  /** True: if the place has only key files, they are leftovers of a killed creation, and are removed at the end. */
  replaceUnfinished?: boolean;
  signal?: AbortSignal | undefined;
}

export type OpenOptions = { keys: MasterKeys } | { password: Uint8Array | string };

export interface ListedSnapshot {
  readonly id: ObjectId;
  readonly snapshot: Snapshot;
  /** When the snapshot's file was written, by the storage's own clock; undefined if the storage does not tell. */
  readonly writtenAt?: number | undefined;
}

/** A pack whose index is to be written. */
export interface NewPack {
  readonly id: Uint8Array;
  /** The plain bytes of the pack's header. */
  readonly header: Uint8Array;
}

/** A file that exists but cannot be used. */
export interface DamagedFile {
  readonly name: string;
  readonly error: CairnError;
}

/** The snapshots of a repository. */
export interface SnapshotListing {
  readonly snapshots: readonly ListedSnapshot[];
  /** Snapshots that exist but cannot be read. */
  readonly damaged: readonly DamagedFile[];
}

/** An open repository: its keys, its config and its sealed files. Does not interpret blobs. */
export class Repository {
  readonly storage: Storage;
  readonly keys: MasterKeys;
  /** 64 hex digits. */
  readonly id: string;
  readonly version: 1 | 2;
  /** Lower-case hex. */
  readonly chunkerPolynomial: string;
  /**
   * Name of the key file that a password opened or that was written at creation; null if the repository was opened by
   * its keys.
   */
  readonly keyName: string | null;
  /** The form of packs that this process writes. */
  style: PackStyle;
  /** Remembers snapshots, because a list may lack some. Null for a store, whose points are a second list. */
  seen: SeenSnapshots | null = null;
  /** Packs in which this host found damage; shared by all views of the repository. */
  damaged = new DamagedPacks(null);
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

  /** Returns the same repository on another storage of its files, e.g. one whose calls end with a signal. */
  over(storage: Storage): Repository {
    const repository = new Repository(storage, this.keys, this.#config, this.keyName);
    repository.style = this.style;
    repository.seen = this.seen;
    repository.damaged = this.damaged;
    return repository;
  }

  /** Remembers the snapshots of lists, and damage, in files of this host's cache. */
  rememberIn(folder: string): void {
    this.seen = new SeenSnapshots(join(folder, "seen-snapshots"));
    this.damaged = new DamagedPacks(join(folder, "damaged-packs"));
  }

  /** Call it before you remove files other than locks. Throws `refused` if the repository's config forbids removals. */
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
   * Call it before you write replacements of files that are removed afterwards. Throws as `requireRemovals` does. Tries
   * to remove a snapshot that does not exist, and throws `permission` if the storage forbids removals.
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
   * Writes a key file, then the config, which is the commit point: of several creations one wins, and removes the
   * leftover key files. Throws `already_exists` if there is a config, or files of a repository that lost its config.
   */
  static async create(storage: Storage, options: CreateOptions): Promise<Repository> {
    if (await storage.exists("config", "config")) {
      throw new CairnError("already_exists", `there is a repository in ${storage.location} already`, {
        hint: advice`choose another place, or use that repository: ${call("backup list", "list")} shows its snapshots`,
      });
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
      // Another creation won; the new key file is useless. After any other failure the config may exist.
      if (error instanceof CairnError && error.code === "already_exists") await removeQuietly(storage, key);
      throw error;
    }
    failpoint("repository.config-written");
    for (const name of leftovers) await removeQuietly(storage, name);
    return new Repository(storage, keys, config, key);
  }

  /** Opens a repository with its master keys (no key derivation) or with a password of one of its key files. */
  static async open(storage: Storage, options: OpenOptions): Promise<Repository> {
    // Listed while the config is loaded: on a remote storage each is a round trip.
    const names = "keys" in options ? Promise.resolve([]) : storage.list("keys");
    names.catch(() => undefined);
    let sealed: Uint8Array;
    try {
      sealed = await storage.load("config", "config");
    } catch (error) {
      // An error with a hint says more, e.g. that the bucket does not exist.
      if (!(error instanceof CairnError) || error.code !== "not_found" || error.hint !== undefined) throw error;
      throw new CairnError("not_found", `no repository in ${storage.location}: it has no config`, {
        cause: error,
        details: { location: storage.location },
      });
    }
    const keyFiles = await names.catch((error: unknown): StoredFile[] => {
      // A missing folder has no key files; the error for that is thrown below.
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

  /**
   * Writes another key file; the password then opens the repository, in restic too. `signal` counts until the file is
   * written.
   */
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

  /** Saves a file after `options.after`; a store gets the bytes at once. */
  async #save(
    kind: UnpackedKind,
    name: ObjectId,
    { sealed, options }: { sealed: Uint8Array; options: SaveOptions | undefined },
  ): Promise<void> {
    const { after, ...rest } = options ?? {};
    if (this.storage.isStore === true) return this.storage.save(kind, name, sealed, options);
    await after;
    return this.storage.save(kind, name, sealed, rest);
  }

  /** Returns the sealed bytes of a file and its future name. */
  async sealUnpacked(json: Uint8Array): Promise<{ name: ObjectId; sealed: Uint8Array }> {
    const plain = this.version === 1 ? json : await packPlain(json);
    const sealed = sealMessage(this.keys, plain);
    if (plain !== json) giveBack(plain);
    return { name: objectIdOf(sha256(sealed)), sealed };
  }

  /**
   * Returns the JSON bytes of a sealed file. Throws `damaged` if its name, seal or zstd frame is wrong, or a sector is
   * unreadable.
   */
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
    // Remembered before it is saved: after a kill a list may lack the saved snapshot.
    this.seen?.made(name, snapshot);
    failpoint("repository.snapshot-seen");
    try {
      await this.#save("snapshots", name, { sealed, options });
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
   * Loads listed files in turn; the caller awaits each before it takes the next. From a remote storage some following
   * files are loaded ahead, still sealed. A file that is listed but missing is `damaged`.
   */
  *loadInTurn(kind: UnpackedKind, names: Iterable<string>): Generator<{ name: string; json: Promise<Uint8Array> }> {
    const ahead = this.storage.localPath === undefined ? LOADS[kind] : 1;
    const listed = new ListedFiles(this.storage, kind);
    const coming: { name: string; sealed: Promise<Uint8Array> }[] = [];
    const next = (): { name: string; json: Promise<Uint8Array> } => {
      const { name, sealed } = coming.shift()!;
      const json = sealed.then((bytes) => this.#opened(kind, name, bytes));
      // The caller may pause before it awaits this promise, or never await it.
      json.catch(() => undefined);
      return { name, json };
    };
    for (const name of names) {
      const sealed = this.#load(async () => listed.load(name));
      // If the caller stops early, nobody awaits this promise.
      sealed.catch(() => undefined);
      coming.push({ name, sealed });
      if (coming.length >= ahead) yield next();
    }
    while (coming.length > 0) yield next();
  }

  /**
   * Returns every readable snapshot, in no order, and the damaged ones. Skips snapshots that vanish meanwhile. Calls
   * `onNamed` once the names are known.
   */
  async listSnapshots(
    signal?: AbortSignal,
    onNamed?: () => void,
  ): Promise<{ snapshots: ListedSnapshot[]; damaged: DamagedFile[] }> {
    const pace = newPacer(signal);
    const snapshots: ListedSnapshot[] = [];
    const damaged: DamagedFile[] = [];
    const times = new Map((await this.storage.list("snapshots")).map(({ name, writtenAt }) => [name, writtenAt]));
    onNamed?.();
    for (const { name, json } of this.loadInTurn("snapshots", times.keys())) {
      await pace();
      try {
        const snapshot = snapshotFrom(name, await json);
        snapshots.push({ id: parseObjectId(name), snapshot, writtenAt: times.get(name) });
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
   * Writes the index of these packs, in several files if one would exceed 8 MiB. No file gets its
   * name before `after` has resolved. `durable: false` leaves flushing to the caller's `storage.sync(["index"])`.
   */
  async saveIndex(packs: readonly NewPack[], options: SaveOptions = {}): Promise<ObjectId[]> {
    // The promise may reject before anyone awaits it.
    const settled = options.after?.catch(() => undefined);
    const names: ObjectId[] = [];
    const text = new IndexText(MAX_INDEX_BYTES, packs);
    // One file after the other: two in memory would double the peak of a large save.
    const write = async (): Promise<void> => {
      const json = text.finish();
      if (json.length === 0) return;
      const { name, sealed } = await this.sealUnpacked(json);
      await this.#save("index", name, { sealed, options });
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
      // After a failure of this function, too, nothing of `after` runs any more.
      await settled;
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

/**
 * Returns key files without a config. Throws `already_exists` if they may belong to a repository that lost its config,
 * or if there is content.
 */
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
 * Returns the master keys from a key file that the password opens. Throws `wrong_password`. If no key file can be read,
 * throws `damaged` or the error of reading, e.g. `permission`.
 */
export async function keysFromPassword(storage: Storage, password: Uint8Array | string): Promise<MasterKeys> {
  return (await findKey(storage, password, { names: await storage.list("keys"), right: () => true })).keys;
}

/**
 * A key file that the password opens. If there are several, the key file whose keys are `right` is preferred: a killed
 * creation may have left another key file.
 */
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
  // An unreadable key file proves nothing against the password.
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

/** Turns the error of an unreadable sector into `damaged`. */
function unlessWorn(error: unknown): CairnError {
  const known = toCairnError(error);
  return isBadSector(known) ? new CairnError("damaged", known.message, { cause: error }) : known;
}
