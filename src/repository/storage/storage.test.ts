import { sizesOf } from "./testing-sizes.ts";
import { strict as assert } from "node:assert";
import fs, { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../../errors.ts";
import { CountingStorage } from "./testing-counting.ts";
import { FaultyStorage } from "./testing-faulty.ts";
import { LocalStorage } from "./local.ts";
import { MemoryStorage } from "./testing-memory.ts";
import { assertLayout, storageContract } from "./storage.contract.ts";

function newFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "cairn-local-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Lets modules use the mocks of `node:fs` until the test ends. */
function syncMocks(t: TestContext): void {
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.restoreAll();
    syncBuiltinESMExports();
  });
}

function local(folder: string): LocalStorage {
  return LocalStorage.create(join(folder, "repo"), { temporaryDirectory: join(folder, "tmp") });
}

storageContract("local", local);
storageContract("memory", () => new MemoryStorage());
storageContract("faulty without faults", () => new FaultyStorage(new MemoryStorage()));
storageContract("counting", (folder) => new CountingStorage(local(folder)));

const NAME = "ab".repeat(32);

test("local storage writes restic's layout with private modes, and leaves no temporary file", async (t) => {
  const folder = newFolder(t);
  const storage = local(folder);
  await assertLayout(storage, join(folder, "repo"));
  assert.ok(existsSync(storage.localPath("config", "config")));
  assert.deepEqual(readdirSync(join(folder, "tmp")), []);
});

test("saveFiles stores all files of a list, or none if one is missing", async (t) => {
  const folder = newFolder(t);
  const storage = local(folder);
  const files = ["ab", "cd"].map((byte) => ({ name: byte.repeat(32), path: join(folder, "tmp", byte) }));
  for (const { path } of files) writeFileSync(path, path);
  const [first, second] = files;
  await assert.rejects(storage.saveFiles("data", [first!, { ...second!, path: join(folder, "absent") }]), {
    code: "not_found",
  });
  assert.deepEqual(await storage.list("data"), []);
  assert.ok(existsSync(first!.path));
  await storage.saveFiles("data", files);
  for (const { name, path } of files) assert.equal(Buffer.from(await storage.load("data", name)).toString(), path);
  assert.deepEqual(readdirSync(join(folder, "tmp")), []);
});

test("local storage gives a file its name only after the promise of save, and not if the promise rejects", async (t) => {
  const folder = newFolder(t);
  const storage = local(folder);
  const packs = Promise.withResolvers<void>();
  const saving = storage.save("index", NAME, Buffer.from("index"), { after: packs.promise });
  const staged = (): string[] => readdirSync(join(folder, "tmp"));
  assert.equal(staged().length, 1);
  assert.equal(await storage.exists("index", NAME), false);
  packs.resolve();
  await saving;
  assert.equal(await storage.exists("index", NAME), true);
  const full = new CairnError("no_space", "the disk is full");
  const after = Promise.reject(full);
  after.catch(() => undefined);
  await assert.rejects(storage.save("index", "cd".repeat(32), Buffer.from("x"), { after }), full);
  assert.equal(await storage.exists("index", "cd".repeat(32)), false);
  assert.deepEqual(staged(), []);
});

test("local storage flushes a lock and an index before they get their names, but no lock of a store", async (t) => {
  const folder = newFolder(t);
  const { fsyncSync, renameSync } = fs;
  const calls: string[] = [];
  t.mock.method(fs, "fsyncSync", (fd: number) => {
    calls.push("fsync");
    fsyncSync(fd);
  });
  t.mock.method(fs, "renameSync", (from: string, to: string) => {
    calls.push("rename");
    renameSync(from, to);
  });
  syncMocks(t);
  const storage = local(folder);
  calls.length = 0;
  await storage.save("locks", NAME, Buffer.from("lock"), { durable: false });
  assert.deepEqual(calls.splice(0), ["fsync", "rename"]);
  await storage.save("index", NAME, Buffer.from("index"), { durable: false });
  assert.deepEqual(calls.splice(0), ["fsync", "rename"]);
  Object.assign(storage, { isStore: true });
  await storage.save("locks", NAME, Buffer.from("lock"), { durable: false });
  assert.deepEqual(calls, ["rename"]);
});

