import { strict as assert } from "node:assert";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { readBlob } from "../../src/archive/databases/nodes.ts";
import type { OpenRepository } from "../../src/backup/open/open-repository.ts";
import { newMasterKeys } from "../../src/crypto/key-derivation.ts";
import { openMessage } from "../../src/crypto/seal.ts";
import { CairnError } from "../../src/errors.ts";
import { decodeTree } from "../../src/formats/restic/tree.ts";
import { BlobIndex, DATA_BLOB, TREE_BLOB } from "../../src/repository/index/blob-index.ts";
import { BlobSource } from "../../src/repository/read/blob-source.ts";
import { NearPacks } from "../../src/repository/read/near-packs.ts";
import { Repository } from "../../src/repository/repository.ts";
import { CachedStorage } from "../../src/repository/storage/cached.ts";
import { RetryingStorage } from "../../src/repository/storage/retrying.ts";
import { MemoryStorage } from "../../src/repository/storage/testing-memory.ts";
import { unpackPlain } from "../../src/repository/unpacked.ts";
import { type Faults, HostStorage, NO_FAULTS, SharedFiles } from "./shared-storage.ts";
import { hostModules, type HostModules } from "./host-modules.ts";
import { Host, World } from "./world.ts";

/**
 * Two to ten hosts back up, copy, forget and prune at the same time, with the real verbs, against storages in memory. {@link simulate}
 * returns the first broken promise of a seed:
 * - each acknowledged snapshot that nobody forgot can be read whole, with the bytes that were saved;
 * - no host changes content while another host works under an exclusive lock;
 * - no verb fails with anything but an error of Cairn's that a person can act on.
 */

const HOUR = 3_600_000;
const DAY = 24 * HOUR;
const PASSWORD = "in memory";
/** Irreducible, of degree 53. To find one takes a tenth of a second. */
const POLYNOMIAL = "3705f8ef6f136b";
const MOST_COPIES_OF_MODULES = 12;

interface Acknowledged {
  id: string;
  bytes: Buffer;
  isForgotten: boolean;
}

/** A repository that the hosts share. */
interface Place {
  files: SharedFiles;
  repository: Repository;
  /** By id. */
  snapshots: Map<string, Acknowledged>;
}

interface Process {
  host: Host;
  modules: HostModules;
  cache: string;
}

export interface Outcome {
  seed: number;
  /** Null if every promise was kept. */
  broken: string | null;
  trace: readonly string[];
  /** Calls of verbs that came to their end, and those that an error ended, by the error's code. */
  counts: ReadonlyMap<string, number>;
}

class Simulation {
  readonly #seed: number;
  readonly #world: World;
  readonly #folder = mkdtempSync(path.join(tmpdir(), "cairn-simulation-"));
  readonly #places: Place[] = [];
  readonly #counts = new Map<string, number>();
  /** Pieces of content: hosts save some of the same. */
  readonly #pool: Buffer[];
  #faults: Faults = NO_FAULTS;
  #wayMs = 40;
  #copies = 0;
  #broken: string | null = null;

  constructor(seed: number) {
    this.#seed = seed;
    this.#world = new World(seed);
    this.#pool = Array.from({ length: 6 }, () => this.#bytes(2000 + this.#world.below(20_000)));
    this.#pool.push(this.#bytes(700_000), this.#bytes(800_000));
  }

