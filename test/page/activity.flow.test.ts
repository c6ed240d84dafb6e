import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { call as callWith } from "../fixtures/http.ts";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { backUp, makeShop, newFolder } from "./shop.ts";

/** The activity: what runs, what was done and refused, and what can be taken back or removed. */

/** A workspace whose saves take a minute, because a hook of it does. */
function slowWorkspace(name: string, env: Record<string, string> = {}, records: Record<string, string> = {}): string {
  const folder = newFolder(name);
  fs.writeFileSync(path.join(folder, "a"), "one\n");
  cairnOk(["save", folder, "-m", "first"], { env });
  cairnOk(["hooks", folder, "--set", "before-save=sleep 60"], { env: { ...env, ...records } });
  fs.writeFileSync(path.join(folder, "a"), "two\n");
  return folder;
}

test(
  "a user sees a save that runs in another tab, and cancels it with nothing half done",
  { skip: SKIP },
  async (t) => {
    const folder = slowWorkspace("running");
    const { page, context, origin } = await open(t, folder, { width: 360, height: 740, expected: /Failed to load/ });
    await page.locator(".point-row").first().waitFor();
    const other = await context.newPage();
    await other.goto(`${origin}/#/activity?w=${encodeURIComponent(folder)}`);
    await other.getByText("Nothing runs.").waitFor();
    await page.getByRole("button", { name: "Save…" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Save", exact: true }).click();
    const row = other.getByRole("list", { name: "Running" }).getByRole("listitem");
    await row.getByText("Save", { exact: true }).waitFor();
    await row.getByText("runs", { exact: true }).waitFor();
    await row.getByText("for this page").waitFor();
    assert.deepEqual(await violations(other), []);
    await other.reload();
    await row.getByRole("button", { name: `Cancel Save of ${folder} since` }).press("Enter");
    await other.getByRole("status").getByText("Save was cancelled. Nothing was changed.").waitFor();
    await other.getByText("Nothing runs.").waitFor();
    assert.equal(
      await other.evaluate("document.activeElement.textContent"),
      "Now",
      "the button with the focus is gone",
    );
    await page.getByText(/cancelled by user/).waitFor();
    assert.deepEqual(await violations(other), []);
    assert.equal(cairnOk(["history", folder]).data["total"], 1);
    assert.equal(cairnOk(["doctor", folder]).data["healthy"], true);
  },
);

test("the page shows and cancels what a daemon does for another program", { skip: SKIP }, async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n');
  await daemon.start();
  const env = { CAIRN_SOCKET: daemon.socket };
  const folder = slowWorkspace("daemons", env, daemon.recordsEnv as Record<string, string>);
  const { page } = await open(t, folder, { env });
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  await page.getByText("Nothing runs.").waitFor();
  const saving = startCairn(["save", folder, "-m", "second"], { env });
  const row = page.getByRole("list", { name: "Running" }).getByRole("listitem");
  await row.getByText(/for process \d+ of user/).waitFor();
  const { calls } = cairnOk(["service", "running"], { env }).data as { calls: { running_id: string; verb: string }[] };
  assert.deepEqual(
    calls.map(({ verb }) => verb),
    ["save"],
  );
  await row.getByRole("button", { name: "Cancel" }).click();
  await page.getByText("Nothing runs.").waitFor();
  const { error } = await saving.ended;
  assert.equal(error?.code, "interrupted");
  assert.equal(cairn(["service", "cancel", calls[0]!.running_id], { env }).error?.code, "not_found");
  assert.equal(cairnOk(["history", folder], { env }).data["total"], 1);
});

test("refused and failed calls are rows of the activity, which a user filters", { skip: SKIP }, async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n');
  await daemon.start();
  const env = { CAIRN_SOCKET: daemon.socket };
  const folder = newFolder("refused <img src=x onerror=window.ran=1>");
  fs.writeFileSync(path.join(folder, "a"), "one\n");
  cairnOk(["save", folder, "-m", "first"], { env });
  await assert.rejects(daemon.call("runCleanup", { workspace: folder, options: { plan: "0".repeat(32) } }));
  const { page } = await open(t, folder, { env, width: 360, height: 740 });
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  const rows = page.getByRole("list", { name: "Events" }).getByRole("listitem");
  await rows.getByText("Saved", { exact: true }).waitFor();
  await rows.getByText("refused", { exact: true }).first().waitFor();
  await page.getByLabel("Show").selectOption("failed and refused");
  await rows.getByText("Saved", { exact: true }).waitFor({ state: "detached" });
  assert.match(await rows.first().innerText(), /Cleanup.*refused.*for user/s);
  await page.getByText("Agents… of this folder in the overview installs them.").waitFor();
  await page.getByRole("button", { name: "What would a cleanup remove?" }).click();
  await page.getByText("This page cannot change the rules; cairn cleanup policy in a terminal does.").waitFor();
  await assert.rejects(daemon.call("restore", { workspace: folder, options: { target: "deadbeef" } }));
  await rows.getByText("Restore", { exact: true }).waitFor();
  await page.getByLabel("Filter events").fill("cleanup");
  await rows.getByText("Restore", { exact: true }).waitFor({ state: "detached" });
  assert.deepEqual(await violations(page), []);
  assert.equal(await page.evaluate("window.ran"), undefined);
});

