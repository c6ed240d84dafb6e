import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { before, test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import type { Locator } from "playwright-core";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { backUp, makeShop, newFolder, type Shop, unzipped } from "./shop.ts";

/** What each view shows and does. */

let shop: Shop;
before(() => {
  if (SKIP === false) shop = makeShop("views");
});
const workspace = (): string => shop.folder;

test("the page shows the first command to run if there is no workspace", { skip: SKIP }, async (t) => {
  const { page } = await open(t, null, { env: { XDG_STATE_HOME: newFolder("no-state") } });
  await page.getByRole("heading", { name: "No workspace yet" }).waitFor();
  await page.getByText("cairn save FOLDER").waitFor();
});

test(
  "the overview shows save points and unsaved changes of each workspace, and opens a workspace",
  { skip: SKIP },
  async (t) => {
    const { page, go } = await open(t, workspace());
    await go({ view: "workspaces" });
    const card = page.locator(".workspace", { hasText: workspace() }).first();
    await card.getByRole("img", { name: /^\d+ save points take up .* as copies of the folder/ }).waitFor();
    await card.getByRole("img", { name: /^The folder has / }).waitFor();
    await card.getByText("nothing").waitFor();
    await page.locator(".workspace", { hasText: shop.fork }).first().getByRole("heading").click();
    await page.getByText("fork of").first().waitFor();
  },
);

test(
  "the timeline shows days, sessions, counts, labels, forks and undo points, and can be filtered",
  { skip: SKIP },
  async (t) => {
    const { page } = await open(t, workspace());
    const rows = page.locator(".point-row");
    await rows.first().waitFor();
    assert.equal(await page.locator(".day").count(), 1);
    const shell = page.locator(".point-row", { hasText: "a shell command" });
    await shell.getByText("claude-code · Bash").waitFor();
    await shell.getByText("session 4f1c9a").waitFor();
    await shell.getByRole("img", { name: /0 added, \d modified, 1 removed/ }).waitFor();
    await shell.getByRole("img", { name: "pinned" }).waitFor();
    await shell.locator(".lane-name").waitFor();
    await page.locator(".point-row", { hasText: "tabs" }).getByText("release-1").waitFor();
    const before = await rows.count();
    const filter = page.getByRole("searchbox", { name: "Filter", exact: true });
    await filter.fill("tag:release-1");
    await rows.nth(1).waitFor({ state: "detached" });
    await page.waitForURL(/q=tag%3Arelease-1/);
    await page.reload();
    await page.locator(".point-row", { hasText: "tabs" }).waitFor();
    assert.equal(await rows.count(), 1);
    await filter.fill("no such thing");
    await page.getByText("Nothing fits this filter").waitFor();
    await filter.fill("");
    await page
      .locator(".point-row")
      .nth(before - 1)
      .waitFor();
  },
);

test("the timeline shows a point at once if another process saves it", { skip: SKIP }, async (t) => {
  const folder = newFolder("live");
  fs.writeFileSync(path.join(folder, "a"), "1");
  cairnOk(["save", folder, "-m", "first"]);
  const { page } = await open(t, folder);
  await page.locator(".point-row", { hasText: "first" }).waitFor();
  fs.writeFileSync(path.join(folder, "a"), "2");
  cairnOk(["save", folder, "-m", "second"]);
  await page.locator(".point-row", { hasText: "second" }).waitFor();
});

test(
  "the timeline names hooks of agents that failed, also if they could not open the workspace",
  { skip: SKIP },
  async (t) => {
    const folder = newFolder("failed-hooks");
    fs.writeFileSync(path.join(folder, "a"), "one\n");
    cairnOk(["save", folder]);
    const { control_directory: control } = cairnOk(["status", folder]).data["workspace"] as {
      control_directory: string;
    };
    const file = path.join(control, "cairn.json");
    const content = fs.readFileSync(file);
    fs.writeFileSync(file, "{");
    cairnOk(["agent", "hook", "mine", "--event", "before", "--session", "s", "-C", folder]);
    fs.writeFileSync(file, content);
    const { page } = await open(t, folder);
    await page.getByText(/1 hook of mine failed since [^:]*\b20\d\d\b.*cairn\.json/).waitFor();
  },
);

test("a point shows its changes as a tree, and text changes in one or two columns", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace());
  await go({ view: "point", workspace: workspace(), point: shop.ids["edit the total"]! });
  await page.getByRole("treeitem", { name: /total\.ts/ }).waitFor();
  const marked = page.locator(".text-diff mark");
  await marked.first().waitFor();
  assert.match((await marked.allTextContents()).join(" "), /\* 1\.19/);
  assert.equal(await page.locator(".text-diff tr[data-sign='+']").count(), 1);
  await page.locator(".text-diff .code-keyword", { hasText: "return" }).first().waitFor();
  assert.equal(
    await page
      .locator(".text-diff tr[data-sign='-'] .line > bdi > span:not([class])")
      .allTextContents()
      .then((all) => all.join("")),
    "  return sum;",
  );
  await page.getByRole("button", { name: "Side by side" }).click();
  await page.locator(".text-diff[data-split='true']").waitFor();
  await page.getByRole("button", { name: "Side by side" }).click();
  await go({ view: "point", workspace: workspace(), point: shop.ids["tabs"]! });
  await page.locator(".text-diff tr[data-sign='+']").first().waitFor();
  await page.getByRole("button", { name: "Ignore white space" }).click();
  await page.getByText("Only white space differs.").waitFor();
  await page.getByRole("button", { name: "Ignore white space" }).click();
});

