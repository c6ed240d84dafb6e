import assert from "node:assert/strict";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import path from "node:path";
import { after, test } from "node:test";
import { openLibrary } from "../../src/compose.ts";
import type { CairnLibrary, Client } from "../../src/contract/index.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import { makeNode } from "../../src/workspace/store/testing-edits.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { type RunOptions, startCairn } from "../fixtures/command.ts";
import { assertFolder, differencesOf, type FolderState, readFolder } from "../fixtures/folder-state.ts";
import { LONG } from "../fixtures/long.ts";
import { type LoopFileSystem, type LoopKind, makeLoopFileSystem } from "../fixtures/loop-file-system.ts";
import { random } from "./rounds.ts";
import { keepImages, keepSnapshots, type States } from "./states.ts";

/**
 * Every state that a kill can leave, from one run of a command. Folder, state and repository lie in a btrfs subvolume, `live`,
 * on a disk in memory. The command runs in its own process, which waits at each pass of a failpoint until a snapshot is made.
 * When the process has ended, each snapshot takes the place of `live` in turn: inodes, times and paths are as they were, and
 * the owner of all locks is dead. This process then runs the next command, and checks the claims of a {@link Scene}. If the
 * UUIDs of subvolumes count, and for power cuts, copies of a whole disk take the place of snapshots.
 */
export interface Scene {
  /** The command that is killed at each of its passes. */
  readonly args: readonly string[];
  readonly run?: RunOptions;
  /** The next command. Default: a save of the folder, whose point must hold the folder as it is. */
  readonly next?: (live: Live) => Promise<unknown>;
  /** Returns what the command changes, after the next one: all as before the command, or all as after it. */
  readonly look: (live: Live) => unknown;
  /** Shapes of paths that may be left, because another command removes them. */
  readonly leaves?: RegExp;
  /** Failpoints that the command is known to pass. */
  readonly passes?: readonly string[];
  /** The folder of another workspace that the command changes: if it is there, it is saved after the next command. */
  readonly beside?: string;
  /** Further checks of one state; `isAfter` if it is as after the command. */
  readonly check?: (live: Live, isAfter: boolean) => unknown;
  /** Kinds of findings of doctor that the command leaves for its user. */
  readonly finds?: readonly string[];
  /** True if the command does no more than what the next command does anyway, so that all states look the same. */
  readonly isRepeated?: boolean;
}

/** A point that was acknowledged before the command, with the folder as it was then. */
interface Acknowledged {
  readonly id: string;
  readonly digest: string | null;
  readonly state: FolderState;
}

/** The subvolume `live`, and the library as a new process would open it. */
export class Live {
  readonly root: string;
  folder: string;
  readonly acknowledged: Acknowledged[] = [];
  #library: CairnLibrary | undefined;
  #clients: Client[] = [];

  constructor(root: string) {
    this.root = root;
    this.folder = path.join(root, "work");
  }

  at(...names: string[]): string {
    return path.join(this.root, ...names);
  }

  /** Lets this process and its children keep their state, caches and settings in `live`. */
  enter(): void {
    for (const [name, below] of Object.entries({
      HOME: "home",
      XDG_STATE_HOME: "state",
      XDG_CACHE_HOME: "cache",
      XDG_CONFIG_HOME: "config",
      CAIRN_STATE_DIR: "no-daemon",
      CAIRN_MACHINES: "machines",
    }))
      process.env[name] = this.at(below);
  }

  async library(): Promise<CairnLibrary> {
    this.#library ??= await openLibrary();
    return this.#library;
  }

  /** The workspace of a folder, opened by this process. */
  async client(folder: string = this.folder): Promise<Client> {
    const client = await (await this.library()).openOrInit(folder);
    this.#clients.push(client);
    return client;
  }

  /** Saves the folder; each later state must have this point. */
  async save(): Promise<string> {
    const saved = await (await this.client()).save();
    const { save_point_id: id, payload_root_hash: digest } = saved;
    this.acknowledged.push({ id, digest, state: readFolder(this.folder) });
    return id;
  }

