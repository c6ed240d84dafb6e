import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import path from "node:path";
import { after, test, type TestContext } from "node:test";
import { CairnError } from "../../src/errors.ts";
import { compact } from "../../src/repository/care/compact.ts";
import { marksNow } from "../../src/repository/care/marks.ts";
import { previewSweep, removeSnapshots, runSweep, type SweepOptions } from "../../src/repository/care/remove.ts";
import { BlobIndex } from "../../src/repository/index/blob-index.ts";
import { withLock } from "../../src/repository/locks.ts";
import { Repository } from "../../src/repository/repository.ts";
import { LocalStorage } from "../../src/repository/storage/local.ts";
import { parseS3Location } from "../../src/repository/storage/s3/location.ts";
import { S3Storage } from "../../src/repository/storage/s3/s3.ts";
import { TestingS3Server } from "../../src/repository/storage/s3/testing-s3-server.ts";
import type { FileKind, Storage, StorageCall, StoredFile } from "../../src/repository/storage/storage.ts";
import { WrappedStorage } from "../../src/repository/storage/wrapped.ts";
import { liveFrom, PASSWORD, resticCheck, TestArchive, treeReader } from "../../src/repository/testing-archive.ts";
import { localCopy } from "./local-copy.ts";

/**
 * Two to four hosts that back up, forget and prune one repository, a round a day, while lists are empty, short or old,
 * caches are lost, clocks are wrong by 25 hours and backups run beside the looks. `CAIRN_FUZZ_RUNS=60` makes as many
 * rounds, `CAIRN_FUZZ_SEED` chooses which, `CAIRN_FUZZ_SHOW=1` prints each step.
 */

const ROUNDS = Number(process.env["CAIRN_FUZZ_RUNS"] ?? 8);
const SEED = Number(process.env["CAIRN_FUZZ_SEED"] ?? 20_261_127);
const HOUR_MS = 3_600_000;
/** A daily timer comes a minute early. */
const DAY_MS = 24 * HOUR_MS - 60_000;
const KINDS: readonly FileKind[] = ["snapshots", "index", "data", "locks"];

type Answer = "empty" | "short" | "stale";

let seed = 0;

/** A number from 0 to below `end`, the same for the same seed. */
function below(end: number): number {
  seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
  return Math.floor((seed / 2 ** 32) * end);
}

function pick<T>(from: readonly T[]): T {
  return from[below(from.length)]!;
}

/** One of 24 contents: forgotten content comes back. */
function content(number: number): Buffer {
  const part = createHash("sha512").update(`content ${number}`).digest();
  return Buffer.concat(Array.from({ length: 40 }, (_, i) => createHash("sha512").update(part).update(`${i}`).digest()));
}

/** The storage as one host sees it: lists of some kinds are wrong. */
class LyingStorage extends WrappedStorage {
  readonly #lies = new Map<FileKind, { answer: Answer; old: StoredFile[] }>();

  async lie(kind: FileKind, answer: Answer): Promise<void> {
    this.#lies.set(kind, { answer, old: await this.inner.list(kind) });
  }

  beRight(): void {
    this.#lies.clear();
  }

  override async list(kind: FileKind, call?: StorageCall): Promise<StoredFile[]> {
    const files = await this.inner.list(kind, call);
    const lie = this.#lies.get(kind);
    if (lie === undefined) return files;
    if (lie.answer === "empty") return [];
    const hidden = new Set(
      lie.old.filter(({ name }) => Number.parseInt(name.slice(0, 2), 16) % 3 === 0).map((f) => f.name),
    );
    return lie.answer === "stale" ? lie.old : files.filter(({ name }) => !hidden.has(name));
  }
}

interface World {
  folder: string;
  /** The storage with right lists. */
  storage: Storage;
  /** Opens the storage anew, as another host. */
  open(host: string): Promise<Storage>;
  /** Lets time pass by the storage's clock. */
  pass(ms: number): void;
  close(): Promise<void>;
}

const SCRATCH = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-two-looks-"));
after(() => fs.rmSync(SCRATCH, { recursive: true, force: true }));

function everyFile(folder: string): string[] {
  const entries = fs.readdirSync(folder, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => path.join(parentPath, name));
}

/** A folder. Time passes as its files and this machine's uptime get older. */
function folderWorld(folder: string): World {
  const root = path.join(folder, "repository");
  const open = (host: string): LocalStorage =>
    new LocalStorage(root, { temporaryDirectory: path.join(folder, `tmp-${host}`) });
  const storage = LocalStorage.create(root, { temporaryDirectory: path.join(folder, "tmp") });
  const { uptime } = os;
  let passed = 0;
  os.uptime = () => uptime() + passed / 1000;
  syncBuiltinESMExports();
  return {
    folder,
    storage,
    open: async (host) => open(host),
    pass: (ms) => {
      passed += ms;
      for (const file of everyFile(root)) {
        const { mtimeMs } = fs.statSync(file);
        fs.utimesSync(file, (mtimeMs - ms) / 1000, (mtimeMs - ms) / 1000);
      }
    },
    close: async () => {
      os.uptime = uptime;
      syncBuiltinESMExports();
    },
  };
}

