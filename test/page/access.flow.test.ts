import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import type { Route } from "../../web/src/app/address.ts";
import { firstOf } from "../fixtures/long.ts";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { backUp, makeShop, type Shop } from "./shop.ts";

/** Every view is usable by everybody: axe finds nothing in both themes, and nothing is wider than a telephone. */

let shop: Shop;
let backup = "";
before(() => {
  if (SKIP !== false) return;
  shop = makeShop("access");
  fs.writeFileSync(path.join(shop.fork, "src/a.ts"), "export const a = 2;\n");
  backup = `backup:${backUp(shop, shop.ids["write two files"]!)}`;
});

function views({ folder: workspace, fork, ids }: Shop): Record<string, { route: Route; shown: string }> {
  const point = ids["edit the total"]!;
  const shell = ids["a shell command"]!;
  const file = (path: string): Route => ({ view: "point", workspace, point: shell, file: { path } });
  return {
    workspaces: { route: { view: "workspaces" }, shown: ".workspace" },
    timeline: { route: { view: "timeline", workspace }, shown: ".point-row" },
    text: { route: { view: "point", workspace, point, file: { path: "src/total.ts" } }, shown: ".text-diff mark" },
    picture: { route: file("img/logo.png"), shown: ".images img" },
    database: { route: file("data/shop.db"), shown: ".rows" },
    binary: { route: file("blob.bin"), shown: ".sides" },
    files: { route: { view: "files", workspace, point: shell, at: { path: "src" } }, shown: ".entry-name a" },
    history: { route: { view: "file-history", workspace, at: { path: "src/total.ts" } }, shown: ".text-diff" },
    search: { route: { view: "search", workspace, q: "ts" }, shown: ".found" },
    forks: { route: { view: "forks", workspace }, shown: ".forks .counts" },
    fork: { route: { view: "point", workspace, point: fork }, shown: ".text-diff mark" },
    merge: { route: { view: "adopt", workspace, fork, merges: true }, shown: ".plan-row" },
    "adopt refused": { route: { view: "adopt", workspace, fork, merges: false }, shown: ".note[role=note]" },
    activity: { route: { view: "activity", workspace }, shown: ".activity-list li" },
    backup: { route: { view: "point", workspace, point: backup }, shown: ".tree-row" },
    "from backup": { route: { view: "restore", workspace, point: backup, paths: [] }, shown: ".plan-row" },
    restore: { route: { view: "restore", workspace, point, paths: [] }, shown: ".plan-row" },
  };
}

/** The first two have both themes, a wide and a narrow window. */
const WINDOWS = [
  ["light", 1280, 800],
  ["dark", 360, 740],
  ["light", 2560, 1440],
  ["dark", 1280, 800],
  ["light", 360, 740],
  ["dark", 2560, 1440],
] as const;
for (const [theme, width, height] of firstOf(WINDOWS, 2))
  test(
    `axe finds no problem in any view, ${theme} at ${width} pixels, and no view is wider than the window`,
    { skip: SKIP },
    async (t) => {
      const { page, go } = await open(t, shop.folder, { theme, width, height, expected: / 409 / });
      const all: Record<string, string[]> = {};
      for (const [name, { route, shown }] of Object.entries(views(shop))) {
        await go(route);
        await page.locator(shown).first().waitFor({ state: "attached" });
        const found = await violations(page);
        const wide = (await page.evaluate("document.documentElement.scrollWidth - innerWidth")) as number;
        if (wide > 0) found.push(`${wide} pixels wider than the window`);
        if (found.length > 0) all[name] = found;
      }
      assert.deepEqual(all, {});
    },
  );

test("axe finds no problem in dialogs, in an empty list and in the sign-in", { skip: SKIP }, async (t) => {
  const { page, go, context, origin } = await open(t, shop.folder);
  await page.locator(".point-row").first().waitFor();
  await page.keyboard.press("?");
  await page.getByRole("dialog").waitFor();
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press("Escape");
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Command" }).waitFor();
  assert.deepEqual(await violations(page), []);
  await page.keyboard.press("Escape");
  await page.getByLabel("backups").check();
  await page.locator(".backup-row").waitFor();
  assert.deepEqual(await violations(page), []);
  await go({ view: "timeline", workspace: shop.folder, q: "nothing has this" });
  await page.getByText("Nothing fits this filter").waitFor();
  assert.deepEqual(await violations(page), []);
  await page.close();
  const other = await context.newPage();
  await other.goto(origin);
  await other.getByRole("heading", { name: "Cairn" }).waitFor();
  assert.deepEqual(await violations(other), []);
});
