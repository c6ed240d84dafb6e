import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { Turn } from "../../src/contract/index.ts";
import { buildCommand, cairnOk, SCRATCH } from "../fixtures/command.ts";

/** The hook for any tool, and inputs that a hook does not expect: it always exits 0, and the turn is listed. */

const COMMAND = buildCommand();
let count = 0;

function newWorkspace(): string {
  const folder = path.join(SCRATCH, `any-${count++}`);
  fs.mkdirSync(path.join(folder, "sub"), { recursive: true });
  write(folder, "one");
  cairnOk(["save", folder]);
  return folder;
}

const write = (folder: string, text: string): void => fs.writeFileSync(path.join(folder, "a.txt"), text);

interface Ran {
  stdout: string;
  stderr: string;
  ms: number;
}

function hook(folder: string, args: readonly string[], input: string | Buffer = ""): Ran {
  const begun = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, [COMMAND, "agent", "hook", ...args, "--verbose"], {
    cwd: folder,
    input,
    encoding: "utf8",
  });
  assert.equal(status, 0, stderr);
  return { stdout, stderr, ms: performance.now() - begun };
}

const generic = (folder: string, ...args: string[]): Ran => hook(folder, ["mine", "--session", "5e1f", ...args]);
const turnsOf = (folder: string): Turn[] => cairnOk(["turns", "-C", folder]).data["turns"] as Turn[];

test("events of any tool become turns with prompt, calls and changes, and rewind takes a turn back", () => {
  const folder = newWorkspace();
  const prompt = path.join(SCRATCH, "prompt.txt");
  fs.writeFileSync(prompt, "Write two\nplease");
  generic(path.join(folder, "sub"), "--event", "before", "--prompt-file", prompt);
  generic(folder, "--event", "before", "--call", "9f86d081");
  write(folder, "two");
  generic(folder, "--event", "after", "--call", "9f86d081");
  assert.match(generic(folder, "--event", "after").stdout, /nothing had changed/);
  write(folder, "mine");
  // Another tool, in the same folder, with the words of a shell that pipes the prompt.
  hook(folder, ["other", "--event", "before", "--session", "s2", "--prompt-file", "-"], "Write three");
  write(folder, "three");
  hook(folder, ["other", "--event", "after", "--session", "s2"]);
  const [second, first] = turnsOf(folder);
  assert.deepEqual(
    [first!.agent, first!.session, first!.prompt, first!.tools, first!.changed, first!.ended_at !== null],
    ["mine", "5e1f", "Write two", 1, 1, true],
  );
  assert.deepEqual([second!.agent, second!.prompt, second!.tools, second!.changed], ["other", "Write three", 0, 1]);
  assert.match(JSON.stringify(cairnOk(["history", "-C", folder]).data), /before a turn.*after a call/);
  cairnOk(["rewind", "-C", folder]);
  assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "mine");
});

test("calls whose tool uses an id again are other calls", () => {
  const folder = newWorkspace();
  const turn = (text: string): void => {
    generic(folder, "--event", "before");
    for (const step of [1, 2]) {
      generic(folder, "--event", "before", "--call", "call_0");
      write(folder, `${text} ${step}`);
      assert.match(generic(folder, "--event", "after", "--call", "call_0").stdout, /^saved as|^saving in/);
    }
    write(folder, `${text} 3`);
    assert.match(generic(folder, "--event", "after", "--call", "only_after").stdout, /^saved as|^saving in/);
    generic(folder, "--event", "after");
  };
  turn("one");
  turn("two");
});

test("a turn's own id of 8 hex digits is its id in turns and rewind", () => {
  const folder = newWorkspace();
  generic(folder, "--event", "before", "--call", "0badcafe", "--prompt-file", "-");
  write(folder, "two");
  generic(folder, "--event", "after", "--call", "0badcafe");
  const [turn] = turnsOf(folder);
  assert.deepEqual([turn!.turn_id, turn!.changed, turn!.ended_at !== null], ["0badcafe", 1, true]);
  cairnOk(["rewind", "0badcafe", "-C", folder]);
  assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "one");
});

test("hostile values of the options are cut or refused by name, and the hook exits 0", () => {
  const folder = newWorkspace();
  const long = `\x1b[31m--json ../../etc ' "${"x".repeat(1000)}`;
  hook(folder, [long, `--session=${long}`, `--call=${long}`, "--event", "before"]);
  const event = cairnOk(["turns", "-C", folder]).data["turns"] as Turn[];
  assert.deepEqual([event[0]!.agent, event[0]!.session], [long.slice(0, 256), long.slice(0, 256)]);
  const shown = spawnSync(process.execPath, [COMMAND, "turns", "-C", folder], { encoding: "utf8" });
  assert.doesNotMatch(shown.stdout, /\x1b/);
  for (const [args, said] of [
    [["mine", "--session", "s"], /--event before or --event after/],
    [["mine", "--session", "s", "--event", "Stop"], /--event must be one of before, after; found "Stop"/],
    [["--event", "before", "--session", "s"], /name the calling tool: /],
    [["", "--event", "before"], /name the calling tool: /],
  ] as const)
    assert.match(hook(folder, args).stderr, said);
  // Also if the folder comes first.
  const first = spawnSync(process.execPath, [COMMAND, "-C", folder, "agent", "hook", "--no-such"]);
  assert.equal(first.status, 0);
});

