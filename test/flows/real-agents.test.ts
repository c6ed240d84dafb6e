import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { test, type TestContext } from "node:test";
import type { Turn, TurnsResult } from "../../src/contract/index.ts";
import { buildCommand, cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { LONG } from "../fixtures/long.ts";
import { MockModel, type Reply } from "../fixtures/mock-model.ts";
import { findPeer, type Peer, type PeerName } from "../fixtures/peers.ts";

/** Each real agent works for two turns, and goes back by the command and by its own MCP tool. The model alone is a mock. */

interface Agent {
  peer: PeerName;
  /** Files of the user and of the project before `install`. A person has trusted the project. */
  home(project: string, url: string): Readonly<Record<string, string>>;
  project: Readonly<Record<string, string>>;
  env(url: string): Readonly<Record<string, string>>;
  /** Arguments of a turn; `isNext`: in the session of the turn before. */
  words(prompt: string, isNext: boolean): string[];
  /** It has the slash command `/cairn-rewind`. */
  hasCommand?: true;
  write(file: string, content: string): Reply;
  edit(file: string, from: string, to: string): Reply[];
  shell(command: string): Reply;
}

const json = (value: unknown): string => `${JSON.stringify(value, null, 2)}\n`;

const AGENTS: Readonly<Record<string, Agent>> = {
  "claude-code": {
    peer: "claude",
    home: () => ({ ".claude/settings.json": json({ enableAllProjectMcpServers: true }) }),
    project: { ".mcp.json": `{\n  "mcpServers": {}\n}`, ".claude/settings.json": `{"env": {"A":"b"} }\n` },
    env: (url) => ({
      ANTHROPIC_BASE_URL: url,
      ANTHROPIC_API_KEY: "none",
      CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
      ENABLE_TOOL_SEARCH: "false",
    }),
    hasCommand: true,
    words: (prompt, isNext) => [
      ...(isNext ? ["--continue"] : []),
      "--print",
      prompt,
      "--allowedTools",
      "Bash,Read,Write,Edit,mcp__cairn",
    ],
    write: (file_path, content) => ({ tool: /^Write$/, input: { file_path, content } }),
    edit: (file_path, old_string, new_string) => [
      { tool: /^Read$/, input: { file_path } },
      { tool: /^Edit$/, input: { file_path, old_string, new_string } },
    ],
    shell: (command) => ({ tool: /^Bash$/, input: { command, description: "work" } }),
  },
  codex: {
    peer: "codex",
    home: (project, url) => ({
      ".codex/config.toml": [
        `model = "gpt-5.5"\nmodel_provider = "mock"`,
        `[model_providers.mock]\nname = "mock"\nbase_url = "${url}/v1"\nwire_api = "responses"`,
        `[projects."${project}"]\ntrust_level = "trusted"\n`,
      ].join("\n"),
    }),
    project: { ".codex/config.toml": "# mine" },
    env: () => ({}),
    words: (prompt, isNext) => [
      "exec",
      ...(isNext ? ["resume", "--last"] : []),
      "--skip-git-repo-check",
      "--dangerously-bypass-approvals-and-sandbox",
      prompt,
    ],
    write: (file, content) => patch(`*** Add File: ${file}`, `+${content.trimEnd()}`),
    edit: (file, from, to) => [patch(`*** Update File: ${file}`, "@@", `-${from}`, `+${to}`)],
    shell: (cmd) => ({ tool: /^exec_command$/, input: { cmd } }),
  },
  gemini: {
    peer: "gemini",
    home: (project) => ({
      ".gemini/settings.json": json({ security: { auth: { selectedType: "gemini-api-key" } } }),
      ".gemini/trustedFolders.json": json({ [project]: "TRUST_FOLDER" }),
    }),
    project: { ".gemini/settings.json": `{\n  // mine\n  "ui": { "hideTips": true }\n}\n` },
    env: (url) => ({ GOOGLE_GEMINI_BASE_URL: url, GEMINI_API_KEY: "none" }),
    words: (prompt, isNext) => [
      ...(isNext ? ["--resume", "latest"] : []),
      "--model",
      "gemini-2.5-pro",
      "--approval-mode",
      "yolo",
      "--prompt",
      prompt,
    ],
    write: (file_path, content) => ({ tool: /^write_file$/, input: { file_path, content } }),
    edit: (file_path, old_string, new_string) => [
      { tool: /^replace$/, input: { file_path, old_string, new_string, instruction: "change it" } },
    ],
    shell: (command) => ({ tool: /^run_shell_command$/, input: { command, description: "work" } }),
  },
  opencode: {
    peer: "opencode",
    home: (_project, url) => ({
      ".config/opencode/opencode.json": json({
        model: "mock/m",
        provider: {
          mock: {
            npm: "@ai-sdk/anthropic",
            options: { baseURL: `${url}/v1`, apiKey: "none" },
            models: { m: { name: "m", tool_call: true } },
          },
        },
      }),
    }),
    project: {},
    env: () => ({}),
    words: (prompt, isNext) => {
      const [, name, given] = /^\/(\S+) (.*)$/.exec(prompt) ?? [];
      const words = name === undefined ? [prompt] : ["--command", name, given!];
      return ["run", ...(isNext ? ["--continue"] : []), "--auto", ...words];
    },
    hasCommand: true,
    write: (filePath, content) => ({ tool: /^write$/, input: { filePath, content } }),
    edit: (filePath, oldString, newString) => [
      { tool: /^read$/, input: { filePath } },
      { tool: /^edit$/, input: { filePath, oldString, newString } },
    ],
    shell: (command) => ({ tool: /^bash$/, input: { command, description: "work" } }),
  },
};

function patch(...lines: string[]): Reply {
  return { tool: /^apply_patch$/, input: ["*** Begin Patch", ...lines, "*** End Patch"].join("\n") };
}

/** Variables of a developer that name other homes of the agents. */
const NOT_SET = { CLAUDE_CONFIG_DIR: "", CODEX_HOME: "", GEMINI_CLI_HOME: "", XDG_CONFIG_HOME: "" };

const OPENCODES = /^\.opencode(?:$|\/(?:node_modules|package(?:-lock)?\.json|bun\.lock|\.gitignore))/;

/** One agent in a home and a project of its own. */
class Work {
  readonly home: string;
  readonly project: string;
  readonly #env: Record<string, string>;
  readonly #agent: Agent;
  readonly #program: string;

  /** The state directory of a person whose agents find the `cairn` in `bin`. */
  readonly #state: Record<string, string>;

  constructor(name: string, agent: Agent, program: string, { url, bin }: { url: string; bin?: string }) {
    this.home = path.join(SCRATCH, `home-of-${name}`);
    this.project = path.join(this.home, "work/project");
    this.#agent = agent;
    this.#program = program;
    write(this.home, agent.home(this.project, url));
    write(this.project, { "keep.txt": "keep\n", "old/a.txt": "a\n", "old/b.txt": "b\n", ...agent.project });
    // Nothing of Cairn's variables: the entries must name them.
    this.#state =
      bin === undefined ? {} : { XDG_STATE_HOME: path.join(this.home, ".local/state"), CAIRN_SOCKET: "none" };
    const found = bin === undefined ? process.env["PATH"]! : `${bin}:${process.env["PATH"]}`;
    this.#env = { HOME: this.home, PATH: found, TERM: "xterm-256color", ...this.#state, ...agent.env(url) };
  }

  turns(folder = this.project): Turn[] {
    return (this.#run(["turns"], folder).data as unknown as TurnsResult).turns;
  }

  /** The workspace of a folder; null if there is none. */
  find(folder: string): string | null {
    const { data } = this.#run(["status"], folder, cairn);
    return ((data ?? {})["workspace"] as { path: string } | undefined)?.path ?? null;
  }

  /** Files of the home and the project that have an entry of Cairn. */
  entries(): string[] {
    const places = [".claude", ".claude.json", ".codex", ".gemini/settings.json", ".config", "work"];
    const files = places.flatMap((place) => filesBelow(path.join(this.home, place)));
    return files.filter((file) => /agent hook|mcp_servers.cairn|"cairn":/.test(fs.readFileSync(file, "utf8")));
  }

  // oxlint-disable-next-line typescript/no-explicit-any -- printed data is looked at as it is
  status(tool: string): any {
    const [{ agents }] = this.cairn("agent", "status")["folders"] as [{ agents: { tool: string }[] }];
    return agents.find((each) => each.tool === tool);
  }

  cairn(...args: string[]): Outcome["data"] {
    return this.#run(args, this.project).data;
  }

  #run(args: readonly string[], folder: string, run = cairnOk): Outcome {
    return run(["-C", folder, ...args], { own: true, env: { HOME: this.home, ...this.#state, ...NOT_SET } });
  }

  /** Runs the agent until it has nothing more to say. */
  async turn(prompt: string, isNext: boolean, folder = this.project): Promise<string> {
    const child = this.start(this.#agent.words(prompt, isNext), folder);
    child.stdin.end();
    let said = "";
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => (said += text));
    const [status] = (await once(child, "close")) as [number | null];
    assert.equal(status, 0, said);
    return said;
  }

  start(words: readonly string[], folder = this.project) {
    return spawn(this.#program, words, { cwd: folder, env: this.#env, stdio: "pipe", timeout: 120_000 });
  }

  /** Entries of the project, with the bytes of files, without the packages that opencode installs for plugins. */
  state(): Record<string, string> {
    const all = fs.readdirSync(this.project, { recursive: true, encoding: "utf8" });
    const names = all.filter((name) => !OPENCODES.test(name)).toSorted();
    return Object.fromEntries(
      names.map((name) => {
        const file = path.join(this.project, name);
        return [name, fs.statSync(file).isFile() ? fs.readFileSync(file, "utf8") : "folder"];
      }),
    );
  }
}

function git(folder: string, ...words: string[]): void {
  const who = ["-c", "user.name=Ann", "-c", "user.email=ann@example.org"];
  const { status, stderr } = spawnSync("git", ["-C", folder, ...who, ...words], { encoding: "utf8" });
  assert.equal(status, 0, stderr);
}

/** The regular files at or below a path, without packages and git's own. */
function filesBelow(place: string): string[] {
  const facts = fs.lstatSync(place, { throwIfNoEntry: false });
  if (facts?.isFile() === true) return [place];
  if (facts?.isDirectory() !== true || /\/(?:node_modules|\.git|sessions|projects|tmp|logs?)$/.test(place)) return [];
  return fs.readdirSync(place).flatMap((name) => filesBelow(path.join(place, name)));
}

function write(folder: string, files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
    fs.writeFileSync(path.join(folder, name), text);
  }
}

/** Ids of turns in an answer of the tool `turns`, newest first. */
const turnIds = (body: string): string[] =>
  [...body.matchAll(/([0-9a-f]{8}) 20\d\d-|turn_id\\*":\s*\\*"([0-9a-f]{8})/g)].map(([, a, b]) => a ?? b!);

for (const [name, agent] of Object.entries(AGENTS)) {
  const peer = findPeer(agent.peer);
  const skip = "reason" in peer ? peer.reason : false;
  test(`${name}: two turns are saved, and reverted by cairn rewind and by the agent's MCP tool`, { skip }, async (t) =>
    flow(t, name, agent, peer as Peer),
  );
}

async function flow(t: TestContext, name: string, agent: Agent, { program, version }: Peer): Promise<void> {
  t.diagnostic(`${name} ${version}`);
  const model = await new MockModel().start(t);
  const work = new Work(name, agent, program, { url: model.url });
  const before = work.state();
  const inside = (file: string): string => path.join(work.project, file);
  const say = { say: "done" };
  assert.equal(work.cairn("agent", "install", name)["checked"], true);
  if (name === "codex") {
    assert.deepEqual([work.status(name).trusted, work.status(name).problems.length], [false, 1]);
    const longAgo = Date.now() / 1000 - 600;
    fs.utimesSync(path.join(work.home, ".codex/hooks.json"), longAgo, longAgo);
    model.expect(say);
    await work.turn("Do nothing", false);
    assert.deepEqual(work.turns(), [], "Codex has ignored the hooks");
    assert.match(work.status(name).problems[1], /no hook of Codex has saved since its prompt/);
    await trustHooks(work);
    assert.equal(work.status(name).trusted, true, "the digests are Codex's own");
  }

  const [make, remove] = ["mkdir made && echo one > made/x && echo more >> keep.txt", "rm -r old made/x"];
  model.expect(agent.write(inside("new.txt"), "by the tool\n"), agent.shell(make), say);
  await work.turn("Make the files", false);
  const first = work.state();
  model.expect(agent.shell(remove), ...agent.edit(inside("new.txt"), "by the tool", "edited"), say);
  await work.turn("Remove the files", true);
  const second = work.state();
  assert.deepEqual([first["made/x"], first["keep.txt"], first["old/a.txt"]], ["one\n", "keep\nmore\n", "a\n"]);
  assert.deepEqual([second["old"], second["made/x"], second["new.txt"]], [undefined, undefined, "edited\n"]);

  // opencode ends before its last hook.
  await eventually("the last hook", () => work.turns().every(({ ended_at: at }) => at !== null));
  assert.deepEqual(
    work
      .turns()
      .map(({ prompt, commands, paths, changed }) => [
        prompt?.replaceAll('"', ""),
        commands,
        changed,
        paths.map((each) => each.path).toSorted(),
      ]),
    [
      ["Remove the files", [remove], 5, ["made/x", "new.txt", "old", "old/a.txt", "old/b.txt"]],
      ["Make the files", [make], 4, ["keep.txt", "made", "made/x", "new.txt"]],
    ],
  );
  assert.deepEqual([work.status(name).trusted, work.status(name).problems], [true, []]);
  for (const [word, state] of [
    ["rewind", first],
    ["undo", second],
    ["redo", first],
    ["undo", second],
  ] as const) {
    work.cairn(word);
    assert.deepEqual(work.state(), state, word);
  }

  model.expect(
    ...(name === "codex" ? [{ tool: /^tool_search$/, input: { query: "cairn turns rewind" } }] : []),
    { tool: /cairn_*turns$/, input: {} },
    (body) => ({ tool: /cairn_*rewind$/, input: { turn: turnIds(body)[1] } }),
    say,
  );
  await work.turn(agent.hasCommand === true ? "/cairn-rewind 1" : "Go back a turn", true);
  if (agent.hasCommand === true) assert.match(model.log.at(-1)!, /If a number was given here: 1/);
  assert.equal(model.left, 0);
  assert.deepEqual(work.state(), first, "by the agent's own tool");
  work.cairn("agent", "remove", name);
  const added = { "keep.txt": "keep\nmore\n", made: "folder", "made/x": "one\n", "new.txt": "by the tool\n" };
  assert.deepEqual(work.state(), { ...before, ...added });
  assert.deepEqual(work.entries(), []);
}

const WAYS = ["me", "all-mine", "everybody"] as const;

for (const [name, agent] of Object.entries(AGENTS)) {
  const peer = findPeer(agent.peer);
  const skip = "reason" in peer ? peer.reason : false;
  for (const whom of LONG ? WAYS : (["me"] as const))
    test(
      `${name}: turns in the folder, a subfolder, a worktree and a clone are saved as --for ${whom} says`,
      { skip },
      async (t) => places(t, { name, agent, program: (peer as Peer).program, whom }),
    );
}

/** The agent makes a turn in each place. A subfolder belongs to the workspace above, a worktree becomes one. */
async function places(
  t: TestContext,
  { name, agent, program, whom }: { name: string; agent: Agent; program: string; whom: (typeof WAYS)[number] },
): Promise<void> {
  const model = await new MockModel().start(t);
  const bin = path.join(SCRATCH, "bin");
  write(bin, { cairn: `#!/bin/sh\nexec ${process.execPath} ${buildCommand()} "$@"\n` });
  fs.chmodSync(path.join(bin, "cairn"), 0o755);
  const work = new Work(`${name}-${whom}`, agent, program, { url: model.url, bin });
  const beside = path.join(work.home, "work/beside");
  git(work.project, "init", "--quiet");
  work.cairn("agent", "install", name, "--for", whom);
  git(work.project, "add", "--all");
  git(work.project, "commit", "--quiet", "-m", "first");
  git(work.project, "worktree", "add", "--quiet", beside);
  const mate = new Work(`mate-of-${name}-${whom}`, agent, program, { url: model.url, bin });
  fs.rmSync(mate.project, { recursive: true });
  git("/", "clone", "--quiet", work.project, mate.project);
  if (name === "codex") await trustHooks(work);
  const turnIn = async (one: Work, folder: string): Promise<void> => {
    model.expect(agent.write(path.join(folder, "new.txt"), `${folder}\n`), { say: "done" });
    await one.turn(`Write in ${path.basename(folder)}`, false, folder);
  };
  const promptsIn = (one: Work, folder: string): (string | null)[] =>
    one.turns(folder).map(({ prompt }) => prompt?.replaceAll('"', "") ?? null);
  await turnIn(work, work.project);
  await turnIn(work, path.join(work.project, "old"));
  await eventually("the turns of the folder", () => promptsIn(work, work.project).length === 2);
  assert.deepEqual(promptsIn(work, work.project), ["Write in old", "Write in project"]);
  await turnIn(work, beside);
  // For all workspaces a worktree is one once a person makes it one; for everybody its own files do the same.
  if (whom === "me") await eventually("the turn of the worktree", () => promptsIn(work, beside).length === 1);
  await turnIn(mate, mate.project);
  assert.equal(mate.find(mate.project), null, "a clone with another home is no workspace");
  work.cairn("agent", "remove", name, "--for", whom);
  assert.deepEqual(work.entries(), []);
}

/** Approves the hooks, as a person does with `/hooks` in Codex. */
async function trustHooks(work: Work): Promise<void> {
  const server = work.start(["app-server"]);
  const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
  let id = 0;
  // oxlint-disable-next-line typescript/no-explicit-any -- another program's answer, which is looked at as it is
  const ask = async (method: string, params: object): Promise<any> => {
    server.stdin.write(`${JSON.stringify({ id: ++id, method, params })}\n`);
    for (;;) {
      const { value, done } = await lines.next();
      assert.ok(done !== true, `${method} has no answer`);
      const answer = JSON.parse(value);
      if (answer.id === id && answer.method === undefined) return answer.result;
    }
  };
  await ask("initialize", { clientInfo: { name: "test", version: "1" } });
  const { data } = await ask("hooks/list", { cwds: [work.project] });
  const hooks = data[0].hooks as { key: string; currentHash: string; trustStatus: string }[];
  assert.deepEqual([...new Set(hooks.map(({ trustStatus }) => trustStatus))], ["untrusted"]);
  const value = Object.fromEntries(hooks.map(({ key, currentHash }) => [key, { trusted_hash: currentHash }]));
  const edits = [{ keyPath: "hooks.state", mergeStrategy: "upsert", value }];
  assert.equal((await ask("config/batchWrite", { edits })).status, "ok");
  server.stdin.end();
  await once(server, "close");
}
