import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { ContextStore, EMBEDDED } from "../context/store.ts";
import { CairnError, ERROR_TABLE } from "../errors.ts";
import type { ErrorCode } from "../errors.ts";
import type { CommandDefinition } from "./command.ts";
import { COMMANDS } from "./program/commands.ts";
import { type Envelope, printEnvelope } from "./envelope.ts";
import { SavePoint } from "../contract/words.ts";
import { assertPromised, wordsOf } from "./testing-json-keys.ts";
import {
  argsOf,
  failing,
  fakeLibrary,
  ID_A,
  REASONS,
  RESTORED,
  ROOT,
  SAVED,
  SHOWN_FILE,
} from "./testing-fake-library.ts";
import { runFake, runJson } from "./testing-run.ts";

const STORE = mkdtempSync(path.join(tmpdir(), "cairn-json-"));
// `agent install` looks at the current folder itself.
mkdirSync(ROOT, { recursive: true });
after(() => rmSync(STORE, { recursive: true, force: true }));
await (await ContextStore.init(STORE, EMBEDDED))[Symbol.asyncDispose]();
execFileSync("tar", ["-cf", path.join(STORE, "export.tar"), "-C", ROOT, "."]);

/** Commands whose examples would change this machine, serve until they are stopped, or read files: these lines stand for them. */
const INSTEAD: Readonly<Record<string, readonly string[]>> = {
  "serve-context": ["serve-context -C STORE --listen 127.0.0.1:0 --no-auth --check"],
  "serve-repository": ["serve-repository --path /tmp --listen 127.0.0.1:0 --no-auth --check"],
  daemon: ["daemon --check"],
  verify: ["verify", "verify --all", "verify backup:latest -r x"],
  cleanup: ["cleanup --keep-last 50 --keep-daily 30 --plan", "cleanup --keep-last 50 --keep-daily 30"],
  "service install": ["service install --plan"],
  "vm import": ["vm import STORE/export.tar --name web"],
  // They need a guest that answers.
  "vm ssh": [],
  "vm exec": [],
  "vm cp": [],
  ...Object.fromEntries(
    [
      "uninstall",
      "status",
      "logs",
      "reload",
      "token create",
      "token list",
      "token revoke",
      "unregister",
      "recover",
      "running",
      "cancel",
    ].map((verb) => [`service ${verb}`, []]),
  ),
  "agent install": ["agent install claude-code --plan"],
  "agent remove": [],
  "agent status": [],
  "agent hook": [],
  show: ["show head", "show -R head", "show head:src --sort -size -n 10"],
  undo: ["undo"],
  redo: ["redo"],
  operations: ["operations"],
  rewind: ["rewind", "rewind 3 --path src"],
  turns: ["turns"],
  adopt: ["adopt ../try-it"],
  fork: ["fork head ../try-it", "fork --remove ../try-it", "fork --remove ../try-it --plan"],
  diff: ["diff", "diff head~1 head --stat", "diff --sql app.db head~1", "diff 1a2b3c4d --path src"],
  export: ["export head --to app", "export backup:latest:src --to src -r x"],
  restore: ["restore head", "restore 1a2b3c4d src/main.ts", "restore head~3 --plan", "restore latest --to /tmp/look"],
  "backup use": ["backup use -r x --password-file p"],
  "backup show": ["backup show latest -r x", "backup show -R latest -r x"],
};

/** Lines whose data differs from the data of the command's examples. */
const MORE = ["cleanup --apply c1", "undo --plan", "redo --plan", "workspaces --points", "engine"];

async function withVerbs(command: CommandDefinition): Promise<CommandDefinition[]> {
  const verbs = Object.values(command.verbs ?? {}).map(async ({ load }) => withVerbs((await load()).command));
  return [command, ...(await Promise.all(verbs)).flat()];
}

async function linesOfCommands(): Promise<[command: string, words: string[]][]> {
  const lines = MORE.map((line): [string, string[]] => [line.split(" ")[0]!, line.split(" ")]);
  for (const { load } of Object.values(COMMANDS)) {
    const { command } = await load();
    for (const { name, examples } of (await withVerbs(command)).filter(({ needsVerb }) => needsVerb !== true))
      for (const words of INSTEAD[name]?.map((line) => line.split(" ")) ?? examples.map(({ line }) => wordsOf(line)))
        lines.push([name, words]);
  }
  return lines;
}

for (const [command, words] of await linesOfCommands()) {
  const line = words.join(" ");
  test(`cairn ${line} --json prints one envelope with the promised keys`, async () => {
    // It serves until it is stopped.
    const settings = command === "ui" ? { signal: AbortSignal.abort() } : {};
    const given = words.map((word) => word.replace("STORE", STORE));
    const { envelope, status, stderr } = await runJson(given, settings);
    assert.deepEqual([envelope.error, status, stderr], [null, 0, ""]);
    assert.deepEqual(Object.keys(envelope), ["schema_version", "command", "ok", "data", "warnings", "error"]);
    assert.deepEqual([envelope.schema_version, envelope.command, envelope.ok], [1, command, true]);
    assertPromised(line, envelope.data);
  });
}

