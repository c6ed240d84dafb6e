import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { BackupProblem, BackupRepository } from "../../contract/index.ts";
import { hasCode } from "../../keep/testing-folder.ts";
import { backupScene, type BackupScene, damageBlob, nodeAt, opened, SCHEMES } from "../testing-far.ts";

const hasRestic = spawnSync("restic", ["version"]).error === undefined;

function restic({ place }: BackupScene, ...args: string[]): string {
  const env = { ...process.env, RESTIC_PASSWORD: "correct horse" };
  const { status, stdout, stderr } = spawnSync("restic", ["-r", place, "--no-cache", ...args], {
    env,
    encoding: "utf8",
  });
  assert.equal(status, 0, `${stdout}${stderr}`);
  return stdout;
}

async function idsOf(repository: BackupRepository): Promise<string[]> {
  return (await repository.list()).snapshots.map(({ snapshot_id: id }) => id);
}

async function damageIn(repository: BackupRepository, snapshots?: string[]): Promise<BackupProblem[]> {
  const { problems } = await repository.verify(snapshots === undefined ? {} : { snapshots });
  return problems.filter(({ severity }) => severity === "damage");
}

/** Two snapshots, the second with one more file; the content of `large`, which both have, is lost for good. */
async function withoutLarge(at: BackupScene): Promise<{ first: string; second: string }> {
  const { client, repository, folder, write } = at;
  writeFileSync(join(folder, "large"), randomBytes(100_000));
  const first = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  write("deep/later.txt", "later\n");
  const second = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  await damageBlob(at, (await nodeAt(repository, first, `${folder}/large`)).content![0]!);
  assert.equal((await repository.repair({ what: "packs" })).lost_blobs!.length, 1);
  return { first, second };
}

for (const scheme of SCHEMES) {
  describe(`repairSnapshots on a ${scheme} storage`, () => {
    test("repairSnapshots replaces each incomplete snapshot by a complete one that lists the missing entries", async (t) => {
      const at = await backupScene(t, scheme);
      const { repository, folder, root } = at;
      const { first, second } = await withoutLarge(at);
      const planned = await repository.repairSnapshots({ plan: true });
      assert.deepEqual(
        planned.repaired.map(({ snapshot_id: id, new_id, lost }) => [id, new_id, lost.map(({ path }) => path)]),
        [first, second].map((id) => [id, null, [`${folder}/large`.slice(1)]]),
      );
      assert.equal((await idsOf(repository)).length, 2);
      const { repaired, intact } = await repository.repairSnapshots();
      const made = repaired.map(({ new_id: id }) => id!);
      assert.deepEqual([intact, (await idsOf(repository)).length], [0, 4]);
      assert.deepEqual(await damageIn(repository, made), []);
      assert.equal((await repository.verify({ snapshots: made })).checked.digests, 2);
      // The old ones still lack it, and what takes their place is known.
      const again = await repository.repairSnapshots();
      assert.deepEqual([again.intact, again.repaired.map(({ new_id: id }) => id)], [2, made]);
      const forgotten = await repository.repairSnapshots({ forget: true });
      assert.ok(forgotten.repaired.every((each) => each.forgotten));
      assert.deepEqual((await idsOf(repository)).toSorted(), made.toSorted());
      await repository.prune({ instant: true });
      assert.deepEqual(await damageIn(repository), []);
      const target = join(root, "restored");
      const restored = await repository.restore("latest", target);
      const [leftOut, { proof }] = [restored.left_out, restored];
      assert.deepEqual(
        leftOut.map(({ path, reason }) => [path, reason]),
        [["large", "unreadable"]],
      );
      assert.match(leftOut[0]!.detail!, /lost in the repository/);
      rmSync(join(folder, "large"));
      assert.deepEqual([proof?.state_digest, proof?.receipt], [walkDigests(folder).state, null]);
      assert.equal(walkDigests(target).state, walkDigests(folder).state);
      if (!hasRestic) return;
      restic(at, "check", "--read-data");
      assert.match(restic(at, "snapshots", "--json"), /"repaired"/);
    });
  });
}

for (const lost of ["manifest.json", "folder"] as const) {
  test(`repairSnapshots repairs a snapshot that has lost the ${lost} of its records, and names that loss`, async (t) => {
    const at = await backupScene(t, "far");
    const { client, repository, folder, root } = at;
    writeFileSync(join(folder, "large"), randomBytes(100_000));
    // Of several blobs: only the manifest has the hash of such a file, and without it nothing can be proven.
    const isProven = lost === "manifest.json";
    if (!isProven) writeFileSync(join(folder, "larger"), randomBytes(3_000_000));
    const first = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
    await damageBlob(at, (await nodeAt(repository, first, `${folder}/large`)).content![0]!);
    await damageBlob(
      at,
      lost === "folder"
        ? (await nodeAt(repository, first, "/.cairn")).subtree!
        : (await nodeAt(repository, first, "/.cairn/manifest.json")).content![0]!,
    );
    await repository.repair({ what: "packs" });
    const { repaired } = await repository.repairSnapshots();
    const records = lost === "folder" ? ".cairn" : ".cairn/manifest.json";
    assert.deepEqual(repaired[0]!.lost.map(({ path }) => path).toSorted(), [records, `${folder}/large`.slice(1)]);
    const made = repaired[0]!.new_id!;
    const target = join(root, "restored");
    const warnings: string[] = [];
    const onWarning = (message: string): void => void warnings.push(message);
    const restored = await repository.restore(made, target, { onWarning });
    const leftOut = restored.left_out;
    assert.deepEqual(warnings, []);
    assert.deepEqual(
      leftOut.map(({ path }) => path),
      [records, "large"],
    );
    assert.match(leftOut[0]!.detail!, /lost in the repository.*holes/);
    rmSync(join(folder, "large"));
    const { state } = walkDigests(folder);
    assert.equal(walkDigests(target).state, state);
    const proof = { state_digest: state, metadata_equal: true, databases: [], rows: [], probes: [], receipt: null };
    assert.deepEqual(restored.proof, isProven ? proof : null);
    assert.deepEqual(await damageIn(repository, [made]), []);
    const again = await repository.repairSnapshots({ forget: true });
    assert.deepEqual([again.intact, again.repaired.map(({ new_id: id }) => id)], [1, [made]]);
    // Over the workspace it is restored as others are, too.
    at.write("a.txt", "changed\n");
    await client.restoreBackup(repository, made);
    assert.equal(walkDigests(folder).state, walkDigests(target).state);
    if (hasRestic) restic(at, "check", "--read-data");
  });
}

