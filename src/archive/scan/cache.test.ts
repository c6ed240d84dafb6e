import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, test } from "node:test";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { assertRestored, assertSame, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { EntryReader, type EntryToRead } from "./read-entry.ts";
import type { scan } from "./scan.ts";
import { FoundDifference } from "./task.ts";

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

void describe("scan with a stat cache", () => {
  test("scan reads and stores only the files that changed", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < 50; i++) fs.writeFileSync(path.join(root, `f${i}`), `content ${i}`);
    await sleep(60);
    const first = await saves.save(root);
    assert.equal(first.notes.filesRead, 50);
    const second = await saves.save(root);
    assert.equal(second.notes.filesRead, 0);
    assert.deepEqual(second.packs, []);
    fs.writeFileSync(path.join(root, "f7"), "content seven");
    const third = await saves.save(root);
    assert.equal(third.notes.filesRead, 1);
    assert.deepEqual(third.packs.map((pack) => [pack.type, pack.blobs]).toSorted(), [
      ["data", 1],
      ["tree", 1],
    ]);
  });

  test("scan finds new content of equal size although the file's modification time was set back", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const file = path.join(root, "file");
    const times = new Date(1_700_000_000_000);
    for (let i = 0; i < 15; i++) {
      fs.writeFileSync(file, `same size ${String(i).padStart(3, "0")}`);
      fs.utimesSync(file, times, times);
      const saved = await saves.save(root);
      const content = createHash("sha256").update(fs.readFileSync(file)).digest();
      assert.ok(saves.store.index.lookup(content, 0) >= 0, `round ${i}`);
      assertSame(await saves.look(root), saved, `round ${i}`);
    }
  });

  test("scan finds content written in the same second on a file system with times of whole seconds", async (t) => {
    const saves = await TestStore.create(t);
    const folder = temporaryFolder(t);
    const mounted = path.join(folder, "mounted");
    fs.mkdirSync(mounted);
    const image = path.join(folder, "image");
    fs.writeFileSync(image, "");
    fs.truncateSync(image, 8 << 20);
    // Inodes of 128 bytes have no room for nanoseconds.
    const made = spawnSync("mkfs.ext4", ["-q", "-F", "-I", "128", image], { stdio: "ignore" }).status === 0;
    if (!made || spawnSync("mount", ["-o", "loop", image, mounted], { stdio: "ignore" }).status !== 0)
      return t.skip("no mkfs.ext4, or mounting is not allowed");
    try {
      const root = path.join(mounted, "root");
      fs.mkdirSync(root);
      const file = path.join(root, "file");
      for (let i = 0; i < 6; i++) {
        fs.writeFileSync(file, `same size ${i}`);
        await sleep(100);
        assertSame(await saves.save(root), await saves.look(root), `round ${i}`);
      }
    } finally {
      spawnSync("umount", [mounted], { stdio: "ignore" });
    }
  });

  test("scan finds content written through a shared memory mapping between two saves", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const file = path.join(root, "mapped");
    const script = `
import mmap, os, sys
with open(sys.argv[1], "w+b") as f:
    f.truncate(8192)
    m = mmap.mmap(f.fileno(), 8192)
    for line in sys.stdin:
        m[100:108] = line.strip().encode()
        os.write(1, b"k")
`;
    try {
      execFileSync("python3", ["-c", "import mmap"], { stdio: "ignore" });
    } catch {
      return t.skip("no python3 to map a file with");
    }
    const child = spawn("python3", ["-c", script, file], { stdio: ["pipe", "pipe", "inherit"] });
    t.after(() => child.kill());
    const answers = child.stdout[Symbol.asyncIterator]();
    for (let i = 0; i < 12; i++) {
      child.stdin.write(`${String(i).padStart(8, "0")}\n`);
      await answers.next();
      const saved = await saves.save(root);
      const fresh = await saves.look(root);
      assertSame(saved, fresh, `store ${i}`);
    }
    child.stdin.end();
  });

  test("scan stores lost content again if the cache is not trusted", async (t) => {
    const saves = await TestStore.create(t);
    const other = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.mkdirSync(path.join(root, "a/b"), { recursive: true });
    fs.writeFileSync(path.join(root, "a/b/file"), "content");
    fs.writeFileSync(path.join(root, "a/large"), Buffer.alloc(3_000_000, "large"));
    fs.symlinkSync("x", path.join(root, "a/link"));
    await sleep(60);
    const first = await saves.save(root);
    // The other store holds nothing of what this cache says.
    fs.copyFileSync(saves.cachePath, other.cachePath);
    const second = await other.save(root, {
      distrust: true,
      chunkerPolynomial: saves.store.repository.chunkerPolynomial,
    });
    assertSame(second, first);
    const target = temporaryFolder(t);
    assert.deepEqual((await other.write(second, target)).damaged, []);
    assertRestored(await saves.look(target), first);
  });

  test("scan ignores a cache that is truncated, damaged or of another folder", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < 20; i++) fs.writeFileSync(path.join(root, `f${i}`), `${i}`);
    const first = await saves.save(root);
    const whole = fs.readFileSync(saves.cachePath);
    for (const size of [0, 1, 255, 256, 300, whole.length - 1]) {
      fs.writeFileSync(saves.cachePath, whole.subarray(0, size));
      assert.equal(saves.cache(), null, `${size} bytes`);
    }
    for (let i = 0; i < 200; i++) {
      const flipped = Buffer.from(whole);
      flipped[Math.floor((i * whole.length) / 200)]! ^= 1 << (i % 8);
      fs.writeFileSync(saves.cachePath, flipped);
      const cache = saves.cache();
      if (cache !== null) assert.equal(hex(cache.tree), hex(first.tree), `flip ${i}`);
    }
    fs.writeFileSync(saves.cachePath, Buffer.concat([whole, Buffer.from("x")]));
    assert.equal(saves.cache(), null);
    assertSame(await saves.save(root), first);

    const moved = `${root}-moved`;
    fs.renameSync(root, moved);
    fs.mkdirSync(root);
    t.after(() => fs.rmSync(moved, { recursive: true, force: true }));
    assertSame(await saves.save(moved), first, "the same folder elsewhere");
    assertSame(await saves.save(root), await saves.look(root), "another folder");
  });

  test("scan leaves no file in the work directory if it is aborted", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < 30; i++) fs.writeFileSync(path.join(root, `f${i}`), Buffer.alloc(3_000_000, `${i} `));
    const noise = randomBytes(30_000_000);
    for (let i = 0; i < 5; i++) fs.writeFileSync(path.join(root, `noise${i}`), noise.subarray(i * 1000));
    const left = (): string[] => fs.readdirSync(saves.work).filter((name) => !name.startsWith("work-"));
    for (const delay of [5, 30, 100]) {
      const abort = new AbortController();
      setTimeout(() => abort.abort(), delay);
      const started = performance.now();
      await assert.rejects(saves.save(root, { signal: abort.signal }), { code: "interrupted" });
      assert.ok(performance.now() - started < 20_000);
      assert.deepEqual(left(), []);
    }
    const broken = (): never => {
      throw new Error("after all trees were built");
    };
    await assert.rejects(saves.save(root, { finish: broken }), /after all trees/u);
    assert.deepEqual(left(), []);
    assertSame(await saves.save(root), await saves.look(root));
  });

  test("scan records every file if it starts again with a larger table or with threads", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.writeFileSync(path.join(root, "first"), "x");
    await saves.save(root);
    fs.writeFileSync(path.join(root, "a-new"), "written before the large one is met");
    fs.writeFileSync(path.join(root, "large"), Buffer.alloc(17 * 1024 * 1024, "large"));
    // No thread waits: this one begins, and gives up at the large file.
    const held = await takeThreads({ kind: "scan" });
    const second = await saves.save(root);
    giveBackThreads(held);
    fs.mkdirSync(path.join(root, "many"));
    for (let i = 0; i < 4200; i++) fs.writeFileSync(path.join(root, `many/f${i}`), `new content ${i}`);
    const third = await saves.save(root);
    assert.notDeepEqual(third.tree, second.tree);
    const target = temporaryFolder(t);
    assert.deepEqual((await saves.write(third, target)).damaged, []);
    assertRestored(await saves.look(target), third);
  });

  test("scan stops at the first difference and reads only files whose times and size do not decide", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const file = path.join(root, "in/file");
    fs.mkdirSync(path.dirname(file));
    fs.writeFileSync(file, "first");
    fs.writeFileSync(path.join(root, "other"), "other");
    const { mtime, mode } = fs.statSync(file);
    const was = await saves.save(root);
    const read = t.mock.method(EntryReader.prototype, "read");
    const look = async (): ReturnType<typeof scan> =>
      saves.look(root, { cache: saves.cache(), quick: true, request: { untilDifferent: true } });
    const setTimes = (): void => [file, path.dirname(file)].forEach((place) => fs.utimesSync(place, mtime, mtime));
    // No thread waits, so that all is done on this one.
    const held = await takeThreads({ kind: "scan" });
    t.after(() => giveBackThreads(held));
    setTimes();
    const again = await saves.save(root);
    const changes: [() => void, back: () => void][] = [
      [() => fs.writeFileSync(file, "FIRST"), () => fs.writeFileSync(file, "first")],
      [() => fs.truncateSync(file, 4), () => fs.writeFileSync(file, "first")],
      [() => fs.chmodSync(file, 0o600), () => fs.chmodSync(file, mode)],
      [() => fs.writeFileSync(path.join(root, "new"), ""), () => fs.rmSync(path.join(root, "new"))],
    ];
    for (const [change, back] of changes) {
      change();
      read.mock.resetCalls();
      await assert.rejects(look(), FoundDifference, change.toString());
      // Of a directory that only has other times nothing but its attributes is read.
      assert.deepEqual(
        read.mock.calls.map(({ arguments: [entry] }) => nameOf(entry)).filter((name) => name !== "in"),
        [],
        change.toString(),
      );
      back();
      setTimes();
      assert.equal(hex((await look()).tree), hex(again.tree), back.toString());
    }
    fs.writeFileSync(file, "FIRST");
    setTimes();
    assert.notEqual(hex((await look()).tree), hex(again.tree));
    assert.notEqual(hex(again.tree), hex(was.tree));
  });

  test("scan leaves no file open if it stops at a difference in a long listing", async (t) => {
    if (!fs.existsSync("/proc/self/fd")) return t.skip("there is no list of open files");
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < 5000; i++) fs.writeFileSync(path.join(root, `f${i}`), "");
    await saves.save(root);
    fs.writeFileSync(path.join(root, "f2500"), "changed");
    const look = async (): ReturnType<typeof scan> =>
      saves.look(root, { cache: saves.cache(), quick: true, request: { untilDifferent: true } });
    await assert.rejects(look(), FoundDifference);
    const open = fs.readdirSync("/proc/self/fd").length;
    for (let i = 0; i < 5; i++) await assert.rejects(look(), FoundDifference);
    assert.equal(fs.readdirSync("/proc/self/fd").length, open);
  });
});

function nameOf({ names, name }: EntryToRead): string {
  return Buffer.from(names.bytes.subarray(name, names.bytes.indexOf(0, name))).toString("latin1");
}