test("printEnvelope escapes control characters in JSON without changing values", async () => {
  const odd = "a\u009b2J\u202e\ufeff\u007f";
  const { envelope } = await runJson(["status"]);
  const printed = printEnvelope({ ...envelope, warnings: [odd] });
  assert.match(printed, /^[\u0020-\u007e]*\n$/);
  assert.deepEqual((JSON.parse(printed) as Envelope).warnings, [odd]);
});

test("save --json prints the save point and the changes", async () => {
  const { envelope } = await runJson(["save"]);
  const data = envelope.data as { save_point: object; changes: object };
  const own = Object.keys(SavePoint.entries).filter((key) => key !== "rewritten");
  assert.deepEqual(Object.keys(data.save_point).toSorted(), own.toSorted());
  assert.deepEqual(data.changes, { added: 3, modified: 1, removed: 0 });
});

test("show --json of a file prints its bytes as base64", async () => {
  const { envelope } = await runJson(["show", "head:a.txt"], { fake: fakeLibrary({ show: () => SHOWN_FILE }) });
  assert.equal((envelope.data as { content_b64: string }).content_b64, Buffer.from("old\ntext\n").toString("base64"));
  assert.deepEqual(Object.keys(envelope.data as object), ["save_point", "kind", "path", "entries", "content_b64"]);
});

test("show of a file prints its bytes", async () => {
  const { stdout, fake } = await runFake(["show", "head:./a.txt"], { fake: fakeLibrary({ show: () => SHOWN_FILE }) });
  assert.equal(stdout, "old\ntext\n");
  assert.deepEqual(argsOf(fake, "read").slice(0, 2), [ID_A, "a.txt"]);
});

for (const [line, head] of [
  ["show -R head", /^save point +1a2b3c4d/],
  ["backup show -R latest -r x", /^dddddddd /],
] as const)
  test(`${line} lists everything below the folder`, async () => {
    const { stdout } = await runFake(line.split(" "));
    const [, below] = stdout.split("\n\n");
    assert.match(stdout, head);
    assert.match(below ?? "", /^drwxr-xr-x .* deep\/\n-rw-r--r-- .* deep\/b\.txt\n$/);
    const { envelope } = await runJson(line.split(" "));
    const { entries } = envelope.data as { entries: { path: string }[] };
    assert.deepEqual(
      entries.map(({ path }) => path),
      ["deep", "deep/b.txt"],
    );
    if (head.source.includes("save")) {
      const file = await runFake(["show", "-R", "head:a.txt"], { fake: fakeLibrary({ show: () => SHOWN_FILE }) });
      assert.deepEqual(file.fake.asked.at(-1)?.args.slice(0, 2), [ID_A, "a.txt"]);
      assert.equal(file.fake.asked.at(-1)?.method, "walk");
    }
  });

test("show lists the workspace's root if the path after the colon is empty, a dot or a slash", async () => {
  for (const target of ["head", "head:", "head:/", "head:.", "head:./"]) {
    const { fake, status } = await runFake(["show", target]);
    const asked = fake.asked.find(({ method }) => method === "show");
    assert.deepEqual([status, asked?.args.slice(0, 2)], [0, ["head", undefined]], target);
  }
});

for (const code of Object.keys(ERROR_TABLE) as ErrorCode[]) {
  test(`the exit status of the error ${code} is that of the error table`, async () => {
    const error = new CairnError(code, "what was tried", { hint: "what to do", details: { holder: 7 } });
    const settings = { fake: fakeLibrary({ status: failing(error) }) };
    const { envelope, status } = await runJson(["status"], settings);
    const row = ERROR_TABLE[code];
    assert.equal(status, row.exit);
    assert.equal(envelope.ok, row.exit === 10);
    assert.deepEqual(envelope.error, {
      code,
      message: "what was tried",
      hint: "what to do",
      retryable: row.retryable,
      details: { holder: 7 },
    });
    assert.equal(envelope.data, null);
    const told = await runFake(["status"], settings);
    assert.deepEqual([told.status, told.stdout, told.stderr], [row.exit, "", "cairn: what was tried\n  what to do\n"]);
  });
}

test("an error that is no CairnError is reported as internal", async () => {
  const { envelope, status } = await runJson(["status"], {
    fake: fakeLibrary({ status: () => Promise.reject(new TypeError("oops")) }),
  });
  assert.deepEqual([status, envelope.error?.code], [1, "internal"]);
});

