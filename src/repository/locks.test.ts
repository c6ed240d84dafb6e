import { strict as assert } from "node:assert";
import { spawn } from "node:child_process";
import { hostname } from "node:os";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, test } from "node:test";
import { CairnError } from "../errors.ts";
import { encodeLock, type LockFile } from "../formats/lock-file.ts";
import { acquireLock, removeDeadLocks, withLock } from "./locks.ts";
import { restic, resticInstalled, TestArchive, withRepository } from "./test-archive.ts";

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

async function gonePid(): Promise<number> {
  const child = spawn("true");
  await new Promise((resolve) => child.once("exit", resolve));
  return child.pid!;
}

describe("locks", () => {
  test("shared locks go together and exclude an exclusive one, and the other way round", async () => {
    await withRepository(async ({ repository }) => {
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
  });

  test("a waiting one goes on when the holder releases", async () => {
    await withRepository(async ({ repository }) => {
      const a = await acquireLock(repository, { exclusive: true });
      setTimeout(() => void a.release(), 60);
      const b = await acquireLock(repository, { exclusive: true, waitMs: 5000 });
      await b.release();
    });
  });

  test("several that want it exclusively at once get it one after the other", async () => {
    await withRepository(async ({ repository }) => {
      let inside = 0;
      await Promise.all(
        Array.from({ length: 5 }, () =>
          withLock(repository, { exclusive: true, waitMs: 20_000 }, async () => {
            assert.equal(++inside, 1);
            await new Promise((resolve) => setTimeout(resolve, 5));
            inside--;
          }),
        ),
      );
    });
  });

  test("locks of the dead are removed, of the living and of other hosts kept", async () => {
    await withRepository(async ({ repository, path }) => {
      const gone = await gonePid();
      await repository.saveUnpacked("locks", lockOf({ pid: gone }));
      await repository.saveUnpacked(
        "locks",
        lockOf({ pid: 1, hostname: "elsewhere", time: new Date(Date.now() - 31 * 60_000).toISOString() }),
      );
      // The number of this process, but placed before it started.
      await repository.saveUnpacked(
        "locks",
        lockOf({ pid: process.pid, time: new Date(Date.now() - 20 * 60_000).toISOString() }),
      );
      writeFileSync(join(path, "locks", "ab".repeat(32)), "");
      assert.equal(await removeDeadLocks(repository), 4);
      await repository.saveUnpacked("locks", lockOf({ pid: gone, hostname: "elsewhere" }));
      await assert.rejects(
        acquireLock(repository, { exclusive: false }),
        (error) => busy(error) && (error as CairnError).details?.["hostname"] === "elsewhere",
      );
      assert.equal(await removeDeadLocks(repository), 0);
    });
  });

  test("recheck sees an exclusive lock that came later", async () => {
    await withRepository(async ({ repository }) => {
      const lock = await acquireLock(repository, { exclusive: false });
      await repository.saveUnpacked("locks", lockOf({ hostname: "elsewhere" }));
      await assert.rejects(lock.recheck(), busy);
      await lock.release();
    });
  });

  test("recheck waits for a rival that looks around and gives up, and tells when its own lock is gone", async () => {
    await withRepository(async ({ repository, storage }) => {
      const lock = await acquireLock(repository, { exclusive: false });
      const rival = await repository.saveUnpacked("locks", lockOf({ hostname: "elsewhere" }));
      setTimeout(() => void storage.remove("locks", rival), 150);
      await lock.recheck();
      await storage.remove("locks", lock.id);
      await assert.rejects(lock.recheck(), busy);
      await lock.release();
    });
  });

  test("a lock that lapsed while its process was asleep is not placed anew", async (t) => {
    await withRepository(async ({ repository, storage }) => {
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
  });

  test("a lock that was removed by others stays lost when it is refreshed", async (t) => {
    await withRepository(async ({ repository, storage }) => {
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
  });

  test("work that failed says why, also where its lock cannot be taken away", async () => {
    await withRepository(async ({ repository, storage }) => {
      const remove = storage.remove.bind(storage);
      const failing = withLock(repository, { exclusive: true }, async () => {
        storage.remove = async () => Promise.reject(new CairnError("io", "the line is dead"));
        throw new CairnError("damaged", "what was wrong");
      });
      await assert.rejects(failing, (error) => error instanceof CairnError && error.code === "damaged");
      storage.remove = remove;
    });
  });

  test("restic honours ours", { skip: !resticInstalled }, async () => {
    await withRepository(async (fixture) => {
      await new TestArchive(fixture).save({ a: Buffer.from("x") });
      await withLock(fixture.repository, { exclusive: true }, async () => {
        assert.throws(() => restic(fixture.path, ["check"]), /locked/);
        assert.throws(() => restic(fixture.path, ["backup", "."], fixture.folder), /locked/);
      });
      restic(fixture.path, ["check"]);
      assert.match(restic(fixture.path, ["list", "locks"]), /^$/);
    });
  });
});
