import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import type { RepositoryOptions } from "../contract/index.ts";
import { argsOf, failing, fakeLibrary, POINT, RESTORED, SAVED } from "./testing-fake-library.ts";
import { runFake, runJson } from "./testing-run.ts";
import type { Ran } from "./testing-run.ts";

const ESCAPE = "\u001b[";

test("save prints the counts, the time, the stored bytes and the restore command", async () => {
  const { stdout, stderr } = await runFake(["save", "-C", "/a b"]);
  assert.equal(
    stdout,
    "saved 1a2b3c4d  second\n" +
      "  3 added, 1 modified · 12 entries, 33.8 KiB in all · stored 1.21 KiB in 42 ms\n" +
      "  come back to it: cairn -C '/a b' restore 1a2b3c4d\n",
  );
  assert.equal(stderr, "");
});

test("history without points says how to make one, and with a filter that no point matches", async () => {
  const empty = { save_points: [], undo: null, head: null, latest: null, damaged: [], truncated: false };
  const answers = { history: () => empty };
  const { stdout } = await runFake(["history", "-C", "/a b"], { fake: fakeLibrary(answers) });
  assert.equal(stdout, "no save points yet; make one: cairn -C '/a b' save\n");
  const filtered = await runFake(["history", "--grep", "x"], { fake: fakeLibrary(answers) });
  assert.equal(filtered.stdout, "no save point matches\n");
});

test("cleanup policy prints the policy as options", async () => {
  const retention = { keepLast: 5, keepTags: ["a", ""], keepUndo: { within: "30d" } };
  const policy = { retention, quota_bytes: 1 << 30, kept_trees: null };
  const { stdout } = await runFake(["cleanup", "policy", "--keep-last", "5"], {
    fake: fakeLibrary({ setPolicy: () => policy }),
  });
  assert.equal(stdout, "policy: keep-last 5, keep-tag a, keep-tag '', keep-undo 30d; quota: 1 GiB; kept clones: 8\n");
  const few = fakeLibrary({ setPolicy: () => ({ retention: null, quota_bytes: null, kept_trees: 0 }) });
  assert.equal(
    (await runFake(["cleanup", "policy", "--keep-trees", "0"], { fake: few })).stdout,
    "policy: none: everything is kept; quota: none; kept clones: 0\n",
  );
});

test("save --skip-unchanged says that it made no point", async () => {
  const unchanged = { ...SAVED, made: false, changes: { added: 0, modified: 0, removed: 0 } };
  const { stdout } = await runFake(["save", "--skip-unchanged"], { fake: fakeLibrary({ save: () => unchanged }) });
  assert.equal(stdout, "nothing changed since 1a2b3c4d; no point was made (42 ms)\n");
  // What a count does not tell may have changed, such as which pipes are one.
  const made = await runFake(["save", "--skip-unchanged"], {
    fake: fakeLibrary({ save: () => ({ ...unchanged, made: true }) }),
  });
  assert.match(made.stdout, /^saved 1a2b3c4d/);
});

test("a partial result is also reported on stderr if stdout is no terminal", async () => {
  const left = { path: "a", reason: "unreadable", detail: "permission denied" };
  const answers = { restore: () => ({ ...RESTORED, left_out: [left] }) };
  for (const quiet of [[], ["-q"]]) {
    const { status, stderr } = await runFake(["restore", "head", ...quiet], { fake: fakeLibrary(answers) });
    assert.deepEqual([status, stderr], [10, "cairn: partly done (exit 10): the output lists what was left out\n"]);
  }
  for (const [argv, terminal] of [
    [["restore", "head"], true],
    [["--json", "restore", "head"], false],
  ] as const)
    assert.equal((await runFake(argv, { fake: fakeLibrary(answers), terminal })).stderr, "");
  const ten = fakeLibrary({ run: () => ({ exit_code: 10, after_error: null, changes: null }) });
  assert.doesNotMatch((await runFake(["run", "--", "x"], { fake: ten })).stderr, /partly/);
});

test("restore names the command that reverts it", async () => {
  const { stdout } = await runFake(["restore", "1a2b"]);
  assert.equal(
    stdout,
    "restored 1a2b3c4d\n  1 created, 2 updated, 3 deleted, 4 metadata · 17 ms\n  the state before is saved as 5f6e7d8c; take it back: cairn undo\n",
  );
});

test("restore and undo with --method exchange name a command that reverts them by exchange", async () => {
  for (const [line, back] of [
    [["restore", "1a2b"], "undo"],
    [["undo"], "redo"],
    [["redo"], "undo"],
  ] as const)
    assert.match(
      (await runFake([...line, "--method", "exchange"])).stdout,
      new RegExp(`take it back: cairn ${back} --method exchange\n$`),
    );
});

