import assert from "node:assert/strict";
import { copyFileSync, linkSync, mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import { spawnSync } from "node:child_process";
import { backupScene, type BackupScene } from "../../backup/testing-far.ts";
import { testFolder } from "../../keep/testing-folder.ts";

/** Calls that take operands give the same answers for a backup of restic as for one of Cairn. */

const skip = spawnSync("restic", ["version"]).error === undefined ? false : "no restic";

function resticBackup({ place, folder }: BackupScene): void {
  const env = { ...process.env, RESTIC_PASSWORD: "correct horse" };
  assert.equal(spawnSync("restic", ["-r", place, "--no-cache", "-q", "backup", folder], { env }).status, 0);
}

/** The folder is saved, and restic has backed it up since. */
async function savedAndBackedUp(t: TestContext): Promise<BackupScene & { saved: string }> {
  const scene = await backupScene(t, "local");
  linkSync(join(scene.folder, "a.txt"), join(scene.folder, "deep/again"));
  const { save_point_id: saved } = await scene.client.save();
  resticBackup(scene);
  return { ...scene, saved };
}

describe("a backup of restic", { skip }, () => {
  test("equals the point and the folder that it was made of, hard links included", async (t) => {
    const { client, repository, saved, write } = await savedAndBackedUp(t);
    for (const other of [saved, "."]) {
      const { entries } = await client.diff("backup:latest", other, { repository });
      assert.deepEqual(entries, [], other);
    }
    write("many/3", "changed\n");
    const { entries } = await client.diff("backup:latest", null, { repository });
    assert.deepEqual(
      entries.map(({ path }) => path),
      ["many/3"],
    );
  });

  test("is the folder itself in every call, also before the first point", async (t) => {
    const scene = await backupScene(t, "local");
    const { client, repository } = scene;
    resticBackup(scene);
    scene.write("a.txt", "a\nmore\n");
    const text = await client.diffText("a.txt", "backup:latest", null, { repository });
    assert.equal(text.before?.size, 2);
    const bytesOf = async (target: string, path: string, archive?: "tar"): Promise<Buffer> => {
      const pieces: Uint8Array[] = [];
      for await (const piece of client.read(target, path, { repository, ...(archive && { archive }) }))
        pieces.push(piece);
      return Buffer.concat(pieces);
    };
    assert.equal((await bytesOf("backup:latest", "a.txt")).toString(), "a\n");
    assert.ok((await bytesOf("backup:latest:deep", "", "tar")).includes("\0deep/b.txt\0"));
    const { entries } = await client.diff("backup:latest:deep", join(scene.folder, "deep"), { repository });
    assert.deepEqual(entries, []);
  });

  test("changes no entry in the answer of why if the backup before it, by Cairn, has the same state", async (t) => {
    const scene = await backupScene(t, "local");
    const { client, repository, folder } = scene;
    linkSync(join(folder, "a.txt"), join(folder, "deep/again"));
    await client.createBackup(repository, { save: true });
    resticBackup(scene);
    const { backups } = await client.why("a.txt", { in: "backups", repository });
    assert.deepEqual(
      backups!.changes.map(({ change }) => change),
      ["added"],
    );
  });
});

test("two equal folders of one point with hard links do not differ", async (t) => {
  const { client, folder, write } = await testFolder(t);
  for (const name of ["old", "new"]) {
    mkdirSync(join(folder, name));
    write(`${name}/a`, "a\n");
    linkSync(join(folder, `${name}/a`), join(folder, `${name}/b`));
  }
  await client.save();
  const { entries } = await client.diff("latest:old", "latest:new");
  assert.deepEqual(
    entries.filter(({ aspects }) => aspects.join() !== "times"),
    [],
  );
  rmSync(join(folder, "old/b"));
  copyFileSync(join(folder, "old/a"), join(folder, "old/b"));
  const unlinked = (await client.diff("latest:old")).entries.filter(({ aspects }) => aspects.includes("links"));
  assert.deepEqual(
    unlinked.map(({ path }) => path),
    ["a", "b"],
  );
});
