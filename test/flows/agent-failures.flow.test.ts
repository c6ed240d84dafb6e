import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { buildCommand, cairn, cairnOk, type Outcome, type RunOptions, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

/** Hooks of agents that cannot save: they exit 0, and `agent status`, `doctor`, `turns` and the tool itself say so. */

const COMMAND = buildCommand();
const STATE = path.join(process.env["XDG_STATE_HOME"]!, "cairn");
let count = 0;

// oxlint-disable-next-line typescript/no-explicit-any -- JSON of the command
type Loose = any;

function write(file: string, text: string): void {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, text);
}

class Project {
  readonly folder: string;
  readonly control: string;
  readonly tool: string;

  readonly asked: RunOptions;

  constructor(
    control?: string,
    tool = "claude-code",
    asked: RunOptions = {},
    folder = path.join(SCRATCH, `failing-${count++}`),
  ) {
    this.folder = folder;
    this.tool = tool;
    this.asked = asked;
    write(path.join(this.folder, "a"), "one");
    const more = control === undefined ? [] : ["--control-dir", control];
    cairnOk(["init", this.folder, "--allow", "nested", ...more], asked);
    cairnOk(["agent", "install", tool, "-C", this.folder], asked);
    this.control = (cairnOk(["status", this.folder], asked).data["workspace"] as Loose).control_directory as string;
  }

  change(): void {
    fs.appendFileSync(path.join(this.folder, "a"), "more");
  }

  /** Returns what the hook printed. It must end with exit status 0. */
  hook(event: string, facts: object = {}, env: Record<string, string | undefined> = {}): string {
    const input = JSON.stringify({ session_id: this.folder, hook_event_name: event, cwd: this.folder, ...facts });
    const child = spawnSync(process.execPath, [COMMAND, "agent", "hook", this.tool], {
      input,
      encoding: "utf8",
      env: { ...process.env, ...this.asked.env, ...env },
      timeout: HOOK_MS,
    });
    assert.equal(child.status, 0, child.stderr);
    return child.stdout.trim();
  }

  status(...more: string[]): Loose {
    return (cairnOk(["agent", "status", "-C", this.folder, ...more], this.asked).data["folders"] as Loose[])[0];
  }

  agent(...more: string[]): Loose {
    return (this.status(...more)["agents"] as Loose[]).find(({ tool }) => tool === this.tool);
  }

  run(...args: string[]): Outcome {
    return cairn(["-C", this.folder, ...args], { own: true });
  }

  text(...args: string[]): string {
    const env = { ...process.env, ...this.asked.env, NO_COLOR: "1" };
    const child = spawnSync(process.execPath, [COMMAND, "-C", this.folder, ...args], { encoding: "utf8", env });
    return child.stdout + child.stderr;
  }
}

/** Everything that a hook does is bounded; most tests share the machine with others. */
const HOOK_MS = 20_000;

function mounted(t: TestContext, size: string): string | null {
  const place = path.join(SCRATCH, `small-${count++}`);
  fs.mkdirSync(place);
  if (spawnSync("mount", ["-t", "tmpfs", "-o", `size=${size}`, "cairn-test", place]).status !== 0) {
    t.skip("needs the right to mount a tmpfs");
    return null;
  }
  t.after(() => spawnSync("umount", ["-l", place]));
  return place;
}

