import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import { D } from "../cache/scan-table.ts";
import { syscalls } from "../../fs/linux/syscalls.ts";
import { setAttribute } from "../../workspace/store/testing-edits.ts";
import { assertSame, notedPaths, temporaryFolder, TestStore } from "../../workspace/store/testing-store.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { nameAt } from "../../fs/listing.ts";
import { presentSource } from "./present-source.ts";
import { TORN_LIMIT } from "./task.ts";
import type { ScanResult } from "./scan.ts";
import { variant } from "../../../test/fixtures/long.ts";

/** A process of node that runs a script, once that has said that it is under way. */
async function writer(t: TestContext, script: string, place: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ["-e", script, place], { stdio: ["pipe", "pipe", "inherit"] });
  t.after(() => child.kill());
  await child.stdout[Symbol.asyncIterator]().next();
  return child;
}

/**
 * Work with a folder whose saves are scanned on this thread: none other is free, and what was there at the first is little.
 * A look takes further threads, which would be free for whatever is scanned after it: `look` is for afterwards.
 */
async function scannedHere(
  t: TestContext,
  work: (saves: TestStore, root: string) => Promise<void>,
): Promise<{ look: () => Promise<ScanResult> }> {
  const saves = await TestStore.create(t);
  const root = temporaryFolder(t);
  await saves.save(root);
  const held = await takeThreads({ kind: "scan" });
  try {
    await work(saves, root);
    return { look: async () => saves.look(root) };
  } finally {
    giveBackThreads(held);
  }
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = new Promise((resolve) => child.once("exit", resolve));
  child.kill();
  await exit;
}

function namesAtTop({ table }: ScanResult): string[] {
  const first = table.directories[D.FIRST]!;
  return Array.from({ length: table.directories[D.COUNT]! }, (_, at) => table.recordName(first + at).toString());
}

