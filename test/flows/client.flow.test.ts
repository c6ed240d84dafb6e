import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { connect } from "../../src/client.ts";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";

/** The package's client: the library's own calls, each done by a daemon. */

test("the package's client saves, reads and restores through a daemon, with the library's calls and errors", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const folder = path.join(SCRATCH, "by-client");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a.txt"), "one\n");
  cairnOk(["save", folder], daemon.asked);
  const library = connect({ socket: daemon.socket });
  await using client = await library.open(folder);
  fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
  const saved = await client.save({ message: "second" });
  assert.ok(saved.made);
  assert.equal((await client.history()).save_points.length, 2);
  const pieces: Uint8Array[] = [];
  for await (const piece of client.read("head~1", "a.txt")) pieces.push(piece);
  assert.equal(Buffer.concat(pieces).toString(), "one\n");
  await client.restore({ target: "head~1" });
  assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "one\n");
  await assert.rejects(client.restore({ target: "never" }), { name: "CairnError", code: "invalid_id" });
  const reason = new Error("by me");
  await assert.rejects(client.save({ signal: AbortSignal.abort(reason) }), { code: "interrupted", cause: reason });
  const stopper = new AbortController();
  const listening = library.events({ signal: stopper.signal })[Symbol.asyncIterator]().next();
  stopper.abort(reason);
  await assert.rejects(listening, { code: "interrupted", cause: reason });
  assert.equal((await client.fork("head", path.join(SCRATCH, "forked"))).left_out.length, 0, "for its operator");
  await assert.rejects(client.setEngine("copy", { plain: "no" } as never), { code: "usage" });
  await assert.rejects(library.open(path.join(SCRATCH)), { code: "not_a_workspace" });
  const nowhere = connect({ socket: path.join(SCRATCH, "none.sock") });
  assert.throws(() => nowhere.keyed({} as typeof client, "k"), { code: "usage" });
  assert.deepEqual(
    (await Promise.all(Array.from({ length: 10 }, async () => client.status()))).map(({ clean }) => clean),
    Array(10).fill(true),
  );
});

test("closing one client does not end the calls of the library's other clients", async (t) => {
  const daemon = await new TestDaemon(t).start();
  const folder = fs.mkdtempSync(path.join(SCRATCH, "closed-client-"));
  cairnOk(["save", folder], daemon.asked);
  const library = connect({ socket: daemon.socket });
  const answers = Array.from({ length: 20 }, async () => {
    await using client = await library.open(folder);
    return (await client.status()).clean;
  });
  assert.deepEqual(await Promise.all(answers), Array(20).fill(true));
});

test("the package's client names the socket if no daemon answers, and works once a daemon runs", async (t) => {
  const daemon = new TestDaemon(t);
  const library = connect({ socket: daemon.socket });
  const folder = fs.mkdtempSync(path.join(SCRATCH, "by-later-client-"));
  const refused = { code: "no_daemon", retryable: true, exitStatus: 5, message: new RegExp(daemon.socket) };
  await assert.rejects(library.open(folder), refused);
  await assert.rejects(library.openOrInit(folder), refused);
  await assert.rejects(library.find(folder), refused);
  await assert.rejects(library.listWorkspaces(), refused);
  await assert.rejects(library.jobs(), refused);
  await assert.rejects(library.events()[Symbol.asyncIterator]().next(), refused);
  await daemon.start();
  await using client = await library.openOrInit(folder);
  assert.ok((await client.save()).made);
});
