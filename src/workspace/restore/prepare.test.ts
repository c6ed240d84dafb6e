import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
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
