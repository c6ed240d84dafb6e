import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { syncBuiltinESMExports } from "node:module";
import os, { hostname } from "node:os";
import { readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import timers from "node:timers/promises";
import { CairnError } from "../errors.ts";
import { encodeLock, type LockFile } from "../formats/restic/lock-file.ts";
import { thisProcess } from "../fs/lock-owner.ts";
import { lookAtLocks } from "./lock-state.ts";
import { acquireLock, removeDeadLocks, whileReading, withLock } from "./locks.ts";
import { Repository } from "./repository.ts";
import { CountingStorage } from "./storage/testing-counting.ts";
import { FaultyStorage } from "./storage/testing-faulty.ts";
import { MemoryStorage } from "./storage/testing-memory.ts";
import { restic, resticInstalled, TestArchive, repositoryFor, withRepository } from "./testing-archive.ts";

const busy = (error: unknown): boolean => error instanceof CairnError && error.code === "busy" && error.retryable;

function lockOf(changes: Partial<LockFile>): Uint8Array {
  return encodeLock({
    time: new Date().toISOString(),
    exclusive: true,
    hostname: hostname(),
    username: "u",
    pid: 1,
    uid: 0,
    gid: 0,
    ...changes,
  });
}

function gateOf(): { gate: Promise<void>; open: () => void } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { gate: promise, open: resolve };
}

/** As many as everything takes that waits for no gate. */
async function someTurns(): Promise<void> {
  for (let turn = 0; turn < 200; turn++) await new Promise((resolve) => setImmediate(resolve));
}

async function gonePid(): Promise<number> {
  const child = spawn("true");
  await new Promise((resolve) => child.once("exit", resolve));
  return child.pid!;
}

