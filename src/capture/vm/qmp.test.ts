import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import type { CairnError } from "../../errors.ts";
import { migrated } from "./qemu.ts";
import { Qmp } from "./qmp.ts";

const FOLDER = mkdtempSync(path.join(tmpdir(), "cairn-qmp-"));
const servers: net.Server[] = [];
after(() => {
  for (const server of servers) server.close();
  rmSync(FOLDER, { recursive: true, force: true });
});

type Answer = (command: string, socket: net.Socket) => string | null;

/** A server that greets, and answers each command with a line; null: with nothing. */
async function serve(answer: Answer, greeting: string | null = '{"QMP": {"version": {}}}'): Promise<string> {
  const file = path.join(FOLDER, `${servers.length}.sock`);
  const server = net.createServer((socket) => {
    socket.on("error", () => undefined);
    if (greeting !== null) socket.write(`${greeting}\r\n`);
    let text = "";
    socket.setEncoding("utf8").on("data", (more: string) => {
      text += more;
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        const { execute } = JSON.parse(text.slice(0, end)) as { execute: string };
        text = text.slice(end + 1);
        const line = execute === "qmp_capabilities" ? '{"return": {}}' : answer(execute, socket);
        if (line !== null) socket.write(`${line}\r\n`);
      }
    });
  });
  servers.push(server);
  await new Promise<void>((done) => server.listen(file, done));
  return file;
}

const fails = async (work: Promise<unknown>, code: string, message: RegExp): Promise<void> => {
  await assert.rejects(work, (error: CairnError) => error.code === code && message.test(error.message));
};

test("answers arrive in the order of the commands, with events between them and any split of the bytes", async () => {
  const file = await serve((command, socket) => {
    socket.write('{"event": "STOP", "data": {"at": 1}}\r\n{"ret');
    return `urn": {"of": "${command}"}}`;
  });
  using qmp = await Qmp.connect(file, { deadlineMs: 1000 });
  const stopped = qmp.event(({ event }) => event === "STOP", 1000);
  const [a, b] = await Promise.all([qmp.run("a"), qmp.run("b")]);
  assert.deepEqual([a, b], [{ of: "a" }, { of: "b" }]);
  assert.deepEqual((await stopped)?.data, { at: 1 });
  assert.equal(await qmp.event(() => true, 1), null);
});

test("an error has QEMU's message, and the next command gets its own answer", async () => {
  const file = await serve((command) =>
    command === "bad" ? '{"error": {"class": "GenericError", "desc": "no such thing"}}' : '{"return": 7}',
  );
  using qmp = await Qmp.connect(file, { deadlineMs: 1000 });
  await fails(qmp.run("bad"), "io", /bad: no such thing/);
  assert.equal(await qmp.run("good"), 7);
});

test("a QEMU that is silent, sends no JSON or ends makes the waiting call and the next one fail", async () => {
  const silent = await Qmp.connect(await serve(() => null), { deadlineMs: 1000 });
  await fails(silent.run("quiet", undefined, 20), "io", /did not answer quiet within 20 ms/);
  await fails(silent.run("later"), "io", /did not answer quiet/);
  const garbage = await Qmp.connect(await serve(() => "<html>"), { deadlineMs: 1000 });
  await fails(garbage.run("any"), "io", /not JSON/);
  const ended = await Qmp.connect(
    await serve((_command, socket) => {
      socket.destroy();
      return null;
    }),
    { deadlineMs: 1000 },
  );
  await fails(ended.run("any"), "io", /ended/);
});

test("connect fails with `busy` if another client is connected, and with `io` if no server listens", async () => {
  await fails(Qmp.connect(await serve(() => null, null), { deadlineMs: 50 }), "busy", /another program is connected/);
  await fails(Qmp.connect(path.join(FOLDER, "none.sock"), { deadlineMs: 20 }), "io", /no QEMU listens/);
  await fails(
    Qmp.connect(path.join(FOLDER, "none.sock"), { deadlineMs: 60_000, isGone: () => true }),
    "io",
    /no QEMU listens/,
  );
});

test("migrated fails if the migration has no status or fails", async () => {
  const answers = ['{"return": {}}', '{"return": {"status": "failed", "error-desc": "device state"}}'];
  for (const [answer, message] of [
    [answers[0]!, /machine's state did not finish within/],
    [answers[1]!, /device state/],
  ] as const) {
    using qmp = await Qmp.connect(await serve(() => answer), { deadlineMs: 1000 });
    await fails(migrated(qmp, 40), "io", message);
  }
  let asked = 0;
  const slow = await serve((command) => {
    if (command === "stop") asked = 100;
    return `{"return": {"status": "${asked++ > 100 ? "completed" : "active"}"}}`;
  });
  using qmp = await Qmp.connect(slow, { deadlineMs: 1000 });
  await migrated(qmp, 2000, async () => qmp.run("stop"));
  assert.ok(asked > 100, "it was stopped so that it ends");
});