test("repairSnapshots removes a directory whose tree is lost, and counts its entries no longer", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder, root } = at;
  const { snapshot } = await client.createBackup(repository, { save: true });
  await damageBlob(at, (await nodeAt(repository, "latest", `${folder}/many`)).subtree!);
  // It cannot be read, but nobody has looked yet whether it is lost.
  await assert.rejects(repository.repairSnapshots(), hasCode("damaged"));
  await repository.repair({ what: "packs" });
  const { repaired } = await repository.repairSnapshots();
  assert.deepEqual(
    repaired.map(({ lost }) => lost.map(({ path, kind }) => [path, kind])),
    [[[`${folder}/many`.slice(1), "directory"]]],
  );
  assert.deepEqual(await damageIn(repository, [repaired[0]!.new_id!]), []);
  const manifest = (await nodeAt(repository, repaired[0]!.new_id!, "/.cairn/manifest.json")).content![0]!;
  const { content } = await repository.cat("blob", manifest);
  const said = JSON.parse(
    Buffer.from((content as { content_b64: string }).content_b64, "base64").toString("utf8"),
  ) as Record<string, unknown>;
  assert.deepEqual([said["complete"], said["entries"]], [false, { files: 2, directories: 1, links: 0, other: 0 }]);
  await repository.restore(repaired[0]!.new_id!, join(root, "restored"));
  rmSync(join(folder, "many"), { recursive: true });
  assert.equal(walkDigests(join(root, "restored")).state, walkDigests(folder).state);
  assert.notEqual(repaired[0]!.new_id, snapshot!.snapshot_id);
});

test("repairSnapshots makes no new snapshot if the saved folder's tree is lost", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, folder } = at;
  const { snapshot } = await client.createBackup(repository, { save: true });
  await damageBlob(at, (await nodeAt(repository, "latest", folder)).subtree!);
  await repository.repair({ what: "packs" });
  const { repaired } = await repository.repairSnapshots();
  assert.deepEqual(
    repaired.map(({ snapshot_id: id, new_id }) => [id, new_id]),
    [[snapshot!.snapshot_id, null]],
  );
  assert.deepEqual(await idsOf(repository), [snapshot!.snapshot_id]);
  await repository.repairSnapshots({ forget: true });
  assert.deepEqual(await idsOf(repository), []);
});

test("repairSnapshots refuses to run while an index file is damaged or missing", async (t) => {
  const at = await backupScene(t, "local");
  const { client, repository, place } = at;
  await client.createBackup(repository, { save: true });
  const index = join(place, "index");
  const [name] = readdirSync(index);
  writeFileSync(join(index, name!), "nonsense");
  await assert.rejects(repository.repairSnapshots({ plan: true }), hasCode("refused"));
  rmSync(join(index, name!));
  await assert.rejects(repository.repairSnapshots({ forget: true }), hasCode("refused"));
  await repository.repair({ what: "index" });
  const { intact, repaired } = await repository.repairSnapshots();
  assert.deepEqual([intact, repaired], [1, []]);
});

test("repairSnapshots repairs restic's own snapshots so that restic can read them", { skip: !hasRestic }, async (t) => {
  const at = await backupScene(t, "local");
  const { repository, folder } = at;
  writeFileSync(join(folder, "large"), randomBytes(100_000));
  restic(at, "backup", folder);
  await damageBlob(at, (await nodeAt(repository, "latest", `${folder}/large`)).content![0]!);
  await repository.repair({ what: "packs" });
  const { repaired } = await repository.repairSnapshots({ forget: true });
  assert.deepEqual(
    repaired.map(({ lost }) => lost.map(({ path }) => path)),
    [[`${folder}/large`.slice(1)]],
  );
  restic(at, "check", "--read-data");
  const listed = restic(at, "ls", repaired[0]!.new_id!).split("\n");
  assert.ok(!listed.includes(`${folder}/large`) && listed.includes(`${folder}/many/7`));
});

test("repairSnapshots keeps the old snapshot if a remote storage lost the new one", async (t) => {
  const at = await backupScene(t, "far");
  const { client, repository, folder, place } = at;
  writeFileSync(join(folder, "large"), randomBytes(100_000));
  const old = (await client.createBackup(repository, { save: true })).snapshot!.snapshot_id;
  await damageBlob(at, (await nodeAt(repository, old, `${folder}/large`)).content![0]!);
  await repository.repair({ what: "packs" });
  const far = opened.far!;
  const save = far.save.bind(far);
  far.save = async (kind, name, ...rest) => {
    await save(kind, name, ...rest);
    if (kind === "snapshots") rmSync(join(place, "snapshots", name));
  };
  await assert.rejects(repository.repairSnapshots({ forget: true }), hasCode("not_found"));
  assert.deepEqual(await idsOf(repository), [old]);
});