test("with a daemon, each act of the page is listed once", { skip: SKIP }, async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[backend]\ntype = "plain"\n');
  await daemon.start();
  const env = { CAIRN_SOCKET: daemon.socket };
  const folder = newFolder("once");
  fs.writeFileSync(path.join(folder, "a"), "one\n");
  cairnOk(["save", folder, "-m", "first"], { env });
  const { page } = await open(t, folder, { env });
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  const rows = page.getByRole("list", { name: "Events" }).getByRole("listitem");
  await rows.getByText("Saved", { exact: true }).waitFor();
  const calls: Record<string, object> = {
    pin: { target: "latest" },
    tag: { target: "latest", edit: { add: ["mine"] } },
    unpin: { target: "latest" },
    setPolicy: { policy: { keptTrees: 3 } },
    runCleanup: { options: { retention: { keepLast: 1 } } },
    save: {},
  };
  for (const [name, members] of Object.entries(calls))
    assert.equal(
      await page.evaluate(
        `fetch("/v1/${name}", { method: "POST", headers: { authorization: "Bearer " + sessionStorage.getItem("token") }, body: JSON.stringify(${JSON.stringify({ workspace: folder, ...members })}) }).then((r) => r.status)`,
      ),
      200,
      name,
    );
  await rows.getByText("Saved", { exact: true }).nth(1).waitFor();
  const words = await rows.locator("strong").allInnerTexts();
  const acts = ["Saved", "Cleanup", "Rules changed", "Unpinned", "Tags changed", "Pinned", "Saved"];
  assert.deepEqual(
    words.filter((each) => acts.includes(each)),
    acts,
  );
});

test(
  "scheduled work on the repository that failed, and calls without a right, are rows of the activity",
  { skip: SKIP },
  async (t) => {
    const daemon = new TestDaemon(t);
    const folder = newFolder("of-repository");
    const [repository, password] = [
      path.join(newFolder("no-repository"), "gone"),
      path.join(newFolder("pw"), "password"),
    ];
    fs.writeFileSync(password, "secret\n");
    daemon.configure(
      `[backend]\ntype = "plain"\n[[backup]]\nrepository = "${repository}"\npassword_file = "${password}"\nevery = "1h"\nverify_every = "1s"\n`,
    );
    await daemon.start();
    const env = { CAIRN_SOCKET: daemon.socket };
    fs.writeFileSync(path.join(folder, "a"), "one\n");
    cairnOk(["save", folder, "-m", "first"], { env });
    const elsewhere = newFolder("elsewhere");
    cairnOk(["save", elsewhere], { env });
    const { token } = (await daemon.call("tokenCreate", { options: { workspaces: [elsewhere] } })) as { token: string };
    assert.deepEqual((await callWith(daemon.socket, "save", { workspace: folder }, token))[0], 403);
    const { page } = await open(t, folder, { env });
    await page.getByRole("link", { name: "Activity", exact: true }).click();
    await page.getByLabel("Show").selectOption("failed and refused");
    const rows = page.getByRole("list", { name: "Events" }).getByRole("listitem");
    await rows
      .filter({ hasText: /^.*Verification failed .*gone.*for the schedule$/s })
      .first()
      .waitFor();
    await rows
      .filter({ hasText: /Save refused .*for the token/s })
      .first()
      .waitFor();
    const { events } = (await daemon.call("pastEvents", { path: elsewhere })) as {
      events: { data: { verb?: string } }[];
    };
    assert.ok(!events.some(({ data }) => data.verb === "save"), "it was a call for another folder");
  },
);