  /** Ends what this process has opened, as the end of a process does. */
  async close(): Promise<void> {
    for (const client of this.#clients) await client.close();
    this.#clients = [];
    this.#library = undefined;
  }
}

let disk: LoopFileSystem | { reason: string } | undefined;
const totals = { states: 0, verbs: 0, ms: 0 };

export function processorMs(): number {
  const { userCPUTime, systemCPUTime } = process.resourceUsage();
  return (userCPUTime + systemCPUTime) / 1000;
}

after(() => {
  if (disk === undefined || "reason" in disk) return;
  const { states, verbs } = totals;
  const each = states === 0 ? 0 : totals.ms / states;
  process.stdout.write(`kill states: ${states} of ${verbs} commands, ${each.toFixed(0)} ms of this process each\n`);
  process.chdir("/");
  disk.close();
});

/** How the states of a command are kept; default: kills, as snapshots of a subvolume, which is cheap. */
interface Keeping {
  /** `kill`, for commands that make subvolumes, whose UUIDs count; `cut`: a power cut at each pass. */
  readonly how: "kill" | "cut";
  readonly on: LoopKind;
}

/** Registers a test that stops a command at each of its passes; `prepare` makes all that the command needs in `live`. */
export function replay(title: string, prepare: (live: Live) => Promise<Scene>, keeping?: Keeping): void {
  void test(title, async (t) => {
    const kept = await statesFor(keeping);
    if ("reason" in kept) return t.skip(kept.reason);
    const begun = processorMs();
    let states: readonly string[];
    try {
      states = await new Replay(kept, prepare, keeping?.how ?? "kill").run();
    } finally {
      kept.close();
    }
    totals.states += states.length;
    totals.verbs++;
    totals.ms += processorMs() - begun;
    t.diagnostic(`${states.length} states, ${Math.round((processorMs() - begun) / states.length)} ms each`);
  });
}

async function statesFor(keeping: Keeping | undefined): Promise<States | { reason: string }> {
  disk ??= makeLoopFileSystem("btrfs", { inMemory: true, size: 4 * 2 ** 30, mountOptions: ["nobarrier"] });
  if ("reason" in disk) return disk;
  if (keeping === undefined) return keepSnapshots(fs.mkdtempSync(path.join(disk.root, "verb-")));
  const { on, how } = keeping;
  // The command makes its changes durable, and not a timer.
  const mountOptions = on === "xfs" ? [] : ["commit=3600"];
  const own = makeLoopFileSystem(on, { inside: disk.root, mountOptions });
  return "reason" in own ? own : keepImages(own, how);
}

class Replay {
  readonly #kept: States;
  readonly #how: "kill" | "cut";
  readonly #prepare: (live: Live) => Promise<Scene>;
  readonly #live: Live;
  readonly #states: string[] = [];
  /** Before and after. */
  readonly #looks: unknown[] = [];
  readonly #shapes: Set<string>[] = [];
  #scene!: Scene;

  constructor(kept: States, prepare: (live: Live) => Promise<Scene>, how: "kill" | "cut") {
    this.#kept = kept;
    this.#how = how;
    this.#prepare = prepare;
    this.#live = new Live(kept.root);
    this.#live.enter();
  }

