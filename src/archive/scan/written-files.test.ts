import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test, type TestContext } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { newStatBuffer, openDirectory, putName, STAT, syscalls } from "../../fs/linux/syscalls.ts";
import { newArena } from "../../native.ts";
import { temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { keepWrittenFiles, loadWrittenFiles, writtenRecord } from "./written-files.ts";

/** A little more than a tick of the kernel's clock. */
const TICK_MS = 60;

function statOf(file: string): Uint32Array {
  const [name, stat] = [newArena(256), newStatBuffer()];
  const fd = openDirectory(Buffer.from(path.dirname(file)));
  putName(name, 0, Buffer.from(path.basename(file)));
  assert.equal(syscalls().stat(fd, name, 0, stat), 0);
  fs.closeSync(fd);
  return stat.words.slice();
}

/** Writes files with a time of last change in seconds, and keeps them. */
function written(t: TestContext, files: Record<string, number>): { list: string; place: (name: string) => string } {
  const folder = temporaryFolder(t);
  const place = (name: string): string => path.join(folder, name);
  const kept = Object.entries(files).map(([name, time]) => {
    fs.writeFileSync(place(name), name);
    fs.utimesSync(place(name), time, time);
    return { stat: statOf(place(name)), sha256: sha256(Buffer.from(name)), chunks: null };
  });
  const list = path.join(temporaryFolder(t), "list");
  keepWrittenFiles(list, kept);
  return { list, place };
}

test("writtenRecord finds a written file until the file is changed, even if its modification time is reset", async (t) => {
  const { list, place } = written(t, { a: 1, b: 2, c: 3, d: 4, e: 5 });
  const table = loadWrittenFiles(list)!;
  await sleep(TICK_MS);
  const records = ["a", "b", "c", "d", "e"].map((name) => writtenRecord(table, statOf(place(name))));
  assert.deepEqual(records.toSorted(), [0, 1, 2, 3, 4]);
  fs.writeFileSync(place("c"), "C");
  fs.utimesSync(place("c"), 3, 3);
  fs.writeFileSync(place("new"), "new");
  await sleep(TICK_MS);
  assert.deepEqual(
    ["c", "new"].map((name) => writtenRecord(table, statOf(place(name)))),
    [-1, -1],
  );
});

test("writtenRecord ignores a file whose change time is too recent to show a later change", async (t) => {
  const { list, place } = written(t, { old: 1, now: Date.now() / 1000 });
  await sleep(TICK_MS);
  const [old, now] = [statOf(place("old")), statOf(place("now"))];
  assert.deepEqual([writtenRecord(loadWrittenFiles(list)!, old), writtenRecord(loadWrittenFiles(list)!, now)], [0, -1]);
  // As if it had got its place only now.
  old[STAT.CTIME]! += 60;
  keepWrittenFiles(list, [{ stat: old, sha256: sha256(Buffer.from("old")), chunks: null }]);
  assert.equal(writtenRecord(loadWrittenFiles(list)!, old), -1);
});

test("save reads a written file although it is listed if the store lacks its content", async (t) => {
  const { list, place } = written(t, { a: 1, b: 1 });
  await sleep(TICK_MS);
  const store = await TestStore.create(t);
  const folder = path.dirname(place("a"));
  assert.equal((await store.look(folder, { written: loadWrittenFiles(list) })).notes.bytesRead, 0);
  assert.equal((await store.save(folder, { written: loadWrittenFiles(list) })).notes.bytesRead, 2);
  assert.equal(
    (await store.save(folder, { written: loadWrittenFiles(list), request: { reread: true } })).notes.bytesRead,
    2,
  );
});
