import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test } from "node:test";
import { withJobs } from "../../threads/threads.ts";
import { D, DIRECTORY_FLAG, DIRECTORY_WORDS } from "../cache/scan-table.ts";
import { rightsCount, runWithoutCapabilities } from "../../workspace/store/testing-rights.ts";
import {
  assertRestored,
  assertSame,
  notedPaths,
  temporaryFolder,
  TestStore,
} from "../../workspace/store/testing-store.ts";

if (rightsCount()) {
  void describe("scan of entries that may not be read", () => {
    test("scan omits and names an unreadable file", async (t) => {
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t);
      fs.writeFileSync(path.join(root, "closed"), "secret");
      fs.writeFileSync(path.join(root, "open"), "text");
      fs.chmodSync(path.join(root, "closed"), 0);
      const first = await saves.save(root);
      assert.deepEqual(
        first.notes.omitted.map((o) => [String(Buffer.from(o.path)), o.reason]),
        [["closed", "EACCES"]],
      );
      assert.deepEqual(first.summary.entries, { files: 1, directories: 0, links: 0, other: 0 });
      const second = await saves.save(root);
      assert.deepEqual(notedPaths(second.notes.omitted), ["closed"], "named again with the cache");
      assertSame(second, first);
      fs.chmodSync(path.join(root, "closed"), 0o600);
      assertSame(await saves.save(root), await saves.look(root));
    });

    test("scan omits and names a directory that may not be listed, and records it once it may", async (t) => {
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t);
      for (const name of ["empty", "full", "full/inner"]) fs.mkdirSync(path.join(root, name));
      fs.writeFileSync(path.join(root, "full/inner/file"), "x");
      const open = await saves.look(root);
      for (const name of ["empty", "full"]) fs.chmodSync(path.join(root, name), 0);
      const closed = await saves.save(root);
      assert.deepEqual(notedPaths(closed.notes.omitted), ["empty", "full"]);
      assert.deepEqual(closed.summary.entries, { files: 0, directories: 0, links: 0, other: 0 });
      assertSame(await saves.save(root), closed);
      for (const name of ["empty", "full"]) fs.chmodSync(path.join(root, name), 0o755);
      const again = await saves.save(root);
      assertSame(again, await saves.look(root));
      assertSame(again, open);
    });

    test("scan names the entries of a directory that may be listed but not entered", async (t) => {
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t);
      fs.mkdirSync(path.join(root, "dir/sub"), { recursive: true });
      fs.writeFileSync(path.join(root, "dir/file"), "x");
      await saves.save(root);
      fs.chmodSync(path.join(root, "dir"), 0o600);
      for (let i = 0; i < 2; i++) {
        const saved = await saves.save(root);
        assert.deepEqual(notedPaths(saved.notes.omitted), ["dir/file", "dir/sub"]);
        assertSame(saved, await saves.look(root));
      }
      fs.chmodSync(path.join(root, "dir"), 0o755);
      assertSame(await saves.save(root), await saves.look(root));
    });

    test("scan names the entries of a directory that cannot be entered again in each later scan", async (t) => {
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t);
      fs.mkdirSync(path.join(root, "dir"));
      fs.writeFileSync(path.join(root, "dir/file"), "x");
      fs.chmodSync(path.join(root, "dir"), 0o600);
      // Its times vouch for what is in it after a tick of the kernel's clock.
      await sleep(120);
      for (let i = 0; i < 3; i++)
        assert.deepEqual(notedPaths((await saves.save(root)).notes.omitted), ["dir/file"], `save ${i}`);
      fs.chmodSync(path.join(root, "dir"), 0o755);
      assertSame(await saves.save(root), await saves.look(root));
    });

    test("scan names omitted entries in the order of their paths with any number of threads", async (t) => {
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t);
      const names = ["b", "a", "a.b"].flatMap((parent) =>
        Array.from({ length: 600 }, (_, i) => `${parent}/${1000 + i}`),
      );
      for (const parent of ["a", "a.b", "b"]) fs.mkdirSync(path.join(root, parent));
      for (const name of names) fs.writeFileSync(path.join(root, name), "secret", { mode: 0 });
      for (const jobs of [1, 3]) {
        const { notes } = await withJobs(jobs, async () => saves.look(root));
        assert.deepEqual(
          notes.omitted.map((each) => String(Buffer.from(each.path))),
          ["a", "a.b", "b"].flatMap((parent) => names.filter((name) => name.startsWith(`${parent}/`))),
        );
      }
    });

    test("write restores directories that their owner may not write to", async (t) => {
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t);
      for (const name of ["a", "a/b", "a/b/c"]) fs.mkdirSync(path.join(root, name));
      for (const name of ["a/x", "a/b/y", "a/b/c/z"]) fs.writeFileSync(path.join(root, name), name);
      fs.linkSync(path.join(root, "a/x"), path.join(root, "a/b/linked"));
      fs.chmodSync(path.join(root, "a/x"), 0o400);
      for (const name of ["a/b/c", "a/b", "a"]) fs.chmodSync(path.join(root, name), 0o555);
      const saved = await saves.save(root);
      const target = temporaryFolder(t);
      const written = await saves.write(saved, target);
      assert.deepEqual(written.damaged, []);
      assert.deepEqual(written.notSet, []);
      assertRestored(await saves.look(target), saved);
      for (const folder of [root, target])
        for (const name of ["a", "a/b", "a/b/c"]) fs.chmodSync(path.join(folder, name), 0o755);
    });
  });
} else {
  test("the tests of unreadable entries pass in a process without capabilities", { timeout: 60_000 }, (t) => {
    if (!runWithoutCapabilities(fileURLToPath(import.meta.url))) t.skip("setpriv is not here");
  });
  test("scan records a directory that became readable through a change of the process's rights alone", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.mkdirSync(path.join(root, "empty"));
    await saves.save(root);
    // Nothing in the entry itself tells that it can be read now: the cache is as one without the right left it.
    const cache = saves.cache()!;
    const base = (cache.directories - 1) * DIRECTORY_WORDS;
    cache.table.directories[base + D.FLAGS]! |= DIRECTORY_FLAG.OMITTED;
    cache.table.directories.fill(0, base + D.TREE, base + D.META + 8);
    fs.writeFileSync(path.join(root, "file"), "x");
    assertSame(await saves.save(root, { cache }), await saves.look(root));
  });
}
