import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { BlobIndex } from "./index/blob-index.ts";
import { Repository } from "./repository.ts";
import { LocalStorage } from "./storage/local.ts";
import {
  PASSWORD,
  randomFiles,
  restic,
  resticCheck,
  resticInstalled,
  TestArchive,
  withFolder,
  repositoryFor,
  writeTree,
} from "./testing-archive.ts";

describe("a repository with real restic", { skip: resticInstalled ? false : "restic is not installed" }, () => {
  test("restic opens a created repository and lists no snapshots", async (t) => {
    const { path } = await repositoryFor(t);
    assert.deepEqual(JSON.parse(restic(path, ["snapshots", "--json"])), []);
    resticCheck(path);
  });

  test("restic can check, restore from and back up into a repository of Cairn", async (t) => {
    const fixture = await repositoryFor(t);
    const files = { a: Buffer.from("hello"), b: randomBytes(50_000), empty: Buffer.alloc(0) };
    await new TestArchive(fixture).save(files);
    resticCheck(fixture.path);
    restic(fixture.path, ["restore", "latest", "--target", join(fixture.folder, "out")]);
    for (const [name, content] of Object.entries(files)) {
      assert.deepEqual(readFileSync(join(fixture.folder, "out/folder", name)), content);
    }
    writeTree(join(fixture.folder, "theirs"), randomFiles(5, 9000));
    restic(fixture.path, ["backup", "theirs"], fixture.folder);
    const { snapshots, damaged } = await fixture.repository.listSnapshots();
    assert.equal(snapshots.length, 2);
    assert.equal(damaged.length, 0);
    const index = await BlobIndex.load(fixture.repository, null);
    assert.deepEqual(index.damaged, []);
    for (const { snapshot } of snapshots) assert.ok(index.lookup(Buffer.from(snapshot.tree, "hex"), 0, 1) >= 0);
  });

  for (const version of ["1", "2"]) {
    test(`Cairn opens a repository of format version ${version} that restic made`, async () => {
      await withFolder(async (folder) => {
        const path = join(folder, "theirs");
        restic(path, ["init", "--repository-version", version]);
        writeTree(join(folder, "data"), { ...randomFiles(10, 3000), text: Buffer.alloc(100_000, "abc") });
        restic(path, ["backup", "data"], folder);
        restic(path, ["backup", "data", ...(version === "2" ? ["--compression", "max"] : [])], folder);
        const storage = new LocalStorage(path, { temporaryDirectory: join(folder, "tmp") });
        const repository = await Repository.open(storage, { password: PASSWORD });
        assert.equal(repository.version, Number(version));
        assert.equal((await repository.listSnapshots()).snapshots.length, 2);
        const index = await BlobIndex.load(repository, join(folder, "cache"));
        assert.deepEqual(index.damaged, []);
        assert.ok(index.count >= 12);
      });
    });
  }
});
