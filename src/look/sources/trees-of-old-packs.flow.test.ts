import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { describe, test, type TestContext } from "node:test";
import { backupScene, type BackupScene, withManifest } from "../../backup/testing-far.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";

/** A far snapshot whose folder `many` has not changed since an earlier backup: its tree lies in that backup's pack. */
async function secondSnapshot(t: TestContext): Promise<BackupScene & { snapshot: string }> {
  const scene = await backupScene(t, "far");
  const { client, repository, write } = scene;
  await client.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  const { snapshot } = await client.createBackup(repository, { save: true });
  return { ...scene, snapshot: snapshot!.snapshot_id };
}

describe("a far snapshot with a tree in an earlier backup's pack", () => {
  test("diff --path finds an unchanged file", async (t) => {
    const { client, library, options } = await secondSnapshot(t);
    rmSync(process.env["XDG_CACHE_HOME"]!, { recursive: true });
    await using repository = await library.openRepository(options);
    const { entries } = await client.diff("backup:latest", null, { repository, paths: ["many/7"] });
    assert.deepEqual(entries, []);
    const missing = client.diff("backup:latest", null, { repository, paths: ["many/none"] });
    await assert.rejects(missing, hasCode("not_found"));
  });

  test("diff lists a file that only the manifests show as changed", async (t) => {
    const { client, library, options, repository: first, snapshot } = await secondSnapshot(t);
    const field = { path: "many/7", field: "mtime", value_b64: Buffer.from("5.5").toString("base64") };
    const other = await withManifest(first as OpenedRepository, snapshot, (text) =>
      text.replace('"lossless":[]', `"lossless":[${JSON.stringify(field)}]`),
    );
    rmSync(process.env["XDG_CACHE_HOME"]!, { recursive: true });
    await using repository = await library.openRepository(options);
    const { entries } = await client.diff(`backup:${snapshot}`, `backup:${other}`, { repository });
    assert.deepEqual(
      entries.map(({ path, aspects }) => [path, aspects]),
      [["many/7", ["times"]]],
    );
  });
});