test("a terminal gets colours, and a pipe or NO_COLOR gets none", async () => {
  const coloured = await runFake(["save"], { terminal: true });
  assert.ok(coloured.stdout.includes(ESCAPE));
  for (const settings of [{}, { terminal: true, env: { NO_COLOR: "1" } }, { terminal: true, env: { TERM: "dumb" } }]) {
    assert.ok(!(await runFake(["save"], settings)).stdout.includes(ESCAPE));
  }
  const failed = await runFake(["nope"], { terminal: true, env: { NO_COLOR: "1" } });
  assert.ok(!failed.stderr.includes(ESCAPE));
});

test("control characters in messages and tags are escaped on a terminal", async () => {
  const evil = { ...POINT, message: "\u001b]0;title\u0007\u202Eevil\nsecond line", tags: ["\u001b[2J"] };
  const history = { save_points: [evil], undo: null, head: null, latest: null, damaged: [], truncated: false };
  const { stdout } = await runFake(["history"], { fake: fakeLibrary({ history: () => history }) });
  assert.doesNotMatch(stdout, /[\u001b\u0007\u202e]/i);
  assert.doesNotMatch(stdout, /second line/);
});

test("an error with a list prints one indented line for each item", async () => {
  const listed = new CairnError("unsupported", "2 workspaces cannot be served:\n/a: gone\ncairn: \u001b[2Jall is well");
  const { stderr } = await runFake(["status"], { fake: fakeLibrary({ status: () => Promise.reject(listed) }) });
  assert.equal(stderr, "cairn: 2 workspaces cannot be served:\n  /a: gone\n  cairn: \\u001b[2Jall is well\n");
});

test("diff shows the texts of changed files, and only the list with --stat", async () => {
  const { stdout, fake } = await runFake(["diff"]);
  assert.match(
    stdout,
    /^M a\.txt \(content\)\n--- a\/a\.txt\n\+\+\+ b\/a\.txt\n@@ -1,2 \+1,2 @@\n-old\n\+new\n text\n/,
  );
  assert.match(stdout, /2 entries: 1 added, 1 modified\n$/);
  const reads = fake.asked.filter((asked) => asked.method === "read").map((asked) => asked.args[1]);
  assert.deepEqual(reads, ["a.txt", "a.txt", Buffer.from("YmFkG1szMW3/", "base64")]);
  const stat = await runFake(["diff", "--stat"]);
  assert.equal(stat.stdout, "M a.txt (content)\nA bad\\u001b[31m  3 B\n2 entries: 1 added, 1 modified\n");
  assert.ok(!stat.fake.asked.some((asked) => asked.method === "read"));
});

test("diff compares head with the folder unless points are named", async () => {
  assert.deepEqual(argsOf((await runFake(["diff"])).fake, "diff").slice(0, 2), ["head", null]);
  assert.deepEqual(argsOf((await runFake(["diff", "a", "b"])).fake, "diff").slice(0, 2), ["a", "b"]);
});

test("run prints its own result on stderr", async () => {
  const { stdout, stderr } = await runFake(["run", "--", "true"]);
  assert.equal(stdout, "");
  assert.match(stderr, /exit 0 after 5 ms; before: 1a2b3c4d, after: 1a2b3c4d \(nothing changed\)/);
  assert.equal((await runFake(["run", "-q", "--", "true"])).stderr, "");
});

test("the command of run writes to stdout, and to stderr with --json", async () => {
  const stdoutOf = async (ran: Promise<Ran>): Promise<string> =>
    (argsOf((await ran).fake, "run")[1] as { stdout: string }).stdout;
  assert.equal(await stdoutOf(runFake(["run", "--", "true"])), "inherit");
  assert.equal(await stdoutOf(runJson(["run", "--", "true"])), "stderr");
});

test("--progress json prints progress as JSON lines on stderr", async () => {
  const progress = { phase: "scanning", done: 3, total: 9 } as const;
  const save = (options: { onProgress(progress: object): void }): unknown => {
    options.onProgress(progress);
    return SAVED;
  };
  const { stderr } = await runFake(["save", "--progress", "json"], { fake: fakeLibrary({ save }) });
  assert.equal(stderr, `${JSON.stringify(progress)}\n`);
  assert.equal((await runFake(["save"], { fake: fakeLibrary({ save }) })).stderr, "");
});

test("a warning is a line on stderr, or an entry of the envelope with --json", async () => {
  const save = (options: { onWarning(message: string): void }): unknown => {
    options.onWarning("the control directory lies on overlay");
    return SAVED;
  };
  assert.equal(
    (await runFake(["save"], { fake: fakeLibrary({ save }) })).stderr,
    "cairn: the control directory lies on overlay\n",
  );
  const { envelope } = await runJson(["save"], { fake: fakeLibrary({ save }) });
  assert.deepEqual(envelope.warnings, ["the control directory lies on overlay"]);
});

