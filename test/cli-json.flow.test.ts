import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { COMMANDS } from "../src/cli/program/commands.ts";
import { assertPromised, wordsOf } from "../src/cli/testing-json-keys.ts";
import { makeParts, writeZip } from "../src/bundle/testing-bundle.ts";
import { cairn, ROOT, SCRATCH, type Outcome } from "./fixtures/command.ts";

/** The real command with `--json`, command by command in one workspace: it prints the keys that docs/json.md promises. */

const WORK = path.join(SCRATCH, "work");
const MOVED = path.join(SCRATCH, "moved");
const seen = new Set<string>();
const ran = new Set<string>();

mkdirSync(path.join(WORK, "deep"), { recursive: true });
write("a.txt", "one\n");
write("deep/b.txt", "two\n");
symlinkSync("a.txt", path.join(WORK, "link"));

function write(name: string, text: string | Uint8Array): void {
  writeFileSync(path.join(WORK, name), text);
}

interface Expected {
  status?: number;
  cwd?: string;
  env?: Record<string, string>;
}

/** Words at the beginning of a line that need one more word to be a command. */
const GROUPS = new Set(
  "agent,backup,backup key,backup repair,bundle,cleanup,context,database,engine,receipt,service,service token,vm".split(
    ",",
  ),
);

/** Returns the words of the command at the beginning of a line: `backup key list` of `backup key list -r DIR`. */
function commandOf(words: readonly string[]): string {
  let count = 1;
  while (GROUPS.has(words.slice(0, count).join(" ")) && words[count]?.startsWith("-") === false) count += 1;
  return words.slice(0, count).join(" ");
}

/** Runs a command and holds its envelope against the contract. */
// oxlint-disable-next-line typescript/no-explicit-any -- what was printed is looked at as it is
function run(typed: string | readonly string[], expected: Expected = {}): Outcome & { data: Record<string, any> } {
  const words = typeof typed === "string" ? typed.split(" ") : typed;
  const line = words.join(" ");
  const { env } = expected;
  const done = cairn(words, { cwd: expected.cwd ?? WORK, ...(env === undefined ? {} : { env }) });
  const said = `${line}: ${done.stdout}${done.stderr}`;
  assert.equal(done.status, expected.status ?? 0, said);
  assert.equal(done.stdout.trimEnd().split("\n").length, 1, said);
  const envelope = JSON.parse(done.stdout) as Record<string, unknown>;
  assert.deepEqual(Object.keys(envelope), ["schema_version", "command", "ok", "data", "warnings", "error"], said);
  assert.deepEqual([envelope["schema_version"], envelope["command"]], [1, commandOf(words)], said);
  assert.equal(envelope["ok"], [0, 10].includes(done.status ?? -1), said);
  if (envelope["error"] !== null)
    assert.deepEqual(
      Object.keys(envelope["error"] as object).filter((key) => key !== "details"),
      ["code", "message", "hint", "retryable"],
      said,
    );
  ran.add(words[0]!);
  if (envelope["data"] !== null) {
    assertPromised(line, envelope["data"]);
    remember(envelope["data"]);
  }
  return done;
}

function atLeast(least: number, values: unknown): void {
  assert.ok(Array.isArray(values) && values.length >= least, JSON.stringify(values));
}

/** Members whose names belong to whoever gave them, or to another format. */
const OTHERS = new Set(["cause", "content", "details", "receipt"]);

function remember(value: unknown): void {
  if (Array.isArray(value)) for (const element of value) remember(element);
  else if (typeof value === "object" && value !== null) {
    for (const [key, member] of Object.entries(value)) {
      seen.add(key);
      if (!OTHERS.has(key)) remember(member);
    }
  }
}

let first = "";

test("init, save, history and why print the keys that docs/json.md promises", () => {
  const { data } = run("init");
  atLeast(4, data["engine_reasons"]);
  assert.equal(data["self_contained"], false);
  const saved = run('save -m first -t tag --cause {"kind":"tool_call","tool":"x"}').data;
  assert.deepEqual([saved["changes"].added, saved["save_point"].cause.tool], [4, "x"]);
  first = saved["save_point"].save_point_id;
  assert.equal(run("save --skip-unchanged").data["save_point"].save_point_id, first);
  const history = run("history -n 1").data;
  atLeast(1, history["save_points"]);
  assert.deepEqual([history["head"], history["latest"], history["truncated"]], [first, first, false]);
  const why = run("why a.txt").data;
  assert.equal(why["changes"].length, 1);
  assert.deepEqual([why["path"], why["changes"][0].change, why["changes"][0].size_after], ["a.txt", "added", 4]);
});

