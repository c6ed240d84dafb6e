import assert from "node:assert/strict";
import {
  chmodSync,
  cpSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import { EmbeddedStore } from "../store/embedded-store.ts";
import { storePaths } from "../store/store-paths.ts";
import { walkDigests } from "../store/testing-walk.ts";
import { type TestFolder, testFolder } from "../../keep/testing-folder.ts";
import { loadPackHeader } from "../../repository/packs/pack-read.ts";

/** A workspace whose store holds all of its points twice. */
interface Twice extends TestFolder {
  store: string;
  /** of the folder, as its points have it */
  digest: string;
  /** pack files of the first point and of the second point */
  sets: [string[], string[]];
}

async function storedTwice(t: TestContext, first: "listed" | "unlisted"): Promise<Twice> {
  const at = await testFolder(t, { "a.txt": "a\n", "deep/b.txt": "b\n", large: "0123456789abcdefg".repeat(1 << 20) });
  for (let i = 0; i < 50; i++) at.write(`many/${i}`, `file ${i}\n`.repeat(i));
  linkSync(join(at.folder, "many/8"), join(at.folder, "many/also-8"));
  symlinkSync("many/8", join(at.folder, "link"));
  mkdirSync(join(at.folder, "closed"));
  at.write("closed/file", "closed\n");
  chmodSync(join(at.folder, "closed"), 0o500);
  await at.client.save({ message: "first" });
  const paths = storePaths(at.client.controlDirectory);
  const store = paths.repository;
  const before = packsIn(store);
  const [index, aside] = [join(store, "index"), join(at.root, "aside")];
  renameSync(index, aside);
  mkdirSync(index);
  rmSync(paths.indexCache, { force: true });
  await at.client.save({ message: "second" });
  if (first === "listed") for (const name of readdirSync(aside)) renameSync(join(aside, name), join(index, name));
  rmSync(paths.indexCache, { force: true });
  const sets: Twice["sets"] = [before, packsIn(store).filter((file) => !before.includes(file))];
  return { ...at, store, digest: walkDigests(at.folder).state, sets };
}

function packsIn(store: string): string[] {
  const entries = readdirSync(join(store, "data"), { recursive: true, withFileTypes: true });
  return entries.filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name));
}

/** The packs of `files` that have blobs of this type. */
async function packsOf(type: "data" | "tree", { client }: Twice, files: readonly string[]): Promise<string[]> {
  const store = await EmbeddedStore.open(client.controlDirectory);
  const found: string[] = [];
  for (const file of files) {
    const [first] = await loadPackHeader(store.repository, basename(file), statSync(file).size);
    if (first?.type === type) found.push(file);
  }
  store.close();
  return found;
}

const WAYS = ["first blob", "lost"] as const;

function spoil(files: readonly string[], how: (typeof WAYS)[number]): void {
  for (const file of files) {
    const bytes = readFileSync(file);
    bytes[20]! ^= 1;
    chmodSync(file, 0o600);
    if (how === "lost") rmSync(file);
    else writeFileSync(file, bytes);
  }
}

/** Damages one set of packs, then the other one, runs `work` each time, and restores the store afterwards. */
async function spoilt(at: Twice, work: (name: string, files: string[]) => Promise<void>): Promise<void> {
  const control = at.client.controlDirectory;
  const kept = join(at.root, "kept");
  cpSync(control, kept, { recursive: true });
  for (const [number, files] of at.sets.entries())
    for (const how of WAYS) {
      spoil(files, how);
      await work(`${how} ${number}`, files);
      rmSync(control, { recursive: true });
      cpSync(kept, control, { recursive: true });
    }
}

test("doctor repairs the store from an unindexed pack if the indexed copy of its content is damaged", async (t) => {
  const at = await storedTwice(t, "unlisted");
  const { client, sets } = at;
  assert.equal(sets[0].length, sets[1].length);
  spoil(await packsOf("data", at, sets[1]), "first blob");
  const { findings } = await client.doctor({ repair: true });
  assert.ok(findings.length > 0 && findings.every(({ repaired }) => repaired === true), JSON.stringify(findings));
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.deepEqual((await client.doctor()).findings, []);
});

const READ_ELSEWHERE =
  /is damaged or missing: Cairn reads its blobs from other packs.*`cairn doctor --repair` repairs the store/;