test(
  "a point shows changed images side by side, changed database rows, and other files by size and hash",
  { skip: SKIP },
  async (t) => {
    const { page, go } = await open(t, workspace());
    const point = shop.ids["a shell command"]!;
    const at = (file: string): Promise<void> =>
      go({ view: "point", workspace: workspace(), point, file: { path: file } });
    await at("img/logo.png");
    await page.getByText("40 × 20").waitFor();
    await page.getByText("60 × 20").waitFor();
    await at("data/shop.db");
    await page.getByText("'Grace'").waitFor();
    await page.locator("td[data-changed='true']", { hasText: "1250" }).waitFor();
    const keys = await page.locator(".rows tbody tr td:nth-child(2)").allTextContents();
    assert.deepEqual(keys, keys.toSorted(), "rows have the order of their keys");
    await page.locator(".diff-sides").getByText("a shell command").waitFor();
    await page.locator(".diff-sides").getByText("write two files").waitFor();
    await page.getByLabel("Filter the changed names").fill("blob");
    await page.getByRole("treeitem", { name: /shop\.db/ }).waitFor({ state: "detached" });
    await go({ view: "point", workspace: workspace(), point: shop.ids["edit the total"]! });
    await page.getByRole("treeitem", { name: /total\.ts/ }).waitFor();
    await page.getByLabel("Filter the changed names").fill("none is called so");
    await page.getByRole("button", { name: "Clear the filter" }).click();
    await page.getByRole("treeitem", { name: /total\.ts/ }).waitFor();
    await at("blob.bin");
    await page.getByText("This is no text.").waitFor();
    assert.equal(await page.locator(".sides code").count(), 2);
    await page.getByText("5 B").first().waitFor();
  },
);

test(
  "a point can be compared with the present folder, another point and the state before a turn",
  { skip: SKIP },
  async (t) => {
    const { page, go } = await open(t, workspace());
    await go({ view: "point", workspace: workspace(), point: shop.ids["write two files"]! });
    await page.getByRole("treeitem", { name: /a\.ts/ }).waitFor();
    await page.getByRole("button", { name: "before turn 1" }).click();
    await page.getByRole("treeitem", { name: /total\.ts/ }).waitFor();
    await page.keyboard.press("d");
    await page.waitForURL(/to=now/);
    await page.getByRole("treeitem", { name: /readme\.md/ }).waitFor();
    await page.getByRole("button", { name: "another point…" }).click();
    await page.getByRole("dialog").getByRole("searchbox").and(page.locator(":focus")).waitFor();
    // The list may still show all points: what was typed chooses.
    await page.keyboard.type("the template");
    await page.keyboard.press("Enter");
    await page.waitForURL(new RegExp(`to=${shop.ids["the template"]!}`));
    await page.getByRole("treeitem", { name: /b\.ts/ }).waitFor();
    await page.getByRole("button", { name: "before turn 1", pressed: true }).waitFor();
    await page.goBack();
    await page.waitForURL(/to=now/);
    await page.goForward();
    await page.waitForURL(new RegExp(`to=${shop.ids["the template"]!}`));
  },
);