void describe("scan of a folder that other processes change all the time", () => {
  test("scan names a file as torn if it changes while it is read", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const file = path.join(root, "changing");
    fs.writeFileSync(file, Buffer.alloc(20_000_000));
    fs.writeFileSync(path.join(root, "quiet"), "x");
    const script = `const fs=require("fs");const f=fs.openSync(process.argv[1],"r+");fs.writeSync(1,"go");for(let i=0;;i++)fs.writeSync(f,String(i),19999000)`;
    const child = await writer(t, script, file);
    // One reading may fall between two writes where the writer has no processor.
    let torn: string[] = [];
    for (let i = 0; i < 10 && torn.length === 0; i++) torn = notedPaths((await saves.save(root)).notes.torn);
    await ended(child);
    assert.deepEqual(torn, ["changing"]);
    const after = await saves.save(root);
    assert.deepEqual(after.notes.torn, []);
    assertSame(after, await saves.look(root));
  });

  test("scan leaves out a link that is removed while it is read, and names a link that cannot be read", async (t) => {
    const { EINVAL, EIO, ENOENT } = os.constants.errno;
    for (const [errno, omitted] of [
      [ENOENT, []],
      [EINVAL, []],
      [EIO, ["link"]],
    ] as const)
      await scannedHere(t, async (saves, root) => {
        fs.symlinkSync("target", path.join(root, "link"));
        const { mock } = t.mock.method(syscalls(), "readlink", () => -errno);
        const saved = await saves.save(root);
        mock.restore();
        assert.deepEqual(notedPaths(saved.notes.omitted), omitted, `errno ${errno}`);
        assert.equal(saved.summary.entries.links, 0, `errno ${errno}`);
        // What the cache keeps of it is believed by no later save.
        assert.equal((await saves.save(root)).summary.entries.links, 1, `errno ${errno}`);
      });
  });

  test("scan records an entry whose attributes cannot be read, and names it as torn", async (t) => {
    const { EIO, ENODATA } = os.constants.errno;
    for (const errno of [EIO, ENODATA]) {
      let again: ScanResult | undefined;
      const { look } = await scannedHere(t, async (saves, root) => {
        for (const name of ["a", "z"]) fs.writeFileSync(path.join(root, name), name);
        fs.mkdirSync(path.join(root, "dir/below"), { recursive: true });
        fs.linkSync(path.join(root, "z"), path.join(root, "dir/below/z"));
        if (errno === EIO) for (const name of ["a", "dir"]) setAttribute(path.join(root, name), "user.one", "1");
        const names = ["flistxattr", "llistxattr"] as const;
        const calls = names.map((name) => t.mock.method(syscalls(), name, () => -errno));
        const saved = await saves.save(root);
        for (const { mock } of calls) mock.restore();
        const named = errno === EIO ? ["a", "dir", "dir/below", "dir/below/z", "z"] : [];
        assert.deepEqual(notedPaths(saved.notes.torn).toSorted(), named, `errno ${errno}`);
        assert.ok(saved.notes.torn.every(({ aspects }) => aspects?.join() === "xattrs"));
        assert.deepEqual(saved.notes.omitted, []);
        assert.deepEqual(saved.summary.entries, { files: 3, directories: 2, links: 0, other: 0 });
        assert.deepEqual(
          [...saved.groups.values()].map(({ members }) => members),
          [2],
        );
        again = await saves.save(root);
        assert.deepEqual(again.notes.torn, []);
      });
      // What the cache kept of them was not believed.
      assertSame(again!, await look());
    }
  });

  test("scan names every entry whose attributes cannot be read, without a limit", async (t) => {
    const count = TORN_LIMIT + 100;
    await scannedHere(t, async (saves, root) => {
      for (let i = 0; i < count; i++) fs.writeFileSync(path.join(root, `f${i}`), "x");
      const { mock } = t.mock.method(syscalls(), "flistxattr", () => -os.constants.errno.EIO);
      const { notes } = await saves.save(root);
      mock.restore();
      assert.equal(notes.torn.length, count);
    });
  });

  test("scan records an entry's readable attributes if another attribute cannot be read", async (t) => {
    await scannedHere(t, async (saves, root) => {
      fs.writeFileSync(path.join(root, "file"), "x");
      for (const name of ["user.a", "user.b"]) setAttribute(path.join(root, "file"), name, "1");
      const sys = syscalls();
      const { fgetxattr } = sys;
      const { mock } = t.mock.method(sys, "fgetxattr", (...args: Parameters<typeof fgetxattr>) =>
        Buffer.from(nameAt(args[1], args[2])).toString() === "user.a" ? -os.constants.errno.EIO : fgetxattr(...args),
      );
      const saved = await saves.save(root);
      mock.restore();
      const source = presentSource(saved);
      assert.deepEqual(notedPaths(saved.notes.torn), ["file"]);
      assert.deepEqual(
        Array.from(source.list(source.root), ({ xattrs }) => xattrs.map(({ name }) => Buffer.from(name).toString())),
        [["user.b"]],
      );
    });
  });

  test("scan records a directory that replaces a file before the file is opened", async (t) => {
    let saved: ScanResult | undefined;
    const { look } = await scannedHere(t, async (saves, root) => {
      for (const name of ["a", "z"]) fs.writeFileSync(path.join(root, name), name);
      const sys = syscalls();
      const { open } = sys;
      let isFirst = true;
      const { mock } = t.mock.method(sys, "open", (...args: Parameters<typeof open>) => {
        if (isFirst && Buffer.from(nameAt(args[1], args[2])).toString() === "a") {
          isFirst = false;
          fs.rmSync(path.join(root, "a"));
          fs.mkdirSync(path.join(root, "a"));
          fs.linkSync(path.join(root, "z"), path.join(root, "a/z"));
        }
        return open(...args);
      });
      saved = await saves.save(root);
      mock.restore();
      assert.deepEqual(saved.notes.omitted, []);
    });
    assert.deepEqual(saved!.summarise().entries, { files: 2, directories: 1, links: 0, other: 0 });
    assertSame(saved!, await look());
  });

  for (const kind of ["xfs", "btrfs"] as const) {
    test(`scan reads a file in constant use as it was at one moment, on ${kind}`, async (t) => {
      const volume = loopFileSystem(t, kind);
      if (volume === null) return;
      const saves = await TestStore.create(t, volume.root);
      const root = temporaryFolder(t, volume.root);
      const file = path.join(root, "changing");
      const size = 20_000_000;
      fs.writeFileSync(file, Buffer.alloc(size));
      fs.writeFileSync(path.join(root, "quiet"), "x");
      // The end is never behind the beginning, and at most one ahead: unless it is read later than that.
      const script = `const fs=require("fs");const f=fs.openSync(process.argv[1],"r+");fs.writeSync(1,"go");const n=Buffer.alloc(8);for(let i=1;;i++){n.writeDoubleLE(i);fs.writeSync(f,n,0,8,${size - 8});fs.writeSync(f,n,0,8,0)}`;
      const child = await writer(t, script, file);
      const saved = await saves.save(root);
      await ended(child);
      assert.deepEqual(notedPaths(saved.notes.torn), []);
      const to = temporaryFolder(t, volume.root);
      await saves.write(saved, to);
      const read = fs.readFileSync(path.join(to, "changing"));
      const [head, tail] = [read.readDoubleLE(0), read.readDoubleLE(size - 8)];
      assert.ok(head > 0 && (tail === head || tail === head + 1), `${head} ${tail}`);
      assert.deepEqual(
        fs.readdirSync(saves.work).filter((name) => !name.startsWith("work-")),
        [],
      );
      const after = await saves.save(root);
      assert.ok(after.notes.filesRead > 0);
      assertSame(after, await saves.look(root));
    });
  }

  test(
    "scan sees a name that is given to one file after the other in at least 193 of 200 scans on btrfs",
    variant,
    async (t) => {
      const volume = loopFileSystem(t, "btrfs");
      if (volume === null) return;
      const saves = await TestStore.create(t);
      const root = temporaryFolder(t, volume.root);
      const script = `const fs=require("fs");process.chdir(process.argv[1]);for(let i=0;;i++){fs.writeFileSync("new","x");fs.renameSync("new","name");if(i===9)fs.writeSync(1,"go")}`;
      const child = await writer(t, script, root);
      const seen: number[] = [];
      // Listed once, one in twelve is missed; what is changed all the time may still be, oftener where processors are
      // few.
      while (seen.length < 4 && !seen.some((times) => times >= 193)) {
        seen.push(0);
        for (let i = 0; i < 200; i++) if (namesAtTop(await saves.look(root)).includes("name")) seen[seen.length - 1]!++;
      }
      await ended(child);
      assert.ok(seen.at(-1)! >= 193, `${seen.join(", ")} times of 200`);
    },
  );

  test("scan ends although entries appear and disappear all the time", async (t) => {
    const saves = await TestStore.create(t);
    const root = temporaryFolder(t);
    const script = `
const fs=require("fs");process.chdir(process.argv[1]);
fs.writeSync(1,"go");
for(let i=0;;i++){const d="d"+i%7;
try{fs.mkdirSync(d)}catch{}try{fs.writeFileSync(d+"/f"+i%5,"x".repeat(i%3000))}catch{}
try{fs.renameSync(d+"/f"+i%5,"d"+(i+1)%7+"/g")}catch{}
if(i%11===0)fs.rmSync("d"+(i+3)%7,{recursive:true,force:true});
if(i%13===0){try{fs.symlinkSync("/etc","d"+(i+5)%7)}catch{}}
if(i%17===0){try{fs.unlinkSync("d"+(i+5)%7)}catch{}}}`;
    const child = await writer(t, script, root);
    for (let i = 0; i < 15; i++) {
      const saved = await saves.save(root);
      assert.deepEqual(
        saved.notes.omitted.filter((omission) => !["ENOENT", "ENOTDIR", "ELOOP"].includes(omission.reason)),
        [],
      );
      const paths = Array.from({ length: saved.directories }, (_, d) => saved.table.directoryPath(d).toString());
      assert.ok(
        paths.every((at) => at === "" || /^d\d$/u.test(at)),
        "no link was followed",
      );
    }
    await ended(child);
    assertSame(await saves.save(root), await saves.look(root));
  });
});
