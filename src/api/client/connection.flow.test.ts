import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import { createServer, type RequestListener } from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { Connection, NoDaemon } from "./connection.ts";

/** How a caller finds out that a daemon lives, while it waits for an answer. */

const ANSWER = '{"ok":true,"data":7,"error":null}\n';

async function listening(t: TestContext, serve: RequestListener): Promise<Connection> {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-connection-"));
  const server = createServer(serve).listen(path.join(folder, "s"));
  await once(server, "listening");
  const connection = new Connection(path.join(folder, "s"));
  t.after(() => {
    connection.close();
    server.closeAllConnections();
    server.close();
    fs.rmSync(folder, { recursive: true });
  });
  return connection;
}

test("a call waits as long as the daemon answers readiness checks", async (t) => {
  let asked = 0;
  const connection = await listening(t, (request, response) => {
    if (request.url === "/v1/ready") {
      asked++;
      return void response.end();
    }
    // By then it has said nothing for longer than a hung one is given.
    const after = (count: number, then: () => void): void => {
      const from = asked;
      const look = setInterval(() => {
        if (asked - from < count) return;
        clearInterval(look);
        then();
      }, 10);
    };
    after(3, () => {
      response.writeHead(200).flushHeaders();
      after(3, () => response.end(ANSWER));
    });
  });
  assert.equal(await connection.call("save", {}), 7);
});

test("a call to a daemon that answers nothing fails as busy and retryable", async (t) => {
  const connection = await listening(t, () => undefined);
  await assert.rejects(connection.call("save", {}), (error) => {
    assert.ok(error instanceof NoDaemon);
    assert.deepEqual([error.code, error.retryable], ["busy", true]);
    return true;
  });
});

test("a call fails with io if the daemon falls silent after the call has begun", async (t) => {
  const connection = await listening(t, (request, response) => {
    if (request.url !== "/v1/ready") response.writeHead(200).flushHeaders();
  });
  await assert.rejects(connection.call("save", {}), { code: "io", retryable: true, message: /has sent nothing/ });
});

test("a stream yields items that arrive in pieces, reports warnings, and fails with io if its end is missing", async (t) => {
  const lines = `{"item":{"$b64":"${Buffer.from("ä").toString("base64")}"}}\n{"warning":"ö"}\n{"item":2}\n`;
  const connection = await listening(t, (request, response) => {
    for (const byte of Buffer.from(lines)) response.write(Buffer.of(byte));
    response.end(request.url === "/v1/whole" ? ANSWER : '{"ok":');
  });
  const told: unknown[] = [];
  const read = async (name: string): Promise<void> => {
    for await (const item of connection.stream(name, {}, { onWarning: (each) => told.push(each) })) told.push(item);
  };
  await read("whole");
  assert.deepEqual(told, [Buffer.from("ä"), "ö", 2]);
  await assert.rejects(read("cut"), { code: "io", retryable: true, message: /stopped before it answered/ });
});

test("a caller that leaves a stream ends the call at the daemon", async (t) => {
  const left = Promise.withResolvers<void>();
  const connection = await listening(t, (_request, response) => {
    response.on("close", left.resolve);
    response.write('{"item":1}\n');
  });
  for await (const item of connection.stream("read", {})) {
    assert.equal(item, 1);
    break;
  }
  await left.promise;
});

test("a call to a socket with a full queue of connections fails as busy", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-connection-"));
  t.after(() => fs.rmSync(folder, { recursive: true }));
  const at = path.join(folder, "s");
  const script = `require("net").createServer().listen({ path: ${JSON.stringify(at)}, backlog: 1 }, () => console.log("here"))`;
  const child = spawn(process.execPath, ["-e", script]);
  t.after(() => child.kill("SIGKILL"));
  await once(child.stdout, "data");
  child.kill("SIGSTOP");
  const waiting: net.Socket[] = [];
  t.after(() => waiting.forEach((each) => each.destroy()));
  for (let isFull = false; !isFull && waiting.length < 100;) {
    const socket = net.connect(at);
    waiting.push(socket);
    isFull = await new Promise((done) => {
      socket.once("connect", () => done(false));
      socket.once("error", () => done(true));
    });
  }
  const connection = new Connection(at);
  await assert.rejects(connection.call("at", { path: "/" }), (error) => {
    assert.ok(error instanceof NoDaemon);
    return error.code === "busy";
  });
});
