import assert from "node:assert/strict";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import path from "node:path";
import { test } from "node:test";
import type { Page } from "playwright-core";
import { cairnOk } from "../fixtures/command.ts";
import { LONG } from "../fixtures/long.ts";
import { open, SKIP } from "./browser.ts";
import { newFolder } from "./shop.ts";

/** Contents of strangers: nothing of them runs, and nothing breaks the layout. */

const HTML = `<img src=x onerror="window.ran=1"><script>window.ran=1</script>`;
const HIDDEN = "safe\u202Egnp.exe\u0007\u200B";
const SVG = `<svg xmlns="http://www.w3.org/2000/svg" onload="window.ran=1"><script>window.ran=1</script></svg>`;

async function isUnharmed(page: Page): Promise<void> {
  assert.equal(await page.evaluate("window.ran"), undefined);
  assert.equal(await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), true);
}

test("the page shows HTML and control characters in names and messages as text", { skip: SKIP }, async (t) => {
  const folder = newFolder("hostile");
  const names = [`a${HTML.replaceAll("/", "∕")}.txt`, `${HIDDEN}.txt`, "new\nline.txt", "-rf", "'\";.txt"];
  for (const name of names) fs.writeFileSync(path.join(folder, name), `${HTML}\n${HIDDEN}\n`);
  fs.writeFileSync(path.join(folder, "x.svg"), SVG);
  fs.writeFileSync(path.join(folder, "x.html"), HTML);
  fs.writeFileSync(path.join(folder, "long.json"), `[${"\n1,".repeat(100_000)}\n1]\n`);
  cairnOk(["save", folder, "-m", "before"]);
  for (const name of [...names, "x.svg", "x.html"])
    fs.appendFileSync(path.join(folder, name), `${HTML}${HIDDEN}changed\n`);
  const cause = JSON.stringify({ kind: "tool_call", agent: HTML, session: HIDDEN, turn: HTML, tool: HIDDEN });
  cairnOk(["save", folder, "-m", `${HTML} ${HIDDEN}`, "-t", "<b>tag", "--cause", cause]);
  const { page, go } = await open(t, folder, { width: 360, height: 740 });
  await page.getByText("safe\\u202egnp.exe\\u0007\\u200b").first().waitFor();
  await isUnharmed(page);
  for (const file of [...names, "x.svg", "x.html"]) {
    await go({ view: "point", workspace: folder, point: "latest", file: { path: file } });
    await page.locator(".text-diff tr[data-sign='+']").first().waitFor({ state: "attached" });
    await isUnharmed(page);
  }
  await go({ view: "files", workspace: folder, point: "latest", at: { path: "" } });
  await page.getByRole("row", { name: /rf/ }).waitFor();
  await isUnharmed(page);
  for (const name of ["x.svg", "x.html"]) {
    await page
      .getByRole("row", { name: new RegExp(name) })
      .getByRole("link")
      .click();
    await page.locator(".preview-text", { hasText: "window.ran" }).waitFor();
    await page.keyboard.press("Escape");
  }
  const colours = page.waitForResponse(/\/json-/);
  await page.getByRole("row", { name: /long/ }).getByRole("link").click();
  await page.locator(".preview-text", { hasText: "1," }).waitFor();
  await colours;
  await page.evaluate("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))");
  assert.ok((await page.locator(".preview-text *").count()) < 1000, "a long text has few elements");
  await isUnharmed(page);
});

test(
  "the page offers a stored HTML file as a download, and the download address works once",
  { skip: SKIP },
  async (t) => {
    const folder = newFolder("direct");
    fs.writeFileSync(path.join(folder, "x.html"), HTML);
    cairnOk(["save", folder]);
    const { page, go } = await open(t, folder);
    await go({ view: "files", workspace: folder, point: "latest", at: { path: "" } });
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page
        .getByRole("row", { name: /x\.html/ })
        .getByRole("link")
        .click()
        .then(async () => page.getByRole("button", { name: "Download" }).click()),
    ]);
    // The address was used by the download: it gives nothing more.
    const { hostname, host, port, pathname, search } = new URL(download.url());
    const used = http.get({ host: "127.0.0.1", port, path: pathname + search, headers: { Host: host } });
    const [again] = (await once(used, "response")) as [http.IncomingMessage];
    again.resume();
    assert.match(hostname, /\.localhost$/, "a name that browsers resolve themselves");
    assert.equal(again.statusCode, 404);
    await isUnharmed(page);
  },
);

