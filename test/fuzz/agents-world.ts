import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import type { Client } from "../../src/contract/index.ts";
import { cairnLibrary, newFolder } from "../fixtures/work.ts";
import { differencesOf, type Entry, type Files, type Span, type Whole } from "./agents-model.ts";

/** A folder with a git repository in which two agents and a person work, and what the model knows of it. */

/** What git says: HEAD, its commit, the staged entries, and every ref. */
export interface GitFacts {
  unit: string;
  refs: ReadonlyMap<string, string>;
}

export interface State extends Whole {
  git: GitFacts;
}

export interface Point extends State {
  id: string;
}

/** A save, or an event whose save failed. */
export interface Moment {
  /** null: the save failed */
  state: State | null;
  /** milliseconds: the hook was called and had returned, and the state had been read */
  called: number;
  returned: number;
  at: number;
  event?: { session: string; turn: string; kind: EventKind };
  isOperation?: boolean;
  /** the state was read after the hook had returned */
  isLate?: boolean;
  /** the folder differed from head */
  isMade?: boolean;
}

export type EventKind = "prompt" | "before" | "after" | "failure" | "batch" | "stop" | "end";

interface OpenCall extends Pick<Span, "moment" | "from"> {
  id: number | null;
  called: number;
}

/** An operation that undo or redo can take back. */
export interface Operation {
  kind: string;
  before: State;
  left: State;
  /** entries that the operation changed */
  changed: ReadonlySet<string>;
  /** entries that it, its undo or its redo really changed */
  only: ReadonlySet<string>;
  /** number of commits when the state `left` was left */
  commits: number;
  /** a rewind: the session, the index of the moment at which the turn began, and the time of the rewind in milliseconds */
  turns?: { session: string; first: number; at: number };
}

interface Commit {
  id: string;
  parent: string;
  /** milliseconds */
  at: number;
  /** the branches at that time */
  branches: ReadonlySet<string>;
}

export interface Session {
  name: string;
  agent: string;
  /** the tool tells of its calls, or of turns only */
  tells: boolean;
  turn: string | null;
  /** calls that are open, or the turn */
  open: OpenCall[];
  /** the turns, oldest first: index of the moment of the first event */
  turns: { first: number; id: string }[];
}

const KINDS = {
  prompt: "UserPromptSubmit",
  before: "PreToolUse",
  after: "PostToolUse",
  failure: "PostToolUseFailure",
  batch: "PostToolBatch",
  stop: "Stop",
  end: "SessionEnd",
} as const;

