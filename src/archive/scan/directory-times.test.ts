import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test, type TestContext } from "node:test";
import { keepsDirectoryTimes } from "../../fs/linux/mounts.ts";
import { assertSame, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";

/** Longer than a tick of the kernel's clock, twice. */
const SETTLED_MS = 120;

function write(root: string, name: string): void {
  fs.mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
  fs.writeFileSync(path.join(root, name), name);
}

/** A folder of some directories that were saved when they had rested. */
async function settled(t: TestContext): Promise<{ saves: TestStore; root: string }> {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  for (const name of ["a/one", "a/two", "b/deep/three", "c/x.log"]) write(root, name);
  await sleep(SETTLED_MS);
  await saves.save(root);
  return { saves, root };
}

const trusted = keepsDirectoryTimes(Buffer.from("."));

void describe("scan of directories whose times are unchanged", () => {
  test("scan lists only changed directories if the file system keeps directory times", async (t) => {
    if (!trusted) return t.skip("this file system's directory times are not relied on");
    const { saves, root } = await settled(t);
    assert.equal((await saves.save(root)).notes.listed, 1, "the root alone");
    assert.equal((await saves.save(root, { request: { reread: true } })).notes.listed, 5);
    write(root, "b/deep/four");
    assert.equal((await saves.save(root)).notes.listed, 2);
    await sleep(SETTLED_MS);
    // Once more where it was young: on a busy machine it no longer is when it is saved.
    assert.ok((await saves.save(root)).notes.listed <= 2);
    assert.equal((await saves.save(root)).notes.listed, 1);
    fs.writeFileSync(path.join(root, "a/one"), "changed in place");
    const changed = await saves.save(root);
    assert.equal(changed.notes.listed, 1);
    assertSame(changed, await saves.look(root));
  });

  test("scan finds a name that is added, removed, renamed or replaced right after a save", async (t) => {
    const { saves, root } = await settled(t);
    const changes = [
      () => write(root, "a/new"),
      () => fs.rmSync(path.join(root, "a/one")),
      () => fs.renameSync(path.join(root, "b/deep/three"), path.join(root, "b/deep/tree")),
      () => fs.renameSync(path.join(root, "b/deep"), path.join(root, "b/depth")),
      () => fs.renameSync(path.join(root, "a/two"), path.join(root, "b/depth/tree")),
      () => fs.mkdirSync(path.join(root, "a/two")),
      () => fs.symlinkSync("x", path.join(root, "a/two/link")),
    ];
    for (const [i, change] of changes.entries()) {
      change();
      assertSame(await saves.save(root), await saves.look(root), `change ${i}`);
      if (i % 2 === 0) await sleep(SETTLED_MS);
      assertSame(await saves.save(root), await saves.look(root), `change ${i}, again`);
    }
  });

  test("scan finds a new name although its directory's modification time was set back", async (t) => {
    const { saves, root } = await settled(t);
    const { atime, mtime } = fs.statSync(path.join(root, "a"));
    write(root, "a/hidden");
    fs.utimesSync(path.join(root, "a"), atime, mtime);
    assertSame(await saves.save(root), await saves.look(root));
  });

  test("scan lists unchanged directories again if ignore rules are added, changed or removed", async (t) => {
    const { saves, root } = await settled(t);
    const save = async (request: { excludes?: string[] } = {}): Promise<void> => {
      assertSame(await saves.save(root, { request }), await saves.look(root, { request }));
    };
    await save({ excludes: ["*.log"] });
    await save();
    write(root, ".cairnignore");
    fs.writeFileSync(path.join(root, ".cairnignore"), "two\n");
    await save();
    fs.rmSync(path.join(root, ".cairnignore"));
    await save();
    write(root, "c/.cairnignore");
    await sleep(SETTLED_MS);
    await save();
    await save();
    fs.writeFileSync(path.join(root, "c/.cairnignore"), "*.log\n");
    await save();
    fs.writeFileSync(path.join(root, "c/.cairnignore"), "\n");
    await save();
  });
});
