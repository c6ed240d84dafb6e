import assert from "node:assert/strict";
import { readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { BlobIndex } from "../../repository/index/blob-index.ts";
import {
  PASSWORD,
  randomFiles,
  restic,
  resticInstalled,
  sha,
  TestArchive,
  withRepository,
  writeTree,
  type Fixture,
} from "../../repository/testing-archive.ts";
import type { BackupProblem } from "../../contract/index.ts";
import { OpenRepository } from "../open/open-repository.ts";
import { verifyRepository } from "./verify.ts";

/** Reading all packs of repositories whose content is known to the byte. */

async function problemsOf({ folder, path, storage, repository }: Fixture): Promise<BackupProblem[]> {
  const env = { XDG_CACHE_HOME: folder };
  const access = OpenRepository.over({ repository: path, password: PASSWORD, env }, storage, repository);
  return (await verifyRepository(access, {})).problems;
}

function kindsOf(problems: readonly BackupProblem[]): string[] {
  return [...new Set(problems.map(({ kind }) => kind))].toSorted();
}

function hexId(content: Uint8Array): string {
  return Buffer.from(sha(content)).toString("hex");
}

test("verify finds no problems in an intact repository", async () => {
  await withRepository(async (fixture) => {
    await new TestArchive(fixture).save(randomFiles(5, 2000));
    if (resticInstalled) {
      writeTree(join(fixture.folder, "data"), { ...randomFiles(5, 9000), text: Buffer.alloc(200_000, "text ") });
      restic(fixture.path, ["backup", "data"], fixture.folder);
    }
    assert.deepEqual(await problemsOf(fixture), []);
  });
});

test("verify names the pack and the file that each flipped bit damages", async () => {
  await withRepository(async (fixture) => {
    const files = randomFiles(4, 3000);
    await new TestArchive(fixture).save(files);
    const [pack] = (await fixture.storage.list("data")).toSorted((a, b) => b.size - a.size);
    const path = fixture.storage.localPath("data", pack!.name);
    const sound = readFileSync(path);
    let blobs = 0;
    for (let i = 0; i < 24; i++) {
      const bytes = Buffer.from(sound);
      bytes[Math.min(bytes.length - 1, Math.floor((i / 23) * bytes.length))]! ^= 1 << (i % 8);
      writeFileSync(path, bytes);
      const problems = await problemsOf(fixture);
      const [damaged, ...more] = problems.filter(({ kind }) => kind === "pack_damaged");
      assert.deepEqual([damaged?.object, more], [pack!.name, []]);
      const costly = problems.filter((problem) => problem !== damaged);
      assert.ok(costly.length <= 1 && costly.every(({ kind }) => kind === "blob_damaged"), kindsOf(problems).join());
      for (const { object, losses } of costly) {
        blobs++;
        const [name] = Object.entries(files).find(([, content]) => hexId(content) === object)!;
        assert.deepEqual(
          losses.map((loss) => loss.path),
          [`folder/${name}`],
        );
      }
    }
    assert.ok(blobs > 20, `${blobs} of 24 flips were in blobs`);
  });
});

test("verify reports no lost paths for damage in an unused copy of a blob", async () => {
  await withRepository(async (fixture) => {
    const { storage, repository } = fixture;
    const files = randomFiles(1, 3000);
    await new TestArchive(fixture).save(files);
    await new TestArchive(fixture).save(files);
    const index = await BlobIndex.load(repository, null);
    const used = Buffer.from(index.place(index.lookup(sha(files["f0"]!), 0)).pack).toString("hex");
    const other = (await storage.list("data")).find(({ name, size }) => size > 3000 && name !== used)!;
    const path = storage.localPath("data", other.name);
    const bytes = readFileSync(path);
    bytes[100]! ^= 1;
    writeFileSync(path, bytes);
    const problems = await problemsOf(fixture);
    assert.deepEqual(
      problems.map(({ kind, object, losses }) => [kind, object, losses]),
      [["pack_damaged", other.name, []]],
    );
  });
});

test("verify names a blob whose id is wrong in the index although its pack is intact", async () => {
  await withRepository(async (fixture) => {
    const { storage, repository } = fixture;
    const files = randomFiles(2, 3000);
    await new TestArchive(fixture).save(files);
    const [index] = await storage.list("index");
    const [known, unknown] = [hexId(files["f0"]!), "ab".repeat(32)];
    const text = Buffer.from(await repository.loadUnpacked("index", index!.name)).toString();
    await storage.remove("index", index!.name);
    await repository.saveUnpacked("index", Buffer.from(text.replace(known, unknown)));
    const problems = await problemsOf(fixture);
    assert.deepEqual(
      problems.map(({ kind, object, losses }) => [kind, object, losses.map((loss) => loss.path)]).toSorted(),
      [
        ["blob_damaged", unknown, []],
        ["blob_missing", known, ["folder/f0"]],
      ],
    );
    assert.match(problems.find(({ object }) => object === unknown)!.detail, /where the index places it/);
  });
});

test("verify names the unreadable pack as the reason for each of its blobs", async () => {
  await withRepository(async (fixture) => {
    const { storage } = fixture;
    const files = randomFiles(3, 3000);
    await new TestArchive(fixture).save(files);
    const packs = await storage.list("data");
    const pack = packs.toSorted((a, b) => b.size - a.size)[0]!.name;
    rmSync(storage.localPath("data", pack));
    // It is there, and the system refuses to open it.
    symlinkSync(pack, storage.localPath("data", pack));
    const list = storage.list.bind(storage);
    storage.list = async (kind) => (kind === "data" ? packs : list(kind));
    const problems = await problemsOf(fixture);
    const damaged = problems.find(({ kind }) => kind === "pack_damaged")!;
    assert.equal(damaged.object, pack);
    const blobs = problems.filter((problem) => problem !== damaged);
    const told = `its pack ${pack} cannot be read: ${damaged.detail}`;
    assert.deepEqual(
      blobs.map(({ kind, object, detail }) => [kind, object, detail]).toSorted(),
      Object.values(files)
        .map((content) => ["blob_damaged", hexId(content), told])
        .toSorted(),
    );
  });
});
