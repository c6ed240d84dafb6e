import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import fs, {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { TestContext } from "node:test";
import { asOrdinaryUser, loopFileSystem } from "../../test/fixtures/loop-file-system.ts";
import { fillDisk } from "../../test/fixtures/room.ts";
import { CairnError } from "../errors.ts";
import { TEMPORARY_PREFIX } from "./durable.ts";
import { newOwner } from "./lock-owner.ts";
import { acquireLock, breakLock, lockHolder } from "./lock.ts";
import type { AcquireOptions } from "./lock.ts";
import { isLocked } from "./linux/kernel-lock.ts";
import { encodeOwner } from "./owner-files.ts";

const ROOT = process.getuid?.() === 0;
const NO_WAIT = { timeoutMs: 0 };
const MODES: { name: string; options: AcquireOptions }[] = [
  { name: "kernel locks", options: {} },
  { name: "owner files", options: { forceOwnerFiles: true } },
];

const canUnshare = ROOT && spawnSync("unshare", ["--pid", "--fork", "--mount-proc", "true"]).status === 0;

test(
  "a lock of a program that went into the background is seen within its pid namespace",
  { skip: canUnshare ? false : "needs root and namespaces" },
  (t) => {
    const place = `${scratch(t)}.pid`;
    const ask = `import { isLocked } from "${import.meta.resolve("./linux/kernel-lock.ts")}"; console.log(isLocked(process.argv[1]));`;
    // `flock` takes the lock for the shell's open file, and ends. Its pid in the kernel's table is nobody's here.
    const line = 'exec 9> "$1"; flock "$4" 9; shift; "$@" "$0" 9>&-';
    for (const [mode, held] of [
      ["-x", "true"],
      ["-s", "false"],
    ] as const) {
      const asks = [process.execPath, "--input-type=module", "-e", ask];
      const words = ["--pid", "--fork", "--mount-proc", "sh", "-c", line.replace('"$4"', mode), place, place, ...asks];
      const { stdout, stderr } = spawnSync("unshare", words, { encoding: "utf8" });
      assert.equal(stdout, `${held}\n`, stderr);
    }
    assert.deepEqual([isLocked(place), isLocked(`${place}-none`)], [false, false]);
  },
);

function scratch(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "cairn-lock-"));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return join(directory, "lock");
}

function isBusy(error: unknown): boolean {
  return error instanceof CairnError && error.code === "busy" && error.retryable;
}