test("local storage recreates a missing data folder, and lists no foreign files", async (t) => {
  const folder = newFolder(t);
  const storage = local(folder);
  rmSync(join(folder, "repo/data/ab"), { recursive: true });
  rmSync(join(folder, "tmp"), { recursive: true });
  await storage.save("data", NAME, Buffer.from("pack"), { durable: false });
  writeFileSync(join(folder, "repo/data/ab/leftover-tmp"), "x");
  mkdirSync(join(folder, "repo/data/cd", "cd".repeat(32)));
  // Nobody looks for it there.
  writeFileSync(join(folder, "repo/data/cd", "12".repeat(32)), "misplaced");
  assert.deepEqual(sizesOf(await storage.list("data")), [{ name: NAME, size: 4 }]);
});

test("local storage works on a file system that has neither hard links nor fsync of folders", async (t) => {
  const folder = newFolder(t);
  const refuse = (code: string): never => {
    throw Object.assign(new Error(`${code}: a fault of the test`), { code });
  };
  const { fsyncSync } = fs;
  t.mock.method(fs, "linkSync", () => refuse("EPERM"));
  t.mock.method(fs, "fsyncSync", (fd: number) => (fs.fstatSync(fd).isDirectory() ? refuse("EINVAL") : fsyncSync(fd)));
  syncMocks(t);
  const storage = local(folder);
  await storage.save("config", "config", Buffer.from("first"));
  await assert.rejects(storage.save("config", "config", Buffer.from("second")), { code: "already_exists" });
  assert.equal(Buffer.from(await storage.load("config", "config")).toString(), "first");
  await storage.save("data", NAME, Buffer.from("pack"));
  await storage.remove("data", NAME);
  await storage.sync(["data"]);
  assert.deepEqual(readdirSync(join(folder, "tmp")), []);
});

test("clearTemporaries removes only old unfinished files, by the storage's own clock", async (t) => {
  const folder = newFolder(t);
  const storage = local(folder);
  writeFileSync(join(folder, "tmp/old"), "x");
  utimesSync(join(folder, "tmp/old"), 1, 1);
  writeFileSync(join(folder, "tmp/new"), "x");
  assert.equal(await storage.clearTemporaries(60_000), 1);
  assert.equal(existsSync(join(folder, "tmp/new")), true);
  // A server whose clock is two hours slow.
  const slow = (Date.now() - 2 * 3_600_000) / 1000;
  utimesSync(join(folder, "tmp/new"), slow, slow);
  Object.assign(storage, { now: async () => slow * 1000 });
  assert.equal(await storage.clearTemporaries(60_000), 0);
});

test("faulty storage injects the armed faults, then works normally", async () => {
  const storage = new FaultyStorage(new MemoryStorage());
  const bytes = Buffer.from("0123456789");
  await storage.save("data", NAME, bytes);
  storage.arm({ operation: "load", fault: "flip" });
  assert.notDeepEqual(Buffer.from(await storage.load("data", NAME)), bytes);
  storage.arm({ operation: "load", fault: "truncate", after: 1 });
  assert.equal((await storage.load("data", NAME)).length, 10);
  assert.equal((await storage.load("data", NAME)).length, 5);
  storage.arm({ operation: "save", fault: "no_space", times: 2 });
  const code = (wanted: string) => (error: unknown) => error instanceof CairnError && error.code === wanted;
  await assert.rejects(storage.save("index", NAME, bytes), code("no_space"));
  await assert.rejects(storage.save("index", NAME, bytes), code("no_space"));
  storage.arm({ operation: "save", fault: "late_success" });
  await assert.rejects(storage.save("index", NAME, bytes), code("io"));
  assert.equal(await storage.exists("index", NAME), true);
  storage.arm({ operation: "remove", fault: "fail" });
  await assert.rejects(storage.remove("index", NAME), code("io"));
  await storage.remove("index", NAME);
  storage.arm({ operation: "save", fault: "lose" });
  await storage.save("index", NAME, bytes);
  assert.equal(await storage.exists("index", NAME), false);
});

test("CountingStorage counts calls by operation and kind, and the bytes read and written", async () => {
  const storage = new CountingStorage(new MemoryStorage());
  await storage.save("data", NAME, Buffer.alloc(10));
  await storage.load("data", NAME);
  await storage.load("data", NAME, { offset: 0, length: 3 });
  assert.equal(storage.count("load", "data"), 2);
  assert.equal(storage.count("load"), 2);
  assert.equal(storage.bytesRead, 13);
  assert.equal(storage.bytesWritten, 10);
});
