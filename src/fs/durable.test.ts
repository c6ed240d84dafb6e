import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs, {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import { CairnError } from "../errors.ts";
import {
  TEMPORARY_PREFIX,
  durableMkdir,
  durableRemove,
  durableRename,
  durableWrite,
  readSmallFile,
  temporaryName,
  writePieces,
} from "./durable.ts";
import { removeLeftovers } from "./work-directory.ts";

function scratch(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "cairn-durable-"));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof CairnError && error.code === code;
}

test("durableWrite replaces the file and leaves no temporary file", (context) => {
  const directory = scratch(context);
  const path = join(directory, "file");
  durableWrite(path, Buffer.from("one"));
  const inode = statSync(path).ino;
  durableWrite(path, Buffer.from("two"), { mode: 0o644 });
  assert.equal(readFileSync(path, "utf8"), "two");
  assert.notEqual(statSync(path).ino, inode);
  assert.equal(statSync(path).mode & 0o7777, 0o644);
  assert.deepEqual(readdirSync(directory), ["file"]);
});

test("durableWrite replaces a symbolic link instead of writing to its target", (context) => {
  const directory = scratch(context);
  writeFileSync(join(directory, "target"), "kept");
  symlinkSync("target", join(directory, "link"));
  durableWrite(join(directory, "link"), Buffer.from("new"));
  assert.equal(readFileSync(join(directory, "target"), "utf8"), "kept");
});

test("an exclusive durableWrite throws already_exists and keeps an existing file", (context) => {
  const directory = scratch(context);
  const path = join(directory, "file");
  durableWrite(path, Buffer.from("one"), { exclusive: true });
  assert.throws(() => durableWrite(path, Buffer.from("two"), { exclusive: true }), hasCode("already_exists"));
  assert.equal(readFileSync(path, "utf8"), "one");
  assert.deepEqual(readdirSync(directory), ["file"]);
  assert.equal(statSync(path).nlink, 1);
});

function refuse(code: string): () => never {
  return () => {
    throw Object.assign(new Error(code), { code });
  };
}

/** As FAT answers, until the test ends. */
function withoutHardLinks(context: TestContext): void {
  context.mock.method(fs, "linkSync", refuse("EPERM"));
  syncBuiltinESMExports();
  context.after(() => {
    context.mock.restoreAll();
    syncBuiltinESMExports();
  });
}

test("a failed exclusive durableWrite leaves no file on a file system without hard links", (context) => {
  const directory = scratch(context);
  const path = join(directory, "file");
  withoutHardLinks(context);
  const { mock: rename } = context.mock.method(fs, "renameSync", refuse("EIO"));
  syncBuiltinESMExports();
  try {
    durableWrite(path, Buffer.from("one"), { exclusive: true });
  } catch (error) {
    assert.ok(hasCode("io")(error), String(error));
    assert.deepEqual(readdirSync(directory), []);
    rename.restore();
    syncBuiltinESMExports();
    durableWrite(path, Buffer.from("one"), { exclusive: true });
  }
  assert.throws(() => durableWrite(path, Buffer.from("two"), { exclusive: true }), hasCode("already_exists"));
  assert.equal(readFileSync(path, "utf8"), "one");
  assert.deepEqual(readdirSync(directory), ["file"]);
});

test("an exclusive durableWrite excludes other writers on a file system without hard links", (context) => {
  const path = join(scratch(context), "file");
  withoutHardLinks(context);
  const { renameSync } = fs;
  const others: unknown[] = [];
  // The latest moment at which somebody else may come.
  context.mock.method(fs, "renameSync", (...args: Parameters<typeof renameSync>) => {
    try {
      others.push(writeFileSync(path, "other", { flag: "wx" }));
    } catch (error) {
      assert.equal((error as NodeJS.ErrnoException).code, "EEXIST");
    }
    renameSync(...args);
  });
  syncBuiltinESMExports();
  durableWrite(path, Buffer.from("one"), { exclusive: true });
  assert.deepEqual(others, []);
  assert.equal(readFileSync(path, "utf8"), "one");
});

test("durableWrite throws not_found with the path if the directory is missing", (context) => {
  const path = join(scratch(context), "no", "file");
  assert.throws(
    () => durableWrite(path, Buffer.alloc(1)),
    (error) => hasCode("not_found")(error) && String(error).includes(path),
  );
});

test("writePieces writes each piece into a new file, flushes it once, and replaces no file", async (context) => {
  const place = join(scratch(context), "f");
  const pieces = async function* (): AsyncGenerator<Uint8Array> {
    for (const piece of ["one, ", "", "two"]) yield Buffer.from(piece);
  };
  const found: string[] = [];
  const flush = (): void => void found.push(readFileSync(place, "utf8"));
  assert.equal(await writePieces(place, pieces(), 0o600, flush), 8);
  assert.deepEqual([found, statSync(place).mode & 0o777], [["one, two"], 0o600]);
  await assert.rejects(writePieces(place, pieces(), 0o600), { code: "EEXIST" });
  assert.equal(readFileSync(place, "utf8"), "one, two");
});

