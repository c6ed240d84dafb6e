import { CairnError } from "../../src/errors.ts";
import {
  isFileName,
  labelOf,
  type ByteRange,
  type FileKind,
  type SaveOptions,
  type Storage,
  type StorageCall,
  type StoredFile,
} from "../../src/repository/storage/storage.ts";
import { readFileSync, unlinkSync } from "node:fs";
import type { Host, World } from "./world.ts";

interface Kept {
  bytes: Uint8Array;
  /** Milliseconds of the world. */
  writtenAt: number;
}

/** What other hosts do with a lock that a call of one host is under. */
interface Locked {
  host: Host;
  exclusive: boolean;
  /** True once the host wrote or removed content under it. */
  isUsed: boolean;
}

/** Calls that a storage answers wrongly, as shares of all calls. */
export interface Faults {
  /** The call does nothing, and says 503. */
  unavailable: number;
  /** The call does its work, and says 503. */
  late: number;
  /** The call is done twice. */
  repeated: number;
  /** A list is up to 150 ms old. */
  stale: number;
  /** A list of other files than locks lacks some; a list of locks is empty. */
  short: number;
}

export const NO_FAULTS: Faults = { unavailable: 0, late: 0, repeated: 0, stale: 0, short: 0 };

/** Hosts see a file that was written at least so long ago in each list, as `docs/repositories.md` expects of a storage. */
const STALE_MS = 150;

/** A process relies on its lock for so long without a refresh. */
const RELIED_ON_MS = 25 * 60_000;

/** The files of one repository that several hosts share. */
export class SharedFiles {
  readonly #world: World;
  readonly #files = new Map<string, Kept>();
  /** Removed files with the time of their removal, for stale lists. */
  readonly #removed: { key: string; size: number; writtenAt: number; at: number }[] = [];
  /** By the lock's name; a test reads the locks' content. */
  readonly locks = new Map<string, Locked>();
  /** Sentences about hosts that worked beside an exclusive lock. */
  readonly wrong: string[] = [];

  constructor(world: World) {
    this.#world = world;
  }

  get(kind: FileKind, name: string): Uint8Array | undefined {
    return this.#files.get(`${kind}/${name}`)?.bytes;
  }

  set(kind: FileKind, name: string, bytes: Uint8Array): void {
    this.#files.set(`${kind}/${name}`, { bytes: Uint8Array.from(bytes), writtenAt: this.#world.now });
  }

  /** Returns false if the file is missing. Notes the removal of a lock that its process still relies on. */
  delete(host: Host, kind: FileKind, name: string): boolean {
    const key = `${kind}/${name}`;
    const kept = this.#files.get(key);
    if (kept === undefined) return false;
    this.#removed.push({ key, size: kept.bytes.length, writtenAt: kept.writtenAt, at: this.#world.now });
    this.#files.delete(key);
    const lock = kind === "locks" ? this.locks.get(name) : undefined;
    const ageMs = this.#world.now - kept.writtenAt;
    if (lock !== undefined && lock.host !== host && !lock.host.isDead && ageMs < RELIED_ON_MS)
      this.wrong.push(`${host.name} removed the lock of ${lock.host.name}, which is ${Math.round(ageMs / 1000)} s old`);
    if (kind === "locks") this.locks.delete(name);
    return true;
  }

  /** Returns the list as it was `ageMs` ago. */
  list(kind: FileKind, ageMs = 0): StoredFile[] {
    const at = this.#world.now - ageMs;
    const lead = `${kind}/`;
    const present = [...this.#files].map(([key, { bytes, writtenAt }]) => ({ key, size: bytes.length, writtenAt }));
    const removed = ageMs === 0 ? [] : this.#removed.filter((each) => each.at > at);
    return [...present, ...removed]
      .filter(({ key, writtenAt }) => key.startsWith(lead) && (ageMs === 0 || writtenAt <= at))
      .map(({ key, size, writtenAt }) => ({ name: key.slice(lead.length), size, writtenAt }));
  }

  /** Notes a change of content by `host`, and tells if another host works under a lock that excludes it. */
  noteWork(host: Host, what: string): void {
    const own = [...this.locks.values()].filter((lock) => lock.host === host);
    const isExclusive = own.some(({ exclusive }) => exclusive);
    for (const lock of own) lock.isUsed = true;
    for (const other of this.locks.values())
      if (other.host !== host && !other.host.isDead && other.isUsed && (other.exclusive || isExclusive))
        this.wrong.push(
          `${host.name} ${what} while ${other.host.name} works under ${other.exclusive ? "an exclusive" : "a"} lock`,
        );
  }
}

const unavailable = (what: string): CairnError => new CairnError("io", `503 Service Unavailable: ${what}`);

/** One host's way to shared files: each call takes time, and some are answered wrongly. */
export class HostStorage implements Storage {
  readonly location = "memory:shared";
  readonly #world: World;
  readonly #host: Host;
  readonly #files: SharedFiles;
  readonly faults: Faults;
  /** The most milliseconds of one way to the storage. */
  readonly #wayMs: number;
  /** Tells if the bytes of a lock are of an exclusive lock. */
  isExclusive: (sealed: Uint8Array) => boolean = () => false;