const TAG = "of-the-person";
const GIT = ["-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "gc.auto=0", "-c", "core.fsync=none"];

export class AgentsWorld {
  readonly folder = newFolder("agents");
  client!: Client;
  sessions: Session[] = [];
  readonly moments: Moment[] = [];
  /** spans that have ended */
  readonly spans: Span[] = [];
  readonly points: Point[] = [];
  readonly commits: Commit[] = [];
  /** milliseconds: when somebody ran git */
  readonly gitTimes: number[] = [];
  done: Operation[] = [];
  undone: Operation[] = [];
  /** the last undo or redo left entries */
  isPartly: { verb: "undo" | "redo"; goal: Files } | null = null;
  forks: { folder: string; base: Files; count: number }[] = [];
  #count = 0;
  /** staged entries by the index's bytes */
  readonly #indexes = new Map<string, string>();
  #sound = "";
  /** every point that was seen */
  readonly #seen = new Set<string>();

  static async make(second: { agent: string; tells: boolean }): Promise<AgentsWorld> {
    const world = new AgentsWorld();
    const session = (name: string, agent: string, tells: boolean): Session => ({
      name,
      agent,
      tells,
      turn: null,
      open: [],
      turns: [],
    });
    world.sessions = [session("session-a", "claude-code", true), session("session-b", second.agent, second.tells)];
    world.run("init", "-q", "-b", "main");
    for (const name of ["a", "b", "c", "d/a", "d/b", "e/f/a", "e/g"]) world.put(name, `base ${name}`);
    world.commit();
    world.client = await (await cairnLibrary()).init(world.folder);
    await world.save({ message: "first", tags: [TAG] });
    return world;
  }

  next(who: string): string {
    return `${who} ${this.#count++}`;
  }

  at(name: string): string {
    return path.join(this.folder, name);
  }

  put(name: string, text: string): void {
    fs.mkdirSync(path.dirname(this.at(name)), { recursive: true });
    fs.writeFileSync(this.at(name), `${text}\n`);
  }

  files(root = this.folder, inside = ""): Map<string, Entry> {
    const files = new Map<string, Entry>();
    const walk = (directory: string): void => {
      for (const name of fs.readdirSync(path.join(root, directory))) {
        const own = path.join(directory, name);
        if (own === ".git") continue;
        const at = path.join(root, own);
        const stat = fs.lstatSync(at);
        const type = stat.isDirectory() ? "dir" : stat.isSymbolicLink() ? "link" : "file";
        const text = (): string => (inside === "" ? fs.readFileSync(at, "utf8") : `${stat.size} ${stat.mtimeMs}`);
        const content = type === "dir" ? "" : type === "link" ? fs.readlinkSync(at) : text();
        files.set(own, { type, content, mode: stat.mode & 0o7777, at: stat.ctimeMs });
        if (type === "dir") walk(own);
      }
    };
    walk(inside);
    return files;
  }

  now(): State {
    const { ctimeMs } = fs.lstatSync(this.folder);
    return { files: this.files(), inGit: this.files(this.folder, ".git"), rootAt: ctimeMs, git: this.facts() };
  }

  /** Waits until the kernel's clock has gone on, and returns its time in milliseconds. */
  tick(): number {
    const begun = Date.now();
    const probe = `${this.folder}.clock`;
    for (;;) {
      fs.writeFileSync(probe, "");
      const { ctimeMs } = fs.statSync(probe);
      if (ctimeMs > begun + 1 && Date.now() > begun + 1) return Date.now();
    }
  }

  run(...args: string[]): string {
    const env = { ...process.env, GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_SYSTEM: "/dev/null" };
    const { status, stdout, stderr } = spawnSync("git", [...GIT, ...args], { cwd: this.folder, env, encoding: "utf8" });
    assert.equal(status, 0, `git ${args.join(" ")}: ${stderr}`);
    return stdout.trim();
  }

  commit(): string {
    this.run("add", "-A");
    const parent = this.facts().refs.get("refs/heads/main") ?? "";
    this.run("commit", "-q", "--allow-empty", "-m", this.next("commit"));
    const id = this.run("rev-parse", "HEAD");
    this.commits.push({ id, parent, at: this.tick(), branches: new Set(this.facts().refs.keys()) });
    return id;
  }

  facts(): GitFacts {
    const at = path.join(this.folder, ".git");
    const refs = new Map<string, string>();
    const packed = path.join(at, "packed-refs");
    if (fs.existsSync(packed))
      for (const [, value, name] of fs.readFileSync(packed, "utf8").matchAll(/^([0-9a-f]{40}) (\S+)$/gm))
        refs.set(name!, value!);
    for (const name of fs.readdirSync(path.join(at, "refs"), { recursive: true, encoding: "utf8" })) {
      const file = path.join(at, "refs", name);
      if (fs.statSync(file).isFile()) refs.set(`refs/${name}`, fs.readFileSync(file, "utf8").trim());
    }
    const head = fs.readFileSync(path.join(at, "HEAD"), "utf8").trim();
    const commit = refs.get(head.replace("ref: ", "")) ?? "";
    return { unit: `${head} ${commit} ${this.#staged()}`, refs };
  }

  #staged(): string {
    const index = fs.readFileSync(path.join(this.folder, ".git/index"), "latin1");
    const staged = this.#indexes.get(index) ?? this.run("ls-files", "-s");
    this.#indexes.set(index, staged);
    return staged;
  }

  /** The branches that have a commit. */
  homes(commit: string, { refs }: GitFacts): string[] {
    const parents = new Map(this.commits.map(({ id, parent }) => [id, parent]));
    return [...refs].flatMap(([name, value]) => {
      for (let at: string | undefined = value; at !== undefined; at = parents.get(at)) if (at === commit) return [name];
      return [];
    });
  }

  /** Saves as a person, a program or the daemon, or as the hook of an event. */
  async save(
    options: Parameters<Client["save"]>[0],
    { called = this.tick(), returned, ...more }: Partial<Moment> = {},
  ): Promise<void> {
    const state = this.now();
    const { save_point_id: id, made } = await this.client.save(options);
    this.#seen.add(id);
    const known = this.points.find((each) => each.id === id);
    if (known === undefined) this.points.push({ id, ...state });
    else assert.deepEqual(differencesOf(state.files, known.files), [], `${id} was taken for the present`);
    const at = this.tick();
    // Nothing tells of a save that found nothing new.
    if (made || more.event !== undefined)
      this.moments.push({ ...more, state, called, returned: returned ?? (more.event ? at : called), at, isMade: made });
  }

  /** Plays a hook. `how`: `late` makes the save after `meanwhile`, `fails` makes none. */
  async hook(
    { name, agent, turn, tells }: Session,
    { kind, call, denied }: { kind: EventKind; call: number | null; denied: readonly number[] },
    { how, meanwhile }: { how: "late" | "fails" | "in time"; meanwhile: () => void },
  ): Promise<void> {
    const event = { session: name, turn: turn!, kind };
    const called = this.tick();
    const time = (at: number): string => new Date(at).toISOString();
    const idOf = (of: number): string => `${name} ${of}`;
    const late = how === "late" ? { isLate: true, returned: this.tick() } : {};
    if (how === "late") meanwhile();
    const cause = {
      kind: "tool_call",
      agent,
      event: KINDS[kind],
      session: name,
      turn,
      each: tells ? "tool" : "turn",
      called_at: time(called),
      ...(call === null ? {} : { tool: "Bash", call: idOf(call), command: "work" }),
      ...(kind === "prompt" ? { prompt: `do ${turn}` } : {}),
      ...(kind === "batch" ? { denied: denied.map(idOf) } : {}),
      ...(late.returned === undefined ? {} : { asked_at: time(called), returned_at: time(late.returned) }),
    };
    if (how !== "fails")
      return this.save({ skipUnchanged: true, message: `${kind} ${name}`, cause }, { event, called, ...late });
    // An agent may not take a person's tag.
    await assert.rejects(this.client.save({ skipUnchanged: true, tags: [TAG], message: "fails", cause }), {
      code: "already_exists",
    });
    const at = this.tick();
    this.moments.push({ state: null, event, called, returned: at, at });
  }

  /** Returns the spans of calls until now. Open calls may go on. */
  spansUntilNow(): Span[] {
    const open = this.sessions.flatMap((session) =>
      session.open.map(({ moment, called }) => {
        return { session: session.name, moment, from: called, to: Infinity, isSure: false };
      }),
    );
    return [...this.spans, ...open];
  }

  /** Notes the points that a verb has made: only an undo point is a state of the folder. */
  async noteUndoPoint(before: State): Promise<boolean> {
    const { save_points: all } = await this.client.history(undefined, 0, { all: true });
    const fresh = all.filter(({ save_point_id: id }) => !this.#seen.has(id));
    for (const { save_point_id: id } of fresh) this.#seen.add(id);
    const undo = fresh.find(({ cause }) => cause["restored_to"] !== undefined);
    if (undo === undefined) return false;
    this.points.push({ id: undo.save_point_id, ...before });
    const at = Date.parse(undo.created_at);
    this.moments.push({ state: before, isOperation: true, called: at, returned: at, at });
    this.tick();
    return true;
  }

  assertFiles(wanted: Files, why: string): void {
    const lines = differencesOf(this.files(), wanted);
    if (lines.length > 0) throw new Error(`${why}:\n${lines.join("\n")}`);
  }

  assertGit(wanted: GitFacts, why: string): void {
    const { unit, refs } = this.facts();
    assert.deepEqual(
      { unit, refs: [...refs].toSorted() },
      { unit: wanted.unit, refs: [...wanted.refs].toSorted() },
      why,
    );
  }

  fsck(): void {
    const { unit, refs } = this.facts();
    const state = JSON.stringify([unit, ...refs]);
    if (state === this.#sound) return;
    assert.equal(this.run("fsck", "--no-dangling", "--connectivity-only"), "");
    this.#sound = state;
  }
}