test("a point can be compared with a backup, chosen from the list or by its id", { skip: SKIP }, async (t) => {
  const own = makeShop("with-backup");
  const id = backUp(own, own.ids["write two files"]!);
  const { page, go } = await open(t, own.folder);
  await go({ view: "point", workspace: own.folder, point: own.ids["tabs"]! });
  await page.getByRole("button", { name: "another point…" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "The last backup" }).click();
  await page.waitForURL(/to=backup%3Alatest/);
  await page.getByRole("treeitem", { name: /readme\.md/ }).waitFor();
  await page.getByRole("treeitem", { name: /total\.ts/ }).click();
  await page.locator(".text-diff tr[data-sign='+']").first().waitFor();
  await page.getByText("Take back:").waitFor();
  await page.getByRole("button", { name: "backup:latest" }).click();
  await page.keyboard.type(`backup:${id.slice(0, 8)}`);
  await page.keyboard.press("Enter");
  await page.waitForURL(new RegExp(`to=backup%3A${id.slice(0, 8)}`));
  await page.getByRole("treeitem", { name: /readme\.md/ }).waitFor();
  // By its address a backup has a view of its files, and one of its differences from the folder.
  await go({ view: "files", workspace: own.folder, point: "backup:latest", at: { path: "" } });
  await page.getByRole("link", { name: "docs" }).click();
  await page.getByRole("link", { name: "readme.md" }).click();
  await page.getByLabel("Preview").getByText("# Shop").waitFor();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Zip" }).click(),
  ]);
  assert.deepEqual(unzipped(await download.path()), { "docs/readme.md": "# Shop\n" });
  await page.getByRole("link", { name: /Backup/ }).click();
  await page.getByRole("heading", { name: /^Backup of / }).waitFor();
  await page.getByRole("treeitem", { name: /readme\.md/ }).waitFor();
});

test("the files view can be browsed, sorted, previewed and selected with keys and mouse", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace());
  await go({ view: "files", workspace: workspace(), point: "latest", at: { path: "" } });
  await page.getByRole("row", { name: /data/ }).waitFor();
  await page.getByRole("link", { name: "Size" }).click();
  await page.waitForURL(/sort=size/);
  await page.locator(".entry-row:nth-child(4)", { hasText: "src" }).waitFor();
  await page.getByRole("row", { name: /src/ }).getByRole("link").click();
  await page.getByRole("navigation", { name: "Folder" }).getByText("src").waitFor();
  await page.getByRole("row", { name: /total\.ts/ }).waitFor();
  const names = await page.locator(".entry-name .name").allTextContents();
  assert.deepEqual(names, ["deep", "a.ts", "total.ts"]);
  await page.keyboard.press("j");
  await page.keyboard.press("j");
  await page.keyboard.press("Enter");
  await page.locator(".preview-text", { hasText: "export function total" }).waitFor();
  await page.keyboard.press("Escape");
  await page.keyboard.press("x");
  await page.getByText("1 chosen:").waitFor();
  await page.keyboard.press("Backspace");
  await page.getByRole("row", { name: /blob\.bin/ }).waitFor();
});

test("the files view downloads a folder or the selected files as a zip archive", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace());
  await go({ view: "files", workspace: workspace(), point: shop.ids["write two files"]!, at: { path: "src" } });
  await page.getByRole("row", { name: /deep/ }).waitFor();
  const zip = async (): Promise<Record<string, string>> => {
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Zip" }).click(),
    ]);
    return unzipped(await download.path());
  };
  assert.deepEqual(Object.keys(await zip()).toSorted(), ["src/a.ts", "src/deep/er/b.ts", "src/total.ts"]);
  await page.getByRole("checkbox", { name: "choose a.ts" }).check();
  assert.deepEqual(await zip(), { "src/a.ts": "export const a = 1;\n" });
  // Everything, if nothing is chosen at the root. A choice stays in other folders.
  await page.getByRole("button", { name: "Choose none" }).click();
  await go({ view: "files", workspace: workspace(), point: shop.ids["write two files"]!, at: { path: "" } });
  await page.getByRole("row", { name: /blob\.bin/ }).waitFor();
  const all = Object.keys(await zip());
  for (const name of ["blob.bin", "docs/readme.md", "src/deep/er/b.ts"]) assert.ok(all.includes(name), name);
});

