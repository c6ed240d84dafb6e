import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import type { Client } from "../../src/contract/index.ts";
import { cairnLibrary, newFolder } from "../fixtures/work.ts";
import { differencesOf, type Entry, type Event, type Files, type Moment } from "./agents-model.ts";

/** A folder with a git repository in which two agents and a person work, and what the model knows of it. */

/** What git says: HEAD, its commit, the staged entries, and every ref. */
export interface GitFacts {
  unit: string;
  refs: ReadonlyMap<string, string>;
}

export interface Point {
  id: string;
  files: Files;
  git: GitFacts;
}

/** An operation that undo or redo can take back. */
export interface Operation {
  kind: string;
  before: { files: Files; git: GitFacts };
  left: { files: Files; git: GitFacts };
  /** entries that the operation changed */
  changed: ReadonlySet<string>;
  /** entries that it, its undo or its redo really changed */
  only: ReadonlySet<string>;
  /** number of commits when the state `left` was left */
  commits: number;
  /** a rewind: the session, and the index of the moment at which the turn began */
  turns?: { session: string; first: number; before: number };
}

interface Commit {
  id: string;
  parent: string;
  /** index of the moment after which the commit was made */
  moment: number;
}

export interface Session {
  name: string;
  agent: string;
  /** the tool tells of its calls */
  tells: boolean;
  turn: string | null;
  /** calls that are open */
  open: number[];
  /** the turns, oldest first: index of the moment of the first event, and of the first call */
  turns: { first: number; id: string; call: number | null }[];
}

const KINDS = {
  "claude-code": { prompt: "UserPromptSubmit", before: "PreToolUse", after: "PostToolUse", stop: "Stop" },
  codex: { prompt: "UserPromptSubmit", before: "PreToolUse", after: "PostToolUse", stop: "Stop" },
  gemini: { prompt: "BeforeAgent", before: "BeforeTool", after: "AfterTool", stop: "AfterAgent" },
} as const;

const TAG = "of-the-person";
const GIT = ["-c", "user.name=A", "-c", "user.email=a@localhost", "-c", "gc.auto=0", "-c", "core.fsync=none"];

export class AgentsWorld {
  readonly folder = newFolder("agents");
  client!: Client;
  sessions: Session[] = [];
  readonly moments: Moment[] = [];
  /** what git said at the moments */
  readonly git: GitFacts[] = [];
  readonly points: Point[] = [];
  readonly commits: Commit[] = [];
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
    await world.save({ message: "first", tags: [TAG] }, { isAsked: true });
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

  files(root = this.folder): Map<string, Entry> {
    const files = new Map<string, Entry>();
    const walk = (directory: string): void => {
      for (const name of fs.readdirSync(path.join(root, directory))) {
        const own = path.join(directory, name);
        if (own === ".git") continue;
        const stat = fs.lstatSync(path.join(root, own));
        const type = stat.isDirectory() ? "dir" : stat.isSymbolicLink() ? "link" : "file";
        const at = path.join(root, own);
        const content = type === "dir" ? "" : type === "link" ? fs.readlinkSync(at) : fs.readFileSync(at, "utf8");
        files.set(own, { type, content, mode: stat.mode & 0o7777 });
        if (type === "dir") walk(own);
      }
    };
    walk("");
    return files;
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
    this.commits.push({ id, parent, moment: this.moments.length - 1 });
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

  /** Saves as a person, a program or the daemon, or as a hook. */
  async save(options: Parameters<Client["save"]>[0], more: Omit<Moment, "files">): Promise<void> {
    const [files, git] = [this.files(), this.facts()];
    const { save_point_id: id, made } = await this.client.save(options);
    this.#seen.add(id);
    const known = this.points.find((each) => each.id === id);
    if (known === undefined) this.points.push({ id, files, git });
    else assert.deepEqual(differencesOf(files, known.files), [], `${id} was taken for the present`);
    // Nothing tells of a save that found nothing new.
    if (!made && more.event === undefined) return;
    this.moments.push({ ...more, files, isMade: made });
    this.git.push(git);
  }

  /** Plays a hook. `how`: the save is late, or fails. */
  async hook(
    session: Session,
    event: Omit<Event, "session" | "agent">,
    how: "late" | "fails" | "in time",
  ): Promise<void> {
    const { name, agent, turn } = session;
    const { kind, call } = event;
    const own: Event = { session: name, agent, kind, call };
    const cause = {
      kind: "tool_call",
      agent,
      event: KINDS[agent as keyof typeof KINDS][kind],
      session: name,
      ...(turn === null || agent === "gemini" ? {} : { turn }),
      ...(call === null ? {} : { tool: "Bash", call: `${name} ${call}`, command: "work" }),
      ...(kind === "prompt" ? { prompt: `do ${turn}` } : {}),
      ...(how === "late" ? { asked_at: new Date(Date.now() - 5).toISOString() } : {}),
    };
    if (how !== "fails")
      return this.save(
        { skipUnchanged: true, message: `${kind} ${name}`, cause },
        { event: own, isLate: how === "late" },
      );
    // An agent may not take a person's tag.
    await assert.rejects(this.client.save({ skipUnchanged: true, tags: [TAG], message: "fails", cause }), {
      code: "already_exists",
    });
    this.moments.push({ files: null, event: own });
    this.git.push(this.facts());
  }

  /** Notes the points that a verb has made: only an undo point is a state of the folder. */
  async noteUndoPoint(before: { files: Files; git: GitFacts }): Promise<boolean> {
    const { save_points: all } = await this.client.history(undefined, 0, { all: true });
    const fresh = all.filter(({ save_point_id: id }) => !this.#seen.has(id));
    for (const { save_point_id: id } of fresh) this.#seen.add(id);
    const undo = fresh.find(({ cause }) => cause["restored_to"] !== undefined);
    if (undo === undefined) return false;
    this.points.push({ id: undo.save_point_id, ...before });
    this.moments.push({ files: before.files, isOperation: true });
    this.git.push(before.git);
    return true;
  }

  now(): { files: Files; git: GitFacts } {
    return { files: this.files(), git: this.facts() };
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
