import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import net from "node:net";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { connect } from "../../src/client.ts";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** A daemon that listens and does nothing, as one that is stopped or whose disk hangs. */

let count = 0;

/** A folder of the daemon's own user, which its registry knows too. */
async function served(t: TestContext): Promise<{ daemon: TestDaemon; folder: string }> {
  const daemon = await new TestDaemon(t).start();
  const folder = path.join(SCRATCH, `hung-${count++}`);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "a.txt"), "one\n");
  cairnOk(["save", folder], daemon.asked);
  return { daemon, folder };
}

const pointsOf = async (daemon: TestDaemon, folder: string): Promise<number> =>
  ((await daemon.call("history", { workspace: folder })) as { save_points: unknown[] }).save_points.length;

/** Long enough for four processes and their waits. */
const BOUND = { timeoutMs: 60_000 };

test(
  "commands work while the user's own daemon hangs, and the daemon has their points when it resumes",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    const folder = path.join(user.place, "home/project");
    const socket = path.join(user.place, "home/s.sock");
    const options = user.optionsIn(user.place);
    const asked = { ...options, ...BOUND, own: true, env: { ...options.env, CAIRN_SOCKET: socket } };
    const words = [...options.prefix!, options.node!, options.command!, "daemon"];
    const env = { ...process.env, ...asked.env, CAIRN_STATE_DIR: path.join(user.place, "home/daemon") };
    const daemon = spawn(words[0]!, words.slice(1), { cwd: "/", env });
    t.after(() => daemon.kill("SIGKILL"));
    await once(daemon.stdout, "data", { signal: AbortSignal.timeout(BOUND.timeoutMs) });
    fs.mkdirSync(folder);
    fs.writeFileSync(path.join(folder, "a.txt"), "one\n");
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    cairnOk(["save", folder], asked);
    const [program, ...args] = [...options.prefix!, options.node!, options.command!, "mcp", "-C", folder];
    const agent = new Client({ name: "test", version: "1" });
    await agent.connect(new StdioClientTransport({ command: program!, args, env: asked.env, stderr: "ignore" }));
    t.after(async () => agent.close());
    const status = async (): Promise<Awaited<ReturnType<typeof agent.callTool>>> =>
      agent.callTool({ name: "status", arguments: {} });
    assert.notEqual((await status()).isError, true);
    daemon.kill("SIGSTOP");
    assert.match(JSON.stringify((await status()).content), /^\[.*busy: the daemon/);
    assert.notEqual((await status()).isError, true, "the next call works without it");
    fs.writeFileSync(path.join(folder, "a.txt"), "two\n");
    cairnOk(["save", folder, "-m", "meanwhile"], asked);
    assert.equal(cairnOk(["status", folder], asked).data["clean"], true);
    cairnOk(["restore", "head~1", "-C", folder], asked);
    assert.equal(fs.readFileSync(path.join(folder, "a.txt"), "utf8"), "one\n");
    daemon.kill("SIGCONT");
    await using client = await connect({ socket }).open(folder);
    const { save_points: points } = await client.history();
    assert.deepEqual(
      points.map(({ message }) => message),
      ["meanwhile", ""],
      "no call was done twice",
    );
    assert.equal((await client.status()).clean, true);
  },
);

test(
  "commands and the package's client fail with busy, and make no workspace, while root's daemon hangs",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const { daemon } = await served(t);
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    for (const each of [path.dirname(daemon.folder), daemon.folder]) fs.chmodSync(each, 0o755);
    fs.chmodSync(daemon.socket, 0o666);
    const folder = path.join(user.place, "home/project");
    fs.mkdirSync(folder);
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    const options = user.optionsIn(user.place);
    const asked = { ...options, ...BOUND, own: true, env: { ...options.env, ...daemon.asked.env } };
    cairnOk(["save", folder], asked);
    process.kill(daemon.pid, "SIGSTOP");
    for (const args of [
      ["save", folder],
      ["history", "-C", folder],
      ["service", "status"],
    ]) {
      const { status, error } = cairn(args, asked);
      assert.deepEqual([status, error?.code, error?.retryable], [5, "busy", true], args.join(" "));
    }
    assert.deepEqual(fs.readdirSync(path.join(user.place, "state")), []);
    const client = connect({ socket: daemon.socket });
    await assert.rejects(client.open(folder), { code: "busy", retryable: true });
    process.kill(daemon.pid, "SIGCONT");
    assert.equal((await client.open(folder)).repoRoot, folder, "it is asked again");
  },
);

test("the daemon does not begin a call whose caller disconnected while the daemon hung", async (t) => {
  const { daemon, folder } = await served(t);
  for (const isKept of [false, true]) {
    const before = await pointsOf(daemon, folder);
    const body = JSON.stringify({ workspace: folder, options: {} });
    const head = "POST /v1/save HTTP/1.1\r\nhost: x\r\naccept: application/x-ndjson\r\ncontent-length: ";
    const sockets = await Promise.all(
      Array.from({ length: 5 }, async () => {
        const socket = net.connect(daemon.socket);
        await once(socket, "connect");
        if (!isKept) return socket;
        socket.write("GET /v1/ready HTTP/1.1\r\nhost: x\r\n\r\n");
        await once(socket, "data");
        return socket;
      }),
    );
    process.kill(daemon.pid, "SIGSTOP");
    for (const socket of sockets) {
      await new Promise((done) => void socket.write(`${head}${Buffer.byteLength(body)}\r\n\r\n${body}`, done));
      socket.destroy();
    }
    process.kill(daemon.pid, "SIGCONT");
    // What came before this was read.
    await daemon.call("list");
    await daemon.call("diff", { workspace: folder, a: "head", b: null });
    assert.equal(
      await pointsOf(daemon, folder),
      before,
      isKept ? "on connections that were there" : "on new connections",
    );
  }
});
