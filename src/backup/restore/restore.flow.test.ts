import assert from "node:assert/strict";
import { chmodSync, existsSync, linkSync, readdirSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { rightsCount, runWithoutCapabilities } from "../../workspace/store/testing-rights.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { ObjectId } from "../../ids.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import {
  backupScene,
  damageBlob,
  nodeAt,
  opened,
  SCHEMES,
  withAnotherPiece,
  withManifest,
  withNode,
} from "../testing-far.ts";

test("restore writes all files without a proof if the snapshot's manifest is damaged", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder, root } = at;
  await client.createBackup(repository, { save: true });
  await damageBlob(at, (await nodeAt(repository, "latest", "/.cairn/manifest.json")).content![0]!);
  const target = join(root, "restored");
  const restored = await repository.restore("latest", target);
  assert.deepEqual(
    restored.left_out.map(({ path, reason }) => [path, reason]),
    [["", "damaged"]],
  );
  assert.equal(restored.proof, null);
  assert.equal(walkDigests(target).state, walkDigests(folder).state);
});

test("restore of `latest` succeeds if another snapshot is finished while it begins", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, root } = at;
  await client.createBackup(repository, { save: true });
  const { repository: inner } = (repository as OpenedRepository).access;
  const list = inner.listSnapshots.bind(inner);
  inner.listSnapshots = async (...args) => {
    inner.listSnapshots = list;
    at.write("new.txt", "content that no index before had\n");
    await client.createBackup(repository, { save: true });
    return list(...args);
  };
  const { proof } = await repository.restore("latest", join(root, "restored"));
  assert.equal(proof?.state_digest, walkDigests(at.folder).state);
});

test("restore writes another program's rewritten copy of a snapshot, with a warning and without a proof", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "far");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const digest = walkDigests(folder).state;
  const opened = repository as OpenedRepository;
  const other = await withManifest(opened, snapshot!.snapshot_id, (text) => text.replace(digest, "ab".repeat(32)));
  await assert.rejects(repository.restore(other, join(root, "not this")), { code: "damaged" });
  const stored = opened.access.repository;
  const made = await stored.loadSnapshot(other);
  const derived = await stored.saveSnapshot({
    ...made,
    original: snapshot!.snapshot_id as ObjectId,
    tags: ["rewrite"],
  });
  await opened.access.repository.storage.remove("snapshots", other);
  const warnings: string[] = [];
  const onWarning = (message: string): number => warnings.push(message);
  const { problems, checked } = await repository.verify({ onWarning });
  assert.deepEqual([problems, checked.digests], [[], 1]);
  // Nothing tells such a one from a copy of what was wrong already.
  assert.match(warnings.splice(0).join("\n"), new RegExp(`^snapshot ${derived.slice(0, 8)} .* recorded is (ab){32}`));
  await assert.rejects(repository.restore(derived, join(root, "restored"), { receipt: join(root, "receipt") }), {
    code: "usage",
    message: /lacks some of the saved files/,
  });
  const restored = await repository.restore(derived, join(root, "restored"), { onWarning });
  assert.deepEqual([restored.proof, restored.read_again, restored.left_out], [null, true, []]);
  assert.match(warnings.join(), /another program made this snapshot/);
  assert.equal(walkDigests(join(root, "restored")).state, digest);
  await assert.rejects(client.restoreBackup(repository, derived), {
    code: "refused",
    message: /another program rewrote it/,
    hint: /--to/,
  });
});

