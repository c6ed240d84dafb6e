import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { COMMANDS } from "../program/commands.ts";
import { completionScript, SHELLS } from "./scripts.ts";

/** What bash offers for the line; the last word is the one being typed. */
async function offered(line: string[]): Promise<string[]> {
  const folder = mkdtempSync(join(tmpdir(), "cairn-completion-"));
  try {
    const script = `${await completionScript("bash", COMMANDS)}
cairn() { printf '1a2b3c4d\\tfirst\\n1a999999\\tasked with %s\\n' "$*"; }
COMP_WORDS=(${line.map((word) => `'${word}'`).join(" ")})
COMP_CWORD=${line.length - 1}
_cairn
printf '%s\\n' "\${COMPREPLY[@]}"`;
    writeFileSync(join(folder, "script"), script);
    const ran = spawnSync("bash", [join(folder, "script")], { encoding: "utf8", cwd: folder });
    assert.equal(ran.stderr, "");
    return ran.stdout.split("\n").filter((word) => word !== "");
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const hasBash = spawnSync("bash", ["-c", "true"]).status === 0;

test("bash offers commands, options, points and folders", { skip: !hasBash }, async () => {
  assert.deepEqual(await offered(["cairn", "re"]), ["restore", "redo", "rewind", "receipt", "relocate", "release"]);
  assert.deepEqual(await offered(["cairn", "restore", "--pl"]), ["--plan"]);
  assert.deepEqual(await offered(["cairn", "restore", "1a2"]), ["1a2b3c4d"]);
  assert.deepEqual(await offered(["cairn", "-C", "x", "pin", "1a"]), ["1a2b3c4d", "1a999999"]);
  assert.deepEqual(await offered(["cairn", "restore", "1a2b3c4d", "scr"]), ["script"]);
  assert.deepEqual(await offered(["cairn", "completion", "z"]), ["zsh"]);
  assert.deepEqual(await offered(["cairn", "save", "-m", "sa"]), []);
  assert.deepEqual(await offered(["cairn", "backup", "re"]), ["restore", "rewrite", "recover", "repair"]);
  assert.deepEqual(await offered(["cairn", "backup", "forget", "--keep-l"]), ["--keep-last"]);
  assert.deepEqual(await offered(["cairn", "help", "wor"]), ["workspaces"]);
});

test("bash offers a verb's own arguments and options after the verb", { skip: !hasBash }, async () => {
  assert.deepEqual(await offered(["cairn", "backup", "-r", "x", "repair", ""]), ["index", "packs", "snapshots"]);
  assert.deepEqual(await offered(["cairn", "backup", "key", "pa"]), ["passwd"]);
  assert.deepEqual(await offered(["cairn", "backup", "create", "1a2"]), ["1a2b3c4d"]);
  assert.deepEqual(await offered(["cairn", "backup", "list", "--keep-l"]), []);
  assert.deepEqual(await offered(["cairn", "backup", "list", "re"]), []);
  assert.deepEqual(await offered(["cairn", "receipt", "verify", "scr"]), ["script"]);
});

test("bash offers the values of an option that has fixed values", { skip: !hasBash }, async () => {
  assert.deepEqual(await offered(["cairn", "init", "--engine", "b"]), ["btrfs-snapshot"]);
  assert.deepEqual(await offered(["cairn", "restore", "1a2b3c4d", "--method", ""]), ["exchange", "entries"]);
  assert.deepEqual(await offered(["cairn", "-C", "x", "--progress", "p"]), ["plain"]);
  assert.deepEqual(await offered(["cairn", "save", "--progress", "p"]), ["plain"]);
  assert.deepEqual(await offered(["cairn", "restore", "--allow", ""]), ["space", "unmounted"]);
  assert.deepEqual(await offered(["cairn", "save", "--allow", ""]), [
    "home",
    "nested",
    "git",
    "space",
    "holders",
    "unmounted",
  ]);
  assert.deepEqual(await offered(["cairn", "backup", "restore", "--prove", ""]), ["disk", "memory", "no"]);
});

test("bash offers the arguments of `engine set`, and a group's verbs after `help`", { skip: !hasBash }, async () => {
  assert.deepEqual(await offered(["cairn", "engine", "s"]), ["show", "set"]);
  assert.deepEqual(await offered(["cairn", "engine", "set", "r"]), ["reflink-copy"]);
  assert.deepEqual(await offered(["cairn", "help", "backup", "re"]), ["restore", "rewrite", "recover", "repair"]);
  assert.deepEqual(await offered(["cairn", "help", "--a"]), ["--all"]);
  assert.deepEqual(await offered(["cairn", "cleanup", ""]), ["drop", "purge", "policy"]);
  assert.deepEqual(await offered(["cairn", "cleanup", "--keep-l"]), ["--keep-last"]);
  assert.deepEqual(await offered(["cairn", "cleanup", "drop", "1a2"]), ["1a2b3c4d"]);
  assert.deepEqual(await offered(["cairn", "help", "backup", "restore", ""]), []);
  assert.deepEqual(await offered(["cairn", "help", "save", ""]), []);
});

for (const shell of SHELLS) {
  test(`the completion script for ${shell} names every command and has valid syntax`, async (t) => {
    const script = await completionScript(shell, COMMANDS);
    for (const [name, entry] of Object.entries(COMMANDS)) {
      if (entry.hidden !== true) assert.ok(script.includes(name), name);
    }
    assert.match(script, /__complete points/);
    const folder = mkdtempSync(join(tmpdir(), "cairn-completion-"));
    t.after(() => rmSync(folder, { recursive: true }));
    writeFileSync(join(folder, "script"), script);
    const ran = spawnSync(shell, ["-n", join(folder, "script")], { encoding: "utf8" });
    if (ran.error === undefined) assert.deepEqual([ran.status, ran.stderr], [0, ""]);
    else t.diagnostic(`${shell} is not installed`);
  });
}