const LEFT = { path: "a", reason: "unreadable", detail: "EACCES" };

test("save exits 10 with ok true if the point is incomplete", async () => {
  const { envelope, status } = await runJson(["save"], {
    fake: fakeLibrary({ save: () => ({ ...SAVED, complete: false, left_out: [LEFT] }) }),
  });
  assert.deepEqual([status, envelope.ok, envelope.error], [10, true, null]);
});

test("save exits 0 if only a mount was left out", async () => {
  const fake = fakeLibrary({ save: () => ({ ...SAVED, left_out: [{ ...LEFT, reason: "mounted" }] }) });
  assert.equal((await runFake(["save"], { fake })).status, 0);
});

test("save lists a torn entry as saved, and warns of a database that SQLite finds damaged", async () => {
  const torn = { path: "t.db", reason: "changing", detail: "it was changed" };
  const labels = [
    { path: "bad.db", label: "crash-consistent", reason: "SQLite finds it damaged: page 2" },
    { path: "well.db", label: "transaction-consistent", reason: "each consistent, not together" },
  ];
  const save = (): unknown => ({ ...SAVED, complete: false, left_out: [LEFT, torn], labels });
  const { stdout, stderr } = await runFake(["save"], { fake: fakeLibrary({ save }) });
  assert.match(
    stdout,
    /may be torn: 1 entry\n {4}t\.db: changing; it was changed\n {2}left out: 1 entry\n {4}a: unreadable/,
  );
  assert.equal(stderr.split("\n")[0], "cairn: bad.db: SQLite finds it damaged: page 2");
  assert.doesNotMatch(stderr, /well\.db/);
});

test("restore exits 10 and lists entries that were left out", async () => {
  const fake = fakeLibrary({
    restore: () => ({ ...RESTORED, left_out: [{ ...LEFT, reason: "not_permitted", aspects: ["owner"] }] }),
  });
  const { stdout, status } = await runFake(["restore", "head"], { fake });
  assert.equal(status, 10);
  assert.match(stdout, /left out: 1 entry\n {4}a \(owner\): not permitted; EACCES/);
});

test("verify exits 6 with its data if something is damaged", async () => {
  const problems = [{ point: ID_A, kind: "content", path: "a", detail: "other bytes", hint: "restore it" }];
  const fake = fakeLibrary({ verify: () => ({ checked: { points: 1, files: 1, bytes: 1 }, problems }) });
  const { envelope, status } = await runJson(["verify"], { fake });
  assert.deepEqual([status, envelope.ok, envelope.error?.code], [6, false, "damaged"]);
  assert.deepEqual((envelope.data as { problems: unknown }).problems, problems);
});

test("verify --deep hashes large files completely", async () => {
  const one = await runFake(["verify", "--deep"]);
  assert.equal((argsOf(one.fake, "verify")[1] as { deep: unknown }).deep, true);
  const all = await runFake(["verify", "--all", "--deep"]);
  assert.equal((argsOf(all.fake, "verifyAll")[0] as { deep: unknown }).deep, true);
});

test("doctor exits 6 if damage remains, and 0 if there are only warnings", async () => {
  const findings = [{ kind: "index", severity: "damage", detail: "gone", repair: "make it again" }];
  const { status, stderr } = await runFake(["doctor"], {
    fake: fakeLibrary({ doctor: () => ({ healthy: false, findings, engine: "copy", engine_reasons: REASONS }) }),
  });
  assert.equal(status, 6);
  assert.match(stderr, /cairn doctor --repair/);
  assert.equal((await runFake(["doctor"])).status, 0);
});

test("run exits with the command's status, or with its own error if that is 0", async () => {
  const ended = (exit_code: number, after_error: object | null) =>
    fakeLibrary({
      run: () => ({
        command: ["x"],
        before: SAVED,
        after: null,
        exit_code,
        signal: null,
        duration_ms: 1,
        changes: null,
        after_error,
      }),
    });
  const failed = { code: "no_space", message: "full" };
  assert.equal((await runFake(["run", "--", "x"], { fake: ended(3, failed) })).status, 3);
  assert.equal((await runFake(["run", "--", "x"], { fake: ended(0, failed) })).status, 8);
  const { envelope } = await runJson(["run", "--", "x"], { fake: ended(3, null) });
  assert.deepEqual([envelope.ok, envelope.error], [false, null]);
});

test("run passes arguments after `--` to the command even if they are options of Cairn", async () => {
  const { fake } = await runFake(["run", "-m", "turn", "--", "x", "--json", "-C", "y"]);
  const [words, options] = argsOf(fake, "run");
  assert.deepEqual(words, ["x", "--json", "-C", "y"]);
  assert.equal((options as { message: string }).message, "turn");
});