for (const scheme of SCHEMES)
  for (const proveFrom of ["disk", "memory"] as const)
    test(`restore with proof fails if a file's blob is a different intact one, and names --prove no: ${scheme}, proven from ${proveFrom}`, async (t) => {
      const at = await backupScene(t, scheme);
      const { client, repository, folder, root } = at;
      const { snapshot } = await client.createBackup(repository, { save: true });
      const path = `${folder.slice(1)}/many/7`;
      const other = await withAnotherPiece(repository as OpenedRepository, snapshot!.snapshot_id, path);
      const target = join(root, "restored");
      await assert.rejects(repository.restore(other, target, { proveFrom }), {
        code: "damaged",
        message: /^the restored content .* reads back differently at "?many\/7"?$/,
        hint: /^nothing was put in place;.*--prove no restores the readable content/,
      });
      assert.deepEqual(
        readdirSync(root).filter((name) => name.includes("restored")),
        [],
      );
      const restored = await repository.restore(other, target, { prove: false });
      const lost = restored.left_out.map(({ path: lostPath, reason, detail }) => [lostPath, reason, detail]);
      assert.deepEqual([lost.length, lost[0]?.slice(0, 2)], [1, ["many/7", "damaged"]]);
      assert.match(String(lost[0]![2]), /its content does not match its SHA-256/);
      rmSync(join(folder, "many/7"));
      assert.equal(walkDigests(target).state, walkDigests(folder).state);
    });

test("restore without proof leaves out a file whose content does not match its SHA-256", async (t) => {
  const { client, repository, folder, root } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const path = `${folder.slice(1)}/many/7`;
  const other = await withAnotherPiece(repository as OpenedRepository, snapshot!.snapshot_id, path);
  const restored = await repository.restore(other, join(root, "restored"), { prove: false });
  assert.deepEqual(
    restored.left_out.map((each) => [each.path, each.reason]),
    [["many/7", "damaged"]],
  );
  assert.deepEqual([existsSync(join(root, "restored/many/7")), restored.read_again], [false, false]);
});

test("restore leaves out a file with a wrong blob if the user may not read it again", async (t) => {
  if (!rightsCount()) {
    if (!runWithoutCapabilities(fileURLToPath(import.meta.url), "may not read it again")) t.skip("setpriv is missing");
    return;
  }
  const { client, repository, folder, root } = await backupScene(t, "local");
  const { snapshot } = await client.createBackup(repository, { save: true });
  const opened = repository as OpenedRepository;
  const path = `${folder.slice(1)}/many/7`;
  const lostOf = async (id: string, to: string, untold = 0): Promise<string[][]> => {
    const restored = await repository.restore(id, join(root, to));
    assert.deepEqual([restored.proof, restored.read_again, restored.untold_files], [null, untold === 0, untold]);
    return restored.left_out.map((each) => [each.path, each.reason]);
  };
  const sound = await withNode(opened, snapshot!.snapshot_id, path, async () => ({ mode: 0 }));
  assert.deepEqual(await lostOf(sound, "sound"), [["many/7", "unreadable"]]);
  const other = await withAnotherPiece(opened, snapshot!.snapshot_id, path, { mode: 0 });
  assert.deepEqual(await lostOf(other, "file"), [["many/7", "damaged"]]);
  assert.deepEqual([existsSync(join(root, "file/many/7")), existsSync(join(root, "file/many/8"))], [false, true]);
  const closed = await withNode(opened, other, `${folder.slice(1)}/many`, async () => ({ mode: 0 }));
  // Of what is in a directory that nobody may look into, nothing is told unless each piece is compared.
  const sealed = await withNode(opened, sound, `${folder.slice(1)}/many`, async () => ({ mode: 0 }));
  assert.deepEqual(await lostOf(sealed, "directory", 1), [["many", "unreadable"]]);
  const restored = await repository.restore(closed, join(root, "compared"), { prove: false });
  assert.deepEqual(
    restored.left_out.map((each) => [each.path, each.reason]),
    [["many/7", "damaged"]],
  );
  for (const name of ["directory", "compared"]) chmodSync(join(root, name, "many"), 0o700);
  assert.deepEqual(
    [existsSync(join(root, "compared/many/7")), existsSync(join(root, "compared/many/8"))],
    [false, true],
  );
});

