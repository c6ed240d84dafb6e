import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { decodeTree } from "../../formats/restic/tree.ts";
import { assertSame, type Saved, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { TreeWriter } from "./tree-writer.ts";
import type { FilesJob, WriteTask } from "./write-jobs.ts";

const FILES = 600;
const LARGE = 4;
const PLACE = "one/directory";

/** A folder with many small files and some of several blobs in one directory, saved. */
async function savedDirectory(
  t: TestContext,
  files: { small: number; large: number },
): Promise<{ saves: TestStore; saved: Saved }> {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  const at = path.join(root, PLACE);
  fs.mkdirSync(at, { recursive: true });
  for (let i = 0; i < files.small; i++) fs.writeFileSync(path.join(at, `small-${i}`), `file ${i}\n`);
  for (let i = 0; i < files.large; i++) fs.writeFileSync(path.join(at, `large-${i}`), randomBytes(3_000_000));
  fs.utimesSync(at, 1_000_000_000, 1_000_000_000);
  return { saves, saved: await saves.save(root) };
}

function taskOf({ store }: TestStore, target: string, waiting: number): WriteTask {
  return {
    keys: store.repository.keys,
    index: store.index.shared,
    packs: path.join(store.paths.repository, "data"),
    target: Buffer.from(target),
    holes: new Map(),
    lossless: new Map(),
    paths: null,
    comparesPieces: true,
    readOnly: false,
    newBits: 0,
    sparse: false,
    resumes: false,
    here: null,
    control: new Int32Array([waiting, 0]).buffer as unknown as SharedArrayBuffer,
  };
}

/** The tree of a directory below one. */
function subtreeAt({ store }: TestStore, tree: Uint8Array, place: string): Uint8Array {
  let id = tree;
  for (const name of place.split("/"))
    id = decodeTree(store.read(id, "tree")).find((node) => Buffer.from(node.name).toString() === name)!.subtree!;
  return id;
}

void describe("TreeWriter on one thread", () => {
  const begin = { path: new Uint8Array(0), node: null, whole: true };

  test("TreeWriter gives half of a directory's files away if another thread waits, and leaves the directory open", async (t) => {
    const { saves, saved } = await savedDirectory(t, { small: FILES, large: LARGE });
    const target = temporaryFolder(t);
    const at = path.join(target, PLACE);
    const writer = new TreeWriter(taskOf(saves, target, 1), {});
    t.after(() => writer.close());
    const given: FilesJob[] = [];
    const own = writer.directories([{ ...begin, tree: saved.tree }], (work) => {
      assert.ok(!Array.isArray(work));
      given.push(work);
    });
    assert.deepEqual(
      own.closed.map((each) => Buffer.from(each.path).toString()),
      [PLACE],
    );
    assert.equal(given.length, 1);
    const others = given[0]!.nodes.length;
    // The large ones take most of the time.
    assert.ok(others >= LARGE / 2 && others < FILES / 2, `${others} were given away`);
    assert.deepEqual([own.files, fs.readdirSync(at).length], [FILES + LARGE - others, FILES + LARGE - others]);
    // As it comes to another thread.
    const theirs = writer.files(structuredClone(given[0]!), () => assert.fail("nobody waits any more"));
    assert.deepEqual([theirs.files, theirs.closed, theirs.damaged], [others, [], []]);
    writer.last({ linked: [], closed: own.closed });
    assertSame(await saves.look(target), saved);
  });

  test("TreeWriter lists files whose names are already taken and writes all others", async (t) => {
    const { saves, saved } = await savedDirectory(t, { small: 3, large: 3 });
    const target = temporaryFolder(t);
    fs.mkdirSync(path.join(target, PLACE), { recursive: true });
    // Names that another one takes, as where case does not count.
    for (const name of ["large-1", "small-1"]) fs.writeFileSync(path.join(target, PLACE, name), "another");
    const writer = new TreeWriter(taskOf(saves, target, 0), {});
    t.after(() => writer.close());
    const one = { path: Buffer.from(PLACE), tree: subtreeAt(saves, saved.tree, PLACE), node: null, whole: true };
    const out = writer.directories([one], () => assert.fail("nobody waits"));
    assert.deepEqual(
      out.notSet.map((each) => [Buffer.from(each.path).toString(), each.aspects]).toSorted(),
      ["large-1", "small-1"].map((name) => [`${PLACE}/${name}`, ["type"]]),
    );
    assert.deepEqual([out.files, out.damaged, fs.readdirSync(path.join(target, PLACE)).length], [4, [], 6]);
  });

  for (const { when, files, waiting } of [
    { when: "none waits", files: FILES, waiting: 0 },
    { when: "they are too few to be given away", files: 20, waiting: 1 },
  ]) {
    test(`TreeWriter writes all files of a directory itself and closes the directory if ${when}`, async (t) => {
      const { saves, saved } = await savedDirectory(t, { small: files, large: waiting === 0 ? LARGE : 0 });
      const target = temporaryFolder(t);
      const writer = new TreeWriter(taskOf(saves, target, waiting), {});
      t.after(() => writer.close());
      const out = writer.directories([{ ...begin, tree: saved.tree }], () => assert.fail("nothing is given away"));
      assert.deepEqual(out.closed, []);
      assertSame(await saves.look(target), saved);
    });
  }
});
