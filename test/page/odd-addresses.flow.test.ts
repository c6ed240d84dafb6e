import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { toInput, toRef, toText } from "../../web/src/app/address.ts";
import { cairnOk } from "../fixtures/command.ts";
import { open, SKIP } from "./browser.ts";
import { newFolder } from "./shop.ts";

/** Addresses that nobody got from the page. */

test("a malformed address leads to a view or an error, never to an empty page", { skip: SKIP }, async (t) => {
  const folder = newFolder("odd-addresses");
  fs.writeFileSync(path.join(folder, "a"), "a\n");
  const point = "latest";
  cairnOk(["save", folder]);
  const { page, origin } = await open(t, folder, { expected: /^Failed to load resource: / });
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
    const wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth");
    assert.ok((wide as number) <= 0);
  }
});

test("a path survives its round trip through an address, even if the path looks like the base64 form", () => {
  for (const path of ["a/b", "b64:YQ==", "b64:%%%", "b64:ä"])
    assert.deepEqual(Buffer.from(toInput(toRef(toText({ path })))), Buffer.from(path));
  assert.deepEqual(toRef("b64:%%%"), { path: "b64:%%%" });
});