async function s3World(folder: string): Promise<World> {
  const keys = { accessKeyId: "AKIDTEST", secretAccessKey: "very/secret+key" };
  const server = await TestingS3Server.start(keys);
  const began = performance.now();
  // Not by this process's clock, which the test shifts.
  let passed = performance.timeOrigin + began;
  server.now = () => passed + performance.now() - began;
  const opened: S3Storage[] = [];
  const open = async (): Promise<S3Storage> => {
    const storage = await S3Storage.open({ place: parseS3Location(`${server.address}/r`), credentials: keys });
    opened.push(storage);
    return storage;
  };
  return {
    folder,
    storage: await open(),
    open,
    pass: (ms) => void (passed += ms),
    close: async () => {
      for (const storage of opened) await storage.close();
      await server.stop();
    },
  };
}

class Host {
  readonly name: string;
  /** Milliseconds by which the host's clock is wrong. */
  clock = 0;
  readonly #world: World;
  readonly lying: LyingStorage;
  readonly #repository: Repository;
  /** Snapshots that this host made and did not forget. */
  readonly own: string[] = [];

  private constructor(name: string, world: World, lying: LyingStorage, repository: Repository) {
    this.name = name;
    this.#world = world;
    this.lying = lying;
    this.#repository = repository;
  }

  static async join(name: string, world: World): Promise<Host> {
    const lying = new LyingStorage(await world.open(name));
    const repository = await Repository.open(lying, { password: PASSWORD });
    repository.rememberIn(path.join(world.folder, name, "seen"));
    return new Host(name, world, lying, repository);
  }

