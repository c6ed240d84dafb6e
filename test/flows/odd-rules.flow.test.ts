import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, SCRATCH } from "../fixtures/command.ts";

test("save warns of a .cairnignore that is a link, a pipe, a directory or UTF-16", () => {
  const folder = path.join(SCRATCH, "work");
  const rulesIn = (name: string): string => {
    fs.mkdirSync(path.join(folder, name), { recursive: true });
    fs.writeFileSync(path.join(folder, name, "ignored"), name);
    return path.join(folder, name, ".cairnignore");
  };
  fs.writeFileSync(path.join(SCRATCH, "rules"), "ignored\n");
  fs.symlinkSync(path.join(SCRATCH, "rules"), rulesIn("link"));
  execFileSync("mkfifo", [rulesIn("pipe")]);
  fs.mkdirSync(rulesIn("directory"));
  fs.writeFileSync(rulesIn("wide"), Buffer.from("\uFEFFignored\n", "utf16le"));
  fs.writeFileSync(rulesIn("good"), "ignored\n");
  const warned = (): string[] => cairnOk(["save", folder]).warnings.filter((each) => /rules of/.test(each));
  const first = warned();
  assert.equal(first.length, 4, first.join("\n"));
  for (const [name, why] of Object.entries({
    directory: "not a regular file",
    link: "symlink",
    pipe: "not a regular file",
    wide: "UTF-16",
  }))
    assert.ok(
      first.some((each) => each.includes(`${name}/.cairnignore`) && each.includes(why)),
      first.join("\n"),
    );
  // As long as they are there.
  fs.writeFileSync(path.join(folder, "other"), "1");
  assert.deepEqual(warned(), first);
  const to = ["-r", path.join(SCRATCH, "repository"), "--password-command", "echo secret"];
  cairnOk(["backup", "init", ...to]);
  const other = path.join(SCRATCH, "other");
  fs.mkdirSync(other);
  assert.match(cairnOk(["backup", "create", folder, other, ...to]).warnings.join(), /UTF-16/);
});