test(
  "a user sees which backups the rules remove and what is freed, and does exactly that; no password reaches the page",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("forgetting");
    backUp(shop, shop.ids["the template"]!);
    const again = (message: string) => cairnOk(["backup", "create", "-C", shop.folder, shop.ids[message]!]);
    again("edit the total");
    again("tabs");
    cairnOk(["backup", "use", "-C", shop.folder, "--keep-last", "1"]);
    const { page } = await open(t, shop.folder, { width: 360, height: 740, expected: /409/ });
    const answers: Promise<string>[] = [];
    page.on("response", (response) => {
      if (!response.url().endsWith("/v1/events")) answers.push(response.text().catch(() => ""));
    });
    await page.getByRole("link", { name: "Activity", exact: true }).click();
    await page.getByRole("button", { name: "Forget backups…" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("remove 2 backups of this folder, and keep 1").waitFor();
    assert.equal(await dialog.getByRole("list", { name: "Backups that go" }).getByRole("listitem").count(), 2);
    assert.deepEqual(await violations(page), []);
    // Another backup makes the plan a stale one.
    again("write two files");
    await dialog.getByRole("button", { name: "Remove 2 backups for good" }).click();
    await page.getByRole("status").getByText(/stale/).waitFor();
    await dialog.getByText("and keep 2").waitFor();
    await dialog.getByRole("button", { name: "Remove 2 backups for good" }).click();
    await page.getByRole("status").getByText("2 backups removed. Prune frees their data").waitFor();
    const refused = page.getByRole("list", { name: "Events" }).getByRole("listitem").filter({ hasText: "Removal" });
    await refused.getByText("refused", { exact: true }).waitFor();
    const { snapshots } = cairnOk(["backup", "list", "-C", shop.folder]).data as { snapshots: unknown[] };
    assert.equal(snapshots.length, 2);
    await page.getByRole("button", { name: "Prune…" }).click();
    await dialog.getByText(/That frees|No data is without/).waitFor();
    assert.deepEqual(await violations(page), []);
    assert.equal(
      (await Promise.all(answers)).some((each) => each.includes("correct horse")),
      false,
    );
  },
);

test("a user sees how many backups are not proven, and checks a receipt", { skip: SKIP }, async (t) => {
  const shop = makeShop("receipts");
  const snapshot = backUp(shop, shop.ids["tabs"]!);
  cairnOk(["backup", "create", "-C", shop.folder, shop.ids["the template"]!]);
  cairnOk(["backup", "restore", "-C", shop.folder, snapshot, "--to", path.join(newFolder("receipts-out"), "new")]);
  const { page } = await open(t, shop.folder, { width: 360, height: 740, expected: /422|Failed to load/ });
  await page.getByRole("link", { name: "Activity", exact: true }).click();
  const debt = page.getByRole("list", { name: "Verification debt" });
  await debt.getByText("1 of 2 known backups not proven").waitFor();
  await debt.getByText(`Not proven: the backup of save point ${shop.ids["the template"]!.slice(0, 8)} of`).waitFor();
  await debt.getByText("last proven just now").waitFor();
  await debt.getByText("never verified by the schedule").waitFor();
  const row = page
    .getByRole("list", { name: "Receipts" })
    .getByRole("listitem")
    .filter({ hasText: snapshot.slice(0, 8) });
  await row.getByRole("button", { name: /^Check / }).click();
  await row.getByText("The receipt is unchanged, and signed by your key.").waitFor();
  assert.deepEqual(await violations(page), []);
  const { receipts } = (await page.evaluate(
    `fetch("/v1/receipts", { method: "POST", headers: { authorization: "Bearer " + sessionStorage.getItem("token") }, body: JSON.stringify({ workspace: ${JSON.stringify(shop.folder)} }) }).then((r) => r.json()).then((r) => r.data)`,
  )) as { receipts: { file: string }[] };
  const { file } = receipts[0]!;
  fs.chmodSync(file, 0o600);
  fs.appendFileSync(file, "x");
  await row.getByRole("button", { name: /^Check / }).click();
  await row.getByRole("alert").waitFor();
});
