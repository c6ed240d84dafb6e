import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { ownEntries } from "./own-entries.ts";

test("what macOS keeps at a volume's root is its own there, and nowhere else", (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const inside = path.join(volume.root, "inside");
  for (const folder of [volume.root, inside]) fs.mkdirSync(path.join(folder, ".Trashes/501"), { recursive: true });
  fs.writeFileSync(path.join(volume.root, ".TemporaryItems"), "a file of somebody's");
  const own = (folder: string, platform?: NodeJS.Platform): string[] => ownEntries(Buffer.from(folder), platform);
  assert.deepEqual(own(volume.root, "darwin").toSorted(), [".Trashes", "lost+found"]);
  assert.deepEqual(own(volume.root), ["lost+found"]);
  assert.deepEqual(own(inside, "darwin"), []);
});
