import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, describe, test } from "node:test";
import { differencesOf, readFolder } from "../../test/fixtures/folder-state.ts";
import {
  asOrdinaryUser,
  loopFileSystem,
  makeLoopFileSystem,
  ORDINARY_USER,
  whyNoThreadsOfUser,
} from "../../test/fixtures/loop-file-system.ts";
import { makeFirst, makeSecond } from "../../test/fixtures/two-states.ts";
import { extentCount } from "../fs/linux/reflink.ts";
import { TYPE } from "../fs/linux/syscalls.ts";
import { WorkerThread } from "../threads/worker-thread.ts";
import { makeNode, randomFrom, RandomEdits, setAttribute } from "../workspace/store/testing-edits.ts";
import { walkDigests } from "../workspace/store/testing-walk.ts";
import type { CloneTreeResult } from "./clone-entry.ts";
import { cloneTree, type CloneTreeOptions } from "./clone-tree.ts";
import { removeTree } from "./remove-held.ts";

const MODULE = new URL("clone-tree.ts", import.meta.url).href;

async function clone(from: string, to: string, more: Partial<CloneTreeOptions> = {}): Promise<CloneTreeResult> {
  return cloneTree({ from: Buffer.from(from), to: Buffer.from(to), ...more });
}

function assertEqual(is: string, wanted: string): void {
  assert.deepEqual(differencesOf(readFolder(is), readFolder(wanted)), []);
}

function text(paths: readonly Uint8Array[]): string[] {
  return paths.map((each) => Buffer.from(each).toString()).toSorted();
}

function setAccessList(...args: string[]): void {
  const done = spawnSync("setfacl", args, { encoding: "utf8" });
  assert.equal(done.status, 0, done.stderr);
}

/** Everything that a tree can hold. */
function makeEverything(root: string): void {
  const at = (...names: string[]): string => path.join(root, ...names);
  fs.mkdirSync(root);
  makeFirst(root);
  makeSecond(root);
  fs.writeFileSync(at("empty"), "");
  fs.writeFileSync(Buffer.concat([Buffer.from(`${root}/`), Buffer.from([0xff, 0x01, 0x80])]), "odd");
  fs.writeFileSync(at("x".repeat(255)), "long name");
  fs.symlinkSync("y".repeat(1000), at("long link"));
  fs.lutimesSync(at("long link"), 1, 123_456_789.25);
  for (const [type, name] of [
    [TYPE.PIPE, "fifo"],
    [TYPE.SOCKET, "socket"],
    [TYPE.CHARDEV, "char"],
    [TYPE.BLOCKDEV, "block"],
  ] as const) {
    assert.ok(makeNode(at(name), type, [7, 300]));
    fs.utimesSync(at(name), 1, 1_111_111_111.5);
  }
  fs.linkSync(at("fifo"), at("was-file", "fifo"));
  fs.linkSync(at("long link"), at("was-file", "linked link"));
  fs.lchownSync(at("long link"), 12, 34);
  fs.chownSync(at("socket"), 12, 34);
  const sparse = fs.openSync(at("sparse"), "w");
  fs.writeSync(sparse, Buffer.alloc(65_536, 1), 0, 65_536, 1 << 20);
  fs.ftruncateSync(sparse, 8 << 20);
  fs.closeSync(sparse);
  fs.chownSync(at("same", "kept.txt"), 1234, 567);
  fs.chmodSync(at("same", "kept.txt"), 0o6751);
  fs.chmodSync(at("same", "added.txt"), 0);
  fs.utimesSync(at("same", "added.txt"), 1, -5.5);
  makeRights(at);
}

/** Access lists that would pass on, attributes, directories of all modes. */
function makeRights(at: (...names: string[]) => string): void {
  fs.mkdirSync(at("shared", "below"), { recursive: true });
  for (const name of ["shared/plain", "shared/below/plain"]) fs.writeFileSync(at(name), "no list");
  fs.mkdirSync(at("shared/bare"));
  setAccessList("-m", "u:7:rwx,d:u:8:rwx,d:g:9:rx", at("shared"));
  fs.writeFileSync(at("shared/heir"), "has a list");
  makeNode(at("shared/pipe"), TYPE.PIPE);
  fs.mkdirSync(at("shared/heirs"));
  fs.chmodSync(at("shared"), 0o3771);
  fs.mkdirSync(at("shared/grouped"));
  setAttribute(at("shared"), "user.on.directory", "d");
  setAttribute(at("shared/plain"), "user.empty", "");
  setAttribute(at("shared/plain"), "user.large", Buffer.alloc(3000, 7));
  setAttribute(at("shared/plain"), "trusted.hidden", "t");
  setAttribute(at("fifo"), "trusted.on.pipe", "p");
  // Version 2, nothing permitted but cap_net_raw.
  const capability = Buffer.from("0100000200200000000000000000000000000000", "hex");
  assert.ok(setAttribute(at("shared/heir"), "security.capability", capability));
  for (const mode of [0, 0o100, 0o555, 0o7777]) {
    const name = `mode-${mode.toString(8)}`;
    fs.mkdirSync(at(name, "inner"), { recursive: true });
    fs.writeFileSync(at(name, "inner", "file"), name);
    fs.chmodSync(at(name, "inner"), mode);
    fs.utimesSync(at(name), 1, 1_222_222_222.125);
    fs.chmodSync(at(name), mode);
  }
}

