import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { C } from "../../fs/scan-table.ts";
import { nativeAvailable } from "../../native.ts";
import { assertSame, temporaryFolder, TestStore } from "../testing-store.ts";
import type { ScanResult } from "./scan.ts";

const LARGE = 30;
const SMALL = 300;

/** Parts of directories that one thread left to another: every other job is a directory. */
function partsOf({ table: { control } }: ScanResult): number {
  return control[C.JOBS]! - control[C.DIRECTORIES]!;
}

void describe("one directory", { skip: nativeAvailable() ? false : "needs native calls" }, () => {
  test("its entries are read by two threads, as by one, when another thread waits", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < LARGE; i++) fs.writeFileSync(path.join(root, `large-${i}`), randomBytes(600_000));
    for (let i = 0; i < SMALL; i++) fs.writeFileSync(path.join(root, `small-${i}`), `file ${i}\n`);
    fs.mkdirSync(path.join(root, "sub"));
    fs.writeFileSync(path.join(root, "sub/file"), "text\n");
    fs.linkSync(path.join(root, "small-7"), path.join(root, "z-also-small-7"));
    const alone = await saves.look(root, { jobs: 1 });
    assert.equal(partsOf(alone), 0);
    const first = await saves.save(root, { jobs: 2 });
    assert.ok(partsOf(first) > 0, "nothing was given away");
    assertSame(first, alone);
    assert.equal(first.table.control[C.FILES_DONE], alone.table.control[C.FILES_DONE]);

    // Written to where they are, the directory is not listed again.
    for (let i = 1; i < LARGE; i++) fs.writeFileSync(path.join(root, `large-${i}`), randomBytes(600_000));
    fs.rmSync(path.join(root, "sub/file"));
    const changed = await saves.look(root, { cache: saves.cache(), jobs: 1 });
    const again = await saves.save(root, { jobs: 2 });
    assert.ok(partsOf(again) > 0, "nothing was given away of names that are known");
    assertSame(again, changed);
    assert.deepEqual(again.countChanges(), changed.countChanges());
    assertSame(await saves.look(root, { jobs: 2 }), changed);
  });
});
