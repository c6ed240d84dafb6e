import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { makeShop, newFolder, type Shop } from "./shop.ts";

/** Forks beside their original: compared, merged, adopted and removed, each after its plan, and undone. */

const HTML = `<img src=x onerror="window.ran=1">`;

let shop: Shop;
before(() => {
  if (SKIP === false) shop = makeShop("forks");
});

const inFork = (name: string, text?: string): string => {
  const file = path.join(shop.fork, name);
  if (text !== undefined) fs.writeFileSync(file, text);
  return fs.readFileSync(file, "utf8");
};
const here = (name: string): string => fs.readFileSync(path.join(shop.folder, name), "utf8");

test(
  "a fork is listed with its beginning and its changes, compared with the original, merged after the plan, and the merge is undone",
  { skip: SKIP },
  async (t) => {
    const { folder: workspace, fork } = shop;
    const { page } = await open(t, workspace);
    inFork("src/a.ts", "export const a = 2;\n");
    inFork("new.ts", "export {};\n");
    inFork("src/deep/er/b.ts", "export const b = 'fork';\n");
    shop.write("src/deep/er/b.ts", "export const b = 'original';\n");
    await page.getByRole("link", { name: "Forks", exact: true }).click();
    const row = page.locator(".forks li", { hasText: fork });
    await row.getByRole("img", { name: "1 added, 2 modified, 0 removed" }).waitFor();
    await row.getByRole("link", { name: /a shell command/ }).waitFor();
    await row.getByText(/ in \d+ entries/).waitFor();
    await row.getByRole("heading").getByRole("link").click();
    await page.getByRole("treeitem", { name: "a.ts" }).click();
    await page.locator(".text-diff mark").first().waitFor();
    assert.equal(await page.getByText("Take back:").count(), 0, "the fork's changes are not those of this folder");
    await page.getByRole("button", { name: "the original now" }).click();
    await page.waitForURL(/to=now/);
    // The original has changed since, too.
    await page.getByRole("treeitem", { name: "total.ts" }).waitFor();
    await page.getByRole("link", { name: /^Merge / }).click();
    const plan = page.locator(".plan-row");
    await plan.filter({ hasText: "new.ts" }).filter({ hasText: "+" }).waitFor();
    await plan.filter({ hasText: "b.ts" }).getByText("changed since").waitFor();
    assert.equal(await plan.filter({ hasText: "total.ts" }).count(), 0, "the original's own change stays");
    assert.equal(fs.existsSync(path.join(workspace, "new.ts")), false, "only the plan was shown");
    await page.getByRole("button", { name: "Merge", exact: true }).click();
    await page.getByRole("status").getByText("Merged").waitFor();
    await page.locator(".undo-bar").getByText("Merged").waitFor();
    assert.equal(here("src/a.ts"), "export const a = 2;\n");
    assert.equal(here("src/deep/er/b.ts"), "export const b = 'original';\n");
    assert.match(here("src/total.ts"), /\t/);
    await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
    await page.getByRole("status").getByText("Undone").waitFor();
    assert.equal(here("src/a.ts"), "export const a = 1;\n");
    assert.equal(fs.existsSync(path.join(workspace, "new.ts")), false);
  },
);

