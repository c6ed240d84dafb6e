import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, cairnOk } from "../fixtures/command.ts";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { backUp, makeShop, newFolder, unzipped } from "./shop.ts";

/** What people come to the page for, from its beginning to the folder on disk. */

const read = (folder: string, name: string): string => fs.readFileSync(path.join(folder, name), "utf8");

test("a user finds an earlier version of a file by its name and restores the file", { skip: SKIP }, async (t) => {
  const shop = makeShop("version");
  shop.write("src/total.ts", "broken\n");
  shop.save("broken");
  const { page } = await open(t, shop.folder);
  await page.getByRole("link", { name: "Search", exact: true }).click();
  await page.getByRole("searchbox", { name: "Names in all save points" }).fill("total");
  await page.getByRole("option", { name: /total\.ts/ }).click();
  const version = page.locator(".version", { hasText: "edit the total" });
  await version.getByRole("link", { name: "Restore…" }).click();
  await page.getByText("1 changed").waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^(Restored|Taken back)/)
    .waitFor();
  assert.match(read(shop.folder, "src/total.ts"), /1\.19/);
  assert.equal(read(shop.folder, "src/a.ts"), "export const a = 1;\n");
});

test("a user undoes a restore with one button", { skip: SKIP }, async (t) => {
  const shop = makeShop("undone");
  const before = cairnOk(["status", "-C", shop.folder]).data;
  const { page, go } = await open(t, shop.folder);
  await go({ view: "restore", workspace: shop.folder, point: shop.ids["the template"]!, paths: [] });
  await page
    .getByText(/created/)
    .first()
    .waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  const bar = page.getByRole("status").filter({ hasText: "Restored" });
  await bar.waitFor();
  assert.equal(fs.existsSync(path.join(shop.folder, "src/a.ts")), false);
  assert.equal(read(shop.folder, "docs/readme.md"), "# Shop\n");
  await bar.getByRole("button", { name: "Undo" }).click();
  await page.getByRole("status").getByText("Undone").waitFor();
  assert.equal(read(shop.folder, "src/a.ts"), "export const a = 1;\n");
  assert.equal(fs.existsSync(path.join(shop.folder, "docs/readme.md")), false);
  const after = cairnOk(["status", "-C", shop.folder]).data;
  assert.deepEqual([after["clean"], after["head"]], [before["clean"], before["head"]]);
});

test("a user sees the changes of one turn of an agent, and undoes only these changes", { skip: SKIP }, async (t) => {
  const shop = makeShop("turn");
  shop.write("notes.md", "of the person\n");
  shop.save("notes by hand");
  const { page } = await open(t, shop.folder);
  await page.locator(".point-row", { hasText: "write two files" }).click();
  await page.getByRole("button", { name: "before turn 1" }).click();
  for (const name of [/a\.ts/, /b\.ts/, /total\.ts/]) await page.getByRole("treeitem", { name }).waitFor();
  assert.equal(await page.getByRole("treeitem", { name: /shop\.db/ }).count(), 0);
  await page.locator(".take-back").getByRole("link").first().click();
  // A folder that was there before and after is none of the paths: all below it would be taken back.
  assert.equal(new URL(page.url()).hash.includes("path=src&"), false);
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^(Restored|Taken back)/)
    .waitFor();
  assert.doesNotMatch(read(shop.folder, "src/total.ts"), /1\.19/);
  assert.equal(fs.existsSync(path.join(shop.folder, "src/a.ts")), false);
  assert.equal(fs.existsSync(path.join(shop.folder, "src/deep/er/b.ts")), false);
  // What came before and after the turn stays.
  assert.equal(read(shop.folder, "notes.md"), "of the person\n");
  assert.equal(fs.existsSync(path.join(shop.folder, "docs/readme.md")), false);
  assert.deepEqual([...fs.readFileSync(path.join(shop.folder, "blob.bin"))], [0, 1, 2, 4, 5]);
});