  /** Returns the names of all states: `begin`, each pass, `end`. */
  async run(): Promise<string[]> {
    fs.mkdirSync(this.#live.folder);
    fs.mkdirSync(this.#live.at("home"));
    this.#scene = await this.#prepare(this.#live);
    await this.#live.close();
    await this.#record();
    await this.#recoverAll();
    return this.#states;
  }

  async #record(): Promise<void> {
    const pipe = path.join(path.dirname(this.#live.root), "go");
    makeNode(pipe, TYPE.PIPE);
    const go = fs.openSync(pipe, fs.constants.O_RDWR);
    const take = async (name: string): Promise<void> => {
      await this.#kept.take(`state-${this.#states.length}`, name === "begin");
      this.#states.push(name);
    };
    try {
      await this.#kept.take("killed", true);
      await take("begin");
      const running = startCairn(this.#scene.args, {
        cwd: this.#live.root,
        ...this.#scene.run,
        failpoint: `each@${pipe}`,
      });
      let last = Promise.resolve();
      let rest = "";
      running.child.stderr!.on("data", (text: string) => {
        const lines = `${rest}${text}`.split("\n");
        rest = lines.pop()!;
        for (const line of lines) {
          const name = /^failpoint (\S+)$/.exec(line)?.[1];
          if (name === undefined) continue;
          last = last.then(async () => {
            await take(name);
            fs.writeSync(go, "x");
          });
        }
      });
      const { status, stdout, stderr } = await running.ended;
      await last;
      assert.equal(status, 0, `${this.#scene.args.join(" ")}\n${stdout}\n${stderr}`);
      for (const name of this.#scene.passes ?? []) assert.ok(this.#states.includes(name), this.#states.join(" "));
      await take("end");
    } finally {
      fs.closeSync(go);
    }
  }

  async #recoverAll(): Promise<void> {
    const { root } = this.#live;
    this.#kept.putAway();
    const count = this.#states.length;
    const problems: string[] = [];
    let firstAfter = Infinity;
    let lastBefore = -1;
    // The first and the last state tell what is before and what is after.
    for (const k of [0, count - 1, ...Array.from({ length: count - 2 }, (_, i) => i + 1)]) {
      try {
        if (await this.#isAfter(`state-${k}`, k)) firstAfter = Math.min(firstAfter, k);
        else lastBefore = Math.max(lastBefore, k);
      } catch (error) {
        const where = `${this.#states[k]} (${k} of ${count - 1})`;
        if (k === 0 || k === count - 1) throw new Error(`${this.#scene.args.join(" ")}: ${where}`, { cause: error });
        problems.push(
          `${where}: ${String((error as Error).message)
            .split("\n")
            .slice(0, 12)
            .join("\n    ")}`,
        );
      }
    }
    assert.deepEqual(problems.slice(0, 10), [], `${problems.length} of ${count} states`);
    if (this.#scene.isRepeated !== true) {
      assert.ok(!isSame(this.#looks[0], this.#looks[1]), "the command changes something");
      assert.ok(
        lastBefore < firstAfter,
        `after ${this.#states[firstAfter]} the command was done, after ${this.#states[lastBefore]} not`,
      );
    }
    if (this.#how === "cut") return;
    await this.#isAfter("killed", count >> 1, async () => {
      const pass = 1 + Math.floor(random() * Math.max(1, count >> 2));
      const running = startCairn(this.#scene.args, { cwd: root, ...this.#scene.run, failpoint: `#${pass}` });
      const { killed, status } = await running.ended;
      // If the pass was one of a child, the command fails.
      assert.ok(killed || status !== 0, `pass ${pass}`);
    });
  }

  /** Recovers one snapshot, and checks it. Returns whether it is as after the command. */
  async #isAfter(snapshot: string, k: number, first?: () => Promise<void>): Promise<boolean> {
    const { root } = this.#live;
    this.#kept.bring(snapshot);
    try {
      await first?.();
      age(root);
      await this.#next(k);
      const now = await this.#scene.look(this.#live);
      if (this.#looks.length < 2) this.#looks.push(now);
      const isAfter = isSame(now, this.#looks[1]);
      if (!isAfter && !isSame(now, this.#looks[0]))
        throw new Error(`neither before nor after: ${shownDifferences(now, this.#looks)}`);
      await this.#scene.check?.(this.#live, isAfter);
      const left = shapesBelow(root);
      if (this.#shapes.length < 2) this.#shapes.push(left);
      const isNew = (shape: string): boolean => !this.#shapes.some((each) => each.has(shape));
      // Removed when the next folder is registered, or by the next cleanup.
      const { isRepeated, leaves } = this.#scene;
      const isLater = (shape: string): boolean =>
        (isRepeated !== true && LATER.test(shape)) || leaves?.test(shape) === true;
      assert.deepEqual([...left].filter((shape) => isNew(shape) && !isLater(shape)).toSorted(), [], "left");
      return isAfter;
    } finally {
      await this.#live.close();
      this.#kept.putAway();
    }
  }

  async #next(k: number): Promise<void> {
    const { acknowledged, folder } = this.#live;
    if (this.#scene.next !== undefined) await this.#scene.next(this.#live);
    if (acknowledged.length === 0) return;
    const client = await this.#live.client();
    if (this.#scene.next === undefined) {
      const saved = await client.save({ message: "next", skipUnchanged: true });
      assert.equal(saved.payload_root_hash, walkDigests(folder).state, "the next point holds the folder as it is");
    }
    const { beside } = this.#scene;
    if (beside !== undefined && fs.existsSync(beside))
      await (await this.#live.client(beside)).save({ skipUnchanged: true });
    await checkWorkspace(client, acknowledged);
    if (LONG || k % 4 === 2) await examine(client, this.#scene.finds);
    // The digests are proof of the content; some states also restore a point.
    if (!LONG && k % 4 !== 0) return;
    const { id, state } = acknowledged[k % acknowledged.length]!;
    const to = this.#live.at("restored");
    await client.restore({ target: id, to });
    assertFolder(to, state, `point ${id}`);
    fs.rmSync(to, { recursive: true });
  }
}

const LATER = /\/cairn\/(?:control|elsewhere|workspaces)\/\.cairn-tmp-|\/unfreed\/H\.json$/;

/** No point is damaged, each acknowledged one is there, and every byte of the store is right. */
export async function checkWorkspace(client: Client, acknowledged: readonly Acknowledged[]): Promise<void> {
  const { save_points: points, damaged } = await client.history(undefined, 0, { all: true });
  assert.deepEqual(damaged, []);
  const digests = new Map(points.map((point) => [point.save_point_id as string, point.payload_root_hash]));
  for (const { id, digest } of acknowledged) assert.equal(digests.get(id), digest, `the acknowledged point ${id}`);
  // A head that names no point would make the next one the first of a second history. Points from elsewhere have no parent.
  const isOther = (kind: string): boolean => ["adopt", "backup", "import"].includes(kind);
  const first = points.filter(({ parent_id: parent, cause }) => parent === null && !isOther(cause.kind));
  assert.ok(first.length <= 1, `${first.length} points have no parent`);
  assert.deepEqual((await client.verifyAll()).problems, []);
}

/** Doctor finds nothing but findings of these kinds. */
export async function examine(client: Client, kinds: readonly string[] = []): Promise<void> {
  const { findings } = await client.doctor();
  // Complete packs are left for the next save that stores something, and other content for the next cleanup.
  const isLater = /^\d+ packs? |^content of removed points /;
  const isExpected = ({ kind, detail }: (typeof findings)[number]): boolean =>
    (kind === "leftovers" && isLater.test(detail)) || kinds.includes(kind);
  assert.deepEqual(
    findings.filter((finding) => !isExpected(finding)),
    [],
  );
}

export function isSame(one: unknown, other: unknown): boolean {
  if (one instanceof Map && other instanceof Map)
    return differencesOf(one as FolderState, other as FolderState).length === 0;
  try {
    assert.deepEqual(one, other);
    return true;
  } catch {
    return false;
  }
}

export function shownDifferences(now: unknown, [before, afterwards]: unknown[]): string {
  const shown = (from: unknown, to: unknown): string =>
    from instanceof Map && to instanceof Map
      ? differencesOf(from as FolderState, to as FolderState)
          .slice(0, 3)
          .join("; ")
      : `${JSON.stringify(from).slice(0, 2000)} and not ${JSON.stringify(to).slice(0, 2000)}`;
  return `\nbefore: ${shown(now, before)}\nafter: ${shown(now, afterwards)}`;
}

/** Paths below a directory, without packs: doctor knows which ones belong to nothing. */
function* pathsBelow(root: string, above = ""): Generator<{ name: string; isFile: boolean }> {
  for (const entry of fs.readdirSync(path.join(root, above), { withFileTypes: true })) {
    const name = `${above}/${entry.name}`;
    yield { name, isFile: entry.isFile() };
    if (entry.isDirectory() && !/\/(?:store|repository|target)\/data$/.test(name)) yield* pathsBelow(root, name);
  }
}

/** Makes unfinished files old: in directories that many processes share they are kept for an hour, in a cache for ten minutes. */
export function age(root: string): void {
  for (const { name, isFile } of pathsBelow(root))
    try {
      if (isFile && /\/\.cairn-tmp-|\/cache\//.test(name)) fs.utimesSync(path.join(root, name), 1e9, 1e9);
    } catch (error) {
      // A probe's snapshot that a power cut left, or a name that is not UTF-8.
      if (!["EROFS", "ENOENT"].includes((error as NodeJS.ErrnoException).code!)) throw error;
    }
}

/** Paths with their random and counted parts replaced, e.g. `/state/cairn/control/H/points/N/intent`. */
export function shapesBelow(root: string): Set<string> {
  const shapeOf = (name: string): string => name.replaceAll(/[0-9a-f]{8,}/g, "H").replaceAll(/\d+/g, "N");
  const shapes = [...pathsBelow(root)].map(({ name }) => shapeOf(name));
  // Locks of the kernel are files that stay. A cache may have one file more or less, but no unfinished one, which has a second number.
  return new Set(shapes.filter((shape) => !/[./]lock$|\/cache\/(?!.*(?:\.cairn-tmp-|\.N))/.test(shape)));
}

/** A kill loses nothing that was written, so this process, which only recovers, need not wait for the disk. */
Object.assign(fs, { fsyncSync: () => undefined, fdatasyncSync: () => undefined });
syncBuiltinESMExports();
