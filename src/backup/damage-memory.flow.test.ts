import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../errors.ts";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import { backupScene, type BackupScene, damagePack, nodeAt, packWith, SCHEMES } from "./testing-far.ts";
import { makeRepository } from "./testing-repository.ts";

/** What a read found damaged is stored again by the next save or backup, in a store and in a repository. */

async function unlessDamaged(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof CairnError) || error.code !== "damaged") throw error;
  }
}

/** Flips the first byte of the pack that has the content of a file of the newest snapshot; returns the pack's path. */
async function spoil({ repository, folder, ...at }: BackupScene, name: string): Promise<string> {
  const snapshot = (await repository.list()).snapshots.at(-1)!;
  const node = await nodeAt(repository, snapshot.snapshot_id, `${folder}/${name}`);
  const pack = await packWith({ repository, folder, ...at }, node.content![0]!);
  const bytes = readFileSync(pack);
  for (let i = 0; i < bytes.length - 200; i += 16) bytes[i]! ^= 1;
  writeFileSync(pack, bytes);
  return pack;
}

const READERS: Record<string, (at: BackupScene) => Promise<unknown>> = {
  verify: async ({ repository }) => repository.verify(),
  "verify of one snapshot": async ({ repository }) => repository.verify({ snapshots: ["latest"] }),
  restore: async ({ repository, root }) => repository.restore("latest", join(root, "to")),
  "reading of a file": async ({ repository, folder }) => {
    for await (const piece of repository.read("latest", join(folder, "a.txt"))) assert.ok(piece.length > 0);
  },
  copyTo: async ({ repository, library, root }) => {
    const options = { repository: join(root, "copy"), password: "p" };
    await makeRepository(options);
    await using to = await library.openRepository(options);
    await repository.copyTo(to);
  },
};

/** Makes a scene with one backup whose damage a reader has met. */
async function readAfterDamage(t: TestContext, scheme: "local" | "far", read: string): Promise<BackupScene> {
  const at = await backupScene(t, scheme);
  at.write("a.txt", "content that is damaged\n");
  await at.client.createBackup(at.repository, { save: true });
  await spoil(at, "a.txt");
  await unlessDamaged(async () => READERS[read]!(at));
  rmSync(join(at.root, "to"), { recursive: true, force: true });
  return at;
}

for (const scheme of SCHEMES)
  for (const read of Object.keys(READERS))
    test(`a backup into a ${scheme} repository stores content again that ${read} found damaged`, async (t) => {
      const at = await readAfterDamage(t, scheme, read);
      const warnings: string[] = [];
      const made = await at.client.createBackup(at.repository, { onWarning: (text) => void warnings.push(text) });
      assert.ok(made.added.data_blobs > 0);
      assert.match(
        warnings.join("\n"),
        /1 damaged, missing or cut pack with \d+ blobs that no other pack has, of which/,
      );
      const { proof } = await at.repository.restore("latest", join(at.root, "to"));
      assert.equal(proof?.state_digest, walkDigests(at.folder).state);
      assert.equal((await at.client.createBackup(at.repository)).added.data_blobs, 0);
      await at.repository.repair({ what: "packs" });
      assert.deepEqual((await at.repository.verify()).problems, []);
      assert.equal(memoryOf(at).length, 0);
    });

test("backups of paths and of streams store content again that a verification found damaged", async (t) => {
  const at = await readAfterDamage(t, "local", "verify");
  const paths = await at.repository.createFromPaths([at.folder]);
  assert.ok(paths.added.data_blobs > 0);
  const { problems } = await at.repository.verify({ snapshots: [paths.snapshot!.snapshot_id] });
  assert.deepEqual(
    problems.filter(({ losses }) => losses.length > 0),
    [],
  );
});

test("a verification forgets a damaged pack that was put back", async (t) => {
  const at = await backupScene(t, "local");
  await at.client.createBackup(at.repository, { save: true });
  const name = damagePack(at.place, () => 5, "largest");
  assert.ok((await at.repository.verify()).problems.length > 0);
  assert.deepEqual(memoryOf(at), [name]);
  // The same byte is flipped back.
  assert.equal(
    damagePack(at.place, () => 5, "largest"),
    name,
  );
  assert.deepEqual((await at.repository.verify()).problems, []);
  assert.deepEqual(memoryOf(at), []);
  assert.equal((await at.client.createBackup(at.repository)).added.data_blobs, 0);
});

