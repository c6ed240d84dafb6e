import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk } from "../fixtures/command.ts";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { makeShop, unzipped } from "./shop.ts";

/** What a user chooses in the files of a point, and in the plan of a restore. */

test(
  "files chosen in several folders are archived and restored, without one that the plan leaves",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("choice");
    const { page, go } = await open(t, shop.folder);
    const point = shop.ids["write two files"]!;
    await go({ view: "files", workspace: shop.folder, point, at: { path: "" } });
    await page.getByRole("checkbox", { name: "choose blob.bin" }).check();
    await page.getByRole("checkbox", { name: "choose docs" }).check();
    await page.getByRole("row", { name: /src/ }).getByRole("link").click();
    await page.getByRole("checkbox", { name: "choose total.ts" }).check();
    await page.getByText("3 chosen:").waitFor();
    const list = page.locator(".chosen");
    await list.getByText("3 chosen").click();
    assert.deepEqual(
      await list
        .locator("li")
        .allInnerTexts()
        .then((all) => all.map((each) => each.replaceAll("\n", ""))),
      ["blob.bin", "docs/", "src/total.ts"],
    );
    assert.deepEqual(await violations(page), []);
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Zip" }).click(),
    ]);
    assert.deepEqual(Object.keys(unzipped(await download.path())).toSorted(), [
      "blob.bin",
      "docs/readme.md",
      "src/total.ts",
    ]);

    await page.getByRole("link", { name: "Restore…" }).click();
    await page.getByText("2 changed").waitFor();
    await page.getByRole("checkbox", { name: "Restore blob.bin" }).uncheck();
    await page.getByText("stays as it is").waitFor();
    await page.getByText("1 changed").waitFor();
    assert.deepEqual(await violations(page), []);
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    await page
      .getByRole("status")
      .getByText(/^(Restored|Taken back)/)
      .waitFor();
    assert.equal(fs.readFileSync(path.join(shop.folder, "docs/readme.md"), "utf8"), "# Shop\n");
    assert.match(fs.readFileSync(path.join(shop.folder, "src/total.ts"), "utf8"), /^ {2}let sum/m);
    assert.deepEqual(
      [...fs.readFileSync(path.join(shop.folder, "blob.bin"))],
      [0, 1, 2, 4, 5],
      "the path without a mark stays",
    );

    await go({ view: "files", workspace: shop.folder, point, at: { path: "docs" } });
    const readme = page.getByRole("checkbox", { name: "choose readme.md" });
    await readme.and(page.locator(":checked:disabled")).waitFor();
    await page.getByRole("button", { name: "Choose none" }).click();
    await readme.and(page.locator(":enabled")).waitFor();
    assert.equal(await readme.isChecked(), false);
  },
);

test(
  "a plan without any mark restores nothing, and a folder's mark is that of all in it",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("marks");
    fs.rmSync(path.join(shop.folder, "src"), { recursive: true });
    shop.write("docs/new.md", "new\n");
    const { page, go } = await open(t, shop.folder);
    await go({ view: "restore", workspace: shop.folder, point: "latest", paths: [] });
    const mark = (name: string) => page.getByRole("checkbox", { name: `Restore ${name}`, exact: true });
    const run = page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ });
    await mark("src/").uncheck();
    await mark("docs/new.md").uncheck();
    await page.getByText("No path is chosen.").waitFor();
    assert.equal(await run.isDisabled(), true);
    const keep = page.getByRole("checkbox", { name: /keep what the save point/i });
    await keep.check();
    await mark("docs/new.md").waitFor({ state: "detached" });
    await mark("src/").waitFor();
    assert.equal(await mark("src/").isChecked(), false, "another plan of the same state has the same marks");
    await keep.uncheck();
    await mark("src/a.ts").check();
    // The folder that holds the file is made with it.
    await mark("src/").and(page.locator(":indeterminate")).waitFor();
    assert.equal(await mark("src/total.ts").isChecked(), false);
    await page.getByRole("button", { name: "All", exact: true }).click();
    await mark("docs/new.md").and(page.locator(":checked")).waitFor();
    await page.getByRole("button", { name: "None", exact: true }).click();
    await page.getByText("No path is chosen.").waitFor();
    await mark("src/a.ts").check();
    await page.getByRole("button", { name: "Restore 2 entries" }).waitFor();
    await run.click();
    await page
      .getByRole("status")
      .getByText(/^(Restored|Taken back)/)
      .waitFor();
    assert.deepEqual(fs.readdirSync(path.join(shop.folder, "src")), ["a.ts"]);
    assert.equal(fs.existsSync(path.join(shop.folder, "docs/new.md")), true);
  },
);