describe("locks", () => {
  test("several shared locks can be held at once, but none together with an exclusive lock", async (t) => {
    const { repository } = await repositoryFor(t);
    const a = await acquireLock(repository, { exclusive: false });
    const b = await acquireLock(repository, { exclusive: false });
    await assert.rejects(acquireLock(repository, { exclusive: true }), busy);
    await a.release();
    await a.release();
    await assert.rejects(acquireLock(repository, { exclusive: true, waitMs: 50 }), busy);
    await b.release();
    await withLock(repository, { exclusive: true }, async (lock) => {
      await lock.recheck();
      await assert.rejects(acquireLock(repository, { exclusive: false }), busy);
      await assert.rejects(acquireLock(repository, { exclusive: true }), busy);
    });
    assert.deepEqual(await repository.storage.list("locks"), []);
  });

  test("an abort during the settling delay of a remote lock returns at once", async (t) => {
    const storage = new CountingStorage(new MemoryStorage());
    const repository = await Repository.create(storage, { password: "password" });
    const { setTimeout: pause } = timers;
    const isPausing = Promise.withResolvers<void>();
    const paused = t.mock.method(timers, "setTimeout", async (_ms: number, value: unknown, options?: object) => {
      isPausing.resolve();
      return pause(86_400_000, value, { ...options, ref: false });
    });
    syncBuiltinESMExports();
    t.after(() => {
      paused.mock.restore();
      syncBuiltinESMExports();
    });
    const stop = new AbortController();
    const acquiring = acquireLock(repository, { exclusive: false, signal: stop.signal });
    await isPausing.promise;
    assert.equal(storage.count("save", "locks"), 1);
    stop.abort();
    await assert.rejects(acquiring, { code: "interrupted" });
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("several waiting callers get an exclusive lock one after the other", async (t) => {
    const { repository } = await repositoryFor(t);
    let inside = 0;
    await Promise.all(
      Array.from({ length: 5 }, () =>
        withLock(repository, { exclusive: true, waitMs: 60_000 }, async () => {
          assert.equal(++inside, 1);
          await new Promise((resolve) => setTimeout(resolve, 5));
          inside--;
        }),
      ),
    );
  });

  test("removeDeadLocks removes stale locks and locks of ended processes, and keeps those of other hosts", async (t) => {
    const { repository, path } = await repositoryFor(t);
    const gone = await gonePid();
    await repository.saveUnpacked("locks", lockOf({ pid: gone }));
    const longAgo = new Date(Date.now() - 31 * 60_000);
    const stale = await repository.saveUnpacked(
      "locks",
      lockOf({ pid: 1, hostname: "elsewhere", time: longAgo.toISOString() }),
    );
    const cut = join(path, "locks", "ab".repeat(32));
    writeFileSync(cut, "half of a lock");
    for (const file of [cut, join(path, "locks", stale)]) utimesSync(file, longAgo, longAgo);
    assert.equal(await removeDeadLocks(repository), 3);
    await repository.saveUnpacked("locks", lockOf({ pid: gone, hostname: "elsewhere" }));
    await assert.rejects(
      acquireLock(repository, { exclusive: false }),
      (error) => busy(error) && (error as CairnError).details?.["hostname"] === "elsewhere",
    );
    assert.equal(await removeDeadLocks(repository), 0);
  });

  test("a lock of another host counts for half an hour", async () => {
    const repository = await Repository.create(new MemoryStorage(), { password: "x" });
    for (const minutes of [29, 31])
      await repository.saveUnpacked(
        "locks",
        lockOf({ hostname: "elsewhere", time: new Date(Date.now() - minutes * 60_000).toISOString() }),
      );
    const { held, dead } = await lookAtLocks(repository);
    assert.deepEqual([held.length, dead.length], [1, 1]);
  });

  test("a lock's age is that of its file in the storage if its host's clock is two hours slow or fast", async (t) => {
    const { repository, storage, path } = await repositoryFor(t);
    const hour = 3_600_000;
    const place = async (by: number): Promise<string> =>
      repository.saveUnpacked(
        "locks",
        lockOf({ hostname: "elsewhere", time: new Date(Date.now() + by).toISOString() }),
      );
    const [slow, fast] = [await place(-2 * hour), await place(2 * hour)];
    assert.deepEqual((await lookAtLocks(repository)).dead, []);
    await assert.rejects(acquireLock(repository, { exclusive: false }), busy);
    const longAgo = new Date(Date.now() - 31 * 60_000);
    for (const name of [slow, fast]) utimesSync(join(path, "locks", name), longAgo, longAgo);
    // The clock of the storage decides, not that of this host.
    const behind = new FaultyStorage(storage);
    Object.assign(behind, { now: async () => Date.now() - 2 * hour });
    const far = await Repository.open(behind, { keys: repository.keys });
    assert.deepEqual((await lookAtLocks(far)).dead, []);
    // Of a storage that does not tell its time, the time in the lock counts.
    Object.assign(behind, { now: async () => null });
    assert.deepEqual((await lookAtLocks(far)).dead, [slow]);
    assert.equal(await removeDeadLocks(repository), 2);
  });

  test("a lock that a later list lacks counts by the time of its file, too, if its host's clock is slow", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const late = new FaultyStorage(storage);
    const time = new Date(Date.now() - 2 * 3_600_000).toISOString();
    await repository.saveUnpacked("locks", lockOf({ hostname: "elsewhere", time }));
    for (const fault of ["delay", "lose"] as const) {
      late.arm({ operation: "list", kind: "locks", fault });
      const { held, dead } = await lookAtLocks(repository.over(late));
      assert.deepEqual([held.length, dead], [1, []], fault);
    }
  });

  test("a lock of running restic stays valid after the clock was set forward", async (t) => {
    const { repository } = await repositoryFor(t);
    // As it looks after that: placed before the process with its number began.
    const time = new Date(Date.now() - 20 * 60_000).toISOString();
    const living = await repository.saveUnpacked("locks", lockOf({ pid: process.pid, time }));
    assert.deepEqual((await lookAtLocks(repository)).dead, []);
    await assert.rejects(acquireLock(repository, { exclusive: false }), busy);
    await repository.storage.remove("locks", living);
  });

  test("a lock from an earlier boot counts as dead only if it has this machine's id", async (t) => {
    const fixture = await repositoryFor(t);
    const self = thisProcess();
    const owner = {
      boot_id: "another",
      pid_namespace: self.pidNamespace,
      start_time: "1",
      machine_id: self.machineId,
    };
    const place = async (changes: Partial<typeof owner>): Promise<string> =>
      fixture.repository.saveUnpacked("locks", lockOf({ extra: { cairn_owner: { ...owner, ...changes } } }));
    const away = new CountingStorage(fixture.storage);
    delete away.localPath;
    const far = await Repository.open(away, { keys: fixture.repository.keys });
    const same = await place({});
    assert.deepEqual((await lookAtLocks(far)).dead, []);
    // Containers may have no id of their machine at all.
    assert.deepEqual((await lookAtLocks(fixture.repository)).dead, self.machineId === "" ? [] : [same]);
    await fixture.storage.remove("locks", same);
    const other = await place({ machine_id: "of another machine with the same name" });
    assert.equal(await removeDeadLocks(fixture.repository), 0);
    await assert.rejects(acquireLock(fixture.repository, { exclusive: false }), busy);
    await fixture.storage.remove("locks", other);
  });

  test("acquireLock throws busy if reading another process's valid lock returns wrong bytes", async (t) => {
    const fixture = await repositoryFor(t);
    for (const fault of ["flip", "truncate"] as const) {
      const faulty = new FaultyStorage(fixture.storage, [{ operation: "load", kind: "locks", fault, times: 2 }]);
      const repository = await Repository.open(faulty, { keys: fixture.repository.keys });
      await withLock(fixture.repository, { exclusive: true }, async (lock) => {
        const living = await fixture.repository.saveUnpacked("locks", lockOf({ hostname: "elsewhere" }));
        await assert.rejects(acquireLock(repository, { exclusive: false }), busy, fault);
        const left = (await fixture.storage.list("locks")).map(({ name }) => name);
        assert.deepEqual(left.toSorted(), [lock.id, living].toSorted(), fault);
        await fixture.storage.remove("locks", living);
      });
    }
  });

  test("an empty lock is dead if it is still empty seconds later, and held if it has content by then", async (t) => {
    const { repository, path, storage } = await repositoryFor(t);
    const { setTimeout: pause } = timers;
    const pauses: number[] = [];
    let meanwhile = async (): Promise<void> => undefined;
    t.mock.method(timers, "setTimeout", async (ms: number, value: unknown, options?: object) => {
      pauses.push(ms);
      if (ms >= 1000) await meanwhile();
      return pause(Math.min(ms, 50), value, options);
    });
    syncBuiltinESMExports();
    t.after(() => {
      t.mock.restoreAll();
      syncBuiltinESMExports();
    });
    for (const name of ["ab".repeat(32), "cd".repeat(32)]) writeFileSync(join(path, "locks", name), "");
    await withLock(repository, { exclusive: true }, async () => undefined);
    assert.deepEqual(await storage.list("locks"), []);
    assert.deepEqual(
      pauses.filter((ms) => ms >= 1000),
      [3000],
    );
    const uploaded = lockOf({ hostname: "elsewhere" });
    const name = await repository.saveUnpacked("locks", uploaded);
    const bytes = readFileSync(join(path, "locks", name));
    writeFileSync(join(path, "locks", name), "");
    meanwhile = async () => writeFileSync(join(path, "locks", name), bytes);
    await assert.rejects(
      acquireLock(repository, { exclusive: false }),
      (error) => busy(error) && (error as CairnError).details?.["hostname"] === "elsewhere",
    );
    assert.deepEqual(
      (await storage.list("locks")).map((each) => each.name),
      [name],
    );
    await storage.remove("locks", name);
  });

  test("an unreadable lock excludes other locks until a user removes it", async (t) => {
    const { repository, path, storage } = await repositoryFor(t);
    writeFileSync(join(path, "locks", "ab".repeat(32)), "half of a lock");
    await assert.rejects(
      acquireLock(repository, { exclusive: false }),
      (error) => busy(error) && /unlock --all/.test((error as CairnError).hint ?? ""),
    );
    assert.deepEqual([await removeDeadLocks(repository), (await storage.list("locks")).length], [0, 1]);
    // In a control directory's store it is what a crash left.
    Object.assign(storage, { isStore: true });
    for (const exclusive of [true, false]) {
      await (await acquireLock(repository, { exclusive })).release();
      assert.deepEqual(await storage.list("locks"), []);
      writeFileSync(join(path, "locks", "ab".repeat(32)), "");
    }
  });

  test("withLock returns the result and warns if the lock cannot be removed", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const remove = storage.remove.bind(storage);
    const warnings: string[] = [];
    const onWarning = (message: string): void => void warnings.push(message);
    const done = await withLock(repository, { exclusive: true, onWarning }, async () => {
      storage.remove = async () => Promise.reject(new CairnError("io", "the line is dead"));
      return "done";
    });
    assert.equal(done, "done");
    assert.match(warnings.join(), /the line is dead/);
    assert.equal((await storage.list("locks")).length, 1);
    storage.remove = remove;
    // Its process lives, and knows that it is not held any more.
    await (await acquireLock(repository, { exclusive: true })).release();
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("RepositoryLock.release warns if this user may not remove the lock file", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const remove = storage.remove.bind(storage);
    storage.remove = async () => Promise.reject(new CairnError("permission", "nothing is removed here"));
    const warnings: string[] = [];
    await (
      await acquireLock(repository, { exclusive: true, onWarning: (message) => void warnings.push(message) })
    ).release();
    assert.match(warnings.join(), /this user may not remove it/);
    assert.equal(await removeDeadLocks(repository), 0);
    // It is known not to be held.
    await (await acquireLock(repository, { exclusive: true })).release();
    storage.remove = remove;
    assert.deepEqual([await removeDeadLocks(repository), await storage.list("locks")], [2, []]);
  });

  test("RepositoryLock.recheck throws busy if another process has placed an exclusive lock meanwhile", async (t) => {
    const { repository } = await repositoryFor(t);
    const lock = await acquireLock(repository, { exclusive: false });
    await repository.saveUnpacked("locks", lockOf({ hostname: "elsewhere" }));
    await assert.rejects(lock.recheck(), busy);
    await lock.release();
  });

  test("RepositoryLock.recheck looks for its own lock file by name only if the list lacks the file", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const late = new FaultyStorage(storage);
    await withLock(repository.over(late), { exclusive: false }, async (lock) => {
      late.disarm();
      await lock.recheck();
      assert.deepEqual([...late.calls], [["list locks", 1]]);
      late.arm({ operation: "list", kind: "locks", fault: "lose" });
      await lock.recheck();
      assert.equal(late.calls.get("exists locks"), 1);
    });
  });

  test("RepositoryLock.recheck waits for another lock to be removed, and throws busy if its own lock is gone", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const lock = await acquireLock(repository, { exclusive: false });
    const rival = await repository.saveUnpacked("locks", lockOf({ hostname: "elsewhere" }));
    setTimeout(() => void storage.remove("locks", rival), 150);
    await lock.recheck();
    await storage.remove("locks", lock.id);
    await assert.rejects(lock.recheck(), busy);
    await lock.release();
  });

  test("a lock that expired while its process slept is not refreshed", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    t.mock.timers.enable({ apis: ["Date", "setInterval"], now: Date.now() });
    const lock = await acquireLock(repository, { exclusive: false });
    t.mock.timers.setTime(Date.now() + 31 * 60_000);
    t.mock.timers.tick(5 * 60_000);
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.deepEqual(
      (await storage.list("locks")).map(({ name }) => name),
      [lock.id],
    );
    t.mock.timers.setTime(Date.now() - 31 * 60_000);
    await assert.rejects(lock.recheck(), busy);
    assert.throws(() => lock.requireHeld(), busy);
    await lock.release();
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("a lock expires by the time in its file, even if placing the file took long", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    t.mock.timers.enable({ apis: ["Date", "setInterval"], now: Date.now() });
    const list = storage.list.bind(storage);
    storage.list = async (...of) => {
      t.mock.timers.setTime(Date.now() + 11 * 60_000);
      return list(...of);
    };
    const lock = await acquireLock(repository, { exclusive: true });
    storage.list = list;
    lock.requireHeld();
    t.mock.timers.setTime(Date.now() + 4 * 60_000);
    assert.throws(() => lock.requireHeld(), busy);
    await assert.rejects(lock.recheck(), busy);
    await lock.release();
  });

  test("acquiring a remote shared lock does not read its own lock file if the list contains it", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const away = new CountingStorage(storage);
    delete away.localPath;
    const list = storage.list.bind(storage);
    const placed = gateOf();
    storage.list = async (...of) => placed.gate.then(async () => list(...of));
    const save = storage.save.bind(storage);
    storage.save = async (...of) => save(...of).then(placed.open);
    await withLock(repository.over(away), { exclusive: false }, async () => {
      assert.equal(away.count("list", "locks"), 2);
      assert.equal(away.count("load", "locks"), 0);
    });
  });

  test("an exclusive lock on a remote storage is taken only by a list of locks that has the new lock", async () => {
    const memory = new MemoryStorage();
    const repository = await Repository.create(memory, { password: "x" });
    const short = new FaultyStorage(memory);
    // One list before the lock is placed, and the first two after it.
    short.arm({ operation: "list", kind: "locks", fault: "lose", times: 3 });
    const lock = await acquireLock(repository.over(short), { exclusive: true });
    assert.equal(short.calls.get("list locks"), 4);
    await lock.release();
  });

  test("whileReading holds its lock until the work is done", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const { gate, open } = gateOf();
    const reading = whileReading(repository, {}, async () => gate);
    await someTurns();
    assert.equal((await storage.list("locks")).length, 1);
    open();
    await reading;
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("withLock throws busy if its shared lock was removed during the work", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const removing = async (exclusive: boolean): Promise<string> =>
      withLock(repository, { exclusive }, async ({ id }) => {
        await storage.remove("locks", id);
        return "done";
      });
    await assert.rejects(removing(false), (error: CairnError) => busy(error) && /backup verify/.test(error.hint ?? ""));
    assert.equal(await removing(true), "done");
    const failed = new Error("the work's own");
    const failing = withLock(repository, { exclusive: false }, async ({ id }) => {
      await storage.remove("locks", id);
      throw failed;
    });
    await assert.rejects(failing, failed);
  });

  test("withLock returns the result if removing its shared lock takes longer than the lock is valid", async (t) => {
    for (const isThere of [true, false])
      await withRepository(async ({ repository, storage }) => {
        const wall = Date.now;
        let passed = 0;
        const clock = t.mock.method(Date, "now", () => wall() + passed);
        const remove = storage.remove.bind(storage);
        const removal = t.mock.method(storage, "remove", async (...args: Parameters<typeof remove>) => {
          // A server that is away, for so long as it is tried.
          passed += 26 * 60_000;
          if (!isThere) await remove(...args);
          return remove(...args);
        });
        assert.equal(await withLock(repository, { exclusive: false }, async () => "done"), "done");
        for (const { mock } of [clock, removal]) mock.restore();
      });
  });

  test("a lock expires while the machine sleeps, even if the clock was set back", async (t) => {
    const { repository } = await repositoryFor(t);
    const lock = await acquireLock(repository, { exclusive: true });
    const [wall, up] = [Date.now(), os.uptime()];
    t.mock.method(Date, "now", () => wall - 86_400_000);
    lock.requireHeld();
    t.mock.method(os, "uptime", () => up + 31 * 60);
    assert.throws(() => lock.requireHeld(), busy);
    t.mock.restoreAll();
    await lock.release();
  });

  test("RepositoryLock.recheck throws busy after a refresh if another program had removed the lock", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    t.mock.timers.enable({ apis: ["Date", "setInterval"], now: Date.now() });
    const lock = await acquireLock(repository, { exclusive: false });
    const first = lock.id;
    await storage.remove("locks", first);
    t.mock.timers.tick(5 * 60_000);
    while (lock.id === first) await new Promise((resolve) => setImmediate(resolve));
    await assert.rejects(lock.recheck(), busy);
    await lock.release();
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("a lock that is refreshed during recheck stays held", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    t.mock.timers.enable({ apis: ["Date", "setInterval"], now: Date.now() });
    const lock = await acquireLock(repository, { exclusive: true });
    const first = lock.id;
    const { gate, open } = gateOf();
    const exists = storage.exists.bind(storage);
    storage.exists = async (...of) => gate.then(async () => exists(...of));
    const looking = lock.recheck();
    t.mock.timers.tick(5 * 60_000);
    await someTurns();
    open();
    await looking;
    while (lock.id === first) await someTurns();
    await lock.recheck();
    await lock.release();
    assert.deepEqual(await storage.list("locks"), []);
  });

  test("a refreshed lock stays held if its process finds its own old lock file", async (t) => {
    for (const comesAcross of ["itself", "another"] as const)
      await withRepository(async ({ repository, storage }) => {
        t.mock.timers.enable({ apis: ["Date", "setInterval"], now: Date.now() });
        const lock = await acquireLock(repository, { exclusive: false });
        const first = lock.id;
        const { gate, open } = gateOf();
        const remove = storage.remove.bind(storage);
        let removals = 0;
        storage.remove = async (...of) => (removals++ === 0 ? gate : Promise.resolve()).then(async () => remove(...of));
        t.mock.timers.tick(5 * 60_000);
        while (lock.id === first) await someTurns();
        const other = comesAcross === "itself" ? lock.recheck() : acquireLock(repository, { exclusive: false });
        await someTurns();
        open();
        await (await other)?.release();
        await lock.recheck();
        await lock.release();
        assert.deepEqual(await storage.list("locks"), []);
        t.mock.timers.reset();
      });
  });

  test("withLock throws the work's error even if the lock cannot be removed", async (t) => {
    const { repository, storage } = await repositoryFor(t);
    const remove = storage.remove.bind(storage);
    const failing = withLock(repository, { exclusive: true }, async () => {
      storage.remove = async () => Promise.reject(new CairnError("io", "the line is dead"));
      throw new CairnError("damaged", "what was wrong");
    });
    await assert.rejects(failing, (error) => error instanceof CairnError && error.code === "damaged");
    storage.remove = remove;
  });

  test("restic respects Cairn's exclusive lock", { skip: !resticInstalled }, async (t) => {
    const fixture = await repositoryFor(t);
    await new TestArchive(fixture).save({ a: Buffer.from("x") });
    await withLock(fixture.repository, { exclusive: true }, async () => {
      assert.throws(() => restic(fixture.path, ["check"]), /locked/);
      assert.throws(() => restic(fixture.path, ["backup", "."], fixture.folder), /locked/);
    });
    restic(fixture.path, ["check"]);
    assert.match(restic(fixture.path, ["list", "locks"]), /^$/);
  });
});
