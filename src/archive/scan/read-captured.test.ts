import assert from "node:assert/strict";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, test, type TestContext } from "node:test";
import workers from "node:worker_threads";
import { syscalls } from "../../fs/linux/syscalls.ts";
import { nameAt } from "../../fs/listing.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { notedPaths, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import type { DatabaseCapture, HeldDatabase } from "./databases.ts";
import { INLINE_BYTES } from "./scan-runner.ts";
import type { ScanResult } from "./scan.ts";
import { eachRecord } from "./summary.ts";

const { EIO } = os.constants.errno;
/** A regular file whose first page no process can read: EIO. */
const UNREADABLE = "/proc/self/mem";
const LARGE = 1 << 20;

/** A folder with databases in use, which a first pass leaves unread. */
function folderInUse(t: TestContext, names: readonly string[] = ["live.db"]): string {
  const root = temporaryFolder(t);
  for (const name of names) {
    const file = path.join(root, name);
    const live = new DatabaseSync(file);
    t.after(() => live.close());
    live.exec("PRAGMA journal_mode = wal; CREATE TABLE t (v); INSERT INTO t VALUES (1)");
    fs.truncateSync(file, LARGE);
  }
  return root;
}

/** A capture that calls `hold`, and then gives the database's own file, or an image. */
function captureWith(hold: () => string | null | Promise<string | null>): DatabaseCapture {
  const held = async (): Promise<HeldDatabase> => ({
    image: await hold(),
    sidecars: [],
    label: "transaction-consistent",
    reason: null,
    release: async () => true,
  });
  return {
    hold: held,
    check: async () => ({ problem: null }),
    still: async () => ({ held: [], release: async () => true }),
    close: async () => undefined,
  };
}

function pathsOf({ table, old }: ScanResult): string[] {
  const paths: string[] = [];
  eachRecord(table, old, ({ path: entryPath }) => paths.push(entryPath().toString()));
  return paths.toSorted();
}

/** Runs a save of few entries, which this thread scans because it gets no idle thread. */
async function here<T>(work: () => Promise<T>): Promise<T> {
  const held = await takeThreads({ kind: "scan" });
  try {
    return await work();
  } finally {
    giveBackThreads(held);
  }
}

void describe("scan of a large database in use", () => {
  for (const inThreads of [true, false])
    test(`scan omits and names a database that the disk cannot read during its capture, ${inThreads ? "in threads" : "on the caller's thread"}`, async (t) => {
      const saves = await TestStore.create(t);
      const root = folderInUse(t);
      await saves.save(temporaryFolder(t));
      const scanned = async (hold: () => string | null): Promise<ScanResult> => {
        const work = async (): Promise<ScanResult> =>
          saves.save(root, { databases: { capture: captureWith(hold), held: null } });
        return inThreads ? work() : here(work);
      };
      const failing = await scanned(() => {
        if (inThreads) return UNREADABLE;
        t.mock.method(syscalls(), "read", () => -EIO);
        return null;
      });
      t.mock.restoreAll();
      assert.deepEqual(
        failing.notes.omitted.map(({ reason }) => reason),
        ["EIO"],
      );
      assert.deepEqual(notedPaths(failing.notes.omitted), ["live.db"]);
      assert.deepEqual(failing.notes.captured, []);
      assert.ok(!pathsOf(failing).includes("live.db"));
      const whole = await scanned(() => null);
      assert.deepEqual([whole.notes.omitted, notedPaths(whole.notes.captured)], [[], ["live.db"]]);
      assert.ok(pathsOf(whole).includes("live.db"));
    });

  test("scan names a captured database whose attributes cannot be read, once", async (t) => {
    const saves = await TestStore.create(t);
    const root = folderInUse(t);
    await saves.save(temporaryFolder(t));
    const capture = captureWith(() => {
      t.mock.method(syscalls(), "flistxattr", () => -EIO);
      return null;
    });
    const saved = await here(async () => saves.save(root, { databases: { capture, held: null } }));
    t.mock.restoreAll();
    assert.deepEqual(
      saved.notes.torn.map(({ path: torn, aspects }) => [Buffer.from(torn).toString(), aspects]),
      [["live.db", ["xattrs"]]],
    );
    assert.deepEqual(notedPaths(saved.notes.captured), ["live.db"]);
  });

  test("scan asks for threads before it holds a database, and reads the database alone if none can be started", async (t) => {
    const saves = await TestStore.create(t);
    const root = folderInUse(t, ["a.db", "live.db"]);
    await saves.save(temporaryFolder(t));
    let asked = 0;
    const askedBefore: number[] = [];
    const capture = captureWith(() => {
      // The second database grows while the first one is held.
      fs.truncateSync(path.join(root, "live.db"), INLINE_BYTES + LARGE);
      askedBefore.push(asked);
      return null;
    });
    const saved = await here(async () => {
      t.mock.method(workers, "Worker", function refuse() {
        asked++;
        throw new Error("no thread is left");
      });
      syncBuiltinESMExports();
      try {
        return await saves.save(root, { databases: { capture, held: null } });
      } finally {
        t.mock.restoreAll();
        syncBuiltinESMExports();
      }
    });
    assert.deepEqual(
      askedBefore.map((count) => count > 0),
      [false, true],
    );
    assert.deepEqual([saved.notes.omitted, notedPaths(saved.notes.captured)], [[], ["a.db", "live.db"]]);
    assert.ok(saved.notes.bytesRead > INLINE_BYTES);
  });
});

test("scan marks a database as checked in a folder that is listed again after the database was read", async (t) => {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  await saves.save(root);
  for (const name of ["a.db", "b.db"]) {
    const database = new DatabaseSync(path.join(root, name));
    database.exec("CREATE TABLE t (v)");
    database.close();
  }
  fs.writeFileSync(path.join(root, "m.1"), "x");
  const sys = syscalls();
  const { stat } = sys;
  t.mock.method(sys, "stat", (...args: Parameters<typeof stat>) => {
    const isLooked = Buffer.from(nameAt(args[1], args[2])).toString() === "m.1";
    if (isLooked && fs.existsSync(path.join(root, "m.1"))) {
      fs.renameSync(path.join(root, "m.1"), path.join(root, "m.2"));
      fs.renameSync(path.join(root, "b.db"), path.join(root, "c.db"));
    }
    return stat(...args);
  });
  const capture = captureWith(() => null);
  const saved = await here(async () => saves.save(root, { databases: { capture, held: null } }));
  t.mock.restoreAll();
  assert.deepEqual(pathsOf(saved), ["a.db", "c.db", "m.2"]);
  assert.deepEqual(
    saved.summarise().databases.map(({ path: at, isUnchecked }) => [Buffer.from(at).toString(), isUnchecked]),
    [
      ["a.db", false],
      ["c.db", false],
    ],
  );
  assert.deepEqual(notedPaths(saved.notes.captured), ["a.db", "c.db"]);
});