test("durableMkdir creates missing parents, and returns true only if the directory is new", (context) => {
  const directory = scratch(context);
  const deep = join(directory, "a", "b", "c");
  assert.equal(durableMkdir(deep), true);
  assert.equal(durableMkdir(deep), false);
  assert.equal(statSync(deep).mode & 0o777, 0o700);
  writeFileSync(join(directory, "file"), "");
  assert.throws(() => durableMkdir(join(directory, "file")), hasCode("already_exists"));
  symlinkSync(join(directory, "nowhere"), join(directory, "dangling"));
  assert.throws(() => durableMkdir(join(directory, "dangling")), hasCode("already_exists"));
});

test("durableMkdir accepts a symbolic link to a directory", (context) => {
  const directory = scratch(context);
  mkdirSync(join(directory, "big"));
  symlinkSync(join(directory, "big"), join(directory, "state"));
  assert.equal(durableMkdir(join(directory, "state")), false);
  assert.equal(durableMkdir(join(directory, "state/below")), true);
  assert.ok(existsSync(join(directory, "big/below")));
});

test("durableMkdir throws not_found with the path for a folder in /proc", (context) => {
  if (!existsSync("/proc/self")) return context.skip("no /proc");
  for (const path of ["/proc/cairn", "/proc/cairn/below"])
    assert.throws(
      () => durableMkdir(path),
      (error) => hasCode("not_found")(error) && String(error).includes("/proc/cairn"),
    );
});

test("durableRename moves a file, and durableRemove returns whether the file existed", (context) => {
  const directory = scratch(context);
  mkdirSync(join(directory, "other"));
  writeFileSync(join(directory, "a"), "x");
  durableRename(join(directory, "a"), join(directory, "other", "b"));
  assert.equal(durableRemove(join(directory, "other", "b")), true);
  assert.equal(durableRemove(join(directory, "other", "b")), false);
});

test("readSmallFile throws damaged if a file is larger than the limit", (context) => {
  const path = join(scratch(context), "file");
  assert.equal(readSmallFile(path, 10), null);
  writeFileSync(path, "0123456789");
  assert.equal(readSmallFile(path, 10)?.length, 10);
  assert.throws(() => readSmallFile(path, 9), hasCode("damaged"));
  writeFileSync(path, "y".repeat(200_000));
  assert.equal(readSmallFile(path, 200_000)?.toString(), "y".repeat(200_000));
  assert.throws(() => readSmallFile(path, 199_999), hasCode("damaged"));
});

test("removeLeftovers without the lock removes only old temporary files of ended processes", (context) => {
  const directory = scratch(context);
  const gone = spawnSync("true").pid;
  const names = [
    `${TEMPORARY_PREFIX}${gone}-aa`,
    `${TEMPORARY_PREFIX}${process.ppid}-bb`,
    `${TEMPORARY_PREFIX}${gone}-young`,
    "file",
  ];
  for (const name of names) {
    writeFileSync(join(directory, name), "");
    if (!name.endsWith("young")) utimesSync(join(directory, name), 1, 1);
  }
  assert.deepEqual(removeLeftovers(directory), [names[0]]);
  assert.deepEqual(readdirSync(directory).sort(), names.slice(1).sort());
  assert.equal(removeLeftovers(directory, { exclusive: true }).length, 2);
  assert.deepEqual(removeLeftovers(join(directory, "missing")), []);
});

test("removeLeftovers removes a folder with its content, and follows no symbolic link in it", (context) => {
  const directory = scratch(context);
  writeFileSync(join(directory, "kept"), "x");
  const leftover = join(directory, temporaryName());
  mkdirSync(join(leftover, "deep"), { recursive: true });
  symlinkSync(directory, join(leftover, "deep", "out"));
  linkSync(join(directory, "kept"), join(leftover, "second"));
  removeLeftovers(directory, { exclusive: true });
  assert.equal(existsSync(leftover), false);
  assert.equal(readFileSync(join(directory, "kept"), "utf8"), "x");
});

test(
  "durableWrite throws permission if the directory is read-only",
  { skip: process.getuid?.() === 0 ? "root may write anywhere" : false },
  (context) => {
    const directory = scratch(context);
    chmodSync(directory, 0o500);
    assert.throws(() => durableWrite(join(directory, "file"), Buffer.alloc(1)), hasCode("permission"));
  },
);
