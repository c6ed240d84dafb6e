import assert from "node:assert/strict";
import fs from "node:fs";
import http from "node:http";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { Page } from "playwright-core";
import { cairnOk } from "../fixtures/command.ts";
import { type Route, toInput, toRef, toText } from "../../web/src/app/address.ts";
import { open, SKIP } from "./browser.ts";
import { newFolder } from "./shop.ts";

/** Names, messages and contents of strangers, and pages of other servers: nothing of them runs, reads or breaks the layout. */

const HTML = `<img src=x onerror="window.ran=1"><script>window.ran=1</script>`;
const HIDDEN = "a\u202egnp.exe\u200b\u0007\u001b[31m";
const BYTES = Buffer.from([0x62, 0xff, 0xfe]);

function bytesPath(folder: string, ...names: (string | Buffer)[]): Buffer {
  return Buffer.concat([Buffer.from(folder), ...names.flatMap((name) => [Buffer.from("/"), Buffer.from(name)])]);
}

async function requireCalm(page: Page): Promise<void> {
  assert.equal(await page.evaluate("window.ran"), undefined);
  assert.ok(((await page.evaluate("document.documentElement.scrollWidth - innerWidth")) as number) <= 0);
}

function save(folder: string, message: string): string {
  const { save_point } = cairnOk(["save", folder, "-m", message]).data as { save_point: { save_point_id: string } };
  return save_point.save_point_id;
}

test("names and messages with HTML and hidden characters are shown as text", { skip: SKIP }, async (t) => {
  const folder = newFolder("html");
  const tag = HTML.replaceAll("/", "");
  for (const name of [tag, HIDDEN]) fs.writeFileSync(path.join(folder, name), HTML);
  const point = save(folder, `${HTML} \u202eevil`);
  const { page, go } = await open(t, folder, { width: 360 });
  await page.locator(".point-message", { hasText: "<script>" }).waitFor();
  assert.match((await page.locator(".point-message").first().textContent())!, /\\u202eevil/);
  await requireCalm(page);
  for (const route of [
    { view: "files", workspace: folder, point, at: { path: "" } },
    { view: "point", workspace: folder, point },
    { view: "restore", workspace: folder, point, paths: [{ path: tag }] },
    { view: "file-history", workspace: folder, at: { path: HIDDEN } },
    { view: "search", workspace: folder, q: "<img" },
  ] satisfies Route[]) {
    await go(route);
    await page.locator("main").getByText(/<img|\\u202e/).first().waitFor();
    await requireCalm(page);
  }
});

test("a file below a folder whose name is not UTF-8 is opened, looked at and restored", { skip: SKIP }, async (t) => {
  const folder = newFolder("bytes");
  fs.mkdirSync(bytesPath(folder, BYTES));
  fs.writeFileSync(bytesPath(folder, BYTES, "plain.txt"), "below\n");
  fs.writeFileSync(bytesPath(folder, BYTES, BYTES), "of bytes\n");
  const point = save(folder, "bytes");
  const { page, go } = await open(t, folder);
  await go({ view: "files", workspace: folder, point, at: { path: "" } });
  await page.locator(".entry-name", { hasText: "\\xff" }).locator("a").click();
  await page.locator(".entry-name", { hasText: "plain.txt" }).locator("a").click();
  await page.locator(".preview-text", { hasText: "below" }).waitFor();
  await page.locator(".entry-name", { hasText: "\\xff" }).locator("a").click();
  await page.locator(".preview-text", { hasText: "of bytes" }).waitFor();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Download" }).click(),
  ]);
  assert.equal(fs.readFileSync(await download.path(), "utf8"), "of bytes\n");
  await page.locator(".preview").getByRole("link", { name: "History" }).click();
  await page.locator(".version").first().waitFor();
  fs.rmSync(bytesPath(folder, BYTES, BYTES));
  await page.getByRole("link", { name: "Restore this version" }).first().click();
  await page.getByText("1 created").waitFor();
  await page.getByRole("button", { name: "Restore", exact: true }).click();
  await page.getByRole("status").getByText("Restored").waitFor();
  assert.equal(fs.readFileSync(bytesPath(folder, BYTES, BYTES), "utf8"), "of bytes\n");
});

