import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { makeRepository } from "../../src/backup/testing-repository.ts";
import type { BackupRepository, Progress, TransferredSize } from "../../src/contract/index.ts";
import { SCRATCH } from "../fixtures/command.ts";
import { type HeldKind, type HoldingEngine, heldPlace } from "../fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { cairnLibrary, clientOf, newFolder } from "../fixtures/work.ts";

/** Points that nothing has read yet go into a repository, whatever holds them. */

const HOLDERS: [HoldingEngine, HeldKind][] = [
  ["btrfs-snapshot", "btrfs"],
  ["reflink-copy", "xfs"],
  ["juicefs-clone", "juicefs"],
];

interface Node {
  name: string;
  subtree?: string;
  content?: string[];
}

/** The bytes of a snapshot's manifest. */
async function manifestOf(repository: BackupRepository, tree: string): Promise<string> {
  const nodes = async (id: string): Promise<Node[]> =>
    ((await repository.cat("tree", id)).content as { nodes: Node[] }).nodes;
  const [file] = await nodes((await nodes(tree)).find(({ name }) => name === ".cairn")!.subtree!);
  return ((await repository.cat("blob", file!.content![0])).content as { content_b64: string }).content_b64;
}

async function newRepository(name: string): Promise<BackupRepository> {
  const options = { repository: path.join(SCRATCH, name), password: "p" };
  await makeRepository(options);
  return (await cairnLibrary()).openRepository(options);
}

for (const [engine, kind] of HOLDERS)
  test(`backup create of an older or newer point held by ${engine} stores the state that the point has`, async (t) => {
    const place = await heldPlace(t, { engine, kind, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    const repository = await newRepository(engine);
    const wanted: string[] = [];
    const ids: string[] = [];
    for (const change of [() => undefined, () => makeSecond(folder)]) {
      change();
      wanted.push(walkDigests(folder).state);
      ids.push((await client.save()).save_point_id);
    }
    fs.rmSync(path.join(folder, "same"), { recursive: true });
    for (const [i, point] of ids.entries()) {
      const { snapshot } = await client.createBackup(repository, { point });
      const target = path.join(SCRATCH, `${engine}-${i}`);
      const { proof, left_out: leftOut } = await repository.restore(snapshot!.snapshot_id, target);
      assert.deepEqual([proof?.state_digest, leftOut], [wanted[i], []]);
      assert.equal(walkDigests(target).state, wanted[i]);
    }
    assert.deepEqual((await repository.verify()).problems, []);
    await repository.close();
  });

for (const [engine, kind] of HOLDERS.slice(0, 2))
  test(`backup create with a save by ${engine} stores the new point in its sealing pass, and seals no older point`, async (t) => {
    const place = await heldPlace(t, { engine, kind, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    for (let i = 0; i < 3; i++) fs.writeFileSync(path.join(folder, `large-${i}`), randomBytes(9 << 20));
    const [first, second] = [await newRepository(`${engine}-passed-on`), await newRepository(`${engine}-after`)];
    const counted = ({ data_blobs: data, tree_blobs: trees, bytes }: TransferredSize): number[] => [data, trees, bytes];
    const uploads: number[] = [];
    const onProgress = ({ phase, done }: Progress): void => void (phase === "uploading" && uploads.push(done));
    const one = await client.createBackup(first, { save: true, onProgress });
    assert.equal(uploads.at(-1), one.added.data_blobs + one.added.tree_blobs + 1, "the snapshot comes last");
    assert.deepEqual(counted(one.added), counted((await client.createBackup(second)).added));
    fs.writeFileSync(path.join(folder, "passing"), randomBytes(3_000_000));
    const { save_point_id: older } = await client.save();
    fs.rmSync(path.join(folder, "passing"));
    makeSecond(folder);
    const next = await client.createBackup(first, { save: true });
    assert.ok(next.added.bytes < 3_000_000, `${next.added.bytes} bytes came`);
    assert.deepEqual(counted(next.added), counted((await client.createBackup(second)).added));
    const sealed = (await client.history(undefined, 0, { all: true })).save_points.find(
      ({ save_point_id: id }) => id === older,
    );
    assert.equal(sealed?.payload_root_hash, null);
    assert.deepEqual((await first.verify()).problems, []);
    const { proof } = await first.restore("latest", path.join(SCRATCH, `${engine}-passed-on-restored`));
    assert.equal(proof?.state_digest, walkDigests(folder).state);
    await Promise.all([first.close(), second.close()]);
  });

test("equal folders have equal manifests on every engine and at every path", async (t) => {
  const plain = newFolder("manifests");
  const fill = (folder: string): void => {
    makeFirst(folder);
    // What is not filled with its own time has that of the moment.
    for (const entry of fs.readdirSync(folder, { recursive: true, withFileTypes: true }))
      fs.lutimesSync(path.join(entry.parentPath, entry.name), 1_700_000_000, 1_700_000_000);
  };
  fill(plain);
  const manifests = new Set<string>();
  const first = await newRepository("manifests-copy");
  const { snapshot } = await (await clientOf(plain)).createBackup(first, { save: true });
  manifests.add(await manifestOf(first, snapshot!.tree));
  await first.close();
  for (const [engine, kind] of HOLDERS.slice(0, 2)) {
    const place = await heldPlace(t, { engine, kind, fill });
    if (place === null) return;
    const repository = await newRepository(`manifests-${engine}`);
    const made = await place.client.createBackup(repository, { save: true });
    manifests.add(await manifestOf(repository, made.snapshot!.tree));
    await repository.close();
  }
  assert.equal(manifests.size, 1);
  const text = Buffer.from([...manifests][0]!, "base64").toString("utf8");
  assert.doesNotMatch(text, /"(?:created_at|save_point_id|time|id|hostname)":/);
  assert.match(text, /^\{"format":"cairn\.manifest","version":1,"minimum_reader":1,"state_digest":"[0-9a-f]{64}",/);
});
