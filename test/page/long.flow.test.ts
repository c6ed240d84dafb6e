import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import type { Page } from "playwright-core";
import type { Client } from "../../src/contract/index.ts";
import type { Route } from "../../web/src/app/address.ts";
import { cairnOk } from "../fixtures/command.ts";
import { firstOf } from "../fixtures/long.ts";
import { multiplyPoints } from "../fixtures/many-points.ts";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { backUp, newFolder } from "./shop.ts";

/** Long lines, long messages and long histories. */

const WIDTHS = firstOf([360, 1280, 2560], 2);
const MESSAGE = `${"A message that is longer than the heading. ".repeat(60)}\n${"and lines\n".repeat(40)}its end`;

const words = (from: string, to: string): string =>
  Array.from({ length: 6000 }, (_, i) => (i === 4000 ? from : i === 5000 ? to : `word${i}`)).join(";");
/** Content of each file before and after, and the texts that differ. */
const FILES: Readonly<Record<string, [before: string, after: string, marks: string[]]>> = {
  "bundle.min.js": [words("old1", "old2"), words("new1", "new2"), ["old1", "old2", "new1", "new2"]],
  "data.json": [`[${"7,".repeat(9000)}"old"]\n`, `[${"7,".repeat(9000)}"new"]\n`, ["old", "new"]],
  "solid.txt": ["x".repeat(50_000), `${"x".repeat(30_000)}y${"x".repeat(20_000)}`, ["y"]],
  "lengthened.txt": ["a".repeat(10), "a".repeat(90_000), []],
};

let folder: string;
let point: string;
before(() => {
  if (SKIP !== false) return;
  folder = newFolder("long");
  const save = (side: 0 | 1, message: string): string => {
    for (const [name, sides] of Object.entries(FILES)) fs.writeFileSync(path.join(folder, name), sides[side]);
    return (cairnOk(["save", folder, "-m", message]).data as { save_point: { save_point_id: string } }).save_point
      .save_point_id;
  };
  save(0, "before");
  point = save(1, MESSAGE);
});

async function isInWindow(page: Page, where: string): Promise<void> {
  const beyond = await page.evaluate(
    "[document.documentElement.scrollWidth - innerWidth, document.documentElement.scrollHeight - innerHeight]",
  );
  assert.deepEqual(beyond, [0, 0], where);
}

/** Waits for a condition. The page's own rules forbid `waitForFunction`, which evaluates text in it. */
async function until(page: Page, condition: string): Promise<void> {
  const frame = "await new Promise(requestAnimationFrame)";
  await page.evaluate(`(async () => { for (const end = performance.now() + 30000; !(${condition});) {
    if (performance.now() > end) throw new Error("it did not come true"); ${frame}; } })()`);
}

for (const width of WIDTHS)
  test(`long lines show their differences in the window, ${width} pixels wide`, { skip: SKIP }, async (t) => {
    const { page, go } = await open(t, folder, { width });
    for (const [name, [, , marks]] of Object.entries(FILES)) {
      await go({ view: "point", workspace: folder, point, file: { path: name } });
      await page.locator(".file-diff h2", { hasText: name }).waitFor();
      for (const columns of ["one", "two"]) {
        await page.locator(".text-diff [data-sign='+']").first().waitFor();
        assert.deepEqual(await page.locator(".text-diff mark").allTextContents(), marks, name);
        const shown = await page.locator(".text-diff").innerText();
        assert.ok(shown.length < 12_000, `${name}: ${shown.length} characters are shown`);
        const table = (await page.evaluate(
          "document.querySelector('.text-diff').scrollWidth - document.querySelector('.text-diff').clientWidth",
        )) as number;
        assert.equal(table, 0, name);
        await isInWindow(page, `${name} in ${columns}`);
        await page.getByRole("button", { name: "Side by side" }).click();
      }
      if (name !== "bundle.min.js") continue;
      assert.deepEqual(await violations(page), []);
      const shown = (await page.locator(".text-diff").innerText()).length;
      await page.getByRole("button", { name: "Show whole line" }).first().click();
      await until(page, `document.querySelector('.text-diff').innerText.length > ${shown} + 10000`);
      await isInWindow(page, "a whole line");
      await page.getByRole("button", { name: "Wrap lines" }).click();
      await until(
        page,
        "(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth)(document.querySelector('.text-diff'))",
      );
      await isInWindow(page, "a line that is not wrapped");
      await page.getByRole("button", { name: "Wrap lines" }).click();
    }
    const others: Record<string, Route> = {
      ".version": { view: "file-history", workspace: folder, at: { path: "solid.txt" } },
      ".point-row": { view: "timeline", workspace: folder },
      ".entry-row": { view: "files", workspace: folder, point, at: { path: "" } },
    };
    for (const [shown, route] of Object.entries(others)) {
      await go(route);
      await page.locator(shown).first().waitFor();
      await isInWindow(page, shown);
    }
    await page
      .getByRole("row", { name: /data\.json/ })
      .getByRole("link")
      .click();
    await page.locator(".preview-text").waitFor();
    await isInWindow(page, "a preview");
  });

