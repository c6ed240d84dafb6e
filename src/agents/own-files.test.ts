import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { isTrusted, lastPrompt } from "./own-files.ts";

interface Scene {
  env: { HOME: string };
  /** The folder of a project. */
  folder: string;
  /** Writes a file, by its path from the home directory. */
  put(name: string, content: string | object | readonly object[]): string;
}

/** A list becomes lines of JSON, another object JSON. */
function scene(t: TestContext): Scene {
  const root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "cairn-own-files-")));
  t.after(() => fs.rmSync(root, { recursive: true }));
  const env = { HOME: path.join(root, "home") };
  const put: Scene["put"] = (name, content) => {
    const file = path.resolve(env.HOME, name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    const text = Array.isArray(content)
      ? content.map((line) => `${JSON.stringify(line)}\n`).join("")
      : typeof content === "string"
        ? content
        : JSON.stringify(content);
    fs.writeFileSync(file, text);
    return file;
  };
  return { env, folder: path.join(root, "project"), put };
}

test("Claude Code and Gemini CLI trust a folder as their files say, and unreadable files are no answer", (t) => {
  const { env, folder, put } = scene(t);
  const trusted = (value: boolean): object => ({ hasTrustDialogAccepted: value });
  for (const [tool, file, content, wanted] of [
    ["claude-code", ".claude.json", null, null],
    ["claude-code", ".claude.json", "", null],
    ["claude-code", ".claude.json", "damaged", null],
    ["claude-code", ".claude.json", {}, false],
    ["claude-code", ".claude.json", { projects: { [folder]: trusted(false) } }, false],
    ["claude-code", ".claude.json", { projects: { [path.dirname(folder)]: trusted(true) } }, true],
    ["gemini", ".gemini/trustedFolders.json", null, null],
    ["gemini", ".gemini/trustedFolders.json", "", null],
    ["gemini", ".gemini/trustedFolders.json", {}, null],
    ["gemini", ".gemini/trustedFolders.json", { [folder]: "DO_NOT_TRUST" }, false],
    ["gemini", ".gemini/trustedFolders.json", { [`${folder}/part`]: "TRUST_FOLDER" }, null],
    ["gemini", ".gemini/trustedFolders.json", { [`${folder}/part`]: "TRUST_PARENT" }, true],
    ["gemini", ".gemini/trustedFolders.json", { [folder]: "TRUST_FOLDER" }, true],
    ["opencode", "none", null, true],
    ["hermes", "none", null, null],
  ] as const) {
    if (content !== null) put(file, content);
    // Hooks of the user's own settings need no trust of the folder.
    const answers = [true, false].map((inProject) => isTrusted(tool, folder, env, inProject));
    assert.deepEqual(answers, [wanted, wanted === false ? null : wanted], `${tool} ${JSON.stringify(content)}`);
  }
});

/** The lines that Codex 0.171 writes for approved hooks. test/flows/real-agents.flow.test.ts compares them with Codex's own. */
function approvals(file: string): string {
  const { hooks } = JSON.parse(fs.readFileSync(file, "utf8")) as { hooks: Record<string, [{ hooks: object[] }]> };
  const lines = Object.entries(hooks).map(([event, [{ hooks: handlers }]]) => {
    const { command, timeout } = handlers[0] as { command: string; timeout: number };
    const name = event.replaceAll(/(?<=.)[A-Z]/g, "_$&").toLowerCase();
    const handler = `{"async":false,"command":${JSON.stringify(command)},"timeout":${timeout},"type":"command"}`;
    const digest = createHash("sha256").update(`{"event_name":"${name}","hooks":[${handler}]}`).digest("hex");
    return `[hooks.state."${file}:${name}:0:0"]\ntrusted_hash = "sha256:${digest}"\n`;
  });
  return lines.join("");
}

test("Codex trusts hooks that a person approved, of a project or the user, until the hooks change", (t) => {
  const { env, folder, put } = scene(t);
  const trusted = (): boolean | null => isTrusted("codex", folder, env, true);
  const hooks = {
    hooks: { UserPromptSubmit: [{ hooks: [{ type: "command", command: "cairn agent hook codex", timeout: 30 }] }] },
  };
  assert.deepEqual([trusted(), isTrusted("codex", folder, env, false)], [false, false]);
  const file = put(path.join(folder, ".codex/hooks.json"), hooks);
  const project = `[projects."${path.dirname(folder)}"]\ntrust_level = "trusted"\n`;
  put(".codex/config.toml", project);
  assert.equal(trusted(), false, "the folder alone");
  put(".codex/config.toml", approvals(file));
  assert.equal(trusted(), false, "the hooks alone");
  put(".codex/config.toml", project + approvals(file));
  assert.equal(trusted(), true);
  fs.writeFileSync(file, fs.readFileSync(file, "utf8").replaceAll("agent hook", "agent  hook"));
  assert.equal(trusted(), false, "Codex asks again");
  const own = put(".codex/hooks.json", hooks);
  assert.equal(trusted(), false);
  put(".codex/config.toml", approvals(own));
  assert.equal(trusted(), true, "the user's hooks need no trusted project");
});

