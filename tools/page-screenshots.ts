import { mkdirSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { TestContext } from "node:test";
import { SCRATCH } from "../test/fixtures/command.ts";
import { open, SKIP } from "../test/page/browser.ts";
import { backUp, makeShop } from "../test/page/shop.ts";
import type { Route } from "../web/src/app/address.ts";

/** Takes the screenshots of docs/ui.md in both themes in Debian's chromium: `tools/with-node node tools/page-screenshots.ts [FOLDER]`. */

const OUT = path.resolve(process.argv[2] ?? path.join(import.meta.dirname, "../docs/ui"));
const MOST_BYTES = 150_000;

interface Shot {
  route: Route;
  /** Selector of the element for which the picture waits. */
  shown: string;
  /** Text of an entry to click first. */
  click?: string;
}

if (SKIP !== false) throw new Error(SKIP);
// A name that readers understand, and that no other folder has.
const workspace = path.join(tmpdir(), "webshop");
mkdirSync(workspace);
process.on("exit", () => {
  for (const folder of [workspace, `${workspace}-fork`]) rmSync(folder, { recursive: true, force: true });
});
const shop = makeShop(path.relative(SCRATCH, workspace));
const { ids } = shop;
backUp(shop, "latest");
const shell = ids["a shell command"]!;
const shots: Record<string, Shot> = {
  overview: { route: { view: "workspaces" }, shown: "text=Everything is saved" },
  timeline: { route: { view: "timeline", workspace }, shown: ".split:has(.lane-name) .text-diff" },
  changes: {
    route: { view: "point", workspace, point: ids["edit the total"]!, file: { path: "src/total.ts" } },
    shown: ".text-diff mark",
  },
  database: {
    route: { view: "point", workspace, point: shell, file: { path: "data/shop.db" } },
    shown: ".rows",
  },
  files: {
    route: { view: "files", workspace, point: ids["tabs"]!, at: { path: "src" } },
    shown: ".preview-text",
    click: "total.ts",
  },
  restore: {
    route: { view: "restore", workspace, point: ids["the template"]!, paths: [] },
    shown: ".plan-row",
  },
};

mkdirSync(OUT, { recursive: true });
let close = (): Promise<void> => Promise.resolve();
for (const theme of ["light", "dark"] as const) {
  const ending: (() => unknown)[] = [];
  const during = { passed: true, after: (end: () => unknown) => ending.push(end) } as unknown as TestContext;
  const { page, go, context } = await open(during, workspace, { theme });
  for (const [name, shot] of Object.entries(shots)) {
    await go(shot.route);
    if (shot.click !== undefined) await page.locator(".entry-name", { hasText: shot.click }).getByRole("link").click();
    await page.locator(shot.shown).first().waitFor();
    const file = path.join(OUT, `${name}-${theme}.png`);
    await page.screenshot({ path: file });
    const { size } = statSync(file);
    if (size > MOST_BYTES) throw new Error(`${file} has ${size} bytes, more than ${MOST_BYTES}`);
    console.log(`${file} (${size} bytes)`);
  }
  const browser = context.browser()!;
  close = () => browser.close();
  for (const end of ending) await end();
}
await close();