test("an address that is no address of the page leads to a view or an error, never to an empty page", { skip: SKIP }, async (t) => {
  const folder = newFolder("odd-addresses");
  fs.writeFileSync(path.join(folder, "a"), "a\n");
  const point = save(folder, "one");
  const { page, origin, complaints } = await open(t, folder);
  const w = encodeURIComponent(folder);
  for (const address of [
    `#/files?w=${w}&p=${point}&at=b64:%25%25%25`,
    `#/files?w=${w}&p=${point}&at=..%2F..%2Fetc`,
    `#/files?w=${w}&p=${point}&at=%2Fetc%2Fpasswd`,
    `#/point?w=${w}&p=..%2F..&file=a`,
    `#/file-history?w=${w}&at=a%00b`,
    "#/timeline?w=..%2F..%2Fetc",
    `#/search?w=${w}&q=%E0%A4%A`,
    "#/__proto__?w=__proto__",
  ]) {
    await page.goto("about:blank");
    await page.goto(`${origin}/${address}`);
    await page.locator("main :is([role=alert], section, h1, h2, .note)").first().waitFor();
    assert.doesNotMatch((await page.locator("main").textContent())!, /root:/);
    await requireCalm(page);
  }
  complaints.splice(0, complaints.length, ...complaints.filter((each) => !each.startsWith("Failed to load resource")));
});

test("a path in an address is the same path again, also where its name looks like bytes in base64", () => {
  for (const path of ["a/b", "b64:YQ==", "b64:%%%", "b64:ä"])
    assert.deepEqual(Buffer.from(toInput(toRef(toText({ path })))), Buffer.from(path));
  assert.deepEqual(toRef("b64:%%%"), { path: "b64:%%%" });
});

test("an HTML file and a picture with a script do not run where they are opened directly", { skip: SKIP }, async (t) => {
  const folder = newFolder("opened");
  fs.writeFileSync(path.join(folder, "evil.html"), `<script>document.title = "ran"</script>`);
  fs.writeFileSync(path.join(folder, "evil.svg"), `<svg xmlns="http://www.w3.org/2000/svg"><script>document.title="ran"</script></svg>`);
  save(folder, "evil");
  const { page, context, origin } = await open(t, folder);
  for (const name of ["evil.html", "evil.svg"]) {
    const url = (await page.evaluate(`fetch("/tickets", { method: "POST", headers: { authorization: "Bearer " + sessionStorage.getItem("token") },
      body: JSON.stringify(${JSON.stringify({ workspace: folder, target: "latest", path: name, as: "file", name })}) })
      .then((answer) => answer.json()).then(({ data }) => data.url)`)) as string;
    const other = await context.newPage();
    const download = other.waitForEvent("download");
    await other.goto(`${origin}${url}`).catch(() => undefined);
    assert.equal((await download).suggestedFilename(), name);
    assert.notEqual(await other.title(), "ran");
    await other.close();
  }
  assert.deepEqual(await context.cookies(), []);
});

/** A page of another port that tries what it can, and says what came of each. */
async function rogue(t: TestContext, script: string): Promise<string> {
  const server = http.createServer((_request, response) =>
    response.writeHead(200, { "content-type": "text/html" }).end(`<!doctype html><body><script>${script}</script>`),
  );
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  t.after(() => server.close());
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

test("a page of another port reads, calls and frames nothing", { skip: SKIP }, async (t) => {
  const folder = newFolder("rogue");
  fs.writeFileSync(path.join(folder, "a"), "secret\n");
  save(folder, "one");
  const { page, context, origin, complaints } = await open(t, folder);
  const token = (await page.evaluate(`sessionStorage.getItem("token")`)) as string;
  const url = await rogue(t, "window.mine = sessionStorage.length + document.cookie.length");
  const other = await context.newPage();
  await other.goto(url);
  const tried = (await other.evaluate(`Promise.all([
    ["/v1/about", { headers: { authorization: "Bearer ${token}" } }],
    ["/v1/history", { method: "POST", mode: "no-cors", body: "{}" }],
    ["/", {}],
    ["/", { mode: "no-cors" }],
  ].map(([path, options]) => fetch("${origin}" + path, options).then(async (answer) => answer.type + await answer.text(), () => "refused")))`)) as string[];
  assert.deepEqual(tried.filter((each) => each !== "refused" && each !== "opaque"), []);
  const framed = (await other.evaluate(`new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.src = "${origin}/";
    frame.onload = () => { try { done(frame.contentDocument === null ? "closed" : frame.contentDocument.body.innerHTML); } catch { done("closed"); } };
    document.body.append(frame);
  })`)) as string;
  assert.equal(framed, "closed");
  for (const frame of other.frames()) assert.equal(await frame.locator("main").count(), 0);
  assert.equal(await other.evaluate("window.mine"), 0);
  complaints.length = 0;
});