test(
  "a restore of a path that is already so says so, and an open plan says that the folder changed",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("already");
    const { page, go } = await open(t, shop.folder);
    await go({ view: "restore", workspace: shop.folder, point: "latest", paths: [{ path: "img/logo.png" }] });
    await page.getByRole("heading", { name: "Nothing of img/logo.png would change" }).waitFor();
    assert.equal(await page.getByText("The state of now is saved first").count(), 0);
    const paths = [{ path: "img/logo.png" }, { path: "src/total.ts" }];
    await go({ view: "restore", workspace: shop.folder, point: shop.ids["a shell command"]!, paths });
    const unchanged = page.getByRole("list", { name: "Unchanged" }).getByRole("listitem");
    await unchanged.getByText("would not change").waitFor();
    assert.match(await unchanged.innerText(), /img\/\s*logo\.png/);
    await page.getByText("The state of now is saved first").waitFor();
    await go({ view: "restore", workspace: shop.folder, point: shop.ids["edit the total"]!, paths: [] });
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    const told = page.getByRole("status").getByText(/^(Restored|Taken back)/);
    await told.waitFor();
    await go({ view: "restore", workspace: shop.folder, point: shop.ids["the template"]!, paths: [] });
    await page.getByRole("checkbox", { name: "Restore src/total.ts" }).waitFor();
    assert.equal(await told.isVisible(), false, "its Undo does not stand above the button of this plan");
    cairnOk(["-C", shop.folder, "undo"]);
    await page.getByText("The folder changed while this plan was open").waitFor();
    await page.getByRole("checkbox", { name: "Restore src/a.ts" }).waitFor();
  },
);

test("taking a file back names the later save points whose changes of the file go, too", { skip: SKIP }, async (t) => {
  const { folder: workspace, ids } = makeShop("also-goes");
  const { page, go } = await open(t, workspace, { width: 360, height: 740 });
  const point = ids["the template"]!;
  await go({ view: "restore", workspace, point, paths: [{ path: "src/total.ts" }], back: true });
  const note = page.getByRole("note").filter({ hasText: "changed in 2 save points since then" });
  await note.getByRole("link", { name: "tabs" }).waitFor();
  await note.getByRole("link", { name: "edit the total" }).waitFor();
  const foot = await page.locator(".restore-foot > p").boundingBox();
  assert.ok(foot!.width > 300, "the words of the foot have a line of their own");
  assert.deepEqual(await violations(page), []);
  await go({
    view: "restore",
    workspace,
    point: ids["edit the total"]!,
    paths: [{ path: "src/total.ts" }],
    back: true,
  });
  await page.locator(".point-head > .facts").getByText("edit the total").waitFor();
  await page.locator(LOOKED).waitFor({ state: "attached" });
  assert.equal(await page.getByRole("note").count(), 0, "only the shown change goes");
});

/** The note on later changes, once it is the one of the plan that is shown. */
const LOOKED = ".also-goes:not([aria-busy])";

test("the note on later changes is that of the chosen paths and of the present plan", { skip: SKIP }, async (t) => {
  const { folder: workspace, ids, write, save } = makeShop("goes-with-plan");
  const point = ids["the template"]!;
  write("blob.bin", "more");
  save("the blob again");
  cairnOk(["restore", point, "docs/readme.md", "-C", workspace]);
  save("the readme is back");
  const { page, go } = await open(t, workspace, { expected: /Failed to load resource/ });
  const paths = ["src/total.ts", "blob.bin", "docs/readme.md"].map((each) => ({ path: each }));
  await go({ view: "restore", workspace, point, paths, back: true });
  const note = page.locator(LOOKED);
  const blob = note.getByRole("link", { name: "the blob again" });
  await blob.waitFor();
  assert.equal(await note.getByText("readme.md").count(), 0, "a path that is already so has nothing that goes");
  await page.getByRole("checkbox", { name: "Restore blob.bin" }).uncheck();
  await page.getByRole("button", { name: "Take back 1 file" }).waitFor();
  await note.getByRole("link", { name: "tabs" }).waitFor();
  assert.equal(await blob.count(), 0, "an unticked path stays");
  write("src/total.ts", "again\n");
  save("the total again");
  await note.getByRole("link", { name: "the total again" }).waitFor();

  await page.route("**/v1/why", (route) => route.abort());
  await page.getByRole("checkbox", { name: "Restore blob.bin" }).check();
  const problem = page.getByRole("alert").filter({ hasText: "could not look for later changes of 2 paths" });
  await problem.waitFor();
  await page.unroute("**/v1/why");
  await problem.getByRole("button", { name: "Try again" }).click();
  await blob.waitFor();
});

