import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { backupScene } from "./testing-far.ts";

test("a backup leaves out Cairn's own cache if it lies inside the folder", async (t) => {
  const { client, library, options, folder, write } = await backupScene(t, "local");
  // As that of a home directory.
  process.env["XDG_CACHE_HOME"] = join(folder, "cache");
  write("cache/other/kept", "x\n");
  await using repository = await library.openRepository(options);
  await client.createBackup(repository, { save: true });
  const second = await client.createBackup(repository, { save: true });
  assert.equal(second.unchanged, true);
  assert.equal((await client.status()).clean, true);
  const shown = await repository.show("latest", "cache");
  assert.deepEqual(
    shown.entries.map(({ path }) => path),
    ["cache/other"],
  );
  const tag = join(folder, "cache/cairn/CACHEDIR.TAG");
  assert.match(readFileSync(tag, "utf8"), /^Signature: 8a477f597d28d172789f06886806bc55\n/);
  write("a.txt", "changed\n");
  const { left_out: leftOut } = await client.restoreBackup(repository, "latest");
  assert.deepEqual(leftOut, []);
  assert.ok(existsSync(tag));
});
