import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { statesAfterCut, type Tree, treeOf } from "../../test/fixtures/power-cut.ts";
import { recordCalls } from "../../test/fixtures/recorded-calls.ts";
import {
  durableMkdir,
  durableRemove,
  durableRename,
  durableWrite,
  type DurableWriteOptions,
  fsyncDirectories,
  orderedWrite,
} from "./durable.ts";

const OLD = Buffer.from("old ".repeat(300));
const NEW = Buffer.from("new ".repeat(500));

interface Case {
  prepare?: (root: string) => void;
  act: (root: string) => unknown;
  /** Throws if a state is none that the call promises. `ended`: the call had returned before the cut. */
  check: (tree: Tree, root: string, ended: boolean) => void;
}

/** Tries every state that a power cut may leave of `act`. */
async function holds(t: TestContext, { prepare, act, check }: Case): Promise<void> {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-power-"));
  t.after(() => fs.rmSync(root, { recursive: true, force: true }));
  prepare?.(root);
  const recording = await recordCalls(root, () => act(root));
  let states = 0;
  for (const { state, ended, what } of statesAfterCut(recording)) {
    states++;
    try {
      check(treeOf(state, root), root, ended);
    } catch (error) {
      throw new Error(`${what}: ${(error as Error).message}`, { cause: error });
    }
  }
  assert.ok(states > recording.calls.length, "at least one state per call");
}

/** The file `f` has all the new bytes, or before the end all the old ones; `old` is null if there was no file. */
const oldOrNew =
  (old: Buffer | null, name = "f") =>
  (tree: Tree, root: string, ended: boolean): void => {
    const content = tree.get(path.join(root, name)) ?? null;
    if (content !== null && content.equals(NEW)) return;
    assert.equal(ended, false, `${name} is not the new file after the end`);
    assert.deepEqual(content, old);
  };

const write =
  (options?: DurableWriteOptions) =>
  (root: string): void =>
    durableWrite(path.join(root, "f"), NEW, options);

test("after a power cut durableWrite has left all of the old or all of the new bytes", async (t) => {
  await holds(t, {
    prepare: (root) => fs.writeFileSync(path.join(root, "f"), OLD),
    act: write(),
    check: oldOrNew(OLD),
  });
  await holds(t, { act: write(), check: oldOrNew(null) });
});

test("after a power cut a file that was written in pieces has all of them", async (t) => {
  const pieces = [NEW.subarray(0, 700), NEW.subarray(700, 1300), NEW.subarray(1300)];
  await holds(t, { act: (root) => durableWrite(path.join(root, "f"), pieces), check: oldOrNew(null) });
});

test("after a power cut an exclusive durableWrite has left no file or the whole one", async (t) => {
  await holds(t, { act: write({ exclusive: true }), check: oldOrNew(null) });
});

test("after a power cut a file staged in another folder is whole, or not there", async (t) => {
  await holds(t, {
    prepare: (root) => fs.mkdirSync(path.join(root, "staged")),
    act: (root) => durableWrite(path.join(root, "f"), NEW, { stagedIn: path.join(root, "staged") }),
    check: oldOrNew(null),
  });
});

test("after a power cut several files whose folder is flushed last are whole once it was", async (t) => {
  await holds(t, {
    prepare: (root) => {
      for (const folder of ["a", "b"]) fs.mkdirSync(path.join(root, folder));
    },
    act: async (root) => {
      for (const name of ["a/f", "b/f"]) durableWrite(path.join(root, name), NEW, { syncDirectory: false });
      await fsyncDirectories([path.join(root, "a"), path.join(root, "b")]);
    },
    check: (tree, root, ended) => {
      for (const name of ["a/f", "b/f"]) oldOrNew(null, name)(tree, root, ended);
    },
  });
});

test("a file that durableRemove removed does not come back after a power cut", async (t) => {
  await holds(t, {
    prepare: (root) => fs.writeFileSync(path.join(root, "f"), OLD),
    act: (root) => durableRemove(path.join(root, "f")),
    check: (tree, root, ended) => assert.ok(!ended || !tree.has(path.join(root, "f")), "f is back"),
  });
});

test("a file that durableRename moved has its new name after a power cut, and always one name", async (t) => {
  await holds(t, {
    prepare: (root) => {
      for (const folder of ["a", "b"]) fs.mkdirSync(path.join(root, folder));
      fs.writeFileSync(path.join(root, "a/f"), NEW);
    },
    act: (root) => durableRename(path.join(root, "a/f"), path.join(root, "b/f")),
    check: (tree, root, ended) => {
      const [from, to] = [tree.has(path.join(root, "a/f")), tree.has(path.join(root, "b/f"))];
      assert.ok(from !== to && (to || !ended), `old name: ${from}, new name: ${to}`);
    },
  });
});

test("folders that durableMkdir made are all there after a power cut", async (t) => {
  await holds(t, {
    act: (root) => durableMkdir(path.join(root, "a/b/c")),
    check: (tree, root, ended) => assert.ok(!ended || tree.has(path.join(root, "a/b/c")), "a/b/c is gone"),
  });
});

test("after a power cut orderedWrite has left all of the old or all of the new bytes of a large file", async (t) => {
  const check = oldOrNew(OLD);
  await holds(t, {
    prepare: (root) => durableWrite(path.join(root, "f"), OLD),
    act: (root) => orderedWrite(path.join(root, "f"), NEW),
    // The next commit of the file system makes the name durable.
    check: (tree, root) => check(tree, root, false),
  });
});
