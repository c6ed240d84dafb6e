import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { type AlarmFacts, callAlarm, checkAlarm, checkAlarmSyntax, shownAlarm } from "./alarm.ts";

const FACTS: AlarmFacts = {
  what: "backup",
  state: "failed",
  workspace: { name: "project", path: "/home/me/project" },
  repository: "/srv/backups",
  since: "2026-11-20T00:00:00.000Z",
  last_success_at: null,
  error: { code: "no_space", message: "the disk is full", hint: null },
};

test("an alarm command gets the facts as JSON on stdin, and is run again once if it fails", async (t) => {
  const folder = mkdtempSync(join(tmpdir(), "cairn-alarm-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, "told");
  await callAlarm(`cat > ${file}`, FACTS);
  const told = JSON.parse(readFileSync(file, "utf8")) as Record<string, unknown>;
  assert.equal(told["text"], "backup of /home/me/project into /srv/backups failed: the disk is full");
  assert.deepEqual({ ...told, ...FACTS }, told);
  writeFileSync(file, "");
  await callAlarm(`echo called >> ${file}; test "$(wc -l < ${file})" = 2`, FACTS);
  assert.equal(readFileSync(file, "utf8"), "called\ncalled\n");
});

test("an abort kills the alarm command and its children", async () => {
  const stop = new AbortController();
  const ended = assert.rejects(callAlarm("sleep 600 & sleep 600; wait", FACTS, stop.signal), { code: "interrupted" });
  setImmediate(() => stop.abort());
  await ended;
});

test("an alarm that hangs takes 30 seconds in all, also for the next folder, and after a first failure", async (t) => {
  t.mock.method(AbortSignal, "timeout", (ms: number) => {
    limits.push(ms);
    return over.signal;
  });
  const folder = mkdtempSync(join(tmpdir(), "cairn-alarm-"));
  t.after(() => rmSync(folder, { recursive: true }));
  const limits: number[] = [];
  let over = new AbortController();
  const file = join(folder, "called");
  const alarm = `echo called >> ${file}; sleep 600`;
  const late = { code: "io", message: "the alarm's command did not end within 30 s" };
  const called = async (word: string): Promise<void> => {
    for (const until = Date.now() + 20_000; Date.now() < until;) {
      if (existsSync(file) && readFileSync(file, "utf8").includes(word)) return;
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.fail(`no alarm wrote ${word}`);
  };
  const ended = assert.rejects(callAlarm(alarm, FACTS), late);
  await called("called");
  over.abort();
  await ended;
  await assert.rejects(callAlarm(alarm, { ...FACTS, workspace: { name: "b", path: "/b" } }), late);
  assert.deepEqual([limits, readFileSync(file, "utf8")], [[30_000], "called\n"]);
  over = new AbortController();
  const failing = assert.rejects(callAlarm(`echo again >> ${file}; exit 1`, FACTS), late);
  // The limit ends in the pause before the second attempt.
  await called("again");
  over.abort();
  await failing;
});

test("an alarm address gets a POST with its password in a header, and errors do not show its path", async (t) => {
  const requests: { method: string; authorization: string; body: string }[] = [];
  let status = 204;
  const server = createServer((request: IncomingMessage, response) => {
    void text(request).then((body) => {
      requests.push({ method: request.method!, authorization: request.headers.authorization ?? "", body });
      response.writeHead(status).end();
    });
  }).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const address = `http://me:secret@127.0.0.1:${port}/hooks/secret`;
  await callAlarm(address, FACTS);
  const basic = `Basic ${Buffer.from("me:secret").toString("base64")}`;
  assert.deepEqual([requests[0]!.method, requests[0]!.authorization], ["POST", basic]);
  assert.equal((JSON.parse(requests[0]!.body) as { state: string }).state, "failed");
  status = 500;
  await assert.rejects(callAlarm(address, FACTS), { message: `the alarm at http://127.0.0.1:${port} answered 500` });
  assert.equal(requests.length, 3);
  assert.equal(shownAlarm(address), `POST to http://127.0.0.1:${port}`);
});

test("an alarm is a command that the shell can parse, or an http address", async () => {
  for (const good of ["mail -s Cairn me", "https://example.org/x", "curl ftp://x/"]) checkAlarm(good);
  for (const wrong of ["", " ", "ftp://example.org/x", "https://"])
    assert.throws(() => checkAlarm(wrong), { code: "usage" }, wrong);
  await checkAlarmSyntax("jq .text | mail me");
  await assert.rejects(checkAlarmSyntax("mail 'me"), { code: "usage", message: /quot|syntax/i });
});
