import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import type { Route } from "../../web/src/app/address.ts";
import { open, SKIP } from "./browser.ts";
import { makeShop, type Shop } from "./shop.ts";

/** Addresses, and what a restore leaves in the timeline. */

let shop: Shop;
before(() => {
  if (SKIP === false) shop = makeShop("addresses");
});

test("the address of each view shows the same view after reload, back and forward", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, shop.folder);
  const { folder: workspace, ids } = shop;
  const point = ids["a shell command"]!;
  const at = { path: "src/total.ts" };
  const views: [Route, string, RegExp][] = [
    [{ view: "workspaces" }, ".workspace", /addresses/],
    [{ view: "timeline", workspace, q: "tabs" }, ".point-row", /tabs/],
    [{ view: "point", workspace, point, to: ids["the template"]! }, "[role='treeitem']", /total\.ts/],
    [{ view: "point", workspace, point, file: { path: "data/shop.db" } }, ".rows", /Grace/],
    [{ view: "files", workspace, point, at: { path: "src" }, sort: "size" }, ".entry-row", /total\.ts/],
    [{ view: "file-history", workspace, at }, ".version", /the template/],
    [{ view: "search", workspace, q: "readme" }, ".found", /readme\.md/],
    [{ view: "activity", workspace }, ".activity h2", /Operations/],
    [{ view: "restore", workspace, point, paths: [at] }, "h1", /total\.ts|1 path/],
  ];
  const shows = async ([, selector, text]: (typeof views)[number]): Promise<void> =>
    page.locator(selector, { hasText: text }).first().waitFor();
  const addresses: string[] = [];
  for (const view of views) {
    await go(view[0]);
    await shows(view);
    await page.reload();
    await shows(view);
    addresses.push(page.url());
  }
  for (let at = views.length - 2; at >= 0; at--) {
    await page.goBack();
    assert.equal(page.url(), addresses[at]);
    await shows(views[at]!);
  }
  for (let at = 1; at < views.length; at++) {
    await page.goForward();
    assert.equal(page.url(), addresses[at]);
    await shows(views[at]!);
  }
});

test(
  "a restore on the page keeps additional files if asked to, and the timeline can show its undo point",
  { skip: SKIP },
  async (t) => {
    const { folder: workspace, ids } = makeShop("kept");
    const { page, go } = await open(t, workspace);
    await go({ view: "restore", workspace, point: ids["the template"]!, paths: [] });
    await page.getByText("4 removed").waitFor();
    await page.getByLabel("keep what the save point does not have").check();
    await page.getByText("4 removed").waitFor({ state: "detached" });
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    await page
      .getByRole("status")
      .getByText(/^(Restored|Taken back)/)
      .waitFor();
    assert.equal(fs.readFileSync(path.join(workspace, "src/a.ts"), "utf8"), "export const a = 1;\n");
    assert.equal(fs.readFileSync(path.join(workspace, "docs/readme.md"), "utf8"), "# Shop\n");
    await go({ view: "timeline", workspace });
    await page.getByText("5 save points").waitFor();
    await page.getByLabel("undo points").check();
    await page.getByText("6 save points").waitFor();
    await page.getByLabel("undo points").uncheck();
    await page.getByText("5 save points").waitFor();
  },
);

test("the page has no transitions and animations for users who prefer reduced motion", { skip: SKIP }, async (t) => {
  const { page } = await open(t, shop.folder);
  await page.locator(".point-row").first().waitFor();
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Command" }).waitFor();
  const moving = `[...document.querySelectorAll("*")].filter((each) => { const { transitionDuration, animationDuration, animationName } = getComputedStyle(each);
    return parseFloat(transitionDuration) > 0.01 || (animationName !== "none" && parseFloat(animationDuration) > 0.01); }).map((each) => each.className)`;
  assert.deepEqual(await page.evaluate(moving), []);
});
