import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { withJobs } from "../../threads/threads.ts";
import { C } from "../cache/scan-table.ts";
import type { StatCache } from "../cache/stat-cache.ts";
import { assertSame, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import type { ScanResult } from "./scan.ts";

const LARGE = 30;
const SMALL = 300;

/** Parts of directories that one thread left to another: every other job is a directory. */
function partsOf({ table: { control } }: ScanResult): number {
  return control[C.JOBS]! - control[C.DIRECTORIES]!;
}

/** Looks until the second thread has come to work in time, which a busy machine may keep it from. */
async function lookOfTwo(saves: TestStore, root: string, cache: StatCache | null = null): Promise<ScanResult> {
  let result: ScanResult;
  let looks = 0;
  do result = await withJobs(2, async () => saves.look(root, { cache }));
  while (partsOf(result) === 0 && ++looks < 10);
  return result;
}

void describe("scan of one directory", () => {
  test("two threads read a directory's entries with the same result as one thread", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < LARGE; i++) fs.writeFileSync(path.join(root, `large-${i}`), randomBytes(600_000));
    for (let i = 0; i < SMALL; i++) fs.writeFileSync(path.join(root, `small-${i}`), `file ${i}\n`);
    fs.mkdirSync(path.join(root, "sub"));
    fs.writeFileSync(path.join(root, "sub/file"), "text\n");
    fs.linkSync(path.join(root, "small-7"), path.join(root, "z-also-small-7"));
    const alone = await withJobs(1, async () => saves.look(root));
    assert.equal(partsOf(alone), 0);
    const parted = await lookOfTwo(saves, root);
    assert.ok(partsOf(parted) > 0, "nothing was given away");
    assertSame(parted, alone);
    const first = await withJobs(2, async () => saves.save(root));
    assertSame(first, alone);
    assert.equal(first.table.control[C.FILES_DONE], alone.table.control[C.FILES_DONE]);

    // Written to where they are, the directory is not listed again.
    for (let i = 1; i < LARGE; i++) fs.writeFileSync(path.join(root, `large-${i}`), randomBytes(600_000));
    fs.rmSync(path.join(root, "sub/file"));
    const changed = await withJobs(1, async () => saves.look(root, { cache: saves.cache() }));
    const partedAgain = await lookOfTwo(saves, root, saves.cache());
    assert.ok(partsOf(partedAgain) > 0, "nothing was given away of names that are known");
    assertSame(partedAgain, changed);
    const again = await withJobs(2, async () => saves.save(root));
    assertSame(again, changed);
    assert.deepEqual(again.countChanges(), changed.countChanges());
    assertSame(await withJobs(2, async () => saves.look(root)), changed);
  });

  test("one thread reads a small directory, and several threads read one with many changes", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const write = (folder: string, name: string, bytes: number): void => writeSparse(root, folder, name, bytes);
    const folders = Array.from({ length: 30 }, (_, i) => `in/${i % 3}/${i}`);
    for (const folder of folders) for (const name of ["a", "b", "c"]) write(folder, name, 300_000);
    await saves.save(root);
    write("in", "little", 300_000);
    assert.deepEqual(await savedElsewhere(saves, root, temporaryFolder(t)), { parts: 0, threads: false });

    for (const folder of folders) for (const name of ["a", "c"]) write(folder, name, 310_000);
    write("in/1", "much", 70_000_000);
    write("out", "new", 1000);
    const target = temporaryFolder(t);
    const { parts, threads } = await savedElsewhere(saves, root, target);
    assert.deepEqual([parts > 0, threads], [true, true]);
    assertSame(await saves.look(target), await saves.look(root));
  });

  test("several threads read recently changed files again if there are too many for one thread", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    // The first 64 are settled when they are saved, and are in no doubt.
    for (let i = 0; i < 300; i++) writeSparse(root, `in/${i % 30}`, `${i}`, 300_000);
    const first = await saves.save(root);
    const target = temporaryFolder(t);
    const { parts, threads } = await savedElsewhere(saves, root, target);
    assert.deepEqual([parts > 0, threads], [true, true]);
    assertSame(await saves.look(target), first);
  });
});

/** A file of its own content, which takes little room. */
function writeSparse(root: string, folder: string, name: string, bytes: number): void {
  const file = path.join(root, folder, name);
  fs.mkdirSync(path.dirname(file), { recursive: true });
  fs.writeFileSync(file, `${folder}/${name} of ${bytes}`);
  fs.truncateSync(file, bytes);
}

/** Saves a changed folder with the cache of the save before in a process that has no threads yet, and writes it out of the store again. */
async function savedElsewhere(
  saves: TestStore,
  root: string,
  target: string,
): Promise<{ parts: number; threads: boolean }> {
  const control = path.dirname(saves.cachePath);
  const script = fileURLToPath(new URL("./testing-cold-save.ts", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [script, control, saves.cachePath, root, target]);
  return JSON.parse(stdout) as { parts: number; threads: boolean };
}