test("restore, fork, view and read use another pack's copy if a blob is damaged or lost", async (t) => {
  const at = await storedTwice(t, "listed");
  const { client, root, digest } = at;
  const warnings: string[] = [];
  const onWarning = (message: string): void => void warnings.push(message);
  await spoilt(at, async (name) => {
    const to = join(root, name);
    assert.deepEqual((await client.restore({ target: "latest", to, onWarning })).left_out, [], name);
    assert.equal(walkDigests(to).state, digest, name);
    const some = join(root, `${name} some`);
    const paths = ["deep"];
    assert.deepEqual((await client.restore({ target: "latest", to: some, paths, onWarning })).left_out, [], name);
    assert.equal(readFileSync(join(some, "deep/b.txt"), "utf8"), "b\n");
    const view = await client.view("latest", { onWarning });
    assert.equal(readFileSync(join(view.path, "many/7"), "utf8"), "file 7\n".repeat(7), name);
    await client.closeView(view.view_id);
    let read = "";
    for await (const piece of client.read("latest", "deep/b.txt", { onWarning })) read += Buffer.from(piece).toString();
    assert.equal(read, "b\n", name);
    assert.deepEqual((await client.fork("latest", join(root, `${name} fork`), { onWarning })).left_out, [], name);
    assert.equal(walkDigests(join(root, `${name} fork`)).state, digest, name);
  });
  assert.ok(warnings.length > 0);
  for (const warning of warnings) assert.match(warning, READ_ELSEWHERE);
});

test("a restore in place uses another pack's copy if a blob is damaged or lost", async (t) => {
  const at = await storedTwice(t, "listed");
  const { client, folder, digest } = at;
  await spoilt(at, async (name) => {
    rmSync(join(folder, "many"), { recursive: true });
    rmSync(join(folder, "large"));
    at.write("a.txt", "another\n");
    assert.deepEqual((await client.restore({ target: "latest" })).left_out, [], name);
    assert.equal(walkDigests(folder).state, digest, name);
  });
});

test("a backup uses another pack's copy if a blob of the store is damaged or lost", async (t) => {
  const at = await storedTwice(t, "listed");
  const { client, library, root, digest } = at;
  await spoilt(at, async (name) => {
    const repository = await library.initRepository({ repository: join(root, `${name} backup`), password: "correct" });
    assert.ok((await client.createBackup(repository, { dryRun: true })).added.bytes > 1000, name);
    await client.createBackup(repository);
    assert.deepEqual((await repository.verify()).problems, [], name);
    assert.equal((await repository.restore("latest", join(root, name))).proof?.state_digest, digest, name);
    await repository.close();
  });
});

test("verify names a damaged pack, but no point if another pack has copies of the pack's blobs", async (t) => {
  const at = await storedTwice(t, "listed");
  const { client } = at;
  await spoilt(at, async (name, files) => {
    const before = await client.doctor();
    assert.ok(
      before.findings.every(({ kind }) => kind !== "content"),
      name,
    );
    const { problems, checked } = await client.verifyAll();
    assert.equal(checked.points, 2);
    assert.deepEqual(
      problems.filter(({ point, kind }) => point !== null || kind !== "pack"),
      [],
      name,
    );
    const named = files.filter((file) => problems.some(({ detail }) => detail.includes(basename(file))));
    assert.deepEqual(named, files, name);
    assert.deepEqual(
      (await client.verify("latest")).problems.filter(({ point }) => point !== null),
      [],
      name,
    );
    const found = await client.doctor();
    assert.ok(found.findings.length > 0, name);
    assert.deepEqual(
      found.findings.filter(({ kind }) => kind === "content"),
      [],
      name,
    );
    const { findings } = await client.doctor({ repair: true });
    assert.deepEqual(
      findings.filter(({ repaired }) => repaired !== true),
      [],
      name,
    );
    assert.deepEqual((await client.verifyAll()).problems, [], name);
    assert.deepEqual((await client.doctor()).findings, [], name);
  });
});

for (const repaired of [false, true])
  test(`a save${repaired ? " after doctor" : ""} stores content again if its indexed pack is lost and an unindexed copy damaged`, async (t) => {
    const at = await storedTwice(t, "unlisted");
    const { client } = at;
    spoil(await packsOf("data", at, at.sets[0]), "first blob");
    spoil(await packsOf("data", at, at.sets[1]), "lost");
    if (repaired) await client.doctor({ repair: true });
    const { save_point_id: point } = await client.save({ reread: true });
    assert.deepEqual((await client.verify(point)).problems, []);
  });
