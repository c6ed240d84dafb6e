import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { LogRecord } from "../../src/daemon/log/read.ts";
import { readLog } from "../../src/daemon/log/read.ts";
import { buildCommand, cairn, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

/** A folder with a program `journalctl` that notes its words and says what the journal would. */
function journal(lines: readonly unknown[], end = "exit 0"): { folder: string; words: () => string[] } {
  const folder = newFolder("bin");
  const said = path.join(folder, "said");
  fs.writeFileSync(said, lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line))).join("\n"));
  const noted = path.join(folder, "noted");
  const text = `#!/bin/sh\nprintf '%s\\n' "$@" > '${noted}'\n/bin/cat '${said}'\n${end}\n`;
  fs.writeFileSync(path.join(folder, "journalctl"), text, { mode: 0o755 });
  return { folder, words: () => fs.readFileSync(noted, "utf8").trimEnd().split("\n") };
}

function logs(folder: string, ...words: string[]): Outcome {
  return cairn(["service", "logs", ...words], { env: { PATH: folder }, own: true });
}

const ENTRY = {
  __REALTIME_TIMESTAMP: "1764100000000000",
  PRIORITY: "4",
  _PID: "12",
  MESSAGE: "backup /w into /r: no",
  CAIRN_WORKSPACE: "/w",
  CAIRN_VERB: "backup",
  CAIRN_UID: "1000",
  CAIRN_DURATION_MS: "7",
  CAIRN_OUTCOME: "io",
};

test("service logs reads the unit's journal as JSON records and as text lines", () => {
  const bytes = [...Buffer.from("odd \u001b[2J")];
  const { folder, words } = journal([
    ENTRY,
    { __REALTIME_TIMESTAMP: "1764100001000000", MESSAGE: [...bytes, 0xff] },
    "not JSON",
    { MESSAGE: "no time" },
  ]);
  const { data, status } = logs(folder, "-n", "5", "--since", "yesterday", "--workspace", folder);
  assert.equal(status, 0);
  assert.deepEqual(data["records"], [
    {
      time: "2025-11-25T19:46:40.000Z",
      priority: 4,
      message: "backup /w into /r: no",
      pid: 12,
      workspace: "/w",
      verb: "backup",
      uid: 1000,
      duration_ms: 7,
      outcome: "io",
    },
    {
      time: "2025-11-25T19:46:41.000Z",
      priority: 6,
      message: "odd \\x1b[2J\\xff",
      pid: null,
      workspace: null,
      verb: null,
      uid: null,
      duration_ms: null,
      outcome: null,
    },
  ]);
  for (const word of [
    "--unit=cairn.service",
    "--lines=5",
    "--since=yesterday",
    `CAIRN_WORKSPACE=${fs.realpathSync(folder)}`,
  ])
    assert.ok(words().includes(word), word);
  const plain = spawnSync(process.execPath, [buildCommand(), "service", "logs"], {
    env: { ...process.env, PATH: folder },
    cwd: SCRATCH,
    encoding: "utf8",
  });
  assert.match(plain.stdout, /^2025-11-25T19:46:40.000Z warning: backup \/w into \/r: no\n/);
  assert.equal(plain.stdout.trimEnd().split("\n").length, 2);
});

test("service logs passes no argument of a caller as an option of journalctl", () => {
  const { folder, words } = journal([]);
  logs(folder, "--since=--rotate", "--workspace", "/--flush");
  assert.ok(words().includes("--since=--rotate"));
  assert.ok(words().includes("CAIRN_WORKSPACE=/--flush"));
  assert.equal(logs(folder, "-n", "-5x").status, 2);
  assert.equal(logs(folder, "-f").status, 2, "one object has an end");
});

test("the followed log yields entries as they arrive, until it is aborted", async (t) => {
  const { folder } = journal([ENTRY], "echo\nexec /bin/sleep 600");
  const path0 = process.env["PATH"];
  process.env["PATH"] = folder;
  t.after(() => (process.env["PATH"] = path0));
  const stop = new AbortController();
  const places = { isSystem: true, unit: "cairn.service", lines: 1, workspace: null, since: null };
  const came = readLog({ ...places, follow: true, isKept: true, signal: stop.signal });
  assert.equal(((await came.next()).value as LogRecord).verb, "backup");
  const next = came.next();
  stop.abort();
  await assert.rejects(next, { code: "interrupted" });
});

test("service logs explains a missing journal, and passes on the error of journalctl", () => {
  const none = logs(newFolder("empty"));
  assert.equal(none.status, 3);
  assert.match(none.error!.message, /journalctl is not installed/);
  assert.match(none.error!.hint!, /on the daemon's standard error/);
  if (!fs.existsSync("/run/systemd/journal/socket")) assert.equal(logs(journal([]).folder).status, 3);
  const wrong = logs(journal([], "echo 'no such time' >&2\nexit 1").folder, "--since", "soon");
  assert.equal(wrong.error!.code, "io");
  assert.match(wrong.error!.message, /status 1: no such time/);
});