/** Fails hooks by `spoil`, and checks that everything says so until `mend` and the next hook. */
function failing(
  project: Project,
  { spoil, mend, why, isDamage = false }: { spoil(): void; mend(): void; why: RegExp; isDamage?: boolean },
): void {
  project.hook("UserPromptSubmit", { prompt_id: "p1", prompt: "works" });
  assert.equal(project.agent()["failed"], null);
  spoil();
  project.change();
  const said = project.hook("UserPromptSubmit", { prompt_id: "p2", prompt: "fails" });
  const { systemMessage } = JSON.parse(said) as { systemMessage: string };
  assert.match(systemMessage, /^Cairn could not save this folder: /);
  assert.match(systemMessage, why);
  assert.equal(project.hook("Stop", { prompt_id: "p2" }), "", "it is said once in a session");
  const { failed, covered } = project.agent();
  assert.deepEqual([failed.count, failed.over, covered], [2, false, !isDamage]);
  assert.match(failed.reason, why);
  const line = /2 hooks of claude-code failed since \d{4}-\d\d-\d\d/;
  assert.match(project.text("agent", "status"), line);
  const doctor = project.text("doctor");
  assert.match(doctor, line);
  assert.match(doctor, isDamage ? /not healthy/ : /no damage found, but saves or scheduled work fail/);
  assert.equal(cairn(["doctor", "-C", project.folder]).status, isDamage ? 6 : 4);
  assert.match(project.text("turns"), line);
  assert.doesNotMatch(project.text("turns"), /nothing changed.*\n.*not saved/);
  mend();
  project.change();
  project.hook("UserPromptSubmit", { prompt_id: "p3", prompt: "works again" });
  const after = project.agent()["failed"];
  assert.deepEqual([after.count, after.over], [2, true]);
}

for (const kind of ["tmpfs", "ext4"] as const)
  test(`hooks on a full ${kind} are named by agent status, doctor, turns and the tool`, (t) => {
    const disk = kind === "tmpfs" ? mounted(t, "4m") : (loopFileSystem(t, kind, { size: 32 << 20 })?.root ?? null);
    if (disk === null) return;
    const filler = path.join(disk, "filler");
    failing(new Project(path.join(disk, "control")), {
      spoil() {
        for (const size of [1 << 20, 4096])
          assert.throws(() => {
            for (;;) fs.appendFileSync(filler, Buffer.alloc(size));
          }, /ENOSPC/);
      },
      mend: () => fs.rmSync(filler),
      why: /free|space|room/i,
    });
  });

test("hooks with a read-only bind mount of the store are named", (t) => {
  const project = new Project();
  const { control } = project;
  if (spawnSync("mount", ["--bind", control, control]).status !== 0) return t.skip("needs the right to bind a mount");
  t.after(() => spawnSync("umount", ["-l", control]));
  failing(project, {
    spoil: () => spawnSync("mount", ["-o", "remount,bind,ro", control]),
    mend: () => spawnSync("mount", ["-o", "remount,bind,rw", control]),
    why: /read-only|EROFS/,
  });
});

test("a damaged pack is named by agent status and doctor, also if hooks save", () => {
  const project = new Project();
  project.hook("UserPromptSubmit");
  const [pack] = fs
    .globSync("store/data/*/*", { cwd: project.control })
    .map((name) => path.join(project.control, name));
  fs.rmSync(pack!);
  assert.match(project.text("agent", "status"), /1 pack of the store is missing or damaged/);
  project.change();
  assert.equal(project.hook("UserPromptSubmit", { prompt_id: "p2" }), "");
  assert.match(project.text("doctor"), /not healthy/);
});

test("a folder whose store is damaged or gone is not covered, and nothing is said of its hooks", () => {
  for (const lost of ["store/config", "store"]) {
    const project = new Project();
    fs.rmSync(path.join(project.control, lost), { recursive: true });
    const { covered, why } = project.agent();
    assert.equal(covered, false, lost);
    assert.match(why, /config|store/);
    assert.doesNotMatch(project.text("agent", "status"), /no hook yet/);
  }
});

