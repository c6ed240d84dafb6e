import assert from "node:assert/strict";
import { mkdirSync, readFileSync, renameSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import * as v from "valibot";
import { COMMANDS } from "../src/cli/program/commands.ts";
import { COMMAND_DATA } from "../src/cli/program/command-data.ts";
import { DATA_KEYS, OBJECT_KEYS } from "../src/cli/testing-json-keys.ts";
import { makeParts, writeZip } from "../src/bundle/testing-bundle.ts";
import { cairn, ROOT, SCRATCH, type Outcome } from "./fixtures/command.ts";

/** The real command with `--json`, command by command in one workspace: what it prints is what docs/json.md promises. */

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
  /** The line of the pinned keys; the command's own by default. */
  pinned?: string;
}

/** Their commands have two words. */
const GROUPS = new Set(["backup", "receipt", "database", "service", "bundle", "context", "vm", "agent"]);

/** Runs a command and holds its envelope against the contract. */
// oxlint-disable-next-line typescript/no-explicit-any -- what was printed is looked at as it is
function run(line: string, expected: Expected = {}): Outcome & { data: Record<string, any> } {
  const words = line.split(" ");
  const done = cairn(words, { cwd: expected.cwd ?? WORK, own: true });
  const said = `${line}: ${done.stdout}${done.stderr}`;
  assert.equal(done.status, expected.status ?? 0, said);
  assert.equal(done.stdout.trimEnd().split("\n").length, 1, said);
  const envelope = JSON.parse(done.stdout) as Record<string, unknown>;
  assert.deepEqual(Object.keys(envelope), ["schema_version", "command", "ok", "data", "warnings", "error"], said);
  const command = words.slice(0, GROUPS.has(words[0]!) ? 2 : 1).join(" ");
  assert.deepEqual([envelope["schema_version"], envelope["command"]], [1, command], said);
  assert.equal(envelope["ok"], [0, 10].includes(done.status ?? -1), said);
  if (envelope["error"] !== null) check(envelope["error"], "error", said);
  ran.add(words[0]!);
  if (envelope["data"] !== null) {
    assert.ok(isPromised(line, envelope["data"]), said);
    const keys = pinnedKeys(expected.pinned ?? line);
    assert.ok(keys !== undefined, `no pinned keys for ${line}`);
    assert.deepEqual(Object.keys(done.data).toSorted(), keys.split(" ").toSorted(), said);
    remember(envelope["data"]);
  }
  return done;
}

/** Whether data is what the contract says of a line that begins as this one, with no other members. */
function isPromised(line: string, data: unknown): boolean {
  const words = line.split(" ");
  return Object.entries(COMMAND_DATA).some(([begin, schema]) => {
    const isOf = begin
      .split(" ")
      .every((word, i) => words[i] === word || words.includes(word, 2) || /[A-Z]/.test(word));
    const result = v.safeParse(schema, data);
    return isOf && result.success && isDeepStrictEqual(result.output, data);
  });
}

/** By the whole line, else by the first pinned line of the command. */
function pinnedKeys(line: string): string | undefined {
  const words = line.split(" ");
  const count = GROUPS.has(words[0]!) ? 2 : 1;
  const command = words.slice(0, count).join(" ");
  const isOf = (pinned: string): boolean => pinned.split(" ").slice(0, count).join(" ") === command;
  return DATA_KEYS[line] ?? Object.entries(DATA_KEYS).find(([pinned]) => isOf(pinned))?.[1];
}

function check(value: unknown, shape: keyof typeof OBJECT_KEYS, said: string = shape): void {
  const [needed = "", optional = ""] = OBJECT_KEYS[shape].split(" | ");
  const keys = Object.keys(value as object);
  assert.deepEqual(
    needed.split(" ").filter((key) => !keys.includes(key)),
    [],
    `missing in ${said}`,
  );
  const known = [...needed.split(" "), ...optional.split(" ")];
  assert.deepEqual(
    keys.filter((key) => !known.includes(key)),
    [],
    `unknown in ${said}`,
  );
}

