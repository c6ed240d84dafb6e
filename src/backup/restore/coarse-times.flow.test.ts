import assert from "node:assert/strict";
import { lutimesSync, symlinkSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { backupScene } from "../testing-far.ts";

test("restore names the entries whose times a file system with whole seconds rounded", async (t) => {
  const disk = loopFileSystem(t, "ext4", { makeOptions: ["-I", "128"] });
  if (disk === null) return;
  const at = await backupScene(t, "local");
  const { client, repository, folder, root } = at;
  symlinkSync("a.txt", join(folder, "link"));
  // Kept as it is: a time of a whole second.
  utimesSync(join(folder, "a.txt"), 1_700_000_000, 1_700_000_000);
  lutimesSync(join(folder, "link"), 1_700_000_000.5, 1_700_000_000.5);
  await client.createBackup(repository, { save: true });
  const exact = await repository.restore("latest", join(root, "exact"));
  assert.deepEqual(exact.left_out, []);
  const coarse = await repository.restore("latest", join(disk.root, "coarse"));
  const named = new Map(coarse.left_out.map((each) => [each.path, each]));
  assert.ok(named.size >= 50, String(named.size));
  for (const path of ["link", "deep", "deep/b.txt", "many/7"]) {
    assert.deepEqual(named.get(path)?.aspects, ["times"], path);
    assert.match(named.get(path)!.detail!, /rounds times/);
  }
  assert.equal(named.has("a.txt"), false);
  assert.ok(coarse.proof !== null);
});