test("a user restores two chosen files, and a whole point into another folder", { skip: SKIP }, async (t) => {
  const shop = makeShop("two");
  for (const name of ["a.ts", "total.ts"]) fs.rmSync(path.join(shop.folder, "src", name));
  const { page, go } = await open(t, shop.folder);
  await go({ view: "files", workspace: shop.folder, point: "latest", at: { path: "src" } });
  for (const name of ["choose a.ts", "choose total.ts"]) await page.getByRole("checkbox", { name }).check();
  await page.getByRole("link", { name: "Restore…" }).click();
  await page.getByRole("heading", { name: "Restore 2 paths" }).waitFor();
  await page.getByText("2 created").waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^(Restored|Taken back)/)
    .waitFor();
  assert.equal(read(shop.folder, "src/a.ts"), "export const a = 1;\n");
  assert.match(read(shop.folder, "src/total.ts"), /1\.19/);

  const other = path.join(newFolder("elsewhere"), "copy");
  await go({ view: "restore", workspace: shop.folder, point: shop.ids["the template"]!, paths: [] });
  await page.getByRole("button", { name: "Into another folder" }).click();
  await page.getByLabel("Folder, absent or empty").fill(other);
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page.getByRole("status").getByText(other).waitFor();
  assert.equal(read(other, "docs/readme.md"), "# Shop\n");
  assert.equal(fs.existsSync(path.join(shop.folder, "docs/readme.md")), false);
});

test("a user downloads a folder with all its files as a zip archive", { skip: SKIP }, async (t) => {
  const shop = makeShop("download");
  const { page } = await open(t, shop.folder);
  await page.getByRole("link", { name: "Files", exact: true }).click();
  await page.getByRole("row", { name: /src/ }).getByRole("link").click();
  await page.getByRole("row", { name: /total/ }).waitFor();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Zip" }).click(),
  ]);
  assert.equal(download.suggestedFilename(), "src.zip");
  const files = unzipped(await download.path());
  assert.deepEqual(Object.keys(files).toSorted(), ["src/a.ts", "src/deep/er/b.ts", "src/total.ts"]);
  for (const [name, content] of Object.entries(files)) assert.equal(content, read(shop.folder, name));
});

test("the page shows the error of the API, and a failed restore changes nothing", { skip: SKIP }, async (t) => {
  const shop = makeShop("error");
  const { page, go } = await open(t, shop.folder, { expected: / 409 \(Conflict\)$/ });
  await go({ view: "restore", workspace: shop.folder, point: shop.ids["the template"]!, paths: [] });
  await page.getByRole("button", { name: "Into another folder" }).click();
  await page.getByLabel("Folder, absent or empty").fill(shop.folder);
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page.getByRole("alert").getByText(shop.folder).waitFor();
  assert.equal(fs.existsSync(path.join(shop.folder, "docs/readme.md")), false);
});

test("a user sees what is not saved, saves it, and takes later changes back", { skip: SKIP }, async (t) => {
  const shop = makeShop("now");
  shop.write("src/a.ts", "export const a = 2;\n");
  const { page } = await open(t, shop.folder);
  const row = page.locator(".now-row");
  await row.getByText("1 changed, not saved").waitFor();
  // The view beside the timeline shows the change at once.
  await page.getByRole("treeitem", { name: /a\.ts/ }).waitFor();
  await page.getByText("export const a = 2;").waitFor();
  shop.write("src/new.ts", "new\n");
  await row.getByText("1 new").waitFor();
  await page.getByRole("treeitem", { name: /new\.ts/ }).waitFor();
  await row.getByRole("button", { name: "Save…" }).click();
  const dialog = page.getByRole("dialog", { name: "Save" });
  await dialog.getByLabel("Message").fill("two changes");
  await dialog.getByLabel("Tags").fill("one, two");
  await dialog.getByRole("button", { name: "Save", exact: true }).click();
  await row.getByText("Everything is saved").waitFor();
  await page.locator(".point-row", { hasText: "two changes" }).waitFor();
  const [saved] = cairnOk(["-C", shop.folder, "history"]).data["save_points"] as { message: string; tags: string[] }[];
  assert.deepEqual([saved!.message, saved!.tags], ["two changes", ["one", "two"]]);

  shop.write("src/a.ts", "broken\n");
  fs.rmSync(path.join(shop.folder, "src/new.ts"));
  await row.getByText("1 removed").waitFor();
  await row.getByRole("link", { name: "Take back…" }).click();
  await page.getByText("1 created").waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^(Restored|Taken back)/)
    .waitFor();
  await row.getByText("Everything is saved").waitFor();
  assert.equal(read(shop.folder, "src/a.ts"), "export const a = 2;\n");
  assert.equal(read(shop.folder, "src/new.ts"), "new\n");
});