  constructor(world: World, host: Host, files: SharedFiles, faults: Faults, wayMs = 40) {
    this.#world = world;
    this.#host = host;
    this.#files = files;
    this.faults = faults;
    this.#wayMs = wayMs;
  }

  /** Does `work` after the way there, and returns after the way back. */
  async #call<T>(what: string, work: () => T): Promise<T> {
    const world = this.#world;
    await world.pause(1 + world.below(this.#wayMs));
    const { faults } = this;
    if (world.chance(faults.unavailable)) {
      world.log(`${what}: 503`);
      throw unavailable(what);
    }
    let done: T;
    try {
      done = work();
      if (world.chance(faults.repeated)) done = work();
      world.log(what);
    } finally {
      await world.pause(1 + world.below(this.#wayMs));
    }
    if (!world.chance(faults.late)) return done;
    world.log(`${what}: 503 afterwards`);
    throw unavailable(what);
  }

  async save(kind: FileKind, name: string, bytes: Uint8Array, _options?: SaveOptions): Promise<void> {
    await this.#call(`save ${kind}`, () => {
      if (!isFileName(kind, name)) throw new CairnError("invalid_id", `not a name: ${name}`);
      if (kind === "config" && this.#files.get(kind, name) !== undefined)
        throw new CairnError("already_exists", "there is a repository here already");
      if (kind === "index" || kind === "snapshots") this.#files.noteWork(this.#host, `writes ${labelOf(kind, name)}`);
      this.#files.set(kind, name, bytes);
      if (kind === "locks")
        this.#files.locks.set(name, { host: this.#host, exclusive: this.isExclusive(bytes), isUsed: false });
    });
  }

  async saveFile(kind: FileKind, name: string, temporaryPath: string, options?: SaveOptions): Promise<void> {
    const bytes = readFileSync(temporaryPath);
    await this.save(kind, name, bytes, options);
    unlinkSync(temporaryPath);
  }

  async load(kind: FileKind, name: string, range?: ByteRange, _call?: StorageCall): Promise<Uint8Array> {
    return this.#call(`load ${kind}`, () => {
      const bytes = this.#files.get(kind, name);
      if (bytes === undefined) throw new CairnError("not_found", `no ${labelOf(kind, name)}`);
      const { offset = 0, length = bytes.length } = range ?? {};
      if (offset + length > bytes.length) throw new CairnError("damaged", `the file has ${bytes.length} bytes`);
      return Uint8Array.from(bytes.subarray(offset, offset + length));
    });
  }

  async list(kind: FileKind): Promise<StoredFile[]> {
    return this.#call(`list ${kind}`, () => {
      const world = this.#world;
      const found = this.#files.list(kind, world.chance(this.faults.stale) ? world.below(STALE_MS) : 0);
      if (!world.chance(this.faults.short)) return found;
      return kind === "locks" ? [] : found.filter(() => world.chance(0.7));
    });
  }

  async exists(kind: FileKind, name: string): Promise<boolean> {
    return this.#call(`exists ${kind}`, () => this.#files.get(kind, name) !== undefined);
  }

  async remove(kind: FileKind, name: string): Promise<void> {
    let isGone = false;
    await this.#call(`remove ${kind}`, () => {
      if (kind !== "locks" && this.#files.get(kind, name) !== undefined)
        this.#files.noteWork(this.#host, `removes ${labelOf(kind, name)}`);
      // A repeated removal says that the file is missing.
      const wasThere = this.#files.delete(this.#host, kind, name);
      if (!wasThere && !isGone) throw new CairnError("not_found", `no ${labelOf(kind, name)}`);
      isGone = true;
    });
  }

  async sync(): Promise<void> {}

  async now(): Promise<number> {
    return this.#call("now", () => this.#world.now);
  }
}
