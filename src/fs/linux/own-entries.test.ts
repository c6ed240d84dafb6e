import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { ownEntries } from "./mounts.ts";

test("ownEntries lists lost+found only at the root of an ext4 file system", (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const inside = path.join(volume.root, "inside");
  for (const folder of [volume.root, inside]) fs.mkdirSync(path.join(folder, ".Trashes/501"), { recursive: true });
  fs.mkdirSync(path.join(inside, "lost+found"), { mode: 0o700 });
  const own = (folder: string): string[] => ownEntries(Buffer.from(folder));
  assert.deepEqual(own(volume.root), ["lost+found"]);
  assert.deepEqual(own(inside), []);
});
