import assert from "node:assert/strict";
import { test } from "node:test";
import { violations } from "./axe.ts";
import { cairnOk } from "../fixtures/command.ts";
import { open, SKIP } from "./browser.ts";
import { makeShop } from "./shop.ts";

/** How long the result of an action is shown, and where. */

test("a notice covers nothing, and leaves when it is no longer of use", { skip: SKIP }, async (t) => {
  const shop = makeShop("notices");
  const { page, go } = await open(t, shop.folder, { height: 620 });
  const notice = page.locator(".outcome");
  const restore = async (point: string): Promise<void> => {
    await go({ view: "restore", workspace: shop.folder, point: shop.ids[point]!, paths: [] });
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    await notice.getByText(/^(Restored|Taken back)/).waitFor();
  };
  await restore("a shell command");
  await page.waitForURL(/#\/timeline/);
  await page.locator(".point-row", { hasText: "write two files" }).click();
  await page.locator(".take-back a").first().click({ trial: true });
  const [main, bar] = [await page.locator("main").boundingBox(), await notice.boundingBox()];
  assert.ok(main!.y + main!.height <= bar!.y, "the notice has a place of its own");
  assert.deepEqual(await violations(page), []);
  await notice.getByRole("button", { name: "Undo" }).waitFor();
  // The second other view.
  await page.getByRole("link", { name: "Search", exact: true }).click();
  await notice.waitFor({ state: "hidden" });
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByRole("button", { name: "Undo…", exact: true }).waitFor();

  await restore("write two files");
  shop.write("src/a.ts", "later\n");
  cairnOk(["save", shop.folder, "-m", "later"]);
  await page.locator(".point-row", { hasText: "later" }).waitFor();
  await notice.waitFor({ state: "hidden" });

  shop.write("src/a.ts", "unsaved\n");
  await page.getByRole("button", { name: "Save…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Save", exact: true }).click();
  await notice.getByText("Saved.").waitFor();
  await notice.waitFor({ state: "hidden" });
});
