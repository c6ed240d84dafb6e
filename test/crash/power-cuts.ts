import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { AT_FDCWD, putName, syscalls, TYPE } from "../../src/fs/linux/syscalls.ts";
import { newArena } from "../../src/native.ts";
import { makeNode, setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { buildCommand } from "../fixtures/command.ts";
import { assertFolder } from "../fixtures/folder-state.ts";
import { LONG } from "../fixtures/long.ts";
import { type LoopFileSystem, makeLoopFileSystem } from "../fixtures/loop-file-system.ts";
import { type CutState, type Facts, type FileState, statesAfterCut } from "../fixtures/power-cut.ts";
import { reasonNotTraced, traceCalls, type Traced } from "../fixtures/traced-calls.ts";
import {
  age,
  checkWorkspace,
  examine,
  isSame,
  Live,
  processorMs,
  type Scene,
  shapesBelow,
  shownDifferences,
} from "./replay.ts";

/**
 * Power cuts of whole commands. The command runs once, traced; the model of `power-cut.ts` says which states a cut may leave.
 * Each chosen state is written to the disk, then this process runs the next command and checks the claims of a `Scene`. The
 * traced process has ended, so the owner of all locks is dead. A command that had answered is never lost.
 *
 * Written states have new inodes and change times, except for the workspace's own folder. So no stat cache holds, and faults
 * that need a stale stat cache are not seen here.
 */

interface Cut extends Scene {
  /**
   * True if the command promises its claims only where one journal keeps the order of names: a restore of a folder on ext4
   * or xfs with its control directory does not flush each exchanged entry (`ONE_JOURNAL` in `src/workspace/restore/staging.ts`).
   */
  readonly isOrdered?: boolean;
  /**
   * States with such a path are not tried, since the recovery compares inodes that written states cannot have. Kills by
   * replay hold these states.
   */
  readonly needsInodes?: RegExp;
  /** Other files than `MAY_STAY` that may stay. */
  readonly mayStay?: RegExp;
  /** True if a state takes some hundredths of a second, so that all are tried. */
  readonly isCheap?: boolean;
}

/** At most so many different states of a command are tried. CAIRN_TEST_STATES says another number. */
const STATES = Number(process.env["CAIRN_TEST_STATES"] ?? (LONG ? 3000 : 24));

/**
 * Findings of doctor that cost space and lose no point. A save does not flush its claim's content: with a lost claim the next
 * save does not know which snapshot to remove. Content of removed points waits for a cleanup. A restore that finds its
 * displaced files under other inodes, as written states have them, keeps the files aside. A relocation that was cut before its
 * last step leaves the registration of the old place.
 */
const COSTS_SPACE = ["orphan-snapshot", "leftovers", "kept", "gone"];

/**
 * Files that may stay until a later command needs their place: caches; unfinished files and locks of a repository, which a
 * prune or a command with a lock removes; the steps of an ended restore, which the next restore replaces; the temporary name
 * of a descriptor whose claim was lost, which the next recovery of a save removes.
 */
const MAY_STAY = /^\/cache\/|^\/repository\/(?:tmp|locks)\/|\/journal\/restore\.steps$|\/points\/H\/\.cairn-tmp-/;

let disk: LoopFileSystem | { reason: string } | undefined;
const totals = { states: 0, verbs: 0, ms: 0 };

after(() => {
  if (disk === undefined || "reason" in disk) return;
  process.stdout.write(
    `power cuts: ${totals.states} states of ${totals.verbs} commands, ${(totals.ms / 1000).toFixed(1)} processor seconds\n`,
  );
  process.chdir("/");
  disk.close();
});

/** Registers a test that cuts the power during a command; `prepare` makes all that the command needs in `live`. */
export function cutPower(title: string, prepare: (live: Live) => Promise<Cut>): void {
  void test(title, async (t) => {
    const reason = reasonNotTraced();
    if (reason !== null) return t.skip(reason);
    disk ??= makeLoopFileSystem("ext4", { inMemory: true, size: 2 ** 30, mountOptions: ["nobarrier"] });
    if ("reason" in disk) return t.skip(disk.reason);
    const begun = processorMs();
    const cuts = new PowerCuts(fs.mkdtempSync(path.join(disk.root, "verb-")));
    const { tried, all, calls } = await cuts.run(prepare);
    const ms = processorMs() - begun;
    totals.states += tried;
    totals.verbs++;
    totals.ms += ms;
    t.diagnostic(`${tried} of ${all} different states of ${calls} calls, ${(ms / 1000).toFixed(1)} processor seconds`);
  });
}

class PowerCuts {
  readonly #base: string;
  readonly #live: Live;
  readonly #looks: unknown[] = [];
  readonly #left: Set<string>[] = [];
  #scene!: Cut;
  #traced!: Traced;
  #root!: number;
  #writer!: StateWriter;

  constructor(base: string) {
    this.#base = base;
    this.#live = new Live(path.join(base, "live"));
  }

  async run(prepare: (live: Live) => Promise<Cut>): Promise<{ tried: number; all: number; calls: number }> {
    fs.mkdirSync(this.#live.folder, { recursive: true });
    fs.mkdirSync(this.#live.at("home"));
    this.#live.enter();
    this.#scene = await prepare(this.#live);
    await this.#live.close();
    this.#root = fs.statSync(this.#live.folder).ino;
    this.#record();
    const { calls, before } = this.#traced;
    // The first and the last state say what is before and what is after.
    await this.#recover({ state: before, end: 0, ended: false, what: "before the command" }, 0);
    await this.#recover({ state: this.#traced.ended, end: calls.length, ended: true, what: "after the command" }, 1);
    if (this.#scene.isRepeated !== true)
      assert.ok(!isSame(this.#looks[0], this.#looks[1]), "the command changes something");
    const { states, all } = this.#chosen();
    const problems: string[] = [];
    for (const [k, state] of states.entries())
      try {
        await this.#recover(state, k + 2);
      } catch (error) {
        problems.push(`${state.what}: ${shortened(error)}`);
      }
    assert.equal(
      problems.length,
      0,
      `${problems.length} of ${states.length} states\n${problems.slice(0, 12).join("\n")}`,
    );
    return { tried: states.length, all, calls: calls.length };
  }

  #record(): void {
    const { args, run } = this.#scene;
    const traced = traceCalls(this.#live.root, [process.execPath, buildCommand(), ...args, "--json"], {
      cwd: run?.cwd ?? this.#base,
      env: { ...process.env, NO_COLOR: "1", ...run?.env },
      log: path.join(this.#base, "trace"),
    });
    assert.equal(traced.status, 0, `${args.join(" ")}\n${traced.stdout}\n${traced.stderr}`);
    this.#traced = traced;
    const root = [...traced.ended.walk()].find(([, inode]) => inode === this.#root);
    assert.ok(root !== undefined, "the workspace's folder is still there");
    this.#writer = new StateWriter(this.#live.root, { inode: this.#root, path: path.join(this.#base, "held") });
  }

  /** Different states, none twice, in the order of the cuts. */
  #chosen(): { states: CutState[]; all: number } {
    const found = new Map<string, CutState>();
    const isOrdered = this.#scene.isOrdered === true;
    const options = { isOrdered, ...(LONG ? { exhaustive: 8, samples: 48 } : { exhaustive: 3, samples: 6 }) };
    const { needsInodes } = this.#scene;
    for (const state of statesAfterCut(this.#traced, options)) {
      if (needsInodes !== undefined && state.state.walk().some(([at]) => needsInodes.test(at))) continue;
      const isAnswered = state.end >= this.#traced.answered;
      const key = `${isAnswered} ${digestOf(state.state)}`;
      if (!found.has(key)) found.set(key, state);
    }
    const all = [...found.values()];
    // The same states in each run; another sample needs another seed.
    const random = seeded(20_261_130);
    const ranked = all.map((state) => ({ state, rank: random() })).toSorted((one, other) => one.rank - other.rank);
    const chosen = new Set(ranked.slice(0, this.#scene.isCheap === true ? 500 : STATES).map(({ state }) => state));
    return { states: all.filter((state) => chosen.has(state)), all: all.length };
  }

  async #recover(cut: CutState, k: number): Promise<void> {
    const { root } = this.#live;
    this.#writer.write(cut.state);
    try {
      age(root);
      await this.#next(k);
      const now = await this.#scene.look(this.#live);
      if (this.#looks.length < 2) this.#looks.push(now);
      const isAfter = isSame(now, this.#looks[1]);
      if (!isAfter && !isSame(now, this.#looks[0]))
        throw new Error(`neither before nor after: ${shownDifferences(now, this.#looks)}`);
      if (!isAfter && cut.end >= this.#traced.answered) throw new Error("lost after the answer");
      await this.#scene.check?.(this.#live, isAfter);
      const left = new Set([...shapesBelow(root)].filter((shape) => !(this.#scene.mayStay ?? MAY_STAY).test(shape)));
      this.#left.push(left);
      const [before, ended] = this.#left;
      assert.deepEqual(
        [...left].filter((shape) => !before!.has(shape) && ended?.has(shape) !== true).toSorted(),
        [],
        "left",
      );
    } finally {
      await this.#live.close();
    }
  }

  async #next(k: number): Promise<void> {
    const { acknowledged, folder } = this.#live;
    const { next, beside } = this.#scene;
    if (next !== undefined) await next(this.#live);
    if (beside !== undefined && fs.existsSync(beside))
      await (await this.#live.client(beside)).save({ skipUnchanged: true });
    if (acknowledged.length === 0) return;
    const client = await this.#live.client();
    if (next === undefined) {
      const saved = await client.save({ message: "next", skipUnchanged: true });
      assert.equal(saved.payload_root_hash, walkDigests(folder).state, "the next point holds the folder as it is");
    }
    await checkWorkspace(client, acknowledged);
    if (LONG || k % 4 === 2) await examine(client, COSTS_SPACE);
    // The digests are proof of the content; some states also restore a point.
    if (!LONG && k % 8 !== 0) return;
    const { id, state } = acknowledged[k % acknowledged.length]!;
    const to = this.#live.at("restored");
    await client.restore({ target: id, to });
    assertFolder(to, state, `point ${id}`);
    fs.rmSync(to, { recursive: true });
  }
}

function seeded(start: number): () => number {
  let seed = start;
  return () => (seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32;
}

function shortened(error: unknown): string {
  return String((error as Error).message)
    .split("\n")
    .slice(0, 12)
    .join("\n    ");
}

const hashes = new WeakMap<Buffer, string>();

function hashOf(content: Buffer): string {
  let hash = hashes.get(content);
  if (hash === undefined) hashes.set(content, (hash = createHash("sha256").update(content).digest("hex")));
  return hash;
}

function digestOf(state: FileState): string {
  const hash = createHash("sha256");
  for (const [at, inode] of state.walk()) {
    const { kind, mode, owner, mtime, attributes, target } = state.facts.get(inode)!;
    const shown = [...attributes].map(([name, value]) => `${name}=${value.toString("hex")}`);
    hash.update(JSON.stringify([at, inode, kind, mode, owner, `${mtime}`, shown, target]));
    if (kind === "file") hash.update(hashOf(state.content(inode)));
  }
  return hash.digest("hex");
}

const NAME = newArena(8192);

/** Writes states into one folder, and leaves entries that are right already: a store has 256 folders for its packs. */
class StateWriter {
  readonly #root: string;
  readonly #held: { inode: number; path: string };
  /** Path → a file as it was written: its inode and times on the disk, its content and facts. */
  readonly #written = new Map<string, { stat: string; content: Buffer; facts: Facts }>();

  /** The folder at `held.path` is the one whose number in states is `held.inode`. */
  constructor(root: string, held: { inode: number; path: string }) {
    this.#root = root;
    this.#held = held;
  }

  write(state: FileState): void {
    const known = [...pathsBelow(this.#root)].find(({ at }) => fs.lstatSync(at).ino === this.#held.inode);
    if (known !== undefined) fs.renameSync(known.at, this.#held.path);
    fs.mkdirSync(this.#root, { recursive: true });
    this.#fill(state, state.root, this.#root, new Map());
  }

  #fill(state: FileState, folder: number, root: string, names: Map<number, string>): void {
    const wanted = state.entries(folder);
    const there = new Map<string, boolean>();
    for (const entry of fs.readdirSync(root, { withFileTypes: true, encoding: "latin1" as "utf8" })) {
      const at = latin1(`${root}/${entry.name}`);
      const inode = wanted.get(entry.name);
      const isFolder = inode !== undefined && state.isFolder(inode) && inode !== this.#held.inode;
      if (
        (isFolder && entry.isDirectory()) ||
        (inode !== undefined && !names.has(inode) && this.#isWritten(state, inode, `${root}/${entry.name}`))
      )
        there.set(entry.name, true);
      else fs.rmSync(at, { recursive: true });
    }
    for (const [name, inode] of wanted) {
      const shown = `${root}/${name}`;
      const at = latin1(shown);
      const first = names.get(inode);
      const isFolder = state.isFolder(inode);
      if (first !== undefined) {
        if (!isFolder) fs.linkSync(latin1(first), at);
        continue;
      }
      names.set(inode, shown);
      if (inode === this.#held.inode) fs.renameSync(this.#held.path, at);
      if (isFolder) {
        if (inode !== this.#held.inode && !there.has(name)) fs.mkdirSync(at);
        this.#fill(state, inode, shown, names);
        writeFacts(state, at, inode);
      } else if (!there.has(name)) this.#make(state, inode, shown);
    }
  }

  #make(state: FileState, inode: number, shown: string): void {
    const at = latin1(shown);
    const facts = state.facts.get(inode)!;
    const content = state.content(inode);
    if (facts.kind === "file") fs.writeFileSync(at, content);
    else if (facts.kind === "link") fs.symlinkSync(latin1(facts.target), at);
    else makeNode(at, facts.kind === "pipe" ? TYPE.PIPE : TYPE.SOCKET);
    writeFacts(state, at, inode);
    this.#written.set(shown, { stat: shownStat(at), content, facts });
  }

  #isWritten(state: FileState, inode: number, shown: string): boolean {
    const known = this.#written.get(shown);
    if (known === undefined || known.content !== state.contents.get(inode) || known.facts !== state.facts.get(inode))
      return false;
    return known.stat === shownStat(latin1(shown));
  }
}

function latin1(shown: string): Buffer {
  return Buffer.from(shown, "latin1");
}

function shownStat(at: Buffer): string {
  const { ino, nlink, ctimeNs, size } = fs.lstatSync(at, { bigint: true });
  return `${ino} ${nlink} ${ctimeNs} ${size}`;
}

/** Yields folders, without those of a store's packs. */
function* pathsBelow(root: string): Generator<{ at: string }> {
  if (!fs.existsSync(root)) return;
  for (const entry of fs.readdirSync(root, { withFileTypes: true })) {
    if (!entry.isDirectory()) continue;
    const at = path.join(root, entry.name);
    yield { at };
    if (!/\/(?:store|repository)\/data$/.test(at)) yield* pathsBelow(at);
  }
}

function writeFacts(state: FileState, at: Buffer, inode: number): void {
  const { kind, mode, owner, mtime, attributes } = state.facts.get(inode)!;
  const now = fs.lstatSync(at, { bigint: true });
  if (owner !== `${now.uid}:${now.gid}`) {
    const [uid, gid] = owner.split(":").map(Number) as [number, number];
    fs.lchownSync(at, uid, gid);
  }
  if (kind !== "link" && mode !== Number(now.mode & 0o7777n)) fs.chmodSync(at, mode);
  for (const [name, value] of attributes) setAttribute(at, Buffer.from(name, "latin1"), value);
  if (mtime === null || mtime === now.mtimeNs) return;
  putName(NAME, 0, at);
  syscalls().utimens(AT_FDCWD, NAME, 0, Number(mtime / 1_000_000_000n), Number(mtime % 1_000_000_000n));
}