test("hooks while the daemon is stopped end in time, and are named then and later", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const project = new Project(undefined, undefined, daemon.asked);
  project.hook("UserPromptSubmit", { prompt_id: "p1", prompt: "works" });
  assert.equal(project.agent()["failed"], null);
  process.kill(daemon.pid, "SIGSTOP");
  project.change();
  project.hook("UserPromptSubmit", { prompt_id: "p2" });
  await eventually("the save in the background has ended", () => project.agent()["failed"] !== null);
  const { covered, why, failed, problems } = project.agent();
  assert.deepEqual([covered, failed.count, problems], [false, 1, []]);
  for (const said of [why, failed.reason, project.text("turns"), project.text("doctor")])
    assert.match(said, /the daemon .* has not answered/);
  process.kill(daemon.pid, "SIGCONT");
  assert.match(project.text("turns"), /1 hook of claude-code failed since/);
  assert.match(project.text("doctor"), /1 hook of claude-code failed since/);
  project.hook("UserPromptSubmit", { prompt_id: "p3" });
  await eventually("a later hook saves", () => project.agent()["failed"].over === true);
  assert.equal(project.agent()["failed"].count, 1);
});

test("hooks with a damaged store are named", () => {
  const project = new Project();
  const file = path.join(project.control, "store", "config");
  const config = fs.readFileSync(file);
  const put = (content: string | Buffer): void => {
    fs.chmodSync(file, 0o600);
    fs.writeFileSync(file, content);
  };
  failing(project, { spoil: () => put("damaged"), mend: () => put(config), why: /config/, isDamage: true });
});

test("hooks whose workspace cannot be opened are named, from the user's own record", () => {
  const project = new Project();
  const file = path.join(project.control, "cairn.json");
  const control = fs.readFileSync(file);
  fs.writeFileSync(file, "{");
  assert.match(project.hook("Stop"), /systemMessage.*cairn\.json/);
  const { problem } = project.status();
  assert.match(problem, /cairn\.json/);
  const { covered, why, failed } = project.agent();
  assert.deepEqual([covered, why, failed.count, failed.over], [false, problem, 1, false]);
  fs.writeFileSync(file, control);
  assert.match(project.text("turns"), /1 hook of claude-code failed since/);
  project.hook("UserPromptSubmit");
  assert.equal(project.agent()["failed"].over, true);
  assert.match(fs.readFileSync(path.join(STATE, "agents/events/unopened.jsonl"), "utf8"), /"event":"Stop"/);
});

test("hooks that failed in a damaged workspace inside another one are those of the inner one only", () => {
  const outer = new Project();
  const inner = new Project(undefined, "claude-code", {}, path.join(outer.folder, "inner"));
  const deep = path.join(inner.folder, "deep");
  fs.mkdirSync(deep);
  const control = path.join(inner.control, "cairn.json");
  const content = fs.readFileSync(control);
  fs.writeFileSync(control, "{");
  inner.hook("Stop", { cwd: deep });
  assert.match(outer.hook("UserPromptSubmit", { prompt_id: "p" }), /^$/);
  assert.deepEqual([inner.agent()["failed"].count, outer.agent()["failed"]], [1, null]);
  const [state] = cairnOk(["agent", "status", "-C", deep]).data["folders"] as Loose[];
  assert.deepEqual([state.path, state.agents[0].failed.count], [inner.folder, 1]);
  assert.doesNotMatch(outer.text("turns"), /failed/);
  fs.writeFileSync(control, content);
});

const next = (folder: string): unknown => cairnOk(["release", folder]).data["next"];

test("release ends the cover of a folder, and names agent remove if the hooks serve no other folder", () => {
  const [served, project] = [new Project(), new Project(undefined, "codex")];
  assert.deepEqual(next(served.folder), [], "the entries in the settings serve other folders");
  assert.deepEqual(next(project.folder), [`cairn -C ${project.folder} agent remove codex`]);
  for (const { folder } of [served, project])
    assert.ok(!fs.readFileSync(path.join(STATE, "agents/covered.json"), "utf8").includes(`"${folder}"`));
  assert.equal(project.hook("Stop"), "", "a folder that is not covered is none of the hook's business");
  const { covered, why, failed } = project.agent();
  assert.deepEqual([covered, failed], [false, null]);
  assert.match(why, /^released \d{4}-/);
  assert.match(project.text("agent", "status"), /not covered: released/);
  cairnOk(["agent", "remove", "codex", "-C", project.folder]);
  assert.ok(!project.text("agent", "status").includes("hook "), project.text("agent", "status"));
});