test("a user reads what an agent's turn did, and rewinds to before it", { skip: SKIP }, async (t) => {
  const shop = makeShop("turns");
  const turn = (number: string, prompt: string, work: () => void): void => {
    const file = path.join(newFolder(`prompt-${number}`), "prompt.txt");
    fs.writeFileSync(file, prompt);
    // Each hook is a process of its own: its time counts from the start of the process.
    const hook = (...args: string[]): void => {
      const words = ["agent", "hook", "mine", "--session", "5e1f", "-C", shop.folder, "--verbose", ...args];
      const done = spawnSync(process.execPath, [buildCommand(), ...words]);
      assert.equal(done.status, 0, done.stderr.toString());
    };
    hook("--event", "before", "--prompt-file", file);
    work();
    hook("--event", "after");
  };
  turn("1", "rename the total\nand tell me why", () => shop.write("src/total.ts", "renamed\n"));
  shop.write("src/both.ts", "of a person\n");
  turn("2", "add a file", () => {
    shop.write("src/more.ts", "more\n");
    shop.write("src/both.ts", "of the agent\n");
  });
  const { page, go } = await open(t, shop.folder);
  await go({ view: "file-history", workspace: shop.folder, at: { path: "src/more.ts" } });
  await page.locator(".version").getByRole("link", { name: "add a file", exact: true }).waitFor();
  await page.locator(".versions-diff .preview-text", { hasText: "more" }).waitFor();
  // The first hook of a turn saves what a person wrote before it.
  await go({ view: "file-history", workspace: shop.folder, at: { path: "src/both.ts" } });
  await page.locator(".version").getByRole("link", { name: "add a file", exact: true }).waitFor();
  await page.locator(".version").nth(1).waitFor();
  assert.equal(await page.locator(".version-turn").count(), 1);
  await go({ view: "timeline", workspace: shop.folder });
  const row = page.locator(".turn-row", { hasText: "rename the total" });
  await row.getByText("1 changed").waitFor();
  await page.locator(".turn-row", { hasText: "add a file" }).waitFor();
  await row.getByRole("button", { name: /rename the total/ }).click();
  const dialog = page.getByRole("dialog", { name: "Turn" });
  await dialog.getByText("and tell me why").waitFor();
  await dialog.getByText("total.ts").waitFor();
  await dialog.getByRole("link", { name: "Rewind…" }).click();
  await page.getByRole("heading", { name: "Rewind to before a turn" }).waitFor();
  await page.getByText("1 removed").waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^(Restored|Taken back)/)
    .waitFor();
  assert.match(read(shop.folder, "src/total.ts"), /1\.19/);
  assert.equal(fs.existsSync(path.join(shop.folder, "src/more.ts")), false);
  assert.equal(read(shop.folder, "src/both.ts"), "of a person\n");
  await page.locator(".turn-row", { hasText: "rename the total" }).getByText("taken back").waitFor();
  await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
  await page.getByRole("status").getByText("Undone").waitFor();
  assert.equal(read(shop.folder, "src/total.ts"), "renamed\n");
});