test("with --json a warning after the answer is a line of JSON on stderr", async () => {
  const message = "an old tree could not be removed";
  for (const fails of [false, true]) {
    const save = (options: { onWarning(message: string): void }): unknown => {
      fake.closing = () => options.onWarning(message);
      if (fails) throw new CairnError("busy", "somebody else saves");
      return SAVED;
    };
    const fake = fakeLibrary({ save });
    const { envelope, stderr } = await runJson(["save"], { fake });
    assert.deepEqual([envelope.ok, envelope.warnings], [!fails, []]);
    assert.equal(stderr, `${JSON.stringify({ warning: message })}\n`);
    assert.equal((await runJson(["-q", "save"], { fake })).stderr, stderr);
    const read = await runFake(["save"], { fake });
    assert.ok(read.stderr.endsWith(`cairn: ${message}\n`), read.stderr);
  }
});

test("a stopped backup command says how to go on", async () => {
  const stopped = failing(new CairnError("interrupted", "stopped by the caller"));
  const save = await runFake(["save"], { fake: fakeLibrary({ save: stopped }) });
  assert.match(save.stderr, /`cairn status`/);
  const library = fakeLibrary();
  library.library.openRepository = stopped;
  const create = await runFake(["-q", "backup", "copy", "-r", "/srv/a", "--to", "/srv/b"], { fake: library });
  assert.equal(create.status, 130);
  assert.match(create.stderr, /already stored is reused; `cairn backup list` shows the snapshots/);
  assert.doesNotMatch(create.stderr, /cairn status/);
  const list = await runFake(["backup", "list", "-r", "/srv/backups"], { fake: library });
  assert.match(list.stderr, /^ {2}the command only reads: nothing was changed$/m);
});

test("speed limits of backup copy apply to both repositories", async () => {
  const words = "backup copy -r /srv/a --to /srv/b --limit-upload 5MiB --limit-download 1MiB";
  const { fake, status } = await runFake(words.split(" "));
  assert.equal(status, 0);
  const calls = fake.asked.filter(({ method }) => method === "openRepository");
  assert.deepEqual(
    calls.map(({ args }) => {
      const { repository, limits } = args[0] as RepositoryOptions;
      return [repository, limits];
    }),
    ["/srv/a", "/srv/b"].map((at) => [at, { uploadRate: 5 << 20, downloadRate: 1 << 20 }]),
  );
});

test("more jobs than the default of connections open as many connections", async () => {
  for (const [jobs, connections] of [
    [4, undefined],
    [8, 16],
    [32, 32],
  ] as const) {
    const { fake } = await runFake(["backup", "verify", "-r", "/srv/a", "--jobs", `${jobs}`]);
    const [{ limits }] = argsOf(fake, "openRepository") as [RepositoryOptions];
    assert.equal(limits?.connections, connections, `${jobs}`);
  }
});

test("the help of a command has a heading for each group of options that it shares", async () => {
  const { stdout } = await runFake(["backup", "forget", "--help"]);
  for (const heading of [
    "Options of a repository",
    "Options that choose snapshots",
    "Rules that keep points or snapshots",
  ])
    assert.match(stdout, new RegExp(`^${heading}:$`, "m"));
});

test("backup unlock names the option that removes the remaining locks", async () => {
  const fake = fakeLibrary();
  const repository = await fake.library.openRepository({ repository: "/srv/a", password: "p" });
  const held = { location: "/srv/a", repository_id: "a", version: 2, removed: 1, held: 2 };
  fake.library.openRepository = async () => Object.assign(repository, { unlock: async () => held });
  const { stdout } = await runFake(["backup", "unlock", "-r", "/srv/a"], { fake });
  assert.match(stdout, /1 lock removed, 2 still held\nif no process uses the repository, .*unlock --all/);
});

test("long text is shown in the pager only on a terminal", async () => {
  const env = { PAGER: "cat >/dev/null", PATH: process.env["PATH"] };
  assert.equal((await runFake(["history"], { terminal: true, env })).stdout, "");
  assert.match((await runFake(["history"], { env })).stdout, /1a2b3c4d/);
  const missing = { PAGER: "no-such-pager-here", PATH: process.env["PATH"] };
  assert.match((await runFake(["history"], { terminal: true, env: missing })).stdout, /1a2b3c4d/);
});

test("in the C locale output is ASCII, and JSON is unchanged", async () => {
  const C = { env: { LC_ALL: "", LC_CTYPE: "POSIX", LANG: "de_DE.UTF-8" } };
  const [plain, ascii] = [await runFake(["save"]), await runFake(["save"], C)];
  assert.match(plain.stdout, / · /);
  assert.match(ascii.stdout, / - /);
  for (const words of [["history"], ["status"], ["diff", "--stat"], ["save", "--help"], ["cleanup", "x"], ["nope"]]) {
    const { stdout, stderr } = await runFake(words, { env: { LC_ALL: "C" } });
    assert.match(stdout + stderr, /^[\0-\x7f]+$/, words.join(" "));
  }
  assert.equal(
    (await runFake(["--json", "save", "--help"], C)).stdout,
    (await runFake(["--json", "save", "--help"])).stdout,
  );
});