test("status and diff print the keys that docs/json.md promises", () => {
  assert.equal(run("status").data["clean"], true);
  write("a.txt", "one\nmore\n");
  write("new.txt", "new\n");
  write(".cairnignore", "hidden\n");
  write("hidden", "hidden\n");
  const status = run("status").data;
  atLeast(4, status["engine_reasons"]);
  atLeast(1, status["ignored"]);
  assert.deepEqual([status["clean"], status["changes"]], [false, { added: 2, modified: 1, removed: 0 }]);
  const { data } = run("diff");
  atLeast(3, data["entries"]);
  assert.deepEqual([data["from"], data["to"]], [first, null]);
});

test("restore, undo, redo and bisect print the promised keys, and names that are not UTF-8 as base64", () => {
  writeFileSync(Buffer.concat([Buffer.from(`${WORK}/`), Buffer.from([0x66, 0xff])]), "raw");
  const second = run("save -m second").data["save_point"].save_point_id;
  const raw = (run("diff head~1 head").data["entries"] as { path_b64?: string }[]).find(
    (entry) => entry.path_b64 !== undefined,
  );
  assert.equal(raw?.path_b64, Buffer.from([0x66, 0xff]).toString("base64"));
  const isFirst = path.join(SCRATCH, "is-first");
  writeFileSync(isFirst, "#!/bin/sh\n[ ! -e new.txt ]\n", { mode: 0o755 });
  const found = run(`bisect head~1 head ${isFirst}`).data;
  assert.deepEqual([found["first_bad"].save_point_id, found["last_good"]], [second, first]);
  const { plan } = run(`restore ${first} --plan`).data;
  atLeast(1, plan.entries);
  const restored = run(`restore ${first}`).data;
  assert.equal(run("status").data["detached"], true);
  run("undo --plan");
  const undone = run("undo").data;
  assert.equal(undone["restored_to"], restored["undo_id"]);
  run("redo --plan");
  assert.equal(run("redo").data["restored_to"], undone["undo_id"]);
  run("undo");
  atLeast(4, run("operations").data["operations"]);
  run(`restore ${second} a.txt`);
  run(`restore ${first} --to ${path.join(SCRATCH, "elsewhere")}`);
});

test("turns, rewind, adopt and fork --remove print the keys that docs/json.md promises", () => {
  const cause = { kind: "tool_call", agent: "codex", event: "UserPromptSubmit", session: "s", turn: "t", prompt: "p" };
  run(`save --cause ${JSON.stringify(cause)}`);
  write("by-agent", "x\n");
  run(`save --cause ${JSON.stringify({ ...cause, event: "Stop" })}`);
  const { turns } = run("turns").data;
  assert.deepEqual([turns[0].prompt, turns[0].paths], ["p", [{ path: "by-agent" }]]);
  run("rewind");
  run("undo");
  const to = path.join(SCRATCH, "try-it");
  run(`fork head ${to}`);
  writeFileSync(path.join(to, "in-fork"), "x\n");
  run(`adopt ${to}`);
  run("undo");
  assert.match(run(`fork --remove ${to}`).data["save_point_id"], /^[0-9a-f]{32}$/);
});

test("show prints the entries of a point, or the bytes of a file as base64", () => {
  const { data } = run("show head");
  atLeast(3, data["entries"]);
  const { content_b64: content } = run(`show ${first}:a.txt`).data;
  assert.equal(Buffer.from(String(content), "base64").toString(), "one\n");
});

test("verify and doctor print the keys that docs/json.md promises", () => {
  run("verify");
  run("verify --all");
  const doctor = run("doctor").data;
  atLeast(4, doctor["engine_reasons"]);
});

test("fork and view print the keys that docs/json.md promises", () => {
  run(`fork head ${path.join(SCRATCH, "forked")}`);
  const { view } = run("view head").data;
  atLeast(1, run("view").data["views"]);
  run(`view --close ${view.view_id}`);
});