test("a user undoes two operations at once, and removes what a cleanup's plan names", { skip: SKIP }, async (t) => {
  const shop = makeShop("activity");
  const before = read(shop.folder, "src/total.ts");
  cairnOk(["-C", shop.folder, "restore", shop.ids["the template"]!, "src/total.ts"]);
  fs.rmSync(path.join(shop.folder, "src/a.ts"));
  cairnOk(["save", shop.folder, "-m", "without a"]);
  cairnOk(["-C", shop.folder, "restore", shop.ids["tabs"]!, "src/a.ts"]);
  const { page } = await open(t, shop.folder);
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  const list = page.getByRole("list", { name: "Operations", exact: true });
  const row = list.getByRole("listitem").filter({ hasText: /^Restore .*src\/total\.ts/ });
  const restored = read(shop.folder, "src/total.ts");
  const undoBoth = async (): Promise<void> => {
    await row.getByRole("button", { name: "Undo to before this…" }).click();
    const dialog = page.getByRole("dialog", { name: "Undo 2 operations" });
    await dialog.locator(".plan-row", { hasText: "src/a.ts" }).waitFor();
    assert.equal(await dialog.getByRole("list", { name: "Operations to undo" }).getByRole("listitem").count(), 2);
    assert.equal(read(shop.folder, "src/total.ts"), restored, "only the plan was shown");
    assert.deepEqual(await violations(page), []);
    await dialog.getByRole("button", { name: "Undo 2 operations" }).click();
    await page.getByRole("status").getByText("2 operations undone").waitFor();
    assert.equal(fs.existsSync(path.join(shop.folder, "src/a.ts")), false);
    assert.equal(read(shop.folder, "src/total.ts"), before);
  };
  await undoBoth();
  await row.getByText("src/total.ts undone").waitFor();
  assert.equal(await row.getByRole("button").count(), 0);
  await page.getByRole("status").getByRole("button", { name: "Redo" }).click();
  await page.getByRole("status").getByText("2 operations brought back").waitFor();
  assert.equal(read(shop.folder, "src/total.ts"), restored);
  await undoBoth();
  // The list may not show the second undo yet.
  await row.getByText("src/total.ts undone").waitFor();
  await list.getByRole("button", { name: "Redo…" }).click();
  await page.getByRole("dialog", { name: "Redo" }).locator(".plan-row", { hasText: "src/total.ts" }).waitFor();
  await page.keyboard.press("Escape");
  const events = page.getByRole("list", { name: "Events" });
  await events.getByText("Done again", { exact: true }).first().waitFor();
  await events.getByText("Undone", { exact: true }).first().waitFor();
  await row.getByRole("link", { name: "The state before" }).click();
  await page.getByText("before a restore", { exact: true }).waitFor();
  await page.getByRole("link", { name: "Activity", exact: true }).click();

  await page.getByRole("button", { name: "What would a cleanup remove?" }).click();
  await page.getByText(/would remove no save point, and free 0 B; \d+ save points stay/).waitFor();
  await page.getByText("No rules are set, so every save point is kept").waitFor();
  cairnOk(["-C", shop.folder, "cleanup", "policy", "--keep-last", "1"]);
  await page.reload();
  await page.getByRole("button", { name: "What would a cleanup remove?" }).click();
  await page.getByText("The rules of this folder: keep last 1").waitFor();
  await page.locator(".activity-list li", { hasText: "edit the total" }).waitFor();
  await page.getByRole("button", { name: /Remove .* for good/ }).click();
  await page
    .getByRole("status")
    .getByText(/save points? removed/)
    .waitFor();
  assert.match(await page.evaluate<string>("document.activeElement.textContent"), /removed/, "the place stays free");
  const left = cairnOk(["-C", shop.folder, "history"]).data["save_points"] as { message: string }[];
  const messages = left.map(({ message }) => message);
  // Pinned and tagged points stay by the rules of the command, too.
  assert.equal(messages.includes("edit the total"), false);
  assert.ok(messages.includes("without a"));
});

