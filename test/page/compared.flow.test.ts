import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { makeShop } from "./shop.ts";

/** Whether a view says what is compared, and is of no use while it still shows something else. */

test(
  "a view names what is compared, and cannot be used while it shows the former selection",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("compared");
    shop.write("src/a.ts", "export const a = 2;\n");
    fs.utimesSync(path.join(shop.folder, "docs"), 1, 1);
    const { page, go } = await open(t, shop.folder);
    const head = page.locator(".point-head");
    await page.locator(".now-words").click();
    await page.getByRole("heading", { name: "Now, since tabs" }).waitFor();
    await head.getByText("What changed in the folder since the save point of").waitFor();
    // The point's own actions would act on the point.
    for (const name of ["Restore…", "Fork…", "Pin", "Tags"])
      assert.equal(await head.getByRole("button", { name, exact: true }).count(), 0, name);
    await page.getByText("1 entry and the times of 1 folder").waitFor();
    await page.locator(".take-back").getByRole("link", { name: "1 entry…" }).waitFor();
    await page.getByText("the times of 1 folder stay").waitFor();
    assert.deepEqual(await violations(page), []);

    await page.getByRole("button", { name: "Save…" }).click();
    await page.getByRole("dialog").getByLabel("Message").fill("saved on the page");
    await page.getByRole("dialog").getByRole("button", { name: "Save", exact: true }).click();
    await page.getByRole("heading", { name: "saved on the page" }).waitFor();
    await head.getByRole("button", { name: "Restore…" }).waitFor();

    // The next point loads for as long as the test wants.
    const held = Promise.withResolvers<void>();
    await page.route("**/v1/show", async (route) => {
      await held.promise;
      await route.continue();
    });
    await go({ view: "point", workspace: shop.folder, point: shop.ids["write two files"]! });
    await page.locator("[aria-busy='true'] .point-head").waitFor();
    assert.equal(await page.locator("[inert] .point-actions").count(), 1);
    assert.equal(await page.locator(".changed[inert]").count(), 1);
    held.resolve();
    await page.getByRole("heading", { name: "write two files" }).waitFor();
    assert.equal(await page.locator("[inert]").count(), 0);

    await go({
      view: "point",
      workspace: shop.folder,
      point: shop.ids["a shell command"]!,
      to: shop.ids["the template"]!,
    });
    const other = page.getByRole("button", { name: "the template", pressed: true });
    await other.waitFor();
    const name = other.locator(".name");
    assert.ok(await name.evaluate((each) => each.scrollWidth <= each.clientWidth), "the name is not cut off");
    assert.equal(await page.getByText("with a note").count(), 0, "a database that was captured whole needs no note");
  },
);

test(
  "after a restore and an undo on the page, the pane shows nothing of the former comparison as if it were true",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("stale");
    shop.write("docs/readme.md", "# Other shop\n");
    shop.write("src/a.ts", "export const a = 2;\n");
    const head = shop.ids["tabs"]!;
    const { page, go } = await open(t, shop.folder, { expected: /404/ });
    await page.getByText("1 changed, 1 new, not saved").waitFor();
    await go({ view: "point", workspace: shop.folder, point: head, to: "now", file: { path: "docs/readme.md" } });
    await page.locator(".file-diff").getByText("# Other shop").waitFor();
    const hold = async (call: string): Promise<() => void> => {
      const held = Promise.withResolvers<void>();
      await page.route(`**/v1/${call}`, async (route) => {
        await held.promise;
        await route.continue();
      });
      return held.resolve;
    };
    await page.locator(".take-back").getByRole("link", { name: "This file…" }).click();
    await page.getByRole("checkbox", { name: "Restore docs/readme.md" }).waitFor();
    const release = await hold("diff");
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    await page
      .getByRole("status")
      .getByText(/^(Restored|Taken back)/)
      .waitFor();
    await page.waitForURL(/#\/timeline/);
    await page.waitForTimeout(1_000);
    assert.equal(await page.getByRole("alert").count(), 0, "no error of a file that was taken back");
    assert.equal(await page.locator(".point .changed:not([inert])").count(), 0);
    release();
    await page.locator(".file-diff").getByText("src/a.ts").waitFor();

    const releaseStatus = await hold("status");
    await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
    await page.getByRole("status").getByText("Undone").waitFor();
    assert.equal(await page.locator(".now-row:not([inert])").count(), 0, "the former count is no answer");
    releaseStatus();
    await page.getByText("1 changed, 1 new, not saved").waitFor();
    await page.locator(".changed-sums").getByText("2 entries").waitFor();
    assert.equal(await page.getByRole("alert").count(), 0);

    // The selected file stays selected by a save.
    await go({ view: "point", workspace: shop.folder, point: head, to: "now", file: { path: "src/a.ts" } });
    await page.locator(".file-diff").getByText("src/a.ts").waitFor();
    await page.getByRole("button", { name: "Save…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Save", exact: true }).click();
    await page.getByText("Everything is saved").waitFor();
    assert.match(page.url(), /file=src%2Fa\.ts/);
  },
);