test("without the memory, or with an unusable one, backups work as before", async (t) => {
  const at = await readAfterDamage(t, "local", "verify");
  const [place] = memoryFiles(at);
  writeFileSync(place!, "no names\n\0");
  await at.client.createBackup(at.repository);
  rmSync(place!);
  const { added } = await at.client.createBackup(at.repository);
  assert.equal(added.data_blobs, 0);
  await at.repository.verify();
  assert.ok((await at.client.createBackup(at.repository)).added.data_blobs > 0);
});

for (const scheme of SCHEMES)
  test(`a backup into a ${scheme} repository stores content again whose pack was cut, without a verification`, async (t) => {
    const at = await backupScene(t, scheme);
    await at.client.createBackup(at.repository, { save: true });
    const cut = await packWith(
      at,
      (await nodeAt(at.repository, (await at.repository.list()).snapshots[0]!.snapshot_id, `${at.folder}/a.txt`))
        .content![0]!,
    );
    truncateSync(cut, 20);
    assert.ok((await at.client.createBackup(at.repository)).added.data_blobs > 0);
    const [again] = packsIn(at.place)
      .filter((pack) => pack !== cut)
      .toSorted((a, b) => readFileSync(b).length - readFileSync(a).length);
    const { proof } = await at.repository.restore("latest", join(at.root, "to"));
    assert.equal(proof?.state_digest, walkDigests(at.folder).state);
    // The copy that was stored again is only a further place of these blobs.
    truncateSync(again!, 20);
    assert.ok((await at.client.createBackup(at.repository)).added.data_blobs > 0);
    const restored = await at.repository.restore("latest", join(at.root, "second"));
    assert.equal(restored.proof?.state_digest, walkDigests(at.folder).state);
  });

function packsIn(place: string): string[] {
  const data = join(place, "data");
  return readdirSync(data, { recursive: true, encoding: "utf8" })
    .filter((name) => /\/[0-9a-f]{64}$/.test(name))
    .map((name) => join(data, name));
}

function memoryFiles({ root }: BackupScene): string[] {
  const caches = join(root, "cache/cairn/repositories");
  return readdirSync(caches)
    .map((id) => join(caches, id, "damaged-packs"))
    .filter((path) => existsSync(path));
}

function memoryOf(at: BackupScene): string[] {
  return memoryFiles(at).flatMap((path) => readFileSync(path, "utf8").trimEnd().split("\n"));
}

const STORE_READERS: Record<string, (at: BackupScene, id: string) => Promise<unknown>> = {
  verify: async ({ client }, id) => client.verify(id),
  "restore into a new folder": async ({ client, root }, id) => client.restore({ target: id, to: join(root, "to") }),
  createBackup: async ({ client, repository }) => client.createBackup(repository),
};

for (const [read, run] of Object.entries(STORE_READERS))
  for (const reread of [false, true])
    test(`a save${reread ? " with reread" : ""} stores unchanged content again that ${read} found damaged`, async (t) => {
      const at = await backupScene(t, "local");
      const { client } = at;
      const { save_point_id: first } = await client.save();
      damagePack(join(client.controlDirectory, "store"), () => 3, "largest");
      await unlessDamaged(async () => run(at, first));
      const warnings: string[] = [];
      const saved = await client.save({ reread, onWarning: (text) => void warnings.push(text) });
      assert.match(
        warnings.join("\n"),
        /1 of the packs .* are damaged, missing or cut: 1 of 1 lost blob was stored again/,
      );
      assert.deepEqual((await client.verify(saved.save_point_id)).problems, []);
      assert.deepEqual((await client.verify(first)).problems, []);
      const later: string[] = [];
      await client.save({ onWarning: (text) => void later.push(text) });
      assert.deepEqual(later, []);
    });

test("a save leaves a damaged pack whose blobs cannot all be read in the store, in no index, until a cleanup", async (t) => {
  const { client } = await backupScene(t, "local");
  const { save_point_id: id } = await client.save();
  const store = join(client.controlDirectory, "store");
  const name = damagePack(store, () => 3, "largest");
  await client.verify(id);
  await client.save();
  assert.ok(packsIn(store).some((path) => path.endsWith(name)));
  await client.verifyAll();
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a removal of a path reads the sound trees of a pack that a verification found damaged", async (t) => {
  const { client, write, folder, root } = await backupScene(t, "local");
  write("secret", "goes");
  const { save_point_id: id } = await client.save();
  // The last bytes are the header's: all blobs are sound.
  damagePack(join(client.controlDirectory, "store"), (size) => size - 6, "smallest");
  assert.ok((await client.verifyAll()).problems.length > 0);
  await client.removePaths({ paths: ["secret"] });
  rmSync(join(folder, "secret"));
  await client.restore({ target: id, to: join(root, "to") });
  assert.equal(walkDigests(join(root, "to")).state, walkDigests(folder).state);
});