test("a user finds a backup in the timeline, and restores two of its files", { skip: SKIP }, async (t) => {
  const shop = makeShop("from-backup");
  const id = backUp(shop, shop.ids["write two files"]!);
  shop.write("src/a.ts", "spoiled\n");
  const { page, go } = await open(t, shop.folder);
  await page.locator(".point-row", { hasText: "tabs" }).waitFor();
  assert.equal(await page.locator(".backup-row").count(), 0, "the first view asks no repository");
  await page.getByLabel("backups").check();
  await page.getByLabel("backups (1 shown)").waitFor();
  const filter = page.getByRole("searchbox", { name: "Filter", exact: true });
  await filter.fill("backup");
  await page.locator(".point-row", { hasText: "tabs" }).waitFor({ state: "detached" });
  await page.locator(".backup-row").waitFor();
  await filter.fill("");
  await page.locator(".point-row", { hasText: "tabs" }).waitFor();
  const row = page.locator(".backup-row", { hasText: id.slice(0, 8) });
  await row.waitFor();
  const rows = await page.locator(".point-row .point-message").allTextContents();
  const at = rows.findIndex((text) => text.includes("Backup"));
  assert.match(rows[at + 1]!, /write two files/, "the backup stands above the point that it holds");
  await row.getByRole("link").click();
  await page.getByRole("heading", { name: "and what changed in the folder since" }).waitFor();
  await page.getByRole("button", { name: "the folder now", pressed: true }).waitFor();
  await page.locator(".facts.faint", { hasText: `backup:${id.slice(0, 8)}` }).waitFor();
  await page.getByRole("treeitem", { name: /readme\.md/ }).waitFor();
  // Backups stay in the list, and in its address.
  await page.keyboard.press("Escape");
  await page.waitForURL(/#\/timeline.*backups=1/);
  await page.reload();
  await row.getByRole("link").click();
  await page.getByRole("treeitem", { name: /readme\.md/ }).waitFor();
  await page.getByRole("link", { name: "Files", exact: true }).last().click();
  await page.getByLabel("Files").getByRole("link", { name: "src" }).click();
  await page.getByRole("checkbox", { name: /a\.ts/ }).check();
  await page.getByRole("checkbox", { name: /total\.ts/ }).check();
  await page.getByRole("link", { name: "Restore…" }).click();
  await page.getByRole("heading", { name: "Restore 2 paths" }).waitFor();
  await page.getByText("2 changed").waitFor();
  await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
  const status = page.getByRole("status");
  await status.getByText(/^(Restored|Taken back)/).waitFor();
  assert.equal(read(shop.folder, "src/a.ts"), "export const a = 1;\n");
  assert.match(read(shop.folder, "src/total.ts"), /^ {2}let sum/m);
  assert.equal(fs.existsSync(path.join(shop.folder, "docs/readme.md")), false, "the other paths stay");
  await status.getByRole("button", { name: "Undo" }).click();
  await status.getByText("Undone").waitFor();
  assert.equal(read(shop.folder, "src/a.ts"), "spoiled\n");
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  const operation = page.getByRole("list", { name: "Operations", exact: true }).getByRole("listitem").last();
  await operation.getByText(/^Restored from the backup of .*\d\d:\d\d/).waitFor();
  await operation.getByRole("link", { name: "The state before" }).click();
  await page.getByText(/^before a restore from the backup of .*\d\d:\d\d/).waitFor();
  await page.getByRole("heading", { name: `before restore of backup ${id.slice(0, 8)}` }).waitFor();

  // A plan of a part asks the backup for no path that only the folder has: the browser would complain of the failed call.
  shop.write("docs/press.md", "press\n");
  await go({ view: "restore", workspace: shop.folder, point: `backup:${id}`, paths: [] });
  const mark = (name: string) => page.getByRole("checkbox", { name: `Restore ${name}`, exact: true });
  await mark("docs/press.md").and(page.locator(":checked")).waitFor();
  await mark("src/a.ts").uncheck();
  await page.locator(".plan-row[data-chosen='false']", { hasText: "a.ts" }).waitFor();
  await mark("docs/press.md").and(page.locator(":checked")).waitFor();
  await mark("docs/readme.md").uncheck();
  await page.locator(".plan-row[data-chosen='false']", { hasText: "press.md" }).waitFor();
});
