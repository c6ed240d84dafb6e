import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { COMMANDS } from "../src/cli/program/commands.ts";
import { commandsPage, manualPages } from "./command-pages.ts";

test("the page of commands has each visible command with all its options, and no hidden command", async () => {
  const page = await commandsPage();
  for (const [name, { hidden, load }] of Object.entries(COMMANDS)) {
    assert.equal(page.includes(`\n## cairn ${name}\n`), hidden !== true, name);
    const { command } = await load();
    const [, section = ""] = page.split(`\n## cairn ${name}\n`);
    if (hidden !== true)
      for (const { flags } of command.options ?? []) assert.ok(section.includes(flags.replaceAll("|", "\\|")), flags);
  }
});

test("each command and verb has a man page, and groff formats each without a warning", async (t) => {
  const pages = await manualPages();
  for (const name of ["cairn.1", "cairn-save.1", "cairn-backup-restore.1"]) assert.ok(pages.has(name), name);
  if (spawnSync("groff", ["--version"]).status !== 0) return t.skip("groff is not installed");
  for (const [name, text] of pages) {
    const shown = spawnSync("groff", ["-man", "-ww", "-Tutf8", "-P-cbou"], { input: text, encoding: "utf8" });
    assert.equal(shown.stderr, "", name);
    assert.match(shown.stdout, /SYNOPSIS/, name);
  }
});
