import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, test } from "node:test";
import { TYPE } from "../../fs/linux/syscalls.ts";
import { makeNode, setAttribute } from "../../workspace/store/testing-edits.ts";
import { rightsCount, runWithoutCapabilities } from "../../workspace/store/testing-rights.ts";
import { assertSame, type Saved, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";

/** Writes a saved state into a folder; it must be whole and exactly what was saved. */
async function assertWritten(saves: TestStore, saved: Saved, target: string): Promise<void> {
  const written = await saves.write(saved, target);
  assert.deepEqual({ damaged: written.damaged, notSet: written.notSet }, { damaged: [], notSet: [] });
  assertSame(await saves.look(target), saved);
}

function hasCommand(command: string): boolean {
  try {
    execFileSync(command, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

void describe("write of a tree into an empty folder", () => {
  test("a tree is written completely after an earlier write failed to start", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.writeFileSync(path.join(root, "file"), "text");
    const saved = await saves.save(root);
    const target = temporaryFolder(t);
    for (let round = 0; round < 8; round++) {
      await assert.rejects(saves.write(saved, path.join(target, "not there")), { code: "not_found" });
      const place = path.join(target, `${round}`);
      fs.mkdirSync(place);
      await assertWritten(saves, saved, place);
    }
  });

  test("a tree whose packs are present is written while other writes wait for packs", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.writeFileSync(path.join(root, "file"), "text");
    const saved = await saves.save(root);
    const { promise: never, reject: giveUp } = Promise.withResolvers<void>();
    const here = new Uint8Array(new SharedArrayBuffer(saves.store.index.packCount));
    const arrivals = { here, until: async () => never, done: never };
    const waiting = Promise.allSettled(
      Array.from({ length: 5 }, async () => saves.write(saved, temporaryFolder(t), { arrivals })),
    );
    await assertWritten(saves, saved, temporaryFolder(t));
    giveUp(new Error("the line was cut"));
    for (const each of await waiting) assert.match(String((each as PromiseRejectedResult).reason), /the line was cut/);
  });

  test("every entry of every type is written with its metadata", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (const name of ["dir", "dir/sub", "empty", "closed"]) fs.mkdirSync(path.join(root, name));
    fs.writeFileSync(path.join(root, "dir/file"), "text");
    fs.writeFileSync(path.join(root, "dir/same"), "text");
    fs.writeFileSync(path.join(root, "dir/sub/same"), "text");
    fs.writeFileSync(path.join(root, "dir/none"), "");
    fs.writeFileSync(path.join(root, "closed/inside"), "x");
    fs.symlinkSync(Buffer.from([0xff, 0x2f]), Buffer.from(path.join(root, "raw")));
    fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xfe, 0x0a, 0x22])]), "odd name");
    makeNode(path.join(root, "pipe"), TYPE.PIPE);
    makeNode(path.join(root, "socket"), TYPE.SOCKET);
    if (!rightsCount()) {
      makeNode(path.join(root, "null"), TYPE.CHARDEV, [1, 3]);
      makeNode(path.join(root, "disk"), TYPE.BLOCKDEV, [259, 70_000]);
      fs.lchownSync(path.join(root, "raw"), 12, 34);
      fs.chownSync(path.join(root, "dir/file"), 1234, 70_000);
      fs.chownSync(path.join(root, "closed"), 1, 2);
    }
    fs.chmodSync(path.join(root, "dir/file"), 0o6751);
    fs.chmodSync(path.join(root, "dir/sub"), 0o3775);
    fs.chmodSync(path.join(root, "dir/none"), 0);
    setAttribute(path.join(root, "dir/file"), "user.note", Buffer.from([0, 0xff]));
    setAttribute(path.join(root, "dir"), "user.empty", "");
    fs.utimesSync(path.join(root, "dir/file"), 1, -12_345.678);
    fs.lutimesSync(path.join(root, "raw"), 1, 1_234_567.891);
    fs.utimesSync(path.join(root, "pipe"), 1, 5_000_000_000);
    fs.utimesSync(path.join(root, "dir"), 1, 1000);
    fs.chmodSync(path.join(root, "closed"), 0o500);
    await assertWritten(saves, await saves.save(root), temporaryFolder(t));
    fs.chmodSync(path.join(root, "closed"), 0o700);
  });

  test("hard links of every entry type are linked again", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (const name of ["a", "a.b", "b", "b/c"]) fs.mkdirSync(path.join(root, name));
    fs.writeFileSync(path.join(root, "b/c/file"), "shared");
    fs.writeFileSync(path.join(root, "b/c/large"), randomBytes(3_000_000));
    fs.symlinkSync("target", path.join(root, "a/link"));
    makeNode(path.join(root, "b/pipe"), TYPE.PIPE);
    for (const name of ["b/c/file", "b/c/large", "a/link", "b/pipe"]) {
      for (const folder of ["a", "a.b", "b"])
        fs.linkSync(path.join(root, name), path.join(root, folder, `${path.basename(name)}2`));
    }
    for (const name of ["a", "a.b", "b", "b/c"]) fs.utimesSync(path.join(root, name), 1, 1_000_000);
    const target = temporaryFolder(t);
    await assertWritten(saves, await saves.save(root), target);
    assert.equal(fs.lstatSync(path.join(target, "a/link")).nlink, 4);
    assert.equal(fs.lstatSync(path.join(target, "a/file2")).ino, fs.lstatSync(path.join(target, "b/c/file")).ino);
  });

  test("large files and holes are written in several ranges as they were", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const near = [512 * 1024 - 1, 512 * 1024, 512 * 1024 + 1, 600_000];
    for (const size of near) fs.writeFileSync(path.join(root, `near${size}`), randomBytes(size));
    fs.writeFileSync(path.join(root, "chunks"), randomBytes(20 * 1024 * 1024 + 7));
    fs.writeFileSync(path.join(root, "zeros"), Buffer.alloc(20 * 1024 * 1024));
    const sparse: [string, number, number[]][] = [
      ["only-hole", 1_000_000, []],
      ["small", 300_000, [0, 200_000]],
      ["ends-in-hole", 20_000_000, [5_000_000]],
      ["begins-with-hole", 30_000_000, [10_000_000, 29_999_999]],
      ["far", 90_000_000, [50_000_000]],
    ];
    for (const [name, size, places] of sparse) {
      const fd = fs.openSync(path.join(root, name), "w");
      fs.ftruncateSync(fd, size);
      for (const place of places) fs.writeSync(fd, Buffer.from("x"), 0, 1, place);
      fs.fsyncSync(fd);
      fs.closeSync(fd);
    }
    const saved = await saves.save(root);
    const holes = (summary: Saved["summary"]): object =>
      Object.fromEntries(summary.holes.map((map) => [Buffer.from(map.path).toString(), map.holes]));
    assert.deepEqual(
      saved.summary.holes.map((map) => Buffer.from(map.path).toString()).toSorted(),
      sparse.map(([name]) => name).toSorted(),
    );
    const target = temporaryFolder(t);
    await assertWritten(saves, saved, target);
    for (const [name] of sparse) {
      const [was, is] = [root, target].map((folder) => fs.statSync(path.join(folder, name)).blocks);
      assert.equal(is, was, name);
    }
    assert.ok(fs.statSync(path.join(target, "zeros")).blocks * 512 >= 20 * 1024 * 1024, "no hole where there was none");
    for (const name of fs.readdirSync(target)) fs.closeSync(fs.openSync(path.join(target, name), "r+"));
    const again = await saves.save(target);
    assert.deepEqual(holes(again.summary), holes(saved.summary));
  });

  test("paths longer than PATH_MAX are written, with hard links among them", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    let fd = fs.openSync(root, "r");
    for (let depth = 0; depth < 30; depth++) {
      const name = `${depth}-`.padEnd(240, "d");
      fs.mkdirSync(`/proc/self/fd/${fd}/${name}`);
      const next = fs.openSync(`/proc/self/fd/${fd}/${name}`, "r");
      fs.closeSync(fd);
      fd = next;
    }
    fs.writeFileSync(`/proc/self/fd/${fd}/file`, "deep");
    fs.linkSync(`/proc/self/fd/${fd}/file`, `/proc/self/fd/${fd}/again`);
    fs.linkSync(`/proc/self/fd/${fd}/file`, path.join(root, "top"));
    fs.writeFileSync(`/proc/self/fd/${fd}/large`, randomBytes(17 * 1024 * 1024));
    fs.mkdirSync(`/proc/self/fd/${fd}/closed`, 0o500);
    fs.closeSync(fd);
    await assertWritten(saves, await saves.save(root), temporaryFolder(t));
  });

  test("entries do not inherit the target's group and default access list", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.mkdirSync(path.join(root, "dir/sub"), { recursive: true });
    for (const name of ["file", "dir/file", "dir/sub/file"]) fs.writeFileSync(path.join(root, name), name);
    fs.writeFileSync(path.join(root, "dir/large"), randomBytes(17 * 1024 * 1024));
    fs.linkSync(path.join(root, "dir/file"), path.join(root, "dir/linked"));
    makeNode(path.join(root, "dir/pipe"), TYPE.PIPE);
    makeNode(path.join(root, "pipe"), TYPE.PIPE);
    fs.symlinkSync("x", path.join(root, "link"));
    const saved = await saves.save(root);

    const grouped = temporaryFolder(t);
    if (!rightsCount()) fs.chownSync(grouped, 0, 4242);
    fs.chmodSync(grouped, 0o2775);
    await assertWritten(saves, saved, grouped);

    const listed = temporaryFolder(t);
    if (!hasCommand("setfacl")) return t.skip("setfacl is not here");
    try {
      execFileSync("setfacl", ["-d", "-m", "u:1:rwx,g:2:r", listed], { stdio: "pipe" });
    } catch {
      return t.skip("no access lists here");
    }
    await assertWritten(saves, saved, listed);
  });

  test("access lists of files and directories are written", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.mkdirSync(path.join(root, "dir/sub"), { recursive: true });
    for (const name of ["dir/file", "dir/plain", "dir/sub/file"]) fs.writeFileSync(path.join(root, name), name);
    fs.linkSync(path.join(root, "dir/plain"), path.join(root, "dir/plain2"));
    if (!hasCommand("setfacl")) return t.skip("setfacl is not here");
    try {
      execFileSync("setfacl", ["-m", "u:7:r,m::r", path.join(root, "dir/file")], { stdio: "pipe" });
      execFileSync("setfacl", ["-d", "-m", "u:9:rwx", path.join(root, "dir")], { stdio: "pipe" });
      execFileSync("setfacl", ["-m", "g:8:rx", path.join(root, "dir/sub")], { stdio: "pipe" });
    } catch {
      return t.skip("no access lists here");
    }
    fs.chmodSync(path.join(root, "dir/file"), 0o640);
    await assertWritten(saves, await saves.save(root), temporaryFolder(t));
  });

  test("extended attributes are set on a file that its owner may not write to", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.writeFileSync(path.join(root, "file"), "x");
    fs.mkdirSync(path.join(root, "dir"));
    if (!setAttribute(path.join(root, "file"), "user.a", "1")) return t.skip("no extended attributes here");
    setAttribute(path.join(root, "dir"), "user.a", "2");
    fs.chmodSync(path.join(root, "file"), 0o444);
    fs.chmodSync(path.join(root, "dir"), 0o500);
    const saved = await saves.save(root);
    assert.deepEqual(saved.notes.omitted, []);
    await assertWritten(saves, saved, temporaryFolder(t));
  });

  test("times beyond the range of a tree node are exact", async (t) => {
    if (!fs.existsSync("/dev/shm")) return t.skip("no file system with such times");
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t, "/dev/shm");
    fs.mkdirSync(path.join(root, "dir"));
    fs.writeFileSync(path.join(root, "dir/file"), "x");
    fs.symlinkSync("x", path.join(root, "link"));
    fs.lutimesSync(path.join(root, "link"), 1, 253_402_300_800);
    fs.utimesSync(path.join(root, "dir/file"), 1, 300_000_000_000);
    fs.utimesSync(path.join(root, "dir"), 1, 400_000_000_000);
    await assertWritten(saves, await saves.save(root), temporaryFolder(t, "/dev/shm"));
  });

  test("files whose blobs are missing are listed, and all others are written", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.mkdirSync(path.join(root, "dir"));
    for (let i = 0; i < 10; i++) fs.writeFileSync(path.join(root, `dir/f${i}`), `content ${i}`);
    fs.writeFileSync(path.join(root, "dir/linked"), "lost too");
    fs.linkSync(path.join(root, "dir/linked"), path.join(root, "dir/linked2"));
    fs.writeFileSync(path.join(root, "dir/large"), randomBytes(18 * 1024 * 1024));
    const first = await saves.save(root);
    fs.writeFileSync(path.join(root, "later"), "kept");
    const second = await saves.save(root);
    for (const pack of first.packs.filter(({ type }) => type === "data")) {
      const name = Buffer.from(pack.id).toString("hex");
      fs.rmSync(saves.store.storage.localPath("data", name));
    }
    const target = temporaryFolder(t);
    const written = await saves.write(second, target);
    const lost = [...Array.from({ length: 10 }, (_, i) => `dir/f${i}`), "dir/large", "dir/linked", "dir/linked2"];
    assert.deepEqual(written.damaged.map((each) => Buffer.from(each.path).toString()).toSorted(), lost.toSorted());
    assert.equal(fs.readFileSync(path.join(target, "later"), "utf8"), "kept");
    assert.deepEqual(fs.readdirSync(path.join(target, "dir")), []);
  });

  test("an abort stops the write", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    for (let i = 0; i < 150; i++) {
      fs.mkdirSync(path.join(root, `d${i}`));
      fs.writeFileSync(path.join(root, `d${i}/f`), randomBytes(100_000));
    }
    const saved = await saves.save(root);
    const abort = new AbortController();
    setTimeout(() => abort.abort(), 20);
    const started = performance.now();
    await assert.rejects(saves.write(saved, temporaryFolder(t), { signal: abort.signal }), { code: "interrupted" });
    assert.ok(performance.now() - started < 30_000);
    await assertWritten(saves, saved, temporaryFolder(t));
  });

  test("an abort stops the write before the next range of a large file", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    fs.writeFileSync(path.join(root, "large"), "");
    fs.truncateSync(path.join(root, "large"), 512 * 1024 * 1024);
    const saved = await saves.save(root);
    const abort = new AbortController();
    let written = 0;
    const onProgress = ({ bytes }: { bytes: number }): void => {
      written = bytes;
      // The first time: its directory is done, none of its ranges.
      abort.abort();
    };
    const writing = saves.write(saved, temporaryFolder(t), { signal: abort.signal, onProgress });
    await assert.rejects(writing, { code: "interrupted" });
    assert.equal(written, 0);
  });
});

if (!rightsCount()) {
  test(
    "entries, hard links, long paths and attributes are written without capabilities too",
    { timeout: 60_000 },
    (t) => {
      if (!runWithoutCapabilities(fileURLToPath(import.meta.url), "every entry|hard links|longer than|attributes are"))
        t.skip("setpriv is not here");
    },
  );
}