test("the page shows, compares and restores files whose names are not UTF-8", { skip: SKIP }, async (t) => {
  const folder = newFolder("bytes");
  const inside = Buffer.concat([
    Buffer.from(`${folder}/dir-`),
    Buffer.from([0xff]),
    Buffer.from("/file-"),
    Buffer.from([0xfe]),
  ]);
  fs.mkdirSync(inside.subarray(0, inside.lastIndexOf(0x2f)));
  fs.writeFileSync(inside, "one\n");
  cairnOk(["save", folder, "-m", "first"]);
  fs.writeFileSync(inside, "two\n");
  cairnOk(["save", folder, "-m", "second"]);
  const { page } = await open(t, folder);
  await page.locator(".point-row", { hasText: "second" }).click();
  await page.locator(".text-diff tr[data-sign='+']", { hasText: "two" }).waitFor();
  await page.getByRole("navigation", { name: "Views" }).getByRole("link", { name: "Files" }).click();
  await page
    .getByRole("row", { name: /dir-\\xff/ })
    .getByRole("link")
    .click();
  await page
    .getByRole("row", { name: /file-\\xfe/ })
    .getByRole("link")
    .click();
  await page.locator(".preview-text", { hasText: "two" }).waitFor();
  await page.locator(".preview").getByRole("link", { name: "History" }).click();
  await page.getByText("2 versions").waitFor();
  await page.locator(".version", { hasText: "first" }).getByRole("link", { name: "Restore…" }).click();
  await page.getByText("1 changed").waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^(Restored|Taken back)/)
    .waitFor();
  assert.equal(fs.readFileSync(inside, "utf8"), "one\n");
});

test("the page shows a path of 4 000 bytes and a file of 2 GiB", { skip: SKIP }, async (t) => {
  const folder = newFolder("long");
  const deep = Array.from({ length: 18 }, (_, i) => `${i}-`.padEnd(200, "x"));
  let at = folder;
  for (const name of deep) {
    at = path.join(at, name);
    fs.mkdirSync(at);
  }
  fs.writeFileSync(path.join(at, "end.txt"), "deep\n");
  const large = fs.openSync(path.join(folder, "large.bin"), "w");
  fs.ftruncateSync(large, 2 * 2 ** 30);
  fs.closeSync(large);
  cairnOk(["save", folder]);
  const { page, go } = await open(t, folder, { width: 360, height: 740 });
  await go({ view: "files", workspace: folder, point: "latest", at: { path: deep.join("/") } });
  await page.getByRole("row", { name: /end\.txt/ }).waitFor();
  await isUnharmed(page);
  await go({ view: "file-history", workspace: folder, at: { path: `${deep.join("/")}/end.txt` } });
  await page.getByText("1 version").waitFor();
  await isUnharmed(page);
  await go({ view: "files", workspace: folder, point: "latest", at: { path: "" } });
  await page
    .getByRole("row", { name: /large\.bin/ })
    .getByRole("link")
    .click();
  await page.getByText("This is no text.").waitFor();
  await isUnharmed(page);
});

test("the page draws only the visible rows of a point with many changed entries", { skip: SKIP }, async (t) => {
  const each = LONG ? 1000 : 200;
  const folder = newFolder("many");
  cairnOk(["save", folder, "-m", "empty"]);
  for (let i = 0; i < 100; i++) {
    const inside = path.join(folder, `d${i}`);
    fs.mkdirSync(inside);
    for (let j = 0; j < each; j++) fs.writeFileSync(path.join(inside, `f${j}`), "");
  }
  cairnOk(["save", folder, "-m", "many"]);
  const { page, go } = await open(t, folder);
  await go({ view: "point", workspace: folder, point: "latest" });
  await page
    .getByText(`${LONG ? "100,100" : "20,100"} entries`)
    .first()
    .waitFor();
  assert.ok((await page.getByRole("treeitem").count()) < 200);
  await page.getByRole("searchbox", { name: "Filter the changed names" }).fill(`d99/f${each - 1}`);
  await page.getByRole("treeitem", { name: new RegExp(`f${each - 1}`) }).waitFor();
});
