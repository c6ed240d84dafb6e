import assert from "node:assert/strict";
import { linkSync, lstatSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { walkDigests } from "../../workspace/store/testing-walk.ts";
import type { CairnError } from "../../errors.ts";
import type { OpenedRepository } from "../../keep/opened-repository.ts";
import { backupScene, type BackupScene, withNode } from "../testing-far.ts";

const MIB = 2 ** 20;

/** A snapshot that says nothing of holes, as restic makes them: zeros between data, one file by two names, and a short one. */
async function imagesOf({ client, repository, folder, write }: BackupScene): Promise<string> {
  const image = Buffer.alloc(100 * MIB);
  image.fill(1, 0, 1000);
  // Between pieces that begin anywhere.
  image.fill(3, 10 * MIB + 1, 10 * MIB + 700_000);
  image.fill(2, image.length - 5);
  writeFileSync(join(folder, "disk.img"), image);
  writeFileSync(join(folder, "linked.img"), Buffer.alloc(20 * MIB));
  linkSync(join(folder, "linked.img"), join(folder, "second.img"));
  write("short", "\0".repeat(200_000));
  const { snapshot } = await client.createBackup(repository, { save: true });
  return withNode(repository as OpenedRepository, snapshot!.snapshot_id, ".cairn/manifest.json", async () => ({
    name: Buffer.from("nothing"),
  }));
}

async function smallDisk(context: TestContext): Promise<string | null> {
  return loopFileSystem(context, "ext4", { size: 64 * MIB })?.root ?? null;
}

test("restore with `sparse` makes holes for zeros of a snapshot without recorded holes", async (t) => {
  const disk = await smallDisk(t);
  if (disk === null) return;
  const scene = await backupScene(t, "local");
  const { repository, folder } = scene;
  const id = await imagesOf(scene);
  const to = join(disk, "back");
  const restored = await repository.restore(id, to, { sparse: true });
  assert.deepEqual([restored.left_out, restored.read_again, restored.untold_files], [[], true, 0]);
  const at = join(to, folder);
  assert.equal(walkDigests(at).state, walkDigests(folder).state);
  for (const name of ["disk.img", "linked.img", "short"]) {
    const { size, blocks } = lstatSync(join(at, name));
    assert.equal(size, lstatSync(join(folder, name)).size, name);
    assert.ok(blocks * 512 < 1.2 * MIB, `${name} takes ${blocks} blocks`);
  }
  assert.equal(lstatSync(join(at, "second.img")).nlink, 2);
});

test("restore without `sparse` needs free space for all zeros of a snapshot without recorded holes", async (t) => {
  const disk = await smallDisk(t);
  if (disk === null) return;
  const scene = await backupScene(t, "local");
  const { repository } = scene;
  const id = await imagesOf(scene);
  const to = join(disk, "back");
  const refused = ({ code, details }: CairnError): boolean =>
    code === "no_space" && (details?.["needed_bytes"] as number) > 100 * MIB;
  for (const options of [{}, { dryRun: true }]) await assert.rejects(repository.restore(id, to, options), refused);
  assert.equal(lstatSync(to, { throwIfNoEntry: false }), undefined);
});

test("restore with `sparse` completes an interrupted restore that was begun without it", async (t) => {
  const scene = await backupScene(t, "local");
  const { repository, folder, root } = scene;
  const id = await imagesOf(scene);
  const to = join(root, "back");
  const stop = new AbortController();
  const onProgress = (): void => stop.abort();
  await assert.rejects(repository.restore(id, to, { onProgress, signal: stop.signal }));
  const restored = await repository.restore(id, to, { sparse: true });
  assert.deepEqual([restored.left_out, restored.read_again], [[], true]);
  assert.equal(walkDigests(join(to, folder)).state, walkDigests(folder).state);
});

test("restore with `sparse` makes holes in a stream's file and a folder's files, and proves the content", async (t) => {
  const disk = await smallDisk(t);
  if (disk === null) return;
  const scene = await backupScene(t, "local");
  const { client, repository, folder } = scene;
  await imagesOf(scene);
  async function* zeros(): AsyncIterable<Uint8Array> {
    for (let i = 0; i < 100; i++) yield Buffer.alloc(MIB);
  }
  await repository.createFromStream(zeros(), { filename: "disk.raw" });
  const { snapshot } = await client.createBackup(repository, { point: "head" });
  for (const id of ["latest", snapshot!.snapshot_id])
    await assert.rejects(repository.restore(id, join(disk, "no")), { code: "no_space" }, id);
  const latestOf = { paths: ["/disk.raw"] };
  const stream = await repository.restore("latest", join(disk, "stream"), { sparse: true, latestOf });
  assert.notEqual(stream.proof, null);
  assert.ok(lstatSync(join(disk, "stream/disk.raw")).blocks * 512 < MIB);
  const { proof } = await repository.restore(snapshot!.snapshot_id, join(disk, "folder"), { sparse: true });
  assert.equal(proof?.state_digest, walkDigests(folder).state);
  assert.ok(lstatSync(join(disk, "folder/disk.img")).blocks * 512 < 1.2 * MIB);
});
