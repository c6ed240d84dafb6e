import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { cairnLibrary } from "../../../test/fixtures/work.ts";

test("a restore on btrfs reaches files whose paths are longer than the system allows", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  const sh = (script: string): string => execFileSync("sh", ["-ec", script], { cwd: folder, encoding: "utf8" });
  const down = `name=${"d".repeat(200)}; i=0; while [ $i -lt 30 ]; do mkdir -p $name; cd -P $name; i=$((i + 1)); done`;
  sh(`${down}; echo one > file`);
  const client = await (await cairnLibrary()).init(folder, { engineType: "copy" });
  await client.save();
  sh(`${down}; echo two > file`);
  await client.restore({ target: "latest" });
  assert.equal(sh(`${down}; cat file`), "one\n");
  await client.undo();
  assert.equal(sh(`${down}; cat file`), "two\n");
});

test("undo brings back ignored entries of a folder that a restored file replaced", async (t) => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-ignored-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  const at = (name: string): string => path.join(folder, name);
  fs.writeFileSync(at(".cairnignore"), "made\n");
  fs.writeFileSync(at("build"), "a file once\n");
  const client = await (await cairnLibrary()).init(folder, { engineType: "copy" });
  const { save_point_id: first } = await client.save();
  fs.rmSync(at("build"));
  fs.mkdirSync(at("build"));
  fs.writeFileSync(at("build/made"), "in the way\n");
  await client.restore({ target: first });
  assert.equal(fs.readFileSync(at("build"), "utf8"), "a file once\n");
  await client.undo();
  assert.equal(fs.readFileSync(at("build/made"), "utf8"), "in the way\n");
});