test("the backup commands print the keys that docs/json.md promises", () => {
  const repository = ["-r", path.join(SCRATCH, "backups"), "--password-command", "whoami"].join(" ");
  run(`backup init ${repository}`);
  const created = run(`backup create ${repository}`).data;
  assert.ok(created["snapshot"]);
  run(`backup verify ${repository}`);
  const to = path.join(SCRATCH, "backed-up");
  const { proof } = run(`backup restore latest --to ${to} ${repository}`).data;
  const [other, secret] = [path.join(SCRATCH, "backups-2"), path.join(SCRATCH, "secret")];
  writeFileSync(secret, "s3cret\n");
  run(`backup init -r ${other} --password-file ${secret}`);
  const copy = `backup copy ${repository} --to ${other} --to-password-file ${secret}`;
  run(copy);
  atLeast(1, run(`backup find a* ${repository}`).data["found"]);
  run(`backup diff latest latest ${repository}`);
  const shown = run(`backup show latest ${repository}`).data;
  atLeast(3, shown["entries"]);
  const { content_b64: content } = run(`backup show latest:a.txt ${repository}`).data;
  assert.equal(Buffer.from(String(content), "base64").toString(), "one\nmore\n");
  run(`backup stats ${repository}`);
  run(`backup cat config ${repository}`);
  run(`backup repair index ${repository}`);
  run(`backup repair snapshots ${repository}`);
  const forgot = run(`backup forget --keep-last 1 --prune ${repository}`).data;
  atLeast(1, forgot["groups"]);
  atLeast(1, forgot["groups"][0].snapshots);
  run(`backup use --keep-last 1 ${repository}`);
  atLeast(1, run("due").data["folders"]);
  assert.notEqual(run("backup use").data["kept"].good_at, null);
  run("backup use --none");
  run(`backup prune ${repository}`);
  atLeast(1, run(`backup key list ${repository}`).data["keys"]);
  run(`backup unlock ${repository}`);
  run(`receipt verify ${proof.receipt}`);
  atLeast(1, run(`backup list ${repository}`).data["snapshots"]);
});

test("run prints the promised keys, and exits with the status of its program", () => {
  const done = cairn(["run", "--json", "--", "sh", "-c", "echo out; echo more >> a.txt; exit 3"], { cwd: WORK });
  assert.deepEqual([done.status, done.stderr.includes("out"), done.error], [3, true, null]);
  assertPromised("run", done.data);
  for (const key of ["before", "after", "changes"]) assert.ok(done.data[key], key);
  remember(done.data);
  ran.add("run");
  run("run --json -- true");
});

test("pin, tag, store, engine, bundle and service commands print the keys that docs/json.md promises", async () => {
  for (const line of ["pin head", "unpin head", "tag head x"]) run(line);
  const { repository } = run("store").data;
  assert.equal(run(`inspect ${repository}/config`).data["format"], "restic-config");
  atLeast(2, run("workspaces").data["workspaces"]);
  assert.ok(run("workspaces --points").data["save_points"].length > 0);
  atLeast(4, run("engine").data["engine_reasons"]);
  atLeast(4, run("engine set copy").data["engine_reasons"]);
  assert.equal(run("seal").data["sealed"], 0);
  run("completion fish");
  await writeZip(path.join(WORK, "b.ovpack"), makeParts("C", { name: "docs", content: { "a.md": "a" } }));
  run("bundle inspect b.ovpack");
  run("bundle verify b.ovpack");
  run("bundle diff b.ovpack b.ovpack");
  run("bundle extract b.ovpack out");
  run("bundle convert b.ovpack c.ovpack --layout B");
  run("service install --plan");
  run("service uninstall", { status: 3 });
  for (const verb of ["status", "reload", "unregister .", "recover .", "token list"])
    run(`service ${verb}`, { status: 5 });
  write("bad.toml", "[backend]\ntype = 1\n");
  run("daemon --check", { status: 2, env: { CAIRN_CONFIG: path.join(WORK, "bad.toml") } });
  run("daemon --check", { status: 2, env: { CAIRN_CONFIG: path.join(WORK, "none.toml") } });
  write("empty.toml", "");
  run("daemon --check", { env: { CAIRN_CONFIG: path.join(WORK, "empty.toml") } });
  run("serve-repository --path . --listen 127.0.0.1:0 --no-auth --check");
  ran.add("__complete");
});

test("export, import and clone print the keys that docs/json.md promises", () => {
  const at = (name: string): string => path.join(SCRATCH, name);
  run(`export head --to ${at("exported")}`);
  for (const verb of ["import", "clone"]) {
    run(`${verb} --from ${at("exported")} ${at(verb)}`);
  }
});