const at = (minutes: number): string => new Date(Date.UTC(2026, 10, 27, 12, minutes)).toISOString();

/** Writes a session of each tool: a person's prompt in `cwd` at `minutes`, then entries that are not a person's prompts. */
const SESSIONS: Readonly<Record<string, (of: Scene, minutes: number, cwd: string) => unknown>> = {
  "claude-code"({ put, folder }, minutes, cwd) {
    const prompt = { type: "user", cwd, timestamp: at(minutes), message: { role: "user", content: "fix it" } };
    const result = { ...prompt, timestamp: at(50), message: { content: [{ type: "tool_result", content: "x" }] } };
    const note = { ...prompt, timestamp: at(50), isMeta: true };
    return put(`.claude/projects/${folder.replaceAll(/[^A-Za-z0-9]/g, "-")}/b.jsonl`, [prompt, result, note]);
  },
  codex({ put }, minutes, cwd) {
    const message = { type: "event_msg", timestamp: at(minutes), payload: { type: "user_message", message: "fix it" } };
    const answer = { ...message, timestamp: at(50), payload: { type: "agent_message" } };
    return put(".codex/sessions/2026/11/27/a.jsonl", [{ type: "session_meta", payload: { cwd } }, message, answer]);
  },
  "codex 0.171"({ put }, minutes, cwd) {
    const payload = { type: "item_completed", item: { type: "UserMessage", content: [{ type: "text", text: "x" }] } };
    const item = { type: "event_msg", timestamp: at(minutes), payload };
    return put(".codex/sessions/2026/11/27/a.jsonl", [{ type: "session_meta", payload: { cwd } }, item]);
  },
  gemini({ put }, minutes, cwd) {
    put(".gemini/tmp/own/.project_root", cwd);
    const [head, prompt, answer] = [
      { sessionId: "x", projectHash: "0".repeat(64), kind: "main" },
      { id: "1", timestamp: at(minutes), type: "user", content: "fix it" },
      { id: "2", timestamp: at(50), type: "gemini", content: "done" },
    ];
    const file = put(".gemini/tmp/own/chats/session-1.jsonl", [head, prompt, answer]);
    fs.appendFileSync(file, '{"damaged');
  },
  "gemini before 0.5"({ put }, minutes, cwd) {
    const projectHash = createHash("sha256").update(cwd).digest("hex");
    const messages = [{ type: "user", timestamp: at(minutes) }, { type: "gemini" }];
    return put(`.gemini/tmp/${projectHash}/chats/session-2.json`, { sessionId: "y", projectHash, messages });
  },
};

for (const [name, write] of Object.entries(SESSIONS))
  test(`the last prompt in a folder is found in the sessions of ${name}`, (t) => {
    const of = scene(t);
    const tool = name.split(" ")[0]!;
    const asked = { folder: of.folder, env: of.env, isHere: (cwd: string) => cwd === of.folder };
    assert.equal(lastPrompt(tool, asked), null);
    write(of, 5, "/another/folder");
    assert.equal(lastPrompt(tool, asked), null);
    write(of, 5, of.folder);
    assert.equal(lastPrompt(tool, asked), Date.parse(at(5)));
  });

test("the last prompt in a folder is found in opencode's database, and nothing is made beside it", (t) => {
  const { env, folder, put } = scene(t);
  const asked = { folder, env, isHere: (cwd: string) => cwd.startsWith(folder) };
  const file = put(".local/share/opencode/opencode.db", "");
  const database = new DatabaseSync(file);
  database.exec(
    "PRAGMA journal_mode = WAL; CREATE TABLE session (id, parent_id, directory); CREATE TABLE message (id, session_id, time_created, data)",
  );
  const now = Date.now();
  const add = (id: string, directory: string, minutes: number, role = "user"): void => {
    database.prepare("INSERT INTO session VALUES (?, NULL, ?)").run(id, directory);
    database.prepare("INSERT INTO message VALUES (?, ?, ?, ?)").run(id, id, now + minutes, JSON.stringify({ role }));
  };
  add("a", "/another/folder", 9);
  add("b", path.join(folder, "part"), 20, "assistant");
  assert.equal(lastPrompt("opencode", asked), null);
  add("c", path.join(folder, "part"), 5);
  assert.equal(lastPrompt("opencode", asked), now + 5);
  database.close();
  const before = fs.readdirSync(path.dirname(file));
  assert.equal(lastPrompt("opencode", asked), now + 5);
  assert.deepEqual(fs.readdirSync(path.dirname(file)), before);
  fs.writeFileSync(file, "not a database");
  assert.equal(lastPrompt("opencode", asked), null);
});