function checkAll(values: unknown, shape: keyof typeof OBJECT_KEYS, least = 0): void {
  assert.ok(Array.isArray(values) && values.length >= least, `${shape}: ${JSON.stringify(values)}`);
  for (const value of values) check(value, shape);
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

test("init, save and history print what they promise", () => {
  const { data } = run("init");
  check(data["workspace"], "workspace");
  checkAll(data["engine_reasons"], "engine_reason", 4);
  assert.equal(data["adopted"], true);
  const saved = run('save -m first -t tag --cause {"kind":"tool_call","tool":"x"}', { pinned: "save" }).data;
  check(saved["save_point"], "save_point");
  check(saved["changes"], "changes");
  assert.deepEqual([saved["changes"].added, saved["save_point"].cause.tool], [4, "x"]);
  first = saved["save_point"].save_point_id;
  assert.equal(run("save --skip-unchanged").data["save_point"].save_point_id, first);
  const history = run("history -n 1").data;
  checkAll(history["save_points"], "save_point", 1);
  assert.deepEqual([history["head"], history["latest"], history["truncated"]], [first, first, false]);
  const why = run("why a.txt").data;
  assert.equal(why["changes"].length, 1);
  check(why["changes"][0].save_point, "save_point");
  assert.deepEqual([why["path"], why["changes"][0].change, why["changes"][0].size_after], ["a.txt", "added", 4]);
});

test("status and diff print what they promise", () => {
  assert.equal(run("status").data["clean"], true);
  write("a.txt", "one\nmore\n");
  write("new.txt", "new\n");
  write(".cairnignore", "hidden\n");
  write("hidden", "hidden\n");
  const status = run("status").data;
  check(status["workspace"], "workspace");
  check(status["changes"], "changes");
  check(status["store"], "store_size");
  checkAll(status["engine_reasons"], "engine_reason", 4);
  checkAll(status["ignored"], "ignored", 1);
  checkAll(status["recovered"], "recovered");
  assert.deepEqual([status["clean"], status["changes"]], [false, { added: 2, modified: 1, removed: 0 }]);
  const { data } = run("diff");
  checkAll(data["entries"], "diff_entry", 3);
  assert.deepEqual([data["from"], data["to"]], [first, null]);
});

test("save, restore and undo print what they promise, names that are not UTF-8 too", () => {
  writeFileSync(Buffer.concat([Buffer.from(`${WORK}/`), Buffer.from([0x66, 0xff])]), "raw");
  const second = run("save -m second", { pinned: "save" }).data["save_point"].save_point_id;
  const raw = (run("diff head~1 head").data["entries"] as { path_b64?: string }[]).find(
    (entry) => entry.path_b64 !== undefined,
  );
  assert.equal(raw?.path_b64, Buffer.from([0x66, 0xff]).toString("base64"));
  const { plan } = run(`restore ${first} --plan`, { pinned: "restore head --plan" }).data;
  check(plan, "restore_plan");
  checkAll(plan.entries, "plan_entry", 1);
  const restored = run(`restore ${first}`, { pinned: "restore head" }).data;
  check(restored["changes"], "restore_changes");
  checkAll(restored["left_out"], "left_out");
  assert.equal(run("status").data["detached"], true);
  check(run("undo --plan").data["plan"], "restore_plan");
  const undone = run("undo").data;
  assert.equal(undone["restored_to"], restored["undo_id"]);
  run(`restore ${second} a.txt`, { pinned: "restore head" });
  run(`restore ${first} --to ${path.join(SCRATCH, "elsewhere")}`, { pinned: "restore head" });
});

test("show gives entries, and a file's bytes", () => {
  const { data } = run("show head");
  check(data["save_point"], "save_point");
  checkAll(data["entries"], "listed_entry", 3);
  const done = cairn(["show", `${first}:a.txt`], { cwd: WORK, own: true });
  assert.deepEqual(Object.keys(done.data).toSorted(), ["content_b64", "entries", "kind", "path", "save_point"]);
  assert.equal(Buffer.from(String(done.data["content_b64"]), "base64").toString(), "one\n");
});

test("verify and doctor print what they promise", () => {
  const { data } = run("verify");
  check(data["checked"], "checked");
  checkAll(data["problems"], "problem");
  run("verify --all");
  const doctor = run("doctor").data;
  checkAll(doctor["findings"], "finding");
  checkAll(doctor["engine_reasons"], "engine_reason", 4);
});

test("fork and view print what they promise", () => {
  const forked = run(`fork head ${path.join(SCRATCH, "forked")}`, { pinned: "fork head x" }).data;
  check(forked["workspace"], "workspace");
  check(forked["save_point"], "save_point");
  const { view } = run("view head").data;
  check(view, "view");
  checkAll(run("view --list").data["views"], "view", 1);
  check(run(`view --close ${view.view_id}`, { pinned: "view --close v1" }).data["closed"], "view");
});

test("backup prints what it promises", () => {
  const repository = ["-r", path.join(SCRATCH, "backups"), "--password-command", "pwd"].join(" ");
  run(`backup init ${repository}`, { pinned: "backup init -r x" });
  const created = run(`backup create ${repository}`, { pinned: "backup create -r x" }).data;
  check(created["snapshot"], "snapshot");
  check(created["added"], "transferred");
  const verified = run(`backup verify ${repository}`, { pinned: "backup verify -r x" }).data;
  check(verified["checked"], "backup_checked");
  checkAll(verified["problems"], "backup_problem");
  const to = path.join(SCRATCH, "backed-up");
  const { proof } = run(`backup restore latest --to ${to} ${repository}`, {
    pinned: "backup restore latest --to y -r x",
  }).data;
  check(proof, "proof");
  const other = `${path.join(SCRATCH, "backups-2")} --password-command pwd`;
  run(`backup init -r ${other}`, { pinned: "backup init -r x" });
  const copy = `backup copy ${repository} --to-repo ${other.replace("--password", "--to-password")}`;
  check(run(copy, { pinned: "backup copy -r x --to-repo y" }).data["added"], "transferred");
  checkAll(run(`backup find a* ${repository}`, { pinned: "backup find a -r x" }).data["found"], "found_in_backup", 1);
  const differ = run(`backup diff latest latest ${repository}`, { pinned: "backup diff a b -r x" }).data;
  checkAll(differ["entries"], "backup_diff_entry");
  const shown = run(`backup show latest ${repository}`, { pinned: "backup show latest -r x" }).data;
  check(shown["snapshot"], "snapshot");
  checkAll(shown["entries"], "listed_entry", 3);
  const content = cairn(["backup", "show", "latest:a.txt", ...repository.split(" ")], { cwd: WORK, own: true });
  assert.equal(Buffer.from(String(content.data["content_b64"]), "base64").toString(), "one\nmore\n");
  run(`backup stats ${repository}`, { pinned: "backup stats -r x" });
  run(`backup cat config ${repository}`, { pinned: "backup cat config -r x" });
  run(`backup repair index ${repository}`, { pinned: "backup repair index -r x" });
  run(`backup repair snapshots ${repository}`, { pinned: "backup repair snapshots -r x" });
  const forgot = run(`backup forget --keep-last 1 --prune ${repository}`, {
    pinned: "backup forget -r x --keep-last 1",
  }).data;
  checkAll(forgot["groups"], "forget_group", 1);
  checkAll(forgot["groups"][0].snapshots, "forget_decision", 1);
  run(`backup prune ${repository}`, { pinned: "backup prune -r x" });
  checkAll(run(`backup key list ${repository}`, { pinned: "backup key list -r x" }).data["keys"], "repository_key", 1);
  run(`backup unlock ${repository}`, { pinned: "backup unlock -r x" });
  run(`receipt verify ${proof.receipt}`, { pinned: "receipt verify z" });
  checkAll(run(`backup list ${repository}`, { pinned: "backup list -r x" }).data["snapshots"], "snapshot", 1);
});

test("run prints what it promises and passes the exit status on", () => {
  const done = cairn(["run", "--json", "--", "sh", "-c", "echo out; echo more >> a.txt; exit 3"], {
    cwd: WORK,
    own: true,
  });
  assert.deepEqual([done.status, done.stderr.includes("out"), done.error], [3, true, null]);
  assert.deepEqual(Object.keys(done.data).toSorted(), DATA_KEYS["run -- true"]?.split(" ").toSorted());
  check(done.data["before"], "save_point");
  check(done.data["after"], "save_point");
  check(done.data["changes"], "changes");
  remember(done.data);
  ran.add("run");
  run("run --json -- true", { pinned: "run -- true" });
});

test("pin, unpin, tag, store, inspect, workspaces, engine and seal print what they promise", async () => {
  for (const line of ["pin head", "unpin head", "tag head x"]) check(run(line).data["save_point"], "save_point");
  const { repository } = run("store").data;
  assert.equal(run(`inspect ${repository}/config`, { pinned: "inspect x" }).data["format"], "restic-config");
  checkAll(run("workspaces").data["workspaces"], "workspace_info", 2);
  assert.ok(run("workspaces --points").data["save_points"].length > 0);
  checkAll(run("engine").data["engine_reasons"], "engine_reason", 4);
  checkAll(run("engine set copy").data["engine_reasons"], "engine_reason", 4);
  assert.equal(run("seal").data["sealed"], 0);
  run("completion fish");
  await writeZip(path.join(WORK, "b.ovpack"), makeParts("C", { name: "docs", content: { "a.md": "a" } }));
  run("bundle inspect b.ovpack");
  run("bundle verify b.ovpack");
  run("bundle diff b.ovpack b.ovpack");
  run("bundle extract b.ovpack out");
  run("bundle convert b.ovpack c.ovpack --layout B", { pinned: "bundle convert b c" });
  run("service install --print");
  run("service uninstall", { status: 3 });
  for (const verb of ["status", "reload", "unregister .", "recover .", "token list"])
    run(`service ${verb}`, { status: 5 });
  write("bad.toml", "[backend]\ntype = 1\n");
  run("daemon --config bad.toml --check", { status: 2 });
  run("daemon --config none.toml --check", { status: 2 });
  write("empty.toml", "");
  run("daemon --config empty.toml --check");
  run("serve-repository --path . --listen 127.0.0.1:0 --no-auth --check");
  ran.add("__complete");
});

test("export, import and clone print what they promise", () => {
  const at = (name: string): string => path.join(SCRATCH, name);
  run(`export head --to-dir ${at("exported")}`, { pinned: "export head --to-dir d" });
  for (const verb of ["import", "clone"]) {
    const { data } = run(`${verb} --from-dir ${at("exported")} ${at(verb)}`, { pinned: `${verb} --from-dir d n` });
    check(data["workspace"], "workspace");
    check(data["save_point"], "save_point");
  }
});

test("the commands of context stores print what they promise", () => {
  const at = (name: string): string => path.join(SCRATCH, name);
  mkdirSync(at("docs"));
  writeFileSync(path.join(at("docs"), "a.md"), "# Words\n");
  run(`context init ${at("store")}`, { pinned: "context init d" });
  const inStore = (line: string, pinned = line): void => void run(line, { cwd: at("store"), pinned });
  inStore(`context add viking://resources/d ${at("docs")}`, "context add viking://resources/d d");
  inStore("context ls");
  inStore("context cat viking://resources/d/a.md");
  inStore("context find words");
  inStore("context check");
  inStore("context reindex");
  inStore(`bundle export viking://resources/d ${at("d.ovpack")}`, "bundle export viking://resources/d f");
  inStore(`bundle backup ${at("all.ovpack")}`, "bundle backup f");
  const serving = "--listen 127.0.0.1:0 --no-auth --check";
  inStore(`serve-context ${serving}`, `serve-context -C STORE ${serving}`);
  inStore("context rm viking://resources/d");
  inStore(`bundle import ${at("d.ovpack")} viking://resources`, "bundle import b viking://resources");
  inStore(`bundle restore ${at("all.ovpack")} --on-conflict overwrite`, "bundle restore b");
});

test("the commands of agents print what they promise", () => {
  run("agent install claude-code --print");
  run("agent remove gemini", { pinned: "agent remove claude-code" });
});

test("the MCP server prints what it promises when it is asked for JSON", () => {
  run("mcp");
});

test("the commands of machines print what they promise", () => {
  run(`vm list --machines ${path.join(SCRATCH, "machines")}`, { pinned: "vm list" });
});

test("the commands of databases print what they promise", () => {
  new DatabaseSync(path.join(SCRATCH, "db")).exec("CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  const at = (name: string): string => path.join(SCRATCH, name);
  const listed = run(`database list ${at("db")}`, { pinned: "database list d" }).data;
  checkAll(listed["databases"], "database", 1);
  const captured = run(`database capture ${at("db")} --to ${at("image")}`, { pinned: "database capture db --to f" });
  check(captured.data["statistics"], "database_statistics");
  run(`database restore ${at("image")} --to ${at("new")}`, { pinned: "database restore f --to db" });
});

test("cleanup prints what it promises", () => {
  const { plan } = run("cleanup --keep-last 3 --plan", { pinned: "cleanup --plan" }).data;
  check(plan, "cleanup_plan");
  checkAll(plan.reasons, "cleanup_reason", 1);
  run(`cleanup --run ${plan.plan_id}`, { pinned: "cleanup --run c1" });
  run("cleanup --keep-last 3");
  check(run("cleanup --keep-last 3 --set-policy").data["policy"], "policy");
});

test("failures print one object with an error that says what to do", () => {
  const failures: [string, number, string][] = [
    ["restore ffffffff", 3, "not_found"],
    ["restore x!", 2, "invalid_id"],
    ["show head:nowhere", 3, "not_found"],
    ["save /", 7, "refused"],
    ["fork head .", 4, "already_exists"],
    ["init", 4, "already_exists"],
    ["cleanup --run ffffffffffffffff", 3, "not_found"],
    ["view --close ffffffffffffffff", 3, "not_found"],
    ["inspect a.txt", 2, "unsupported"],
    ["save --no-such-option", 2, "usage"],
  ];
  for (const [line, status, code] of failures) assert.equal(run(line, { status }).error?.code, code, line);
  assert.equal(run("release .", { status: 3, cwd: SCRATCH }).error?.code, "not_a_workspace");
  assert.equal(run("status", { status: 3, cwd: SCRATCH }).error?.code, "not_a_workspace");
  assert.equal(run("save", { status: 7, cwd: SCRATCH }).error?.code, "refused", "a workspace lies in it");
  assert.equal(cairn([], { cwd: WORK, own: true }).status, 2);
});

test("ui names a folder that is no workspace when it is asked for JSON", () => {
  assert.equal(run(`ui ${SCRATCH}`, { status: 3 }).error?.code, "not_a_workspace");
});

test("relocate and release print what they promise", () => {
  renameSync(WORK, MOVED);
  const { data } = run(`relocate ${WORK} ${MOVED}`, { cwd: SCRATCH, pinned: "relocate a b" });
  check(data["workspace"], "workspace");
  check(run(`release ${MOVED}`, { cwd: SCRATCH, pinned: "release d" }).data["workspace"], "workspace");
});

after(() => {
  const docs = new Set(readFileSync(path.join(ROOT, "docs/json.md"), "utf8").match(/[a-z_0-9]+/g));
  assert.deepEqual(
    [...seen].filter((key) => !docs.has(key)),
    [],
    "keys that docs/json.md does not name",
  );
  assert.deepEqual(
    Object.keys(COMMANDS).filter((name) => !ran.has(name)),
    [],
    "commands that no test here runs",
  );
});
