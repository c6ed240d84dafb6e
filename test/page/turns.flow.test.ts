import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { violations } from "./axe.ts";
import { open, SKIP } from "./browser.ts";
import { makeShop } from "./shop.ts";

/** What the page tells of an agent's turn, and both ways back. */

test(
  "a turn shows its calls and changes, and is taken back alone or with the later ones",
  { skip: SKIP },
  async (t) => {
    const shop = makeShop("one-turn");
    const turn = (id: string, tool: string, work: () => void): void => {
      const event = (name: string, own: string | null): string =>
        shop.save(
          `${name} ${id}`,
          "--cause",
          JSON.stringify({
            kind: "tool_call",
            agent: "claude-code",
            session: "77aa",
            turn: id,
            tool: own,
            event: name,
          }),
        );
      event("UserPromptSubmit", null);
      event("PreToolUse", tool);
      work();
      event("PostToolUse", tool);
      event("Stop", null);
    };
    turn("one", "Edit", () => {
      shop.write("src/a.ts", "of the turn\n");
      shop.write("src/new.ts", "new\n");
    });
    turn("two", "Bash", () => shop.write("src/later.ts", "later\n"));
    const exists = (name: string): boolean => fs.existsSync(path.join(shop.folder, "src", name));
    const { page } = await open(t, shop.folder);
    await page.locator(".turn-row", { hasText: /turn 2 of session 4f1c9a.*changes unknown: / }).waitFor();
    const row = page.locator(".turn-row", { hasText: "turn 1 of session 77aa" });
    await row.getByText("2 changed").waitFor();
    await row.getByRole("button", { name: "turn 1 of session 77aa" }).click();
    const dialog = page.getByRole("dialog", { name: "turn 1 of session 77aa" });
    await dialog.getByRole("heading", { name: "1 tool call" }).waitFor();
    await dialog.getByRole("heading", { name: "2 changed: 1 added, 1 modified" }).waitFor();
    await dialog.locator(".turn-commands").getByText("src/a.ts").waitFor();
    assert.deepEqual(await violations(page), []);

    await dialog.getByRole("link", { name: "Take back this turn…" }).waitFor();
    await page.keyboard.press("Escape");
    await row.getByRole("button", { name: "Take back…" }).click();
    await page.getByRole("heading", { name: "Take back a turn" }).waitFor();
    await page.getByRole("checkbox", { name: "Restore src/new.ts" }).waitFor();
    assert.equal(await page.getByRole("checkbox", { name: "Restore src/later.ts" }).count(), 0);
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    await page
      .getByRole("status")
      .getByText(/^(Restored|Taken back)/)
      .waitFor();
    assert.deepEqual([exists("new.ts"), exists("later.ts")], [false, true]);
    assert.equal(await page.locator(".turn-row[data-taken-back='true']").count(), 0);
    await page.getByRole("status").getByRole("button", { name: "Undo" }).click();
    await page.getByRole("status").getByText("Undone").waitFor();

    await row.getByRole("button", { name: "Take back…" }).click();
    await page.getByRole("link", { name: "This turn and the later ones" }).click();
    await page.getByRole("heading", { name: "Rewind to before a turn" }).waitFor();
    await page.locator(".point-head").getByText("claude-code, session 77aa").waitFor();
    await page.getByRole("checkbox", { name: "Restore src/later.ts" }).waitFor();
    await page.getByRole("link", { name: "Only the files of this turn" }).waitFor();
    assert.deepEqual(await violations(page), []);
    await page.getByRole("button", { name: /^(Restore|Take back)( \d+ \w+)?$/ }).click();
    await page
      .getByRole("status")
      .getByText(/^(Restored|Taken back)/)
      .waitFor();
    assert.deepEqual([exists("new.ts"), exists("later.ts")], [false, false]);
    await row.getByText("taken back").waitFor();

    await page.getByRole("link", { name: "Activity", exact: true }).click();
    const operations = page.getByRole("list", { name: "Operations", exact: true }).getByRole("listitem");
    await operations.filter({ hasText: /^Rewound to before a turn/ }).waitFor();
    await operations.filter({ hasText: /^Took back a turn .* and 1 more undone/ }).waitFor();
  },
);