test("restore leaves out all hard links of a file whose blob is wrong", async (t) => {
  const { client, repository, folder, write, root } = await backupScene(t, "local");
  write("one", "x".repeat(5000));
  linkSync(join(folder, "one"), join(folder, "two"));
  const { snapshot } = await client.createBackup(repository, { save: true });
  const opened = repository as OpenedRepository;
  const other = await withAnotherPiece(opened, snapshot!.snapshot_id, `${folder.slice(1)}/one`);
  const [content] = (await nodeAt(repository, other, `${folder.slice(1)}/one`)).content!;
  const both = await withNode(opened, other, `${folder.slice(1)}/two`, async () => ({
    content: Buffer.from(content!, "hex"),
  }));
  const lost = (await repository.restore(both, join(root, "restored"), { prove: false })).left_out.map((each) => [
    each.path,
    each.reason,
  ]);
  assert.deepEqual(lost, [
    ["one", "damaged"],
    ["two", "damaged"],
  ]);
});

test("restore lists a file with a wrong blob besides files whose content is lost", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder, root } = at;
  const { snapshot } = await client.createBackup(repository, { save: true });
  const own = folder.slice(1);
  const other = await withAnotherPiece(repository as OpenedRepository, snapshot!.snapshot_id, `${own}/many/7`);
  await damageBlob(at, (await nodeAt(repository, other, `${own}/many/8`)).content![0]!);
  const target = join(root, "restored");
  const restored = await repository.restore(other, target, { prove: false });
  const lost = restored.left_out.map(({ path, reason }) => [path, reason]);
  assert.deepEqual(lost.toSorted(), [
    ["many/7", "damaged"],
    ["many/8", "damaged"],
  ]);
  assert.deepEqual([existsSync(join(target, "many/7")), existsSync(join(target, "many/9"))], [false, true]);
});

test("restore from a remote repository needs at most 10 round trips in a row, and none during the proof", async (t) => {
  const { client, library, options, root } = await backupScene(t, "far");
  await using repository = await library.openRepository(options);
  await client.createBackup(repository, { save: true });
  const far = opened.far!;
  far.rounds = 0;
  far.counts.clear();
  const target = join(root, "restored");
  const givenBack: boolean[] = [];
  const remove = far.remove.bind(far);
  far.remove = async (...of) => {
    givenBack.push(!existsSync(target));
    return remove(...of);
  };
  const { proof } = await repository.restore("latest", target);
  assert.notEqual(proof, null);
  assert.ok(far.count("load", "data") >= 3);
  // The proof follows, and the name only after it.
  assert.deepEqual(givenBack, [true]);
  // The index, locks and its own lock; snapshots; the one and the names of the index; locks again, which is no wait where
  // these take time; trees; the manifest; content; the lock goes.
  assert.ok(far.rounds <= 10, `${far.rounds} rounds: ${JSON.stringify([...far.counts])}`);
});

test("restore onto a small file system keeps only a share of its free space free", async (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 24 << 20 });
  if (disk === null) return;
  const { client, repository } = await backupScene(t, "local");
  await client.createBackup(repository, { save: true });
  const { bavail, bsize } = statfsSync(disk.root);
  writeFileSync(join(disk.root, "ballast"), Buffer.alloc(bavail * bsize - (8 << 20)));
  const { proof } = await repository.restore("latest", join(disk.root, "restored"));
  assert.notEqual(proof, null);
  const { bavail: left } = statfsSync(disk.root);
  writeFileSync(join(disk.root, "more"), Buffer.alloc(left * bsize - (100 << 10)));
  await assert.rejects(repository.restore("latest", join(disk.root, "again")), {
    code: "no_space",
    message: /has [\d.]+ KiB free; [\d.]+ KiB are needed, and Cairn keeps [\d.]+ KiB free for other programs$/,
  });
  assert.equal(existsSync(join(disk.root, "again")), false);
});