test("a prompt file that cannot be read does not lose the turn, and of a large one the first 64 KiB are kept", () => {
  const folder = newWorkspace();
  const large = path.join(SCRATCH, "large.txt");
  fs.writeFileSync(large, Buffer.concat([Buffer.from("Large\n"), Buffer.alloc(100 << 20, 0xff)]));
  const pipe = path.join(SCRATCH, "pipe");
  assert.equal(spawnSync("mkfifo", [pipe]).status, 0);
  for (const file of [large, "/no/such", folder, pipe]) {
    const { ms } = generic(folder, "--event", "before", "--prompt-file", file);
    assert.ok(ms < 20_000, `${ms} ms, with the start of a process by a busy machine`);
  }
  assert.deepEqual(
    turnsOf(folder).map(({ prompt }) => prompt?.slice(0, 28)),
    [...Array<string>(3).fill("(the prompt could not be rea"), "Large"],
  );
});

const SHAPES: Record<string, (prompt: string) => string | Buffer> = {
  "a prompt of 10 MB before the other members": (prompt) =>
    JSON.stringify({ prompt: prompt + "x".repeat(10 << 20), ...factsOf("UserPromptSubmit") }),
  "a prompt of 10 MB of escapes": (prompt) =>
    JSON.stringify({ prompt: prompt + "\u0001".repeat(10 << 20), ...factsOf("UserPromptSubmit") }),
  "a prompt with bytes that are no UTF-8": (prompt) =>
    Buffer.from(JSON.stringify({ prompt: `${prompt}\xff\xfe`, ...factsOf("UserPromptSubmit") }), "latin1"),
};
let workspace = "";
const factsOf = (event: string): object => ({ session_id: "s", hook_event_name: event, cwd: workspace });

for (const [shape, inputOf] of Object.entries(SHAPES))
  test(`the turn of ${shape} is listed, and of the prompt at most 64 KiB are kept`, () => {
    workspace = newWorkspace();
    const { ms } = hook(workspace, ["claude-code"], inputOf("Fix it\n"));
    assert.ok(ms < 20_000, `${ms} ms, with the start of a process by a busy machine`);
    const { prompt, session } = firstTurn(workspace);
    assert.deepEqual([prompt, session], ["Fix it", "s"]);
  });

/** Waits for a turn, which a background process may record. */
function firstTurn(folder: string): Turn {
  for (const until = Date.now() + 60_000; ;) {
    const [turn] = turnsOf(folder);
    if (turn !== undefined) return turn;
    assert.ok(Date.now() < until, "the background process saves");
  }
}

test("a tool input of 100 MB leaves event, session, turn, tool and call", () => {
  const folder = newWorkspace();
  const content = 'const a = "\\n";\n'.repeat(6 << 20);
  const input = JSON.stringify({
    cwd: folder,
    hook_event_name: "PreToolUse",
    tool_name: "Write",
    tool_input: { file_path: "a.txt", content, command: "no" },
    session_id: "s",
    prompt_id: "p",
    tool_use_id: "c",
  });
  assert.ok(input.length > 100e6);
  const { ms } = hook(folder, ["claude-code"], input);
  assert.ok(ms < 20_000, `${ms} ms, with the start of a process by a busy machine`);
  const { session, tools } = firstTurn(folder);
  assert.deepEqual([session, tools], ["s", 1]);
  const { agents } = (
    cairnOk(["agent", "status", "-C", folder]).data["folders"] as { agents: { last_hook: object }[] }[]
  )[0]!;
  const { event, turn, tool, call } = agents[0]!.last_hook as Record<string, unknown>;
  assert.deepEqual([event, turn, tool, call], ["PreToolUse", "p", "Write", "c"]);
});

test("a hook whose tool never closes the input saves with what was told", async (t) => {
  const folder = newWorkspace();
  write(folder, "two");
  const child = spawn(process.execPath, [COMMAND, "agent", "hook", "codex"], { stdio: ["pipe", "ignore", "inherit"] });
  t.after(() => child.kill("SIGKILL"));
  child.stdin.on("error", () => undefined);
  child.stdin.write(
    `{"cwd":${JSON.stringify(folder)},"hook_event_name":"UserPromptSubmit","session_id":"s","prompt":"Go on and`,
  );
  assert.deepEqual(await once(child, "exit"), [0, null]);
  assert.equal(firstTurn(folder).prompt, "Go on and");
});
