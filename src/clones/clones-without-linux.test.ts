import assert from "node:assert/strict";
import fs from "node:fs";
import { test } from "node:test";
import { loopFileSystem } from "../../test/fixtures/loop-file-system.ts";

// The same with no more of the system's calls than macOS has. The modules look when they are loaded.
process.env["CAIRN_NO_NATIVE"] = "linux";
await import("./clone-tree.test.ts");
await import("./reflink-holder.test.ts");
const { probeHolder } = await import("./probe.ts");

test("a file system is refused when a clone that is made changes the times of its file", async (t) => {
  const volume = loopFileSystem(t, "xfs");
  if (volume === null) return;
  const probe = async (): ReturnType<typeof probeHolder> =>
    probeHolder("reflink-copy", { folder: Buffer.from(volume.root), place: volume.root });
  assert.equal(await probe(), null);
  const { copyFileSync } = fs;
  t.mock.method(fs, "copyFileSync", (from: string, to: string, mode: number) => {
    copyFileSync(from, to, mode);
    fs.utimesSync(from, 1, 1);
  });
  assert.deepEqual(await probe(), { reason: "making a clone changes the times of its file" });
});
