import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

function chattr(t: TestContext, flag: string, place: string): void {
  assert.equal(spawnSync("chattr", [flag, place]).status, 0, `chattr ${flag} ${place}`);
  if (flag.startsWith("+")) t.after(() => spawnSync("chattr", [flag.replace("+", "-"), place]));
}

function details(words: string[]): Record<string, string> {
  const { status, data } = cairn(words);
  assert.equal(status, 10);
  const left = data["left_out"] as { path: string; detail: string; reason: string }[];
  for (const { reason } of left) assert.equal(reason, "not_permitted");
  return Object.fromEntries(left.map(({ path: name, detail }) => [name, detail]));
}

test("restore names the chattr flag that protects an immutable or append-only entry", (t) => {
  if (spawnSync("chattr", ["-V"]).error !== undefined) return t.skip("no chattr");
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = path.join(disk.root, "work");
  const at = (name: string): string => path.join(folder, name);
  fs.mkdirSync(at("dir"), { recursive: true });
  const write = (content: string): void => {
    for (const name of ["immutable", "append", "dir/file", "times"]) fs.writeFileSync(at(name), content);
    fs.writeFileSync(at("times"), "same");
    fs.utimesSync(at("times"), content.length, content.length);
  };
  write("1");
  cairnOk(["save", folder]);
  write("two");
  cairnOk(["save", folder]);
  for (const [flag, name] of Object.entries({ immutable: "+i", append: "+a", dir: "+i", times: "+i" }))
    chattr(t, name, at(flag));
  const kept = details(["-C", folder, "restore", "head~1"]);
  assert.deepEqual(Object.keys(kept).sort(), ["append", "dir/file", "immutable", "times"]);
  assert.match(kept["immutable"]!, /EPERM: it is immutable: `chattr -i`/);
  assert.match(kept["append"]!, /EPERM: it is append-only: `chattr -a`/);
  assert.match(kept["dir/file"]!, /EPERM: its directory is immutable: `chattr -i`/);
  assert.match(kept["times"]!, /it is immutable: `chattr -i`/);
});
