import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, ROOT, SCRATCH } from "../fixtures/command.ts";

/** A block of the docs, with the places of this test. */
function block(beginning: string, places: Readonly<Record<string, string>>): string {
  const docs = fs.readFileSync(path.join(ROOT, "docs/backups.md"), "utf8");
  let text = docs.split("```").find((each) => each.startsWith(beginning)) ?? "";
  for (const [named, here] of Object.entries(places)) text = text.replaceAll(named, here);
  return text.slice(text.indexOf("\n") + 1);
}

/** What cron hands to the shell, and in which environment. */
function crontab(text: string): { line: string; env: Record<string, string> } {
  const env: Record<string, string> = { SHELL: "/bin/sh", PATH: "/usr/bin:/bin" };
  for (const [, name = "", value = ""] of text.matchAll(/^(\w+)=(.*)$/gm)) env[name] = value;
  const [, line = ""] = /^(?:\S+\s+){5}(.*)$/m.exec(text.replaceAll(/^\w+=.*\n/gm, "")) ?? [];
  return { line, env };
}

test("the crontab line of the docs backs up a home directory silently and prints only errors", () => {
  const root = path.join(SCRATCH, "crontab");
  const at = (name: string): string => path.join(root, name);
  const home = at("ann");
  for (const folder of [root, home, at("bin")]) fs.mkdirSync(folder);
  fs.writeFileSync(path.join(home, "letter"), "dear Ben");
  fs.writeFileSync(at("password"), "p\n", { mode: 0o600 });
  fs.writeFileSync(at("bin/cairn"), `#!/bin/sh\nexec '${process.execPath}' '${buildCommand()}' "$@"\n`, {
    mode: 0o755,
  });
  const places = {
    "/usr/local/bin": at("bin"),
    "/srv/backups": at("backups"),
    "/root/.cairn-password": at("password"),
    "/home/ann": home,
  };
  const { line, env } = crontab(block("crontab\n", places));
  const run = (words: string): [number | null, string] => {
    const ran = spawnSync("/bin/sh", ["-c", words], { env: { ...env, HOME: home }, cwd: "/", encoding: "utf8" });
    return [ran.status, ran.stdout + ran.stderr];
  };
  const unset = run(line);
  assert.equal(unset[0], 2);
  assert.match(unset[1], /no repository is named/);
  for (const each of block("sh\ncairn backup init -r", places).trim().split("\n")) assert.equal(run(each)[0], 0, each);
  assert.deepEqual(run(line), [0, ""]);
  for (const name of ["Dan", "Cleo"]) {
    fs.writeFileSync(path.join(home, "letter"), `dear ${name}`);
    assert.deepEqual(run(line), [0, ""]);
  }
  // Of one day the newest is kept, and the oldest of all.
  const listed = run(`cairn -C ${home} backup list --json`)[1];
  assert.equal((JSON.parse(listed) as { data: { snapshots: unknown[] } }).data.snapshots.length, 2);
  assert.equal(run(`cairn -q -C ${home} backup show latest:letter`)[1], "dear Cleo");
  fs.renameSync(at("backups"), at("away"));
  const [status, said] = run(line);
  assert.equal(status, 3, said);
  assert.match(said, /no repository/);
});