test(
  "a fork is adopted only if the person lets go of what the original changed, and the plan says so",
  { skip: SKIP },
  async (t) => {
    const { folder: workspace, fork } = shop;
    const { page, go } = await open(t, workspace, { expected: / 409 / });
    inFork("adopted.ts", "export {};\n");
    await go({ view: "adopt", workspace, fork, merges: false });
    const refusal = page
      .getByRole("note")
      .filter({ hasText: /^\d+ entr(y|ies) of this folder changed .* would be lost/ });
    await refusal.getByRole("link", { name: "Merge…" }).waitFor();
    assert.equal(await page.getByRole("alert").count(), 0);
    assert.equal(await page.getByRole("button", { name: "Try again" }).count(), 0);
    assert.doesNotMatch(await page.locator("main").innerText(), /--|`cairn/);
    assert.equal(await page.getByRole("button", { name: "Adopt", exact: true }).isEnabled(), false);
    assert.deepEqual(await violations(page), []);
    await refusal.getByRole("link", { name: "Compare" }).click();
    await page.getByRole("treeitem", { name: "total.ts" }).waitFor();
    await page.goBack();
    await page.getByRole("link", { name: "Cancel" }).click();
    await page.getByText("Adopt… makes this folder equal to a fork.").waitFor();
    await page.goBack();
    await page.getByLabel("also if this folder changed").check();
    await page.locator(".plan-row", { hasText: "total.ts" }).waitFor();
    await page.getByRole("button", { name: "Adopt", exact: true }).click();
    await page.getByRole("status").getByText("Adopted").waitFor();
    assert.doesNotMatch(here("src/total.ts"), /\t/);
    assert.equal(here("adopted.ts"), "export {};\n");
    const adopted = page.locator(".point-row", { hasText: "before the fork comes home" }).first();
    await adopted.getByText("from forks-fork", { exact: true }).waitFor();
    await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
    await page.getByRole("status").getByText("Undone").waitFor();
    assert.match(here("src/total.ts"), /\t/);
    // A plan that no longer holds is not done.
    await go({ view: "adopt", workspace, fork, merges: true });
    await page.locator(".plan-row", { hasText: "adopted.ts" }).waitFor();
    inFork("later.ts", "export {};\n");
    await page.getByRole("button", { name: "Merge", exact: true }).click();
    await page.getByRole("status").getByText("later.ts").waitFor();
    assert.equal(fs.existsSync(path.join(workspace, "later.ts")), false);
  },
);

test(
  "a fork with a hostile name is removed after the plan, its last state stays as a save point, and Undo makes it again",
  { skip: SKIP },
  async (t) => {
    const workspace = newFolder("fork-removal");
    const fork = path.join(newFolder("fork-removal-beside"), `try ${HTML}`);
    fs.writeFileSync(path.join(workspace, "a"), "one\n");
    fs.writeFileSync(path.join(workspace, ".cairnignore"), "*.log\n");
    cairnOk(["save", workspace, "-m", "first"]);
    cairnOk(["fork", "latest", fork, "-C", workspace]);
    fs.writeFileSync(path.join(fork, "b"), "only in the fork\n");
    fs.writeFileSync(path.join(fork, "x.log"), "ignored\n");
    const { page, go } = await open(t, workspace, { width: 360, height: 740, expected: / 409 / });
    await go({ view: "forks", workspace });
    await page.locator(".forks li").getByRole("img", { name: "1 added, 0 modified, 0 removed" }).waitFor();
    assert.deepEqual(await violations(page), []);
    await page.getByRole("button", { name: /^Remove / }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByRole("alert").getByText("x.log").waitFor();
    assert.deepEqual(await violations(page), []);
    await dialog.getByLabel("also what ignore rules leave out").check();
    await dialog.getByText("its 1 save point go").waitFor();
    await dialog.locator(".plan-names").getByText("b", { exact: true }).waitFor();
    assert.deepEqual(await violations(page), []);
    await dialog.getByRole("button", { name: "Remove the fork" }).click();
    await page.getByRole("status").getByText("The fork was removed").waitFor();
    await page.getByRole("heading", { name: "No fork yet" }).waitFor();
    assert.equal(fs.existsSync(fork), false);
    assert.equal(await page.evaluate("window.ran"), undefined);
    await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
    await page.getByRole("status").getByText("The fork is back").waitFor();
    assert.equal(fs.readFileSync(path.join(fork, "b"), "utf8"), "only in the fork\n");
    assert.equal(fs.readFileSync(path.join(fork, "x.log"), "utf8"), "ignored\n");
    await page.locator(".forks li", { hasText: HTML }).waitFor();
    assert.equal(await page.evaluate("window.ran"), undefined);
  },
);

test("a read-only page compares forks, and offers neither a merge nor a removal", { skip: SKIP }, async (t) => {
  const { folder: workspace, fork } = shop;
  const { page, go } = await open(t, workspace, { args: ["--read-only"] });
  await go({ view: "point", workspace, point: fork });
  await page.getByRole("treeitem", { name: "a.ts" }).waitFor();
  for (const name of [/^Merge/, /^Adopt/]) assert.equal(await page.getByRole("link", { name }).count(), 0);
  assert.equal(await page.getByRole("button", { name: /^Remove/ }).count(), 0);
  const before = cairnOk(["history", fork]).data["total"];
  await go({ view: "adopt", workspace, fork, merges: true });
  await page.getByRole("heading", { name: "This page is read-only" }).waitFor();
  assert.equal(cairnOk(["history", fork]).data["total"], before);
});