test("the commands of context stores print the keys that docs/json.md promises", () => {
  const at = (name: string): string => path.join(SCRATCH, name);
  mkdirSync(at("docs"));
  writeFileSync(path.join(at("docs"), "a.md"), "# Words\n");
  run(`context init ${at("store")}`);
  const inStore = (line: string): void => void run(line, { cwd: at("store") });
  inStore(`context add viking://resources/d ${at("docs")}`);
  inStore("context ls");
  inStore("context cat viking://resources/d/a.md");
  inStore("context find words");
  inStore("context check");
  inStore("context reindex");
  inStore(`bundle export viking://resources/d ${at("d.ovpack")}`);
  inStore(`bundle backup ${at("all.ovpack")}`);
  const serving = "--listen 127.0.0.1:0 --no-auth --check";
  inStore(`serve-context ${serving}`);
  inStore("context rm viking://resources/d");
  inStore(`bundle import ${at("d.ovpack")} viking://resources`);
  inStore(`bundle restore ${at("all.ovpack")} --on-conflict overwrite`);
});

test("the agent, mcp and vm commands print the keys that docs/json.md promises", () => {
  run("agent install claude-code --plan");
  run("agent remove gemini");
  run("agent status");
  run("agent status --all");
  run("mcp");
  run("vm list");
});

test("the database commands print the keys that docs/json.md promises", () => {
  new DatabaseSync(path.join(SCRATCH, "db")).exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  const at = (name: string): string => path.join(SCRATCH, name);
  const listed = run(`database list ${at("db")}`).data;
  atLeast(1, listed["databases"]);
  run(`database capture ${at("db")} --to ${at("image")}`);
  run(`database restore ${at("image")} --to ${at("new")}`);
});

test("cleanup prints the keys that docs/json.md promises", () => {
  const { plan } = run("cleanup --keep-last 3 --plan").data;
  atLeast(1, plan.reasons);
  run(`cleanup --keep-last 3 --apply ${plan.plan_id}`);
  run("cleanup --keep-last 3");
  run("cleanup policy --keep-last 3");
  run("cleanup policy");
});

test("a failed command prints one JSON object with the error's code", () => {
  const failures: [string, number, string][] = [
    ["restore ffffffff", 3, "not_found"],
    ["restore x!", 2, "invalid_id"],
    ["show head:nowhere", 3, "not_found"],
    ["save /", 7, "refused"],
    ["fork head .", 4, "already_exists"],
    ["init", 4, "already_exists"],
    ["cleanup --apply ffffffffffffffffffffffffffffffff", 4, "stale_plan"],
    ["view --close ffffffffffffffff", 3, "not_found"],
    ["inspect a.txt", 2, "unsupported"],
    ["save --no-such-option", 2, "usage"],
  ];
  for (const [line, status, code] of failures) assert.equal(run(line, { status }).error?.code, code, line);
  assert.equal(run("release .", { status: 3, cwd: SCRATCH }).error?.code, "not_a_workspace");
  assert.equal(run("status", { status: 3, cwd: SCRATCH }).error?.code, "not_a_workspace");
  assert.equal(run("save", { status: 7, cwd: SCRATCH }).error?.code, "refused", "a workspace lies in it");
  assert.equal(cairn([], { cwd: WORK }).status, 2);
});

test("ui --json reports not_a_workspace for a folder that is no workspace", () => {
  assert.equal(run(`ui ${SCRATCH}`, { status: 3 }).error?.code, "not_a_workspace");
});

test("relocate and release print the keys that docs/json.md promises", () => {
  renameSync(WORK, MOVED);
  run(`relocate ${WORK} ${MOVED}`, { cwd: SCRATCH });
  run(`release ${MOVED}`, { cwd: SCRATCH });
});

test("all other commands print the promised keys for their first example", async () => {
  const cwd = path.join(SCRATCH, "forked");
  for (const [name, { load }] of Object.entries(COMMANDS))
    if (!ran.has(name)) run(wordsOf((await load()).command.examples[0]!.line), { cwd });
});

after(() => {
  const docs = new Set(readFileSync(path.join(ROOT, "docs/json.md"), "utf8").match(/[a-z_0-9]+/g));
  assert.deepEqual(
    [...seen].filter((key) => !docs.has(key)),
    [],
    "keys that docs/json.md does not name",
  );
});