test("the history of a file lists all versions, and shows the difference of two", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace());
  await go({ view: "file-history", workspace: workspace(), at: { path: "src/total.ts" } });
  await page.getByText("3 versions").waitFor();
  const template = page.locator(".version", { hasText: "the template" });
  await template.getByRole("button", { name: "from" }).click();
  await page.waitForURL(/a=/);
  await page.locator(".text-diff tr[data-sign='-']").first().waitFor();
  assert.ok((await page.locator(".text-diff tr[data-sign='-']").count()) >= 3);
});

test("the search finds file names in all points, even of deleted files", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace());
  await go({ view: "search", workspace: workspace(), q: "" });
  await page.getByRole("searchbox", { name: "Names in all save points" }).fill("readme");
  const found = page.getByRole("option", { name: /readme\.md/ });
  await found.getByText("gone").waitFor();
  await found.getByText("3 save points have it").waitFor();
  await found.click();
  await page.getByText("1 version, removed once").waitFor();
});

test("a point can be pinned, tagged and forked on the page", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace());
  await go({ view: "point", workspace: workspace(), point: shop.ids["edit the total"]! });
  await page.getByRole("button", { name: "Pin" }).click();
  await page.getByRole("button", { name: "Pinned" }).waitFor();
  await page.getByRole("button", { name: "Tags" }).click();
  await page.getByLabel("Tags, separated by commas").fill("good, better");
  await page.getByRole("button", { name: "Change", exact: true }).click();
  await page.locator(".point-head .tag", { hasText: "better" }).waitFor();
  await page.getByRole("button", { name: "Fork…" }).click();
  const fork = `${workspace()}-second`;
  await page.getByLabel("New folder").fill(fork);
  await page.getByRole("button", { name: "Make the fork" }).click();
  await page.getByRole("status").getByText(fork).waitFor();
  assert.match(fs.readFileSync(path.join(fork, "src/total.ts"), "utf8"), /1\.19/);
});

test("a read-only page has no buttons that change anything", { skip: SKIP }, async (t) => {
  const { page, go } = await open(t, workspace(), { args: ["--read-only"] });
  await page.getByText("read-only").waitFor();
  await go({ view: "point", workspace: workspace(), point: shop.ids["edit the total"]! });
  await page.getByRole("treeitem", { name: /total\.ts/ }).waitFor();
  for (const name of ["Restore…", "Fork…", "Pin", "Tags"])
    assert.equal(await page.getByRole("button", { name, exact: true }).count(), 0, name);
});

test("the page lists its keys, and the command palette finds an action by its words", { skip: SKIP }, async (t) => {
  const { page } = await open(t, workspace());
  await page.locator(".point-row").first().waitFor();
  await page.keyboard.press("?");
  await page.getByRole("dialog", { name: "Keys" }).getByText("Filter the save points").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Command" }).fill("search names");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/search/);
});

