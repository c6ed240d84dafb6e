import assert from "node:assert/strict";
import fs from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { open, SKIP } from "./browser.ts";
import { newFolder } from "./shop.ts";

/** Who reaches the page's server from the same browser, and what tabs share. */

function workspace(name: string): string {
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "secret.txt"), "secret\n");
  cairnOk(["save", folder, "-m", "first"]);
  return folder;
}

/** What a page tries with the server at an address, and what it got. */
const ATTEMPTS = `async (origin) => {
  const tries = {
    read: () => fetch(origin + "/v1/about").then((r) => r.text()),
    blind: () => fetch(origin + "/v1/about", { mode: "no-cors" }).then((r) => r.type + r.status),
    post: () => fetch(origin + "/v1/listWorkspaces", { method: "POST", body: "{}" }).then((r) => r.text()),
    session: () => fetch(origin + "/session", { method: "POST", body: '{"code":"x"}' }).then((r) => r.text()),
    script: () => new Promise((ok, no) => { const e = document.createElement("script"); e.src = origin + "/v1/about"; e.onload = () => ok("ran"); e.onerror = () => no("refused"); document.head.append(e); }),
    events: () => new Promise((ok, no) => { const e = new EventSource(origin + "/v1/events"); e.onmessage = e.onopen = () => ok("open"); e.onerror = () => { e.close(); no("refused"); }; }),
    socket: () => new Promise((ok, no) => { const e = new WebSocket(origin.replace("http", "ws") + "/v1/events"); e.onopen = () => ok("open"); e.onerror = () => no("refused"); }),
    worker: () => navigator.serviceWorker.register(origin + "/assets/x.js").then(() => "registered"),
    frame: () => new Promise((ok) => { const e = document.createElement("iframe"); e.src = origin + "/"; e.onload = () => { try { ok("" + e.contentWindow.length + e.contentDocument); } catch { ok("closed"); } }; document.body.append(e); }),
  };
  const found = {};
  for (const [name, run] of Object.entries(tries)) found[name] = await run().catch((error) => "refused: " + error);
  return found;
}`;

test(
  "a page of another origin can neither read, call nor frame the server, and the server sets no cookie",
  { skip: SKIP },
  async (t) => {
    // All that is refused is told on the console of the other page.
    const { context, origin } = await open(t, workspace("other-port"), { expected: /./ });
    const { port, hostname } = new URL(origin);
    const server = createServer((_, response) =>
      response.setHeader("content-type", "text/html").end("<body>other</body>"),
    );
    server.listen(0, "127.0.0.1");
    t.after(() => server.close());
    await new Promise((done) => server.once("listening", done));
    const other = (server.address() as AddressInfo).port;
    // The last one knows the page's name, and has another port.
    for (const host of ["127.0.0.1", "localhost", "evil.localhost", hostname]) {
      const tab = await context.newPage();
      await tab.goto(`http://${host}:${other}/`);
      for (const target of [origin, `http://127.0.0.1:${port}`, `http://localhost:${port}`]) {
        const found = (await tab.evaluate(`(${ATTEMPTS})(${JSON.stringify(target)})`)) as Record<string, string>;
        for (const name of ["read", "post", "session", "script", "events", "socket", "worker"])
          assert.match(found[name]!, /refused/, `${name} from ${host} at ${target}`);
        assert.doesNotMatch(JSON.stringify(found), /version|secret|listWorkspaces/);
        assert.equal(found["frame"]!.includes("Document"), false);
      }
    }
    assert.deepEqual(await context.cookies(), []);
  },
);

test("a tab is signed in by another open tab, and asks for a code if there is none", { skip: SKIP }, async (t) => {
  const folder = workspace("tabs");
  const { context, origin, page } = await open(t, folder, { expected: / 403 \(Forbidden\)$/ });
  const second = await context.newPage();
  await second.goto(origin);
  await second.locator(".workspace").first().waitFor();
  await page.close();
  await second.evaluate("sessionStorage.clear()");
  await second.reload();
  await second.getByRole("textbox", { name: "Code or address" }).fill("A".repeat(22));
  await second.getByRole("button", { name: "Sign in" }).click();
  await second.getByRole("alert").getByText("does not accept this code").waitFor();
});

test(
  "ten tabs share one stream of events, even if the tab that reads the stream is closed",
  { skip: SKIP },
  async (t) => {
    const folder = workspace("ten");
    const { context, page, origin } = await open(t, folder);
    let streams = 0;
    context.on("request", (request) => void (streams += request.url().includes("/v1/events") ? 1 : 0));
    await page.locator(".point-row", { hasText: "first" }).waitFor();
    const others = await Promise.all(
      Array.from({ length: 9 }, async () => {
        const tab = await context.newPage();
        await tab.goto(`${origin}/#/timeline?w=${encodeURIComponent(folder)}`);
        await tab.locator(".point-row", { hasText: "first" }).waitFor();
        return tab;
      }),
    );
    const saved = async (message: string, tabs: typeof others): Promise<void> => {
      fs.writeFileSync(path.join(folder, "secret.txt"), message);
      cairnOk(["save", folder, "-m", message]);
      await Promise.all(tabs.map(async (tab) => tab.locator(".point-row", { hasText: message }).waitFor()));
    };
    await saved("for all ten", [page, ...others]);
    // On a busy machine the first tab may open its stream only now.
    const before = streams;
    assert.ok(before <= 1, `${before} streams for ten tabs`);
    await page.close();
    await saved("for the other nine", others);
    assert.equal(streams - before, 1);
  },
);

test("the page shows new points after a lost connection is back", { skip: SKIP }, async (t) => {
  const folder = workspace("lost");
  const { context, page } = await open(t, folder, { expected: /^Failed to load resource: / });
  await page.locator(".point-row", { hasText: "first" }).waitFor();
  // The view beside the timeline is loaded by itself.
  await page.locator(".point").waitFor();
  await context.setOffline(true);
  await page.evaluate("fetch('/v1/about').catch(() => undefined)");
  fs.writeFileSync(path.join(folder, "secret.txt"), "while it was away");
  cairnOk(["save", folder, "-m", "while it was away"]);
  await context.setOffline(false);
  await page.locator(".point-row", { hasText: "while it was away" }).waitFor();
});

test("the page offers to load again if the program of a view could not be loaded", { skip: SKIP }, async (t) => {
  const expected = /^Failed to load resource: |(Unable to preload CSS|Failed to fetch dynamically imported module)/;
  const { context, page } = await open(t, workspace("part"), { expected });
  await page.locator(".point-row", { hasText: "first" }).waitFor();
  await context.route(/\/assets\/search-/, async (sent) => sent.abort());
  await page.getByRole("link", { name: "Search" }).click();
  await page.getByText("A part of this page could not be loaded.").waitFor();
  await context.unrouteAll();
  await page.getByRole("button", { name: "Load again" }).click();
  await page.locator("section.search").waitFor();
  assert.equal(await page.getByText("A part of this page could not be loaded.").count(), 0);
});

test("the page says so if its server has ended", { skip: SKIP }, async (t) => {
  const folder = workspace("ends");
  const { page, ui } = await open(t, folder, { expected: /^Failed to load resource: / });
  await page.locator(".point-row", { hasText: "first" }).waitFor();
  await page.getByText("Everything is saved").waitFor();
  await ui.end();
  await page.getByText("The server does not answer").waitFor();
  await page.getByText("Now: the folder cannot be looked at since").waitFor();
  assert.equal(await page.getByText("Everything is saved").count(), 0);
});
