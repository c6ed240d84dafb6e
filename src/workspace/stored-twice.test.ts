import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import { EmbeddedStore } from "../engines/copy/embedded-store.ts";
import { storePaths } from "../engines/copy/store-paths.ts";
import { walkDigests } from "../engines/testing-walk.ts";
import { type TestFolder, testFolder } from "../operations/testing-folder.ts";
import { loadPackHeader } from "../repository/repair.ts";

/** A workspace whose store holds all of its points twice. */
interface Twice extends TestFolder {
  store: string;
  /** of the folder, as its points have it */
  digest: string;
  /** files of packs, those of the first point and those of the second */
  sets: [string[], string[]];
}

async function storedTwice(t: TestContext, first: "listed" | "unlisted"): Promise<Twice> {
  const at = await testFolder(t, { "a.txt": "a\n", "deep/b.txt": "b\n", large: "0123456789abcdefg".repeat(1 << 20) });
  for (let i = 0; i < 50; i++) at.write(`many/${i}`, `file ${i}\n`.repeat(i));
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

/** Those of these packs that hold blobs of this type. */
async function packsOf(type: "data" | "tree", { client }: Twice, files: readonly string[]): Promise<string[]> {
  const store = await EmbeddedStore.open(storePaths(client.controlDirectory));
  const found: string[] = [];
  for (const file of files) {
    const [first] = await loadPackHeader(store.repository, basename(file), statSync(file).size);
    if (first?.type === type) found.push(file);
  }
  store.close();
  return found;
}

function spoil(files: readonly string[]): void {
  for (const file of files) {
    const bytes = readFileSync(file);
    bytes[20]! ^= 1;
    chmodSync(file, 0o600);
    writeFileSync(file, bytes);
  }
}

test("doctor keeps what a killed save left when the copy that was stored again is damaged", async (t) => {
  const at = await storedTwice(t, "unlisted");
  const { client, sets } = at;
  assert.equal(sets[0].length, sets[1].length);
  spoil(await packsOf("data", at, sets[1]));
  const { findings } = await client.doctor({ repair: true });
  assert.ok(findings.length > 0 && findings.every(({ repaired }) => repaired === true), JSON.stringify(findings));
  assert.deepEqual((await client.verifyAll()).problems, []);
  assert.deepEqual((await client.doctor()).findings, []);
});