test("the command palette finds save points, files and workspaces", { skip: SKIP }, async (t) => {
  const { folder, fork, ids } = makeShop("palette");
  const { page } = await open(t, folder);
  await page.locator(".point-row").first().waitFor();
  const choose = async (text: string, option: RegExp): Promise<void> => {
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox", { name: "Command" }).fill(text);
    await page.getByRole("option", { name: option }).click();
    await page.getByRole("dialog").waitFor({ state: "detached" });
  };
  // No pattern of a file's name, and no filter: only workspaces have it in their paths.
  await page.keyboard.press("Control+k");
  await page.getByRole("combobox", { name: "Command" }).fill("[");
  await page.getByText("Nothing here is called that.").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await choose("edit the", /edit the total/);
  await page.waitForURL(new RegExp(ids["edit the total"]!));
  await choose("README", /docs\/readme\.md file/);
  await page.waitForURL(/#\/file-history.*readme/);
  await choose("undo points", /Show undo points/);
  await page.getByRole("checkbox", { name: "undo points", checked: true }).waitFor();
  for (const words of ["clean", "prune", "forget", "backup", "receipt", "agents", "overview"]) {
    await page.keyboard.press("Control+k");
    await page.getByRole("combobox", { name: "Command" }).fill(words);
    await page.getByRole("dialog").getByRole("option").first().waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
  }
  await choose("clean", /Clean up/);
  await page.waitForURL(/#\/activity.*part=cleanup/);
  await choose("palette-fork", /workspace/);
  await page.waitForURL(new RegExp(`timeline.*${encodeURIComponent(fork)}`));
});

test("filters are chosen from a menu, shown as chips, and removed", { skip: SKIP }, async (t) => {
  const { folder } = makeShop("chips");
  const { page } = await open(t, folder);
  const points = (): Promise<string[]> => page.locator(".point-row .point-message").allTextContents();
  const row = (text: string): Locator => page.locator(".point-row", { hasText: text });
  await row("tabs").waitFor();
  const menu = page.getByLabel("Add a filter");
  await menu.selectOption({ label: "release-1" });
  await row("the template").waitFor({ state: "detached" });
  await row("tabs").waitFor();
  assert.equal((await points()).length, 1);
  await page.getByRole("button", { name: "Remove the filter tag:release-1" }).click();
  await row("the template").waitFor();
  await menu.selectOption({ label: "by claude-code" });
  await row("tabs").waitFor({ state: "detached" });
  await row("edit the total").waitFor();
  await menu.selectOption({ label: "in the last 7 days" });
  await page.locator(".chips li", { hasText: "7 days ago" }).waitFor();
  await row("edit the total").waitFor();
  await menu.selectOption({ label: "that changed a file…" });
  await page.keyboard.type("src/a.ts");
  for (const text of ["edit the total", "a shell command"]) await row(text).waitFor({ state: "detached" });
  await row("write two files").waitFor();
  assert.deepEqual(await violations(page), []);
});

test("two rows of the timeline are marked and compared, by mouse and by key", { skip: SKIP }, async (t) => {
  const { folder, ids } = makeShop("marked");
  const { page } = await open(t, folder, { width: 900 });
  const row = (text: string): Locator => page.locator(".point-row", { hasText: text });
  const place = await row("tabs").boundingBox();
  // Seen without a pointer over the row.
  await row("tabs").getByText("Mark", { exact: true }).click();
  await page.getByText(/Marked: tabs.*Press Compare at another row/).waitFor();
  assert.deepEqual(await row("tabs").boundingBox(), place, "a mark moves no row");
  assert.deepEqual(await violations(page), []);
  await row("the template")
    .getByRole("button", { name: /Compare with the marked row/ })
    .click();
  await page.waitForURL(new RegExp(`p=${ids["tabs"]!}&to=${ids["the template"]!}`));
  await page.getByRole("treeitem", { name: /b\.ts/ }).waitFor();
  await page.keyboard.press("Escape");
  await row("tabs").waitFor();
  await page.keyboard.press("j");
  await page.keyboard.press("x");
  await page.getByText(/Marked: /).waitFor();
  await page.locator(".mark-bar").getByRole("button", { name: "Unmark" }).click();
  await page.getByText(/Marked: /).waitFor({ state: "detached" });
  await page.keyboard.press("x");
  await page.setViewportSize({ width: 1280, height: 800 });
  const unmark = await page.locator(".mark-bar").getByRole("button", { name: "Unmark" }).boundingBox();
  const timeline = await page.locator(".timeline").boundingBox();
  assert.ok(unmark!.x + unmark!.width <= timeline!.x + timeline!.width, "the button is inside the timeline");
  await page.keyboard.press("Escape");
  await page.getByText(/Marked: /).waitFor({ state: "detached" });
});
