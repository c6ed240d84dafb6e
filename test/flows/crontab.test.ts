import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { buildCommand, ROOT, SCRATCH } from "../fixtures/command.ts";

/** The crontab of the docs, with the places of this test: what cron hands to the shell, and in which environment. */
function crontab(places: Readonly<Record<string, string>>): { line: string; env: Record<string, string> } {
  let text = /```crontab\n([^`]*)```/.exec(fs.readFileSync(path.join(ROOT, "docs/backups.md"), "utf8"))?.[1] ?? "";
  for (const [named, here] of Object.entries(places)) {
    assert.ok(text.includes(named), named);
    text = text.replaceAll(named, here);
  }
  const env: Record<string, string> = { SHELL: "/bin/sh", PATH: "/usr/bin:/bin" };
  for (const [, name = "", value = ""] of text.matchAll(/^(\w+)=(.*)$/gm)) env[name] = value;
  const [, line = ""] = /^(?:\S+\s+){5}(.*)$/m.exec(text.replaceAll(/^\w+=.*\n/gm, "")) ?? [];
  return { line, env };
}

test("the nightly line of the docs backs a home directory up under cron, says nothing, and mails what goes wrong", () => {
  const root = path.join(SCRATCH, "crontab");
  const at = (name: string): string => path.join(root, name);
  const home = at("ann");
  for (const folder of [root, home, at("bin")]) fs.mkdirSync(folder);
  fs.writeFileSync(path.join(home, "letter"), "dear Ben");
  fs.writeFileSync(at("password"), "p\n", { mode: 0o600 });
  fs.writeFileSync(at("bin/cairn"), `#!/bin/sh\nexec ${process.execPath} ${buildCommand()} "$@"\n`, { mode: 0o755 });
  const { line, env } = crontab({
    "/usr/local/bin": at("bin"),
    "/srv/backups": at("backups"),
    "/root/.cairn-password": at("password"),
    "/home/ann": home,
  });
  const run = (words: string): [number | null, string] => {
    const ran = spawnSync("/bin/sh", ["-c", words], { env: { ...env, HOME: home }, cwd: "/", encoding: "utf8" });
    return [ran.status, ran.stdout + ran.stderr];
  };
  const [status, said] = run(line);
  assert.equal(status, 3, said);
  assert.match(said, /no repository/);
  assert.equal(run(line.replace(/backup create .*/, "backup init"))[0], 0);
  assert.deepEqual(run(line), [0, ""]);
  fs.writeFileSync(path.join(home, "letter"), "dear Cleo");
  assert.deepEqual(run(line), [0, ""]);
  const [, shown] = run(line.replace(/backup create .*/, "backup show latest:letter"));
  assert.equal(shown, "dear Cleo");
});