test("a restore that nothing was shown of names one later change, and what is not saved", { skip: SKIP }, async (t) => {
  const { folder: workspace, ids, write, save } = makeShop("goes-unshown");
  const point = ids["the template"]!;
  const { page, go } = await open(t, workspace);
  const note = page.locator(LOOKED);
  await go({ view: "restore", workspace, point, paths: [{ path: "img/logo.png" }] });
  await note.getByText("changed in 1 save point since then, and these changes of this path go:").waitFor();
  await note.getByRole("link", { name: "a shell command" }).waitFor();
  write("img/logo.png", "not saved");
  await go({ view: "restore", workspace, point, paths: [{ path: "img/logo.png" }], back: true });
  await note
    .getByText("changed in 1 save point since then, has changes that are not saved, and these changes of this path go:")
    .waitFor();

  const many = Array.from({ length: 10 }, (_, i) => `many/${i}`);
  for (const each of many) write(each, "one");
  const before = save("many files");
  for (const each of many) write(each, "more");
  await go({ view: "restore", workspace, point: before, paths: many.map((each) => ({ path: each })) });
  await note.getByText("Later changes of 2 more paths were not looked for.").waitFor();
  await note.getByText("has changes that are not saved, and these changes of this path go.").first().waitFor();
  assert.equal(await note.getByText("has changes that are not saved").count(), 8);
  assert.deepEqual(await violations(page), []);

  await page.route("**/v1/why", (route) =>
    route.continue({ postData: route.request().postData()!.replace('"limit":50', '"limit":1') }),
  );
  await go({ view: "restore", workspace, point, paths: [{ path: "src/total.ts" }] });
  await note.getByText("changed in at least 1 save point since then").waitFor();
});

test("taking back what is not saved takes back nothing that was saved meanwhile", { skip: SKIP }, async (t) => {
  const { folder: workspace, ids, write, save } = makeShop("saved-meanwhile");
  write("src/a.ts", "not saved\n");
  const { page, go } = await open(t, workspace);
  await go({ view: "restore", workspace, point: ids["tabs"]!, paths: [], back: true });
  const run = page.getByRole("button", { name: "Take back 1 file" });
  await run.waitFor();
  const held = Promise.withResolvers<void>();
  await page.route("**/v1/planRestore", async (route) => {
    await held.promise;
    await route.continue().catch(() => undefined);
  });
  save("meanwhile");
  await run.click();
  await page.getByRole("alert").getByText("The folder was saved after this plan was made").waitFor();
  assert.equal(fs.readFileSync(path.join(workspace, "src/a.ts"), "utf8"), "not saved\n");
  held.resolve();
  const refused = page.getByRole("alert").filter({ hasText: "would take back saved changes" });
  await refused.waitFor();
  assert.equal(await page.getByRole("button", { name: /^Take back/ }).isDisabled(), true);
  assert.deepEqual(await violations(page), []);
  write("src/total.ts", "not saved\n");
  await refused.getByRole("link", { name: "Plan what is not saved now" }).click();
  await page.getByRole("checkbox", { name: "Restore src/total.ts" }).waitFor();
  await run.click();
  await page
    .getByRole("status")
    .getByText(/^Taken back/)
    .waitFor();
  assert.equal(fs.readFileSync(path.join(workspace, "src/a.ts"), "utf8"), "not saved\n");
});

test("changes that come while a plan is open stay, once the user has chosen in it", { skip: SKIP }, async (t) => {
  const { folder: workspace, ids, write, save } = makeShop("renewed-choice");
  const { page, go } = await open(t, workspace);
  await go({ view: "restore", workspace, point: ids["the template"]!, paths: [] });
  const mark = (name: string) => page.getByRole("checkbox", { name: `Restore ${name}`, exact: true });
  await mark("blob.bin").uncheck();
  await page.locator(".plan-row", { hasText: "blob.bin" }).getByText("stays as it is").waitFor();
  write("late.txt", "late\n");
  save("a late file");
  await page.getByText("this is the plan of now. 1 new entry is not chosen.").waitFor();
  await mark("late.txt").waitFor();
  assert.equal(await mark("late.txt").isChecked(), false);
  assert.equal(await mark("src/total.ts").isChecked(), true);
  assert.equal(await mark("blob.bin").isChecked(), false);
  await page.getByRole("button", { name: /^Restore \d+ entries$/ }).click();
  await page
    .getByRole("status")
    .getByText(/^Restored/)
    .waitFor();
  assert.equal(fs.readFileSync(path.join(workspace, "late.txt"), "utf8"), "late\n");
  assert.equal(fs.existsSync(path.join(workspace, "src/a.ts")), false);
});
