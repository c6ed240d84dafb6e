import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { statesAfterCut, type Tree, treeOf } from "../../../test/fixtures/power-cut.ts";
import { recordCalls } from "../../../test/fixtures/recorded-calls.ts";
import { LocalStorage } from "./local.ts";

const NAME = "ab".repeat(32);
const OTHER = "cd".repeat(32);
const BYTES = Buffer.from("bytes ".repeat(300));

/** Tries every state that a power cut may leave of `act` in a new repository's folder. */
async function holds(
  t: TestContext,
  act: (storage: LocalStorage) => unknown,
  check: (content: (file: string) => Buffer | null, ended: boolean) => void,
  prepare?: (storage: LocalStorage) => unknown,
): Promise<void> {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-power-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  const storage = LocalStorage.create(path.join(root, "r"), { temporaryDirectory: path.join(root, "t") });
  await prepare?.(storage);
  const recording = await recordCalls(root, () => act(storage));
  assert.ok(recording.calls.length > 0);
  const read = (tree: Tree) => (file: string) => tree.get(path.join(root, file)) ?? null;
  for (const { state, ended, what } of statesAfterCut(recording))
    try {
      check(read(treeOf(state, root)), ended);
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
    }
}

/** No file before the end, or the whole one. */
function wholeOrNone(content: Buffer | null, ended: boolean): void {
  if (content === null) assert.equal(ended, false, "no file after the end");
  else assert.deepEqual(content, BYTES);
}

test("after a power cut a saved file is whole or not there, and there once save() had returned", async (t) => {
  await holds(
    t,
    (storage) => storage.save("snapshots", NAME, BYTES),
    (content, ended) => wholeOrNone(content(`r/snapshots/${NAME}`), ended),
  );
});

test("after a power cut packs that were moved in are whole or not there", async (t) => {
  const files = (storage: LocalStorage): { name: string; path: string }[] =>
    [NAME, OTHER].map((name) => ({ name, path: path.join(storage.temporaryDirectory, name.slice(0, 2)) }));
  await holds(
    t,
    async (storage) => {
      for (const { path: file } of files(storage)) {
        const fd = fs.openSync(file, "r+");
        fs.writeSync(fd, BYTES, 0, BYTES.length);
        fs.closeSync(fd);
      }
      await storage.saveFiles("data", files(storage));
    },
    (content, ended) => {
      wholeOrNone(content(`r/data/ab/${NAME}`), ended);
      wholeOrNone(content(`r/data/cd/${OTHER}`), ended);
    },
    // The pack writer made them, without a flush.
    (storage) => files(storage).map(({ path: file }) => fs.writeFileSync(file, "")),
  );
});

test("a file that is not durable yet is durable once sync() has returned", async (t) => {
  await holds(
    t,
    async (storage) => {
      await storage.save("index", NAME, BYTES, { durable: false });
      await storage.sync(["index"]);
    },
    (content, ended) => {
      if (ended) assert.deepEqual(content(`r/index/${NAME}`), BYTES);
    },
  );
});

test("a file whose removal was followed by sync() does not come back after a power cut", async (t) => {
  await holds(
    t,
    async (storage) => {
      await storage.remove("index", NAME);
      await storage.sync(["index"]);
    },
    (content, ended) => assert.ok(!ended || content(`r/index/${NAME}`) === null, "the file is back"),
    (storage) => storage.save("index", NAME, BYTES),
  );
});

test("after a power cut an index is whole or not there, also before sync()", async (t) => {
  await holds(
    t,
    (storage) => storage.save("index", NAME, BYTES, { durable: false }),
    (content) => {
      const index = content(`r/index/${NAME}`);
      if (index !== null) assert.deepEqual(index, BYTES);
    },
  );
});