  get #cache(): string {
    fs.mkdirSync(path.join(this.#world.folder, this.name), { recursive: true });
    return path.join(this.#world.folder, this.name, "index");
  }

  loseCache(): void {
    fs.rmSync(path.join(this.#world.folder, this.name), { recursive: true, force: true });
    this.#repository.rememberIn(path.join(this.#world.folder, this.name, "seen"));
  }

  /** As `adding()` in src/backup/open/session.ts. */
  async backUp(): Promise<string> {
    const repository = this.#repository;
    const files: Record<string, Uint8Array> = {};
    for (let i = 0; i < 4; i++) files[`f${i}`] = content(below(24));
    return withLock(repository, { exclusive: false, waitMs: 2000 }, async (lock) => {
      const listing = await repository.listSnapshots();
      const index = await BlobIndex.load(repository, this.#cache);
      const { waits } = marksNow(index.marks, { ...listing, now: null, isLocal: false });
      const own = waits.size === 0 ? index : index.without(new Set(waits.keys()));
      await lock.recheck();
      const temporary = path.join(this.#world.folder, `tmp-${this.name}`);
      const { snapshot } = await new TestArchive({ repository, temporary }, own).save(files);
      this.own.push(snapshot);
      return snapshot;
    });
  }

  /** Forgets all own snapshots but the newest. */
  async forget(): Promise<number> {
    const going = this.own.slice(0, -1);
    const removed = await removeSnapshots(this.#repository, going, { waitMs: 2000 });
    this.own.splice(0, going.length);
    return removed;
  }

  options(beside: () => Promise<void> = async () => undefined): SweepOptions {
    let looks = 0;
    return {
      cachePath: this.#cache,
      looks: "twice",
      maxWaste: 0.05,
      waitMs: 2000,
      work: () => {
        const work = path.join(this.#world.folder, this.name, "work");
        fs.mkdirSync(work, { recursive: true });
        return work;
      },
      roots: async () => {
        if (looks++ === 0) await beside();
        return [];
      },
    };
  }

  /** As `pruneBackups()`. */
  async prune(beside?: () => Promise<void>): Promise<string> {
    const options = this.options(beside);
    const done = await runSweep(this.#repository, options);
    if (done.index !== null)
      await compact(this.#repository, done.index, { trigger: 6, budgetMs: 5000, work: options.work!, look: done.look });
    const { removedPacks, repackedPacks, removedUnindexed, marked, postponed, warnings } = done;
    return JSON.stringify({ removedPacks, removedUnindexed, repackedPacks, marked: marked.packs, postponed, warnings });
  }

  async preview(): Promise<number> {
    return (await previewSweep(this.#repository, { ...this.options(), looks: "once" })).bytesFreed;
  }
}

async function requireSound(world: World, where: string): Promise<void> {
  const repository = await Repository.open(world.storage, { password: PASSWORD });
  const { snapshots, damaged } = await repository.listSnapshots();
  assert.deepEqual(damaged, [], where);
  const copy = path.join(world.folder, "copy");
  const local = await localCopy(world.storage, copy);
  const index = await BlobIndex.load(local, null);
  const roots = snapshots.map(({ snapshot }) => Buffer.from(snapshot.tree, "hex"));
  const live = await liveFrom(index, roots, treeReader({ repository: local }, index));
  assert.deepEqual(live.problems, [], where);
  resticCheck(copy);
  fs.rmSync(copy, { recursive: true, force: true });
}

let clockMs = 0;

/** Sets this process's clock, which goes on from there. */
function shiftClock(context: TestContext): void {
  const Real = Date;
  class Shifted extends Real {
    constructor(...given: [] | [number | string]) {
      super(...((given.length === 0 ? [Real.now() + clockMs] : given) as [number]));
    }

    static override now(): number {
      return Real.now() + clockMs;
    }
  }
  globalThis.Date = Shifted as DateConstructor;
  context.after(() => {
    globalThis.Date = Real;
  });
}

/** Runs a step of a host by its own clock. Errors that refuse or put off the step are its outcome. */
async function step(host: Host, what: () => Promise<unknown>, passed: number): Promise<string> {
  clockMs = passed + host.clock;
  try {
    return String(await what());
  } catch (error) {
    if (!(error instanceof CairnError)) throw error;
    assert.ok(["busy", "refused", "damaged", "not_found"].includes(error.code), `${error.code}: ${error.message}`);
    return `${error.code}: ${error.message.slice(0, 90)}`;
  }
}

async function walk(context: TestContext, world: World, rounds: number): Promise<void> {
  context.after(() => world.close());
  await Repository.create(world.storage, { password: PASSWORD });
  const hosts: Host[] = [];
  for (const name of ["a", "b", "c", "d"].slice(0, 2 + below(3))) hosts.push(await Host.join(name, world));
  let passed = 0;
  shiftClock(context);
  const note = (text: string): void => {
    if (process.env["CAIRN_FUZZ_SHOW"] === "1") process.stderr.write(`${text}\n`);
  };
  const run = async (host: Host, name: string, what: () => Promise<unknown>): Promise<void> =>
    note(`${host.name} ${name}: ${await step(host, what, passed)}`);
  for (const host of hosts) await run(host, "backs up", async () => host.backUp());
  for (let round = 0; round < rounds; round++) {
    const where = `seed ${SEED}, round ${round}`;
    note(where);
    for (const host of hosts) {
      host.lying.beRight();
      if (below(6) === 0) host.loseCache();
      if (below(8) === 0) host.clock = pick([0, 25, -25]) * HOUR_MS;
    }
    const liar = pick(hosts);
    if (below(3) > 0) {
      const [kind, answer] = [pick(["snapshots", ...KINDS] as const), pick(["empty", "short", "stale"] as const)];
      note(`lists of ${kind} are ${answer} for ${liar.name}`);
      await liar.lying.lie(kind, answer);
    }
    for (let count = 3 + below(4); count > 0; count--) {
      const host = pick(hosts);
      await pick([
        async () => run(host, "backs up", async () => host.backUp()),
        async () => run(host, "forgets", async () => host.forget()),
      ])();
    }
    const [pruning, other] = [liar, pick(hosts)];
    const beside = async (): Promise<void> => {
      if (other !== pruning && other.clock === pruning.clock && below(2) === 0) await other.backUp();
    };
    await run(pruning, "prunes", async () => pruning.prune(beside));
    if (below(2) === 0) await run(other, "prunes", async () => other.prune());
    await requireSound(world, where);
    passed += DAY_MS;
    world.pass(DAY_MS);
  }
  // Space comes back with two daily prunes of each host.
  for (let day = 0; day < 2; day++) {
    for (const host of hosts) {
      host.lying.beRight();
      host.clock = 0;
      if (day === 0) await run(host, "forgets", async () => host.forget());
      await run(host, "prunes", async () => host.prune());
    }
    passed += DAY_MS;
    world.pass(DAY_MS);
  }
  await requireSound(world, "at the end");
  const [first] = hosts;
  first!.loseCache();
  assert.equal(await first!.preview(), 0, "all that is unneeded was freed");
}

for (const kind of ["a folder", "S3"] as const)
  test(`prunes of several hosts in ${kind} lose nothing with wrong lists and clocks, and free space in two days`, async (t) => {
    seed = SEED;
    // Some walks, since one has one number of hosts.
    for (let left = ROUNDS; left > 0; left -= 15) {
      const folder = path.join(SCRATCH, `${kind.replace(" ", "-")}-${left}`);
      fs.mkdirSync(folder);
      await t.test(`${left} rounds left`, async (inner) =>
        walk(inner, kind === "S3" ? await s3World(folder) : folderWorld(folder), Math.min(left, 15)),
      );
    }
  });
