import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import { objectIdOf } from "../../ids.ts";
import { loadIndexFile } from "../../repository/index/index-set.ts";
import { loadPackHeader } from "../../repository/packs/pack-read.ts";
import { resticCheck } from "../../repository/testing-archive.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, SCHEMES, spoil, storedTwice } from "../testing-far.ts";

for (const scheme of SCHEMES) {
  for (const number of [0, 1])
    test(`prune of a ${scheme} repository keeps the intact copy of each blob if pack set ${number} is damaged`, async (t) => {
      const at = await backupScene(t, scheme);
      const { repository, place, root, folder } = at;
      writeFileSync(join(folder, "random"), randomBytes(300_000));
      spoil([largest((await storedTwice(at))[number]!)], "first blob");
      const planned = await repository.prune({ instant: true, dryRun: true });
      const { bytes_freed, damaged_packs } = await repository.prune({ instant: true });
      assert.ok(bytes_freed > 300_000 && planned.bytes_freed > 300_000, String(bytes_freed));
      assert.deepEqual(damaged_packs, []);
      const restored = await repository.restore("latest", join(root, "to"));
      assert.equal(restored.proof?.state_digest, walkDigests(folder).state);
      await repository.repair({ what: "packs" });
      assert.deepEqual((await repository.verify()).problems, []);
      resticCheck(place);
    });

  test(`prune of a ${scheme} repository keeps blobs whose copies are all damaged, and names their packs`, async (t) => {
    const at = await backupScene(t, scheme);
    writeFileSync(join(at.folder, "random"), randomBytes(300_000));
    const packs = (await storedTwice(at)).map(largest);
    spoil(packs, "all blobs");
    const planned = await at.repository.prune({ instant: true, dryRun: true });
    const { bytes_freed, damaged_packs } = await at.repository.prune({ instant: true });
    assert.ok(bytes_freed < 300_000);
    assert.deepEqual(planned.damaged_packs.toSorted(), damaged_packs.toSorted());
    assert.deepEqual(damaged_packs.toSorted(), packs.map((pack) => basename(pack)).toSorted());
    assert.ok(packs.every((pack) => existsSync(pack)));
  });
}

function largest(files: readonly string[]): string {
  return files.toSorted((a, b) => statSync(a).size - statSync(b).size).at(-1)!;
}

for (const scheme of SCHEMES)
  test(`prune of a ${scheme} repository keeps the intact copy if the damaged copy is in a fully used pack`, async (t) => {
    const { client, repository, place, root, folder } = await backupScene(t, scheme);
    const at = (name: string): string => join(folder, name);
    writeFileSync(at("stays"), randomBytes(300_000));
    writeFileSync(at("goes"), randomBytes(300_000));
    const { snapshot } = await client.createBackup(repository, { save: true });
    const before = packsIn(place);
    const [index, aside] = [join(place, "index"), join(root, "aside")];
    renameSync(index, aside);
    mkdirSync(index);
    rmSync(process.env["XDG_CACHE_HOME"]!, { recursive: true });
    rmSync(at("goes"));
    await client.createBackup(repository, { save: true });
    for (const name of readdirSync(aside)) renameSync(join(aside, name), join(index, name));
    await repository.forget({ snapshots: [snapshot!.snapshot_id] });
    spoil([largest(packsIn(place).filter((file) => !before.includes(file)))], "all blobs");
    await repository.prune({ instant: true, maxUnused: 0 });
    const restored = await repository.restore("latest", join(root, "to"));
    assert.deepEqual([restored.left_out, restored.proof?.state_digest], [[], walkDigests(folder).state]);
  });

function packsIn(place: string): string[] {
  const entries = readdirSync(join(place, "data"), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
}

for (const [scheme, how] of [
  ["local", "all blobs"],
  ["local", "lost"],
  ["far", "all blobs"],
] as const)
  for (const number of [0, 1])
    test(`prune of a ${scheme} repository reads trees from their second pack if pack set ${number} is spoilt: ${how}`, async (t) => {
      const at = await backupScene(t, scheme);
      const { repository, place, root, folder } = at;
      for (let i = 0; i < 20; i++) at.write(`folders/${i}/file`, `file ${i}\n`);
      const trees = await treePacks(at, (await storedTwice(at))[number]!);
      assert.ok(trees.length > 0);
      spoil(trees, how);
      const warnings: string[] = [];
      const onWarning = (message: string): void => void warnings.push(message);
      await repository.prune({ instant: true, dryRun: true, onWarning });
      const { bytes_freed, damaged_packs } = await repository.prune({ instant: true, maxUnused: 0, onWarning });
      assert.ok(bytes_freed > 0);
      assert.deepEqual(damaged_packs, []);
      // Where the index has the sound ones, the others are not read.
      for (const warning of warnings) assert.match(warning, /read from other packs.*`cairn backup repair packs`/);
      const restored = await repository.restore("latest", join(root, "to"));
      assert.deepEqual([restored.left_out, restored.proof?.state_digest], [[], walkDigests(folder).state]);
      await repository.repair({ what: "packs" });
      assert.deepEqual((await repository.verify()).problems, []);
      resticCheck(place);
    });

test("prune frees nothing and proposes `repair packs` if all copies of a tree are damaged", async (t) => {
  const at = await backupScene(t, "local");
  const { repository } = at;
  const trees = await treePacks(at, (await storedTwice(at)).flat());
  spoil(trees, "all blobs");
  const sizes = (): number[] => packsIn(at.place).map((file) => statSync(file).size);
  const before = sizes();
  await assert.rejects(repository.prune({ instant: true }), {
    code: "damaged",
    hint: /nothing was freed\..*`cairn backup repair packs`/,
  });
  assert.deepEqual(sizes(), before);
});

for (const scheme of SCHEMES)
  test(`prune of a ${scheme} repository keeps the packs of a killed backup if the later copy is damaged`, async (t) => {
    const at = await backupScene(t, scheme);
    const { repository, place, root, folder } = at;
    writeFileSync(join(folder, "random"), randomBytes(300_000));
    const listed = join(place, "index");
    const [left, again] = await storedTwice(at);
    const { access } = repository as OpenedRepository;
    for (const { name } of await access.storage.list("index")) {
      const { packs } = await loadIndexFile(access.repository, name);
      if (packs.some(({ id }) => left.some((file) => basename(file) === objectIdOf(id)))) rmSync(join(listed, name));
    }
    rmSync(process.env["XDG_CACHE_HOME"]!, { recursive: true });
    const sound = await repository.prune({ instant: true, dryRun: true });
    assert.equal(sound.unindexed_packs, left.length);
    spoil([largest(again)], "first blob");
    const { damaged_packs, unindexed_packs } = await repository.prune({ instant: true });
    assert.deepEqual([damaged_packs, unindexed_packs], [[basename(largest(again))], 0]);
    assert.deepEqual((await repository.repair({ what: "packs" })).lost_blobs, []);
    const restored = await repository.restore("latest", join(root, "to"));
    assert.deepEqual([restored.left_out, restored.proof?.state_digest], [[], walkDigests(folder).state]);
    assert.deepEqual((await repository.prune({ instant: true })).damaged_packs, []);
    resticCheck(place);
  });

/** Those of these packs that hold trees. */
async function treePacks({ repository }: BackupScene, files: readonly string[]): Promise<string[]> {
  const { access } = repository as OpenedRepository;
  const found: string[] = [];
  for (const file of files) {
    const [first] = await loadPackHeader(access.repository, basename(file), statSync(file).size);
    if (first?.type === "tree") found.push(file);
  }
  return found;
}