test("after the last covered folder was released, agent status says that another workspace is not covered", () => {
  const project = new Project(undefined, "gemini");
  cairnOk(["release", project.folder]);
  const other = path.join(SCRATCH, `other-${count++}`);
  write(path.join(other, "a"), "one");
  cairnOk(["save", other]);
  const [state] = cairnOk(["agent", "status", "-C", other]).data["folders"] as Loose[];
  const { covered, why } = state.agents.find((each: Loose) => each.tool === "gemini");
  assert.deepEqual([covered, why.endsWith("agent install gemini` covers it")], [false, true], why);
  const input = JSON.stringify({ session_id: "s", hook_event_name: "AfterAgent", cwd: other });
  const words = [COMMAND, "agent", "hook", "gemini", "--if-covered", "--verbose"];
  assert.match(spawnSync(process.execPath, words, { input, encoding: "utf8" }).stdout, /is not covered/);
});

test("a hook in a covered folder that is no workspace any more says so", () => {
  const project = new Project();
  const folder = path.join(SCRATCH, `none-${count++}`);
  fs.mkdirSync(folder);
  const list = path.join(STATE, "agents/covered.json");
  const entry = JSON.stringify({ tool: "claude-code", whom: "me", each: "tool" });
  const covers = (JSON.parse(fs.readFileSync(list, "utf8")) as Loose).covers as object[];
  const own = { ...(JSON.parse(entry) as object), folder: { path: folder, inode: "0", made: "0", git: null } };
  fs.writeFileSync(list, JSON.stringify({ version: 1, covers: [...covers, own] }));
  assert.match(project.hook("Stop", { cwd: folder, session_id: "none" }), /is covered, but not a workspace/);
  const [state] = cairnOk(["agent", "status", "-C", folder]).data["folders"] as Loose[];
  const { covered, failed } = state.agents.find((each: Loose) => each.tool === "claude-code");
  assert.deepEqual([covered, failed.count], [false, 1]);
});

test("hooks of a project's own files that point to a released folder are named", () => {
  const project = new Project();
  cairnOk(["agent", "remove", "claude-code", "-C", project.folder]);
  cairnOk(["agent", "install", "claude-code", "--for", "everybody", "-C", project.folder]);
  project.hook("UserPromptSubmit");
  assert.deepEqual(next(project.folder), [`cairn -C ${project.folder} agent remove claude-code --for everybody`]);
  assert.match(project.hook("Stop"), /was released/);
  const { problem, agents } = project.status();
  assert.match(problem, /^released \d{4}-/);
  const own = (agents as Loose[])[0];
  assert.deepEqual([own.covered, own.last_hook.failed !== null, own.failed.count], [false, true, 1]);
  assert.match(own.problems.join(), /still point to this folder.*agent remove claude-code --for everybody/);
  const all = cairnOk(["agent", "status", "--all"]).data["folders"] as Loose[];
  assert.ok(all.some(({ path: each }) => each === project.folder));
});

test("agent status in a subfolder is that of the workspace above, and after agent remove names no last hook", () => {
  const project = new Project();
  project.hook("UserPromptSubmit");
  fs.mkdirSync(path.join(project.folder, "frontend"));
  const [state] = cairnOk(["agent", "status", "-C", path.join(project.folder, "frontend")]).data["folders"] as Loose[];
  assert.equal(state.path, project.folder);
  assert.equal(state.agents[0].last_hook.event, "UserPromptSubmit");
  const lines = project.text("agent", "status").match(/^\S+ +Claude Code /gm);
  assert.equal(lines?.length, 1, "a line for each installed tool");
  cairnOk(["agent", "remove", "claude-code", "-C", project.folder]);
  assert.equal(project.agent()["covered"], false);
  assert.match(
    project.text("agent", "status"),
    /^\S+ +(?:no agent has hooks here: `cairn agent install TOOL` adds them$|(?:Gemini CLI|Claude Code) +not covered)/m,
  );
});