test(
  "a long message in the heading is scrolled by arrow keys, which then open no other point",
  { skip: SKIP },
  async (t) => {
    const { page, go } = await open(t, folder);
    await go({ view: "point", workspace: folder, point });
    const message = page.getByRole("region", { name: "Message" });
    await message.focus();
    for (let i = 0; i < 3; i++) await page.keyboard.press("ArrowDown");
    await until(page, "document.querySelector('.point-words').scrollTop > 60");
    await page.keyboard.press("End");
    await until(
      page,
      "(({ scrollTop, clientHeight, scrollHeight }) => scrollTop + clientHeight >= scrollHeight - 1)(document.querySelector('.point-words'))",
    );
    assert.ok(page.url().includes(point));
    assert.deepEqual(await violations(page), []);
    // Elsewhere the keys move through the timeline as before.
    await page.locator("main").first().focus();
    await page.keyboard.press("ArrowDown");
    await page.getByRole("heading", { name: "before", exact: true }).waitFor();
  },
);

test("any of hundreds of save points can be found in the timeline and compared", { skip: SKIP }, async (t) => {
  const many = newFolder("many");
  fs.writeFileSync(path.join(many, "a"), "1\n");
  cairnOk(["save", many, "-m", "the first", "-t", "start"]);
  fs.writeFileSync(path.join(many, "b"), "1\n");
  cairnOk(["save", many, "-m", "turn 2"]);
  multiplyPoints({ workspace: { path: many } } as Client, { count: 700 });
  const { page } = await open(t, many);
  await page.locator(".point-row").first().waitFor();
  await page.getByRole("searchbox", { name: "Filter", exact: true }).fill("TURN 123");
  await page.locator(".point-row", { hasText: "turn 123" }).click();
  await page.getByRole("heading", { name: "turn 123" }).waitFor();
  await page.getByRole("button", { name: "another point…" }).click();
  const dialog = page.getByRole("dialog", { name: "Compare with another save point" });
  await dialog.getByRole("button", { name: /turn 700/ }).waitFor();
  // The last backup stands first.
  assert.equal(await dialog.locator("li").count(), 101);
  await dialog.getByRole("button", { name: "Show more" }).click();
  await dialog.getByRole("button", { name: /turn 300/ }).waitFor();
  assert.deepEqual(await violations(page), []);
  await dialog.getByRole("searchbox").fill("tag:start");
  await dialog.getByRole("button", { name: /turn 700/ }).waitFor({ state: "detached" });
  await dialog.getByRole("button", { name: /the first/ }).click();
  await page.getByRole("button", { name: /the first/, pressed: true }).waitFor();
  await page.getByText("Nothing differs").waitFor();
});

test("the timeline stays at a backup that is opened, left and opened again", { skip: SKIP }, async (t) => {
  const workspace = newFolder("many-and-backup");
  for (const name of ["a", "b"]) {
    fs.writeFileSync(path.join(workspace, name), "1\n");
    cairnOk(["save", workspace, "-m", name]);
  }
  multiplyPoints({ workspace: { path: workspace } } as Client, { count: 160 });
  const idOf = (turn: number): string => turn.toString(16).padStart(8, "0").padEnd(32, "5eed");
  const snapshot = backUp({ folder: workspace }, idOf(80));
  const { page, go } = await open(t, workspace);
  const list = page.getByRole("list", { name: "Save points" });
  const top = async (): Promise<number> => list.evaluate((box) => box.scrollTop);
  const row = page.locator(".backup-row");
  const isInView = async (): Promise<void> =>
    until(page, "document.querySelector('.backup-row')?.getBoundingClientRect().bottom <= innerHeight + 1");
  await page.getByLabel("backups").check();
  await page.getByLabel("backups (1 shown)").waitFor();
  await page.locator(".point-row", { hasText: "turn 159" }).getByRole("link").click();
  await page.getByRole("heading", { name: "turn 159" }).waitFor();
  // Another point is opened by its address.
  await go({ view: "point", workspace, point: idOf(75) });
  await page.locator(".point-row[data-active='true']", { hasText: "turn 75" }).waitFor();
  const before = await top();
  assert.ok(before > 3000);
  await row.getByRole("link").click();
  await page.locator(".backup-row[data-active='true']").waitFor();
  assert.equal(await top(), before);
  await page.keyboard.press("j");
  await page.getByRole("heading", { name: "turn 80" }).waitFor();
  await go({ view: "point", workspace, point: `backup:${snapshot}` });
  await page.reload();
  await row.waitFor();
  await isInView();
  // A narrow window shows the timeline or the backup.
  await page.setViewportSize({ width: 360, height: 740 });
  await page.locator(".backup-row").waitFor({ state: "detached" });
  await page.getByRole("link", { name: "Timeline", exact: true }).click();
  await isInView();
});

test("*here* says that a part changed after a restore of one file, until its undo", { skip: SKIP }, async (t) => {
  const own = newFolder("in-part");
  for (const content of ["1", "2"]) {
    for (const name of ["a", "b"]) fs.writeFileSync(path.join(own, name), content);
    cairnOk(["save", own, "-m", `state ${content}`]);
  }
  const { page } = await open(t, own);
  const row = page.locator(".point-row", { hasText: "state 2" });
  const here = row.getByText("here", { exact: true });
  const changed = row.getByText("here, changed");
  await here.waitFor();
  cairnOk(["restore", "head~1", "a", "-C", own]);
  await page.getByRole("button", { name: "Undo" }).waitFor();
  await changed.waitFor();
  assert.equal(await page.getByText("here", { exact: true }).count(), 0);
  cairnOk(["undo", "-C", own]);
  await here.waitFor();
  cairnOk(["restore", "head~1", "a", "-C", own]);
  await changed.waitFor();
  cairnOk(["save", own, "-m", "state 3"]);
  await page.locator(".point-row", { hasText: "state 3" }).getByText("here", { exact: true }).waitFor();
});