/** A process that takes the lock, says so, and keeps it. */
async function startHolder(
  path: string,
  env: Record<string, string>,
  options: AcquireOptions = {},
): Promise<ChildProcess> {
  const module = new URL("lock.ts", import.meta.url).href;
  const script = `
    import { acquireLock } from ${JSON.stringify(module)};
    globalThis.kept = await acquireLock(${JSON.stringify(path)}, ${JSON.stringify({ purpose: "test", ...options })});
    process.stdout.write("held");
    setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = once(child, "exit").then(() => assert.fail("the holder got no lock"));
  await Promise.race([once(child.stdout!, "data"), ended]);
  return child;
}

async function kill(child: ChildProcess): Promise<void> {
  const ended = once(child, "exit");
  child.kill("SIGKILL");
  await ended;
}

for (const { name, options } of MODES) {
  test(`the busy error names the process that holds the lock, with ${name}`, async (context) => {
    const path = scratch(context);
    const child = await startHolder(path, {}, options);
    context.after(() => kill(child));
    for (const mode of MODES) {
      await assert.rejects(acquireLock(path, { ...mode.options, ...NO_WAIT }), (error) => {
        assert.ok(isBusy(error), String(error));
        assert.match((error as CairnError).message, new RegExp(`pid ${child.pid} .*since 20`));
        return true;
      });
    }
    assert.equal(lockHolder(path)?.pid, child.pid);
  });

  test(`acquireLock takes over the lock of a killed process at once, with ${name}`, async (context) => {
    const path = scratch(context);
    for (let round = 0; round < 3; round++) {
      const child = await startHolder(path, {}, options);
      await kill(child);
      for (const mode of MODES) (await acquireLock(path, { ...mode.options, timeoutMs: 200 })).release();
    }
    assert.ok(readdirSync(join(path, "..")).length <= 3, "leftovers grow");
  });

  test(`two exclusive locks in one process exclude each other, with ${name}`, async (context) => {
    const path = scratch(context);
    const first = await acquireLock(path, options);
    for (const mode of MODES) await assert.rejects(acquireLock(path, { ...mode.options, ...NO_WAIT }), isBusy);
    assert.equal(first.stillHeld(), true);
    first.release();
    first.release();
    assert.equal(first.stillHeld(), false);
    for (const mode of MODES) {
      await using second = await acquireLock(path, { ...mode.options, ...NO_WAIT });
      assert.equal(second.mode, mode.options.forceOwnerFiles === true ? "owner-file" : "kernel");
    }
    assert.equal(lockHolder(path), null);
  });

  test(`this process can take a lock again that it released while the directory was away, with ${name}`, async (context) => {
    const directory = join(dirname(scratch(context)), "directory");
    const path = join(directory, "lock");
    for (const shared of [false, true]) {
      mkdirSync(directory, { recursive: true });
      const lock = await acquireLock(path, { ...options, shared });
      renameSync(directory, `${directory}-away`);
      lock.release();
      assert.equal(lock.stillHeld(), false);
      renameSync(`${directory}-away`, directory);
      (await acquireLock(path, { ...options, ...NO_WAIT })).release();
    }
  });

  test(`another process can take a lock that was released while the directory was away, with ${name}`, async (context) => {
    const directory = join(dirname(scratch(context)), "directory");
    const path = join(directory, "lock");
    for (const shared of [false, true]) {
      mkdirSync(directory, { recursive: true });
      const lock = await acquireLock(path, { ...options, shared });
      context.mock.timers.enable({ apis: ["setTimeout"] });
      renameSync(directory, `${directory}-away`);
      lock.release();
      context.mock.timers.tick(100_000);
      renameSync(`${directory}-away`, directory);
      context.mock.timers.tick(60_000);
      context.mock.timers.reset();
      await kill(await startHolder(path, {}, { ...options, ...NO_WAIT }));
    }
  });

  test(`shared and exclusive locks exclude each other, with ${name}`, async (context) => {
    const path = scratch(context);
    const readers = [];
    for (const mode of [...MODES, { options }])
      readers.push(await acquireLock(path, { ...mode.options, ...NO_WAIT, shared: true }));
    while (readers.length > 0) {
      await assert.rejects(acquireLock(path, { ...options, ...NO_WAIT }), isBusy);
      readers.pop()!.release();
    }
    const writer = await acquireLock(path, { ...options, ...NO_WAIT });
    for (const mode of MODES)
      await assert.rejects(acquireLock(path, { ...mode.options, ...NO_WAIT, shared: true }), isBusy);
    writer.release();
  });

  test(`the shared lock of a killed process does not block an exclusive lock, with ${name}`, async (context) => {
    const path = scratch(context);
    await kill(await startHolder(path, {}, { ...options, shared: true }));
    for (const mode of MODES) (await acquireLock(path, { ...mode.options, ...NO_WAIT })).release();
  });

  test(`12 waiting callers get the lock one after the other, with ${name}`, async (context) => {
    const path = scratch(context);
    const counter = `${path}.counter`;
    writeFileSync(counter, "0");
    await Promise.all(
      Array.from({ length: 12 }, async (_, at) => {
        const mode = at % 3 === 0 ? {} : options;
        const lock = await acquireLock(path, { ...mode, timeoutMs: 60_000 });
        const value = Number(readFileSync(counter, "utf8"));
        await new Promise((resolve) => setTimeout(resolve, 3));
        writeFileSync(counter, String(value + 1));
        lock.release();
      }),
    );
    assert.equal(readFileSync(counter, "utf8"), "12");
  });
}

test("an abort ends a waiting acquireLock before its timeout", async (context) => {
  const path = scratch(context);
  using _held = await acquireLock(path);
  const controller = new AbortController();
  const waiting = acquireLock(path, { signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  const started = performance.now();
  await assert.rejects(waiting, (error) => error instanceof CairnError && error.code === "interrupted");
  assert.ok(performance.now() - started < 20_000);
});

/** Since when a holder elsewhere has been seen with the heartbeat that it has, in ns of the monotonic clock. */
function seenSince(lockPath: string): bigint {
  const name = readdirSync(dirname(lockPath)).find((each) => each.startsWith("lock.seen-"))!;
  return BigInt(/"at":"(\d+)"/.exec(readFileSync(join(dirname(lockPath), name), "utf8"))![1]!);
}

test("a remote process keeps the lock until its heartbeat is stale, counted over several acquireLock calls", async (context) => {
  const path = scratch(context);
  const elsewhere = { ...newOwner("elsewhere", false), host: "far", pid_namespace: "pid:[1]", seen: 3 };
  writeFileSync(`${path}.owner-0000000007`, encodeOwner(elsewhere));
  const waiting = { forceOwnerFiles: true, staleAfterMs: 3_600_000, timeoutMs: 60 };
  await assert.rejects(acquireLock(path, waiting), isBusy);
  const since = seenSince(path);
  await assert.rejects(acquireLock(path, waiting), isBusy);
  assert.equal(seenSince(path), since, "the waits add up");
  writeFileSync(`${path}.owner-0000000007`, encodeOwner({ ...elsewhere, seen: 4 }));
  await assert.rejects(acquireLock(path, waiting), isBusy);
  assert.ok(seenSince(path) > since, "a heartbeat begins the count anew");
  await sleep(20);
  const lock = await acquireLock(path, { ...waiting, staleAfterMs: 20, timeoutMs: 0 });
  assert.equal(existsSync(`${path}.owner-0000000008`), true);
  lock.release();
  assert.deepEqual(readdirSync(join(path, "..")), ["lock.owner-0000000008"]);
});

test("releasing a lost lock does not release the lock of the new holder", async (context) => {
  const path = scratch(context);
  const sleeper = await acquireLock(path, { forceOwnerFiles: true });
  const stolen = { ...newOwner("new", false) };
  writeFileSync(`${path}.owner-0000000002`, encodeOwner(stolen));
  assert.equal(sleeper.stillHeld(), false);
  sleeper.release();
  await assert.rejects(acquireLock(path, { forceOwnerFiles: true, ...NO_WAIT }), isBusy);
});

test("acquireLock ignores an owner file of an earlier boot on a local file system", async (context) => {
  const path = scratch(context);
  writeFileSync(`${path}.owner-0000000001`, encodeOwner({ ...newOwner("before", false), boot_id: "other", pid: 1 }));
  (await acquireLock(path, NO_WAIT)).release();
});

test("acquireLock ignores an owner file whose pid now belongs to another process", async (context) => {
  const path = scratch(context);
  writeFileSync(`${path}.owner-0000000001`, encodeOwner({ ...newOwner("before", false), start_time: "1" }));
  (await acquireLock(path, NO_WAIT)).release();
});

test("an unreadable owner file blocks acquireLock only until it is stale", async (context) => {
  const path = scratch(context);
  writeFileSync(`${path}.owner-0000000001`, "");
  await assert.rejects(acquireLock(path, { staleAfterMs: 3_600_000, timeoutMs: 20 }), isBusy);
  (await acquireLock(path, { staleAfterMs: 300, timeoutMs: 20_000 })).release();
});

test("breakLock removes the lock of a remote process, and refuses the lock of a running local process", async (context) => {
  const path = scratch(context);
  writeFileSync(`${path}.owner-0000000001`, encodeOwner({ ...newOwner("far", false), pid_namespace: "pid:[1]" }));
  breakLock(path);
  const lock = await acquireLock(path, NO_WAIT);
  assert.throws(
    () => breakLock(path),
    (error) => error instanceof CairnError && error.code === "refused",
  );
  lock.release();
});

test("acquireLock throws not_found if the directory is missing", async (context) => {
  await assert.rejects(
    acquireLock(join(scratch(context), "no", "lock")),
    (error) => error instanceof CairnError && error.code === "not_found",
  );
});

test(
  "acquireLock without write access gives a shared lock, and throws permission for an exclusive lock",
  { skip: ROOT ? false : "needs root to become another user" },
  (context) => {
    const path = scratch(context);
    chmodSync(dirname(path), 0o755);
    const codes = asOrdinaryUser(
      { lock: new URL("lock.ts", import.meta.url).href },
      `const codes = [];
      for (const forceOwnerFiles of [false, true]) {
        const held = await lock.acquireLock(${JSON.stringify(path)}, { shared: true, forceOwnerFiles });
        held.release();
        await lock.acquireLock(${JSON.stringify(path)}, { forceOwnerFiles }).catch((error) => codes.push(held.mode, error.code));
      }
      return codes;`,
    );
    assert.deepEqual(codes, ["none", "permission", "none", "permission"]);
  },
);

test("acquireLock succeeds even if a cleanup removes its temporary owner file before the link", async (context) => {
  const path = scratch(context);
  const gate = join(dirname(path), "gate");
  writeFileSync(gate, "");
  const holding = startHolder(path, { CAIRN_FAILPOINT: `lock.record-written@${gate}` }, { forceOwnerFiles: true });
  const unfinished = (): string[] => readdirSync(dirname(path)).filter((name) => name.startsWith(TEMPORARY_PREFIX));
  while (unfinished().length === 0) await sleep(20);
  for (const name of unfinished()) rmSync(join(dirname(path), name));
  rmSync(gate);
  const child = await holding;
  context.after(() => kill(child));
  assert.equal(lockHolder(path)?.pid, child.pid);
});

test("acquireLock succeeds even if a cleanup removes its owner file during the write on JuiceFS or NFS", async (context) => {
  const path = scratch(context);
  for (const code of ["EBADF", "ESTALE"]) {
    const { writeFileSync: whole } = fs;
    const writing = context.mock.method(fs, "writeFileSync", (...given: Parameters<typeof whole>) => {
      whole(...given);
      if (writing.mock.callCount() > 0) return;
      rmSync(given[0] as string);
      throw Object.assign(new Error(`${code}: bad file descriptor, close`), { code });
    });
    syncBuiltinESMExports();
    try {
      const lock = await acquireLock(path, { forceOwnerFiles: true });
      assert.equal(lockHolder(path)?.pid, process.pid);
      lock.release();
      assert.ok(writing.mock.callCount() > 1);
    } finally {
      context.mock.restoreAll();
      syncBuiltinESMExports();
    }
  }
});

test("lockHolder throws damaged instead of waiting if the lock file is a pipe", (context) => {
  const path = scratch(context);
  assert.equal(spawnSync("mkfifo", [path]).status, 0);
  const script = `import { lockHolder } from ${JSON.stringify(new URL("lock.ts", import.meta.url).href)};
    try { lockHolder(${JSON.stringify(path)}); } catch ({ code, message }) { console.log(code, message); }`;
  const asked = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    timeout: 30_000,
    encoding: "utf8",
  });
  assert.equal(asked.status, 0, asked.stderr);
  assert.match(asked.stdout, /^damaged .* is a pipe, socket or device; a regular file is wanted$/m);
});

for (const kind of ["ext4", "xfs", "btrfs"] as const)
  test(`a kernel lock is taken, excludes others and is released on a full disk: ${kind}`, async (context) => {
    const place = loopFileSystem(context, kind);
    if (place === null) return;
    const path = join(place.root, "lock");
    (await acquireLock(path)).release();
    fillDisk(join(place.root, "filler"));
    for (let round = 0; round < 2; round++) {
      const lock = await acquireLock(path, { ...NO_WAIT, heartbeatMs: 1 });
      assert.equal(lock.mode, "kernel");
      await assert.rejects(acquireLock(path, NO_WAIT), isBusy);
      await assert.rejects(acquireLock(path, { ...NO_WAIT, shared: true }), isBusy);
      assert.ok(lock.stillHeld());
      lock.release();
      const shared = await acquireLock(path, { ...NO_WAIT, shared: true });
      await assert.rejects(acquireLock(path, NO_WAIT), isBusy);
      shared.release();
    }
  });