for (const kind of ["xfs", "btrfs"] as const) {
  const made = makeLoopFileSystem(kind, { size: 1 << 30 });
  void describe(`cloneTree on ${kind}`, { skip: "reason" in made ? made.reason : false }, () => {
    const volume = "reason" in made ? "" : made.root;
    const at = (...names: string[]): string => path.join(volume, ...names);
    after(() => {
      if (!("reason" in made)) made.close();
    });

    test("cloneTree keeps every entry and the folder's own metadata, and shares the content", async () => {
      makeEverything(at("all"));
      const heirs = at("heirs");
      fs.mkdirSync(heirs);
      setAccessList("-m", "d:u:77:rwx", heirs);
      fs.chmodSync(heirs, 0o2755);
      fs.chownSync(heirs, 0, 99);
      // What the place's parent passes on must not be found in the clone.
      const result = await clone(at("all"), path.join(heirs, "clone"));
      assertEqual(path.join(heirs, "clone"), at("all"));
      assert.deepEqual(walkDigests(path.join(heirs, "clone")), walkDigests(at("all")));
      assert.equal(result.copied, 0);
      assert.ok(result.cloned > 10);
      assert.equal(result.entries, readFolder(at("all")).size - 1);
      const { omitted, torn, mounts, notSet } = result;
      assert.deepEqual({ omitted, torn, mounts, notSet }, { omitted: [], torn: [], mounts: [], notSet: [] });
      const [was, is] = ["all", "heirs/clone"].map((name) => fs.statSync(at(name, "sparse")).blocks);
      assert.ok(is! <= was! && is! < 1000, `${is} blocks, were ${was}`);
      const again = await clone(path.join(heirs, "clone"), at("again"));
      assert.equal(again.linked, result.linked);
      assertEqual(at("again"), at("all"));
      for (const name of ["heirs/clone", "again"]) await removeTree(Buffer.from(at(name)));
      assert.deepEqual(fs.readdirSync(heirs), []);
    });

    test("cloneTree takes no space for content", async () => {
      fs.mkdirSync(at("large"));
      fs.writeFileSync(at("large/file"), Buffer.alloc(64 << 20, "large"));
      spawnSync("sync", ["-f", volume]);
      const before = fs.statfsSync(volume);
      await clone(at("large"), at("large-clone"));
      spawnSync("sync", ["-f", volume]);
      const used = (before.bfree - fs.statfsSync(volume).bfree) * before.bsize;
      assert.ok(used < 16 << 20, `took ${used} bytes`);
      fs.appendFileSync(at("large-clone/file"), "x");
      assert.equal(fs.statSync(at("large/file")).size, 64 << 20);
    });

    test("cloneTree clones paths longer than PATH_MAX", async () => {
      fs.mkdirSync(at("deep"));
      let fd = fs.openSync(at("deep"), "r");
      for (let i = 0; i < 24; i++) {
        const next = `/proc/self/fd/${fd}/${`${i}`.padEnd(250, "d")}`;
        fs.writeFileSync(`/proc/self/fd/${fd}/file`, `${i}`);
        fs.mkdirSync(next, 0o700 + (i % 2 === 0 ? 0o55 : 0o11));
        const child = fs.openSync(next, "r");
        fs.closeSync(fd);
        fd = child;
      }
      fs.linkSync(at("deep/file"), `/proc/self/fd/${fd}/linked`);
      fs.closeSync(fd);
      const result = await clone(at("deep"), at("deep-clone"));
      assert.equal(result.linked, 1);
      assertEqual(at("deep-clone"), at("deep"));
      await removeTree(Buffer.from(at("deep-clone")));
      assert.ok(!fs.existsSync(at("deep-clone")));
      await removeTree(Buffer.from(at("deep")));
    });

    test("cloneTree keeps hard links whose names lie in many directories", async () => {
      for (let d = 0; d < 40; d++) {
        fs.mkdirSync(at("linked", `${d}`), { recursive: true });
        for (let i = 0; i < 50; i++) {
          const name = at("linked", `${d}`, `${i}`);
          if (d === 0) fs.writeFileSync(name, `content ${i}`);
          else fs.linkSync(at("linked", "0", `${i}`), name);
        }
      }
      const result = await clone(at("linked"), at("linked-clone"));
      assert.deepEqual(
        { cloned: result.cloned, linked: result.linked, files: result.files, entries: result.entries },
        { cloned: 50, linked: 39 * 50, files: 2000, entries: 2040 },
      );
      assertEqual(at("linked-clone"), at("linked"));
    });

    test("cloneTree leaves out mounted file systems", async (t) => {
      fs.mkdirSync(at("outer/mounted"), { recursive: true });
      fs.writeFileSync(at("outer/kept"), "kept");
      if (spawnSync("mount", ["-t", "tmpfs", "none", at("outer/mounted")]).status !== 0) return t.skip("no mounting");
      t.after(() => spawnSync("umount", ["-l", at("outer/mounted")]));
      fs.writeFileSync(at("outer/mounted/file"), "elsewhere");
      const result = await clone(at("outer"), at("outer-clone"));
      assert.deepEqual(fs.readdirSync(at("outer-clone"), { recursive: true }), ["kept"]);
      assert.deepEqual(text(result.mounts), ["mounted"]);
    });

    test("cloneTree copies a file in too many extents around its holes", async () => {
      fs.mkdirSync(at("pieces"));
      const fd = fs.openSync(at("pieces/file"), "w");
      for (let i = 0; i < 40; i++) fs.writeSync(fd, Buffer.alloc(4096, `${i}`), 0, 4096, i * 65_536);
      fs.ftruncateSync(fd, 41 * 65_536 + 5);
      fs.fsyncSync(fd);
      fs.closeSync(fd);
      const result = await clone(at("pieces"), at("pieces-clone"), { extentLimit: 20 });
      assert.deepEqual({ copied: result.copied, fragmented: result.fragmented }, { copied: 1, fragmented: 1 });
      assertEqual(at("pieces-clone"), at("pieces"));
      assert.ok(fs.statSync(at("pieces-clone/file")).blocks <= fs.statSync(at("pieces/file")).blocks + 8);
      const copy = fs.openSync(at("pieces-clone/file"), "r");
      assert.equal(extentCount(copy) > 1, true);
      fs.closeSync(copy);
    });

    test("an abort ends the clone early, and removeTree removes its entries", async (t) => {
      for (let d = 0; d < 60; d++) {
        fs.mkdirSync(at("many", `${d}`), { recursive: true });
        for (let i = 0; i < 60; i++) fs.writeFileSync(at("many", `${d}`, `${i}`), "x".repeat(100 + i));
        fs.chmodSync(at("many", `${d}`), d % 3 === 0 ? 0o500 : 0o755);
      }
      const abort = new AbortController();
      const { ask } = WorkerThread.prototype;
      const asking = t.mock.method(WorkerThread.prototype, "ask", function (this: WorkerThread, request: never) {
        abort.abort();
        return ask.call(this, request);
      });
      await assert.rejects(clone(at("many"), at("many-clone"), { signal: abort.signal }), { code: "interrupted" });
      asking.mock.restore();
      const made = fs.readdirSync(at("many-clone"), { recursive: true }).length;
      assert.ok(made < 60 * 61, `${made} entries were made`);
      await removeTree(Buffer.from(at("many-clone")));
      await removeTree(Buffer.from(at("many-clone")));
      assert.ok(!fs.existsSync(at("many-clone")));
      await assert.rejects(clone(at("many"), at("many-clone"), { signal: AbortSignal.abort() }), {
        code: "interrupted",
      });
      assert.ok(!fs.existsSync(at("many-clone")));
    });

    test("cloneTree clones a folder that is edited meanwhile, and then again without differences", async () => {
      fs.mkdirSync(at("work"));
      const edits = new RandomEdits(at("work"), randomFrom(7));
      for (let i = 0; i < 300; i++) edits.edit();
      for (let round = 0; round < 6; round++) {
        const cloning = clone(at("work"), at(`work-${round}`));
        const end = Date.now() + 30;
        while (Date.now() < end) {
          edits.edit();
          await new Promise(setImmediate);
        }
        await cloning;
      }
      const result = await clone(at("work"), at("work-still"));
      assert.deepEqual({ omitted: result.omitted, torn: result.torn }, { omitted: [], torn: [] });
      assertEqual(at("work-still"), at("work"));
      for (let round = 0; round < 6; round++) await removeTree(Buffer.from(at(`work-${round}`)));
    });

    test("cloneTree omits entries that an ordinary user may not read, and lists owners that cannot be set", async (t) => {
      const why = whyNoThreadsOfUser();
      if (why !== null) return t.skip(why);
      fs.mkdirSync(at("user"));
      fs.mkdirSync(at("user/folder/closed"), { recursive: true });
      fs.writeFileSync(at("user/folder/closed/file"), "x");
      fs.writeFileSync(at("user/folder/secret"), "x", { mode: 0o600 });
      fs.writeFileSync(at("user/folder/foreign"), "x");
      fs.writeFileSync(at("user/folder/own"), "x");
      fs.mkdirSync(at("user/folder/locked"));
      fs.writeFileSync(at("user/folder/locked/in"), "x", { mode: 0o444 });
      for (const name of ["", "/own", "/locked", "/locked/in"])
        fs.chownSync(at(`user/folder${name}`), ORDINARY_USER, ORDINARY_USER);
      fs.chmodSync(at("user/folder/locked"), 0o500);
      makeNode(at("user/folder/device"), TYPE.CHARDEV, [1, 3]);
      fs.chmodSync(at("user/folder/closed"), 0o700);
      fs.chownSync(at("user"), ORDINARY_USER, ORDINARY_USER);
      const result = asOrdinaryUser(
        {
          engine: MODULE,
          threads: new URL("../threads/threads.ts", import.meta.url).href,
          remove: new URL("remove-held.ts", import.meta.url).href,
        },
        `const folder = (name) => Buffer.from(${JSON.stringify(at("user"))} + name);
         const text = (path) => Buffer.from(path).toString();
         const result = await engine.cloneTree({ from: folder("/folder"), to: folder("/clone") });
         await engine.cloneTree({ from: folder("/clone"), to: folder("/again") });
         await remove.removeTree(folder("/again"));
         return { ...result, omitted: result.omitted.map(({ path, reason }) => text(path) + " " + reason).sort(),
           notSet: result.notSet.map(({ path, aspects }) => text(path) + " " + aspects) };`,
      ) as { omitted: string[]; notSet: string[]; entries: number };
      assert.deepEqual(result.omitted, ["closed EACCES", "device EPERM", "secret EACCES"]);
      assert.deepEqual(result.notSet, ["foreign owner"]);
      assert.deepEqual(fs.readdirSync(at("user")).toSorted(), ["clone", "folder"]);
      assert.deepEqual(fs.readdirSync(at("user/clone"), { recursive: true }).toSorted(), [
        "foreign",
        "locked",
        "locked/in",
        "own",
      ]);
      assert.equal(fs.statSync(at("user/clone/locked")).mode & 0o7777, 0o500);
    });

    test("cloneTree refuses to clone into a folder that is not empty, or into a link", async () => {
      fs.mkdirSync(at("over/source"), { recursive: true });
      fs.writeFileSync(at("over/source/file"), "new");
      fs.mkdirSync(at("over/full"));
      fs.writeFileSync(at("over/full/file"), "old");
      fs.symlinkSync("full", at("over/link"));
      for (const name of ["over/full", "over/link"]) {
        await assert.rejects(clone(at("over/source"), at(name)), { code: "already_exists" });
      }
      assert.equal(fs.readFileSync(at("over/full/file"), "utf8"), "old");
      fs.mkdirSync(at("over/empty"));
      await clone(at("over/source"), at("over/empty"));
      assertEqual(at("over/empty"), at("over/source"));
    });
  });
}

void describe("cloneTree on a file system that cannot clone", () => {
  test("cloneTree leaves nothing if the file system clones no files", async (t) => {
    const volume = loopFileSystem(t, "ext4");
    if (volume === null) return;
    const source = path.join(volume.root, "source");
    fs.mkdirSync(source);
    fs.writeFileSync(path.join(source, "file"), "x");
    const before = fs.readdirSync(volume.root);
    await assert.rejects(clone(source, path.join(volume.root, "clone")), {
      code: "unsupported",
      message: /clones no files/u,
    });
    assert.deepEqual(fs.readdirSync(volume.root), before);
  });

  test("cloneTree refuses a target on another file system, and names that reason", async (t) => {
    const [one, other] = [loopFileSystem(t, "xfs"), loopFileSystem(t, "xfs")];
    if (one === null || other === null) return;
    const source = path.join(one.root, "source");
    fs.mkdirSync(path.join(source, "dir"), { recursive: true });
    fs.writeFileSync(path.join(source, "dir/file"), "x");
    await assert.rejects(clone(source, path.join(other.root, "clone")), {
      code: "unsupported",
      message: /different file systems/u,
    });
    assert.deepEqual(fs.readdirSync(other.root), []);
  });
});