  async run(): Promise<Outcome> {
    try {
      for (let i = 0; i < 2; i++) this.#places.push(await this.#newPlace());
      await this.#world.until(this.#all());
    } catch (error) {
      this.#broken ??= `${(error as Error).stack}`;
    } finally {
      this.#world.end();
      rmSync(this.#folder, { recursive: true, force: true });
    }
    return { seed: this.#seed, broken: this.#broken, trace: this.#world.trace, counts: this.#counts };
  }

  #bytes(length: number): Buffer {
    // One random number a kilobyte is enough: content has to differ, not to be noise.
    const bytes = Buffer.alloc(length);
    for (let at = 0; at < length; at += 1024) bytes.writeUInt32LE(this.#world.below(2 ** 32), Math.min(at, length - 4));
    return bytes;
  }

  async #all(): Promise<void> {
    const world = this.#world;
    this.#faults = world.chance(0.3)
      ? NO_FAULTS
      : { unavailable: 0.02, late: 0.02, repeated: 0.02, stale: 0.2, short: world.chance(0.5) ? 0.03 : 0 };
    if (world.chance(0.5)) this.#wayMs = 400;
    const hosts = 2 + (world.chance(0.9) ? world.below(2) : world.below(9));
    await Promise.all(Array.from({ length: hosts }, (_, i) => this.#life(`host${i}`)));
    this.#faults = NO_FAULTS;
    for (const place of this.#places) await this.#check(place);
  }

  async #newPlace(): Promise<Place> {
    const files = new SharedFiles(this.#world);
    // Outside of the world: a password takes real time.
    const storage = new MemoryStorage();
    const options = {
      password: PASSWORD,
      kdf: { N: 2, r: 1, p: 1 },
      keys: newMasterKeys(),
      chunkerPolynomial: POLYNOMIAL,
    };
    // An id of its own: a process remembers locks by the repository's id.
    const repository = await this.#world.outside(async () => Repository.create(storage, options));
    for (const kind of ["config", "keys"] as const)
      for (const { name } of await storage.list(kind)) files.set(kind, name, await storage.load(kind, name));
    return { files, repository, snapshots: new Map() };
  }

  /** One host from its first to its last verb. After a crash its next process goes on. */
  async #life(name: string): Promise<void> {
    const world = this.#world;
    const cache = path.join(this.#folder, name);
    let process = await this.#start(name, cache);
    for (let verbs = 2 + world.below(3); verbs > 0 && this.#broken === null; verbs--) {
      // As timers do, all hosts begin at the same time of the day.
      const untilNext = DAY - (world.now % DAY);
      await world.pause(untilNext + world.below(world.chance(0.7) ? 300 : 20_000));
      if (process.host.isDead) {
        if (this.#copies >= MOST_COPIES_OF_MODULES) return;
        process = await this.#start(name, cache);
      }
      const { host } = process;
      if (world.chance(0.1)) host.skewMs = (world.below(49) - 24) * HOUR;
      const done = world.run(host, async () => this.#verb(process));
      const disturbed = this.#disturb(host);
      await Promise.race([done, disturbed]);
    }
  }

  /** Perhaps lets a host sleep, or ends it. Settles only when the host was ended. */
  #disturb(host: Host): Promise<void> {
    const world = this.#world;
    const kind = world.random();
    const afterMs = world.below(4000);
    if (kind < 0.08)
      void world.pause(afterMs).then(() => {
        host.sleepsUntil = world.now + (10 + world.below(50)) * 60_000;
        world.log(`${host.name} sleeps`);
      });
    if (kind < 0.08 || kind > 0.2) return new Promise(() => undefined);
    return world.pause(afterMs).then(() => {
      world.log(`${host.name} dies`);
      world.kill(host);
    });
  }

  async #start(name: string, cache: string): Promise<Process> {
    const modules = await hostModules(this.#copies++ % MOST_COPIES_OF_MODULES);
    return { host: new Host(name), modules, cache };
  }

  #open({ host, modules, cache }: Process, { files, repository }: Place): OpenRepository {
    const { keys } = repository;
    const inner = new HostStorage(this.#world, host, files, this.#faults, this.#wayMs);
    inner.isExclusive = (sealed) =>
      (JSON.parse(Buffer.from(unpackPlain(openMessage(keys, sealed))).toString()) as { exclusive?: boolean })
        .exclusive === true;
    const storage = new CachedStorage(new RetryingStorage(inner));
    const options = { repository: "memory", password: PASSWORD, env: { XDG_CACHE_HOME: cache, HOME: cache } };
    return modules.open.OpenRepository.over(options, storage, repository.over(storage));
  }

  async #verb(process: Process): Promise<void> {
    const world = this.#world;
    const kind = world.random();
    const place = this.#places[world.chance(0.85) ? 0 : 1]!;
    const name = kind < 0.5 ? "backup" : kind < 0.65 ? "forget" : kind < 0.75 ? "copy" : "prune";
    world.log(`begins ${name}`);
    try {
      if (name === "backup") await this.#backup(process, place);
      else if (name === "forget") await this.#forget(process, place);
      else if (name === "copy") await this.#copy(process);
      else await this.#prune(process, place);
      this.#count(name);
      world.log(`ends ${name}`);
    } catch (error) {
      if (!(error instanceof CairnError) || error.code === "internal") {
        this.#broken ??= `${process.host.name}: ${name} failed with ${(error as Error).stack}`;
        return;
      }
      this.#count(`${name}: ${error.code}`);
      world.log(`${name} fails: ${error.code}`);
    }
    for (const { files } of this.#places) this.#broken ??= files.wrong[0] ?? null;
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  async #backup(process: Process, place: Place): Promise<void> {
    const world = this.#world;
    const pieces = Array.from({ length: world.chance(0.8) ? 1 : 2 }, () => this.#pool[world.below(this.#pool.length)]!);
    if (world.chance(0.3)) pieces.push(this.#bytes(1000));
    async function* content(): AsyncGenerator<Buffer> {
      for (const piece of pieces) {
        await world.pause(world.below(5000));
        yield piece;
      }
    }
    const access = this.#open(process, place);
    const { snapshot } = await process.modules.create.createFromStream(access, content(), {
      lockTimeoutMs: 20_000,
    } as never);
    if (snapshot === null) return;
    place.snapshots.set(snapshot.snapshot_id, {
      id: snapshot.snapshot_id,
      bytes: Buffer.concat(pieces),
      isForgotten: false,
    });
  }

  async #forget(process: Process, place: Place): Promise<void> {
    const world = this.#world;
    const known = [...place.snapshots.values()].filter(({ isForgotten }) => !isForgotten);
    const chosen = known.filter(() => world.chance(0.4));
    if (chosen.length === 0) return;
    // A forget that is killed may have removed some.
    for (const each of chosen) each.isForgotten = true;
    const snapshots = chosen.map(({ id }) => id);
    await process.modules.forget.forgetBackups(this.#open(process, place), { snapshots });
  }

  async #copy(process: Process): Promise<void> {
    const [from, to] = this.#places as [Place, Place];
    const [source, target] = [this.#open(process, from), this.#open(process, to)];
    const { copied } = await process.modules.copy.copyBackups(source, target, {} as never);
    for (const { snapshot_id: id, new_id: newId } of copied) {
      const known = from.snapshots.get(id);
      if (known !== undefined && newId !== null) to.snapshots.set(newId, { ...known, id: newId, isForgotten: false });
    }
  }

  async #prune(process: Process, place: Place): Promise<void> {
    const allow = ["missing" as const].filter(() => this.#world.chance(0.2));
    // Without a second look a prune has to believe the list.
    const instant = this.#faults.short === 0 && this.#world.chance(0.5);
    await process.modules.prune.pruneBackups(this.#open(process, place), { allow, instant, maxUnused: 0 });
  }

  /** Reads every acknowledged snapshot, without faults. */
  async #check({ files, repository, snapshots }: Place): Promise<void> {
    const own = repository.over(new HostStorage(this.#world, new Host("reader"), files, NO_FAULTS));
    const index = await BlobIndex.load(own, null);
    const near = new NearPacks(own.storage, mkdtempSync(path.join(this.#folder, "read-")));
    const blobs = new BlobSource({ keys: own.keys, index, packs: near });
    for (const { id, bytes, isForgotten } of snapshots.values()) {
      if (isForgotten || this.#broken !== null) continue;
      try {
        const { tree } = await own.loadSnapshot(id);
        const found = await contents(blobs, Buffer.from(tree, "hex"));
        assert.ok(
          found.some((each) => each.equals(bytes)),
          "it has other bytes",
        );
      } catch (error) {
        this.#broken = `snapshot ${id.slice(0, 8)} was acknowledged, and cannot be read: ${(error as Error).message}`;
      }
    }
    blobs.close();
  }
}

/** Returns the content of each file below a tree. */
async function contents(blobs: BlobSource, tree: Uint8Array): Promise<Buffer[]> {
  const found: Buffer[] = [];
  for (const node of decodeTree(await readBlob(blobs, tree, TREE_BLOB))) {
    if (node.type === "dir") found.push(...(await contents(blobs, node.subtree!)));
    const pieces: Buffer[] = [];
    for (let at = 0; at < (node.content?.length ?? 0); at += 32)
      pieces.push(Buffer.from(await readBlob(blobs, node.content!.subarray(at, at + 32), DATA_BLOB)));
    if (node.type === "file") found.push(Buffer.concat(pieces));
  }
  return found;
}

/** Runs one seed to its end. One at a time in a process. */
export async function simulate(seed: number): Promise<Outcome> {
  for (let copy = 0; copy < MOST_COPIES_OF_MODULES; copy++) await hostModules(copy);
  return new Simulation(seed).run();
}
