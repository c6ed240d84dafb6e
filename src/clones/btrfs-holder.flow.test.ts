import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, describe, test, type TestContext } from "node:test";
import { differencesOf, readFolder } from "../../test/fixtures/folder-state.ts";
import {
  asOrdinaryUser,
  loopFileSystem,
  makeLoopFileSystem,
  ORDINARY_USER,
  withOpen,
} from "../../test/fixtures/loop-file-system.ts";
import { makeFirst } from "../../test/fixtures/two-states.ts";
import { whyProcStays, withoutProc } from "../../test/fixtures/without-proc.ts";
import { createSubvolume, isReadOnly, isSubvolume, setReadOnly } from "../fs/linux/btrfs.ts";
import { isAsAnnounced } from "./as-made.ts";
import { btrfsHolder } from "./btrfs-holder.ts";
import { holderContract } from "./holder.contract.ts";

const WHOLE = { degraded: [], apart: [], torn: [] };

const MODULE = new URL("btrfs-holder.ts", import.meta.url).href;
const made = makeLoopFileSystem("btrfs");
const skip = "reason" in made ? made.reason : false;
const volume = "reason" in made ? "" : made.root;
const holder = btrfsHolder();
let folders = 0;

function makeSubvolume(place: string): Promise<void> {
  return withOpen(path.dirname(place), (fd) => createSubvolume(fd, path.basename(place)));
}

interface Place {
  own: string;
  root: string;
  at: (name: string) => string;
}

/** A directory with the subvolume `root` in it, a workspace. */
async function workspace(parent = volume): Promise<Place> {
  const own = path.join(parent, `test-${folders++}`);
  fs.mkdirSync(own);
  const root = path.join(own, "root");
  await makeSubvolume(root);
  return { own, root, at: (name) => path.join(own, name) };
}

function capture(place: Place, name: string): ReturnType<typeof holder.capture> {
  return holder.capture(Buffer.from(place.root), place.at(name), { temporary: place.at("tmp") });
}

/** A process that replaces two files with the same number, one after the other, and syncs neither; from pause to pause it waits longer. */
async function writing(t: TestContext, folder: string, { pauseMs }: { pauseMs: number }): Promise<void> {
  const script = `const fs = require("fs"); process.chdir(process.argv[1]);
const pause = new Int32Array(new SharedArrayBuffer(4));
for (let i = 1; ; i++) {
  for (const name of ["first", "second"]) {
    fs.writeFileSync("new", String(i + " ").repeat(10000)); fs.renameSync("new", name);
  }
  if (i === 1) fs.writeSync(1, "go");
  Atomics.wait(pause, 0, 0, ${pauseMs} * 2 ** (i >> 5));
}`;
  const writer = spawn(process.execPath, ["-e", script, folder], { stdio: ["ignore", "pipe", "inherit"] });
  const gone = new Promise((resolve) => writer.once("exit", resolve));
  t.after(async () => {
    writer.kill("SIGKILL");
    await gone;
  });
  await writer.stdout[Symbol.asyncIterator]().next();
}

describe("the btrfs holder", { skip }, () => {
  after(() => {
    if (!("reason" in made)) made.close();
  });

  test("capture announces a point before its snapshot is made, unless the folder has a subvolume inside", async () => {
    const place = await workspace();
    makeFirst(place.root);
    const announced: number[] = [];
    const call = { announce: (lastChange: number) => announced.push(lastChange) };
    const captured = await holder.capture(Buffer.from(place.root), place.at("point"), call);
    assert.deepEqual(captured, { ...WHOLE, announced: true });
    assert.ok(isAsAnnounced(place.at("point"), announced.at(-1)!));
    fs.writeFileSync(path.join(place.root, "later"), "later");
    await holder.capture(Buffer.from(place.root), place.at("second"), {});
    assert.ok(!isAsAnnounced(place.at("second"), announced.at(-1)!));
    assert.ok(!isAsAnnounced(place.at("nothing"), announced.at(-1)!));
    await makeSubvolume(path.join(place.root, "nested"));
    announced.length = 0;
    const partial = await holder.capture(Buffer.from(place.root), place.at("third"), call);
    assert.deepEqual([announced, partial.announced], [[], undefined]);
  });

  holderContract(holder, () => workspace());

  test("a held tree is read-only, and materialise copies the folder itself too", async () => {
    const place = await workspace();
    makeFirst(place.root);
    const first = readFolder(place.root);
    assert.deepEqual(await capture(place, "point"), WHOLE);
    assert.throws(() => fs.writeFileSync(place.at("point/new"), ""), { code: "EROFS" });
    const raw = Buffer.concat([Buffer.from(place.at("")), Buffer.from([0x2f, 0xff])]);
    assert.deepEqual(await holder.materialise(place.root, raw, {}), WHOLE);
    fs.renameSync(raw, place.at("fork"));
    assert.deepEqual(differencesOf(readFolder(place.at("fork")), first), []);
  });

  test("capture of a folder in use is one moment of the whole tree, or names the truncated files", async (t) => {
    const place = await workspace();
    await writing(t, place.root, { pauseMs: 0 });
    for (let i = 0; i < 40; i++) {
      const { torn } = await capture(place, `point-${i}`);
      const named = torn.map(String);
      const [first, second] = ["first", "second"].map((name) => {
        const text = fs.readFileSync(place.at(`point-${i}/${name}`), "utf8");
        assert.ok(text !== "" || named.includes(name), `${name} is cut short and not named`);
        return Number(text.slice(0, text.indexOf(" ")));
      });
      if (named.length > 0)
        assert.deepEqual(
          named.filter((name) => !["first", "second", "new"].includes(name)),
          [],
        );
      else assert.ok(first! - second! === 0 || first! - second! === 1, `${first} and ${second}`);
    }
  });

  test("capture repeats the snapshot until no write falls into it", async (t) => {
    const place = await workspace();
    makeFirst(place.root);
    await writing(t, place.root, { pauseMs: 60 });
    let whole = 0;
    let made = 0;
    // On a slow disk a snapshot takes longer than the first pauses.
    for (; made < 10 || whole === 0; made++) {
      assert.ok(made < 100, "something was written while each was made");
      const { torn } = await capture(place, `point-${made}`);
      if (torn.length === 0) whole++;
      await new Promise((resolve) => setTimeout(resolve, (made % 10) * 7));
    }
    assert.deepEqual(fs.readdirSync(place.own).length, made + 1);
  });

  test("capture returns after the point and pending writes are on the disk", async (t) => {
    const disk = loopFileSystem(t, "btrfs");
    if (disk === null) return;
    const place = await workspace(disk.root);
    await withOpen(place.own, (fd) => fs.fsyncSync(fd));
    makeFirst(place.root);
    const state = readFolder(place.root);
    await capture(place, "point");
    fs.writeFileSync(path.join(place.root, "too-late"), "only in memory");
    disk.cutPower();
    assert.deepEqual(differencesOf(readFolder(place.at("point")), state), []);
    assert.equal(await withOpen(place.at("point"), isReadOnly), true);
    assert.equal(fs.existsSync(path.join(place.root, "too-late")), false);
  });

  test("capture makes subvolumes inside empty directories, and names them", async () => {
    const place = await workspace();
    fs.mkdirSync(path.join(place.root, "a/b"), { recursive: true });
    for (const name of ["a/b/inner", "outer", "outer/deeper", "new\nline"])
      await makeSubvolume(path.join(place.root, name));
    fs.writeFileSync(path.join(place.root, "outer/lost"), "x");
    const { degraded } = await capture(place, "point");
    assert.deepEqual(degraded, [
      { what: "nested_subvolume", reason: "a/b/inner" },
      { what: "nested_subvolume", reason: "new\\nline" },
      { what: "nested_subvolume", reason: "outer" },
    ]);
    assert.deepEqual(fs.readdirSync(place.at("point/outer")), []);
    assert.deepEqual(await holder.materialise(place.at("point"), Buffer.from(place.at("copy")), {}), WHOLE);
  });

  test("capture refuses a plain directory, and its hint names `init --engine btrfs-snapshot`", async () => {
    const place = await workspace();
    fs.mkdirSync(path.join(place.root, "plain"));
    const plain = path.join(place.root, "plain");
    await assert.rejects(holder.capture(Buffer.from(plain), place.at("point"), {}), {
      code: "unsupported",
      message: /plain directory on btrfs/,
      hint: /init --engine btrfs-snapshot/,
    });
    await assert.rejects(holder.materialise(plain, Buffer.from(place.at("point")), {}), { code: "unsupported" });
    await assert.rejects(holder.capture(Buffer.from("/proc/self"), place.at("point"), {}), {
      code: "unsupported",
      message: /lies on proc|lies on unknown/,
    });
    assert.deepEqual(fs.readdirSync(place.own), ["root"]);
  });

  test("capture refuses a place on another file system", { skip: isSubvolume(os.tmpdir()) }, async () => {
    const place = await workspace();
    const elsewhere = path.join(os.tmpdir(), `cairn-no-btrfs-${process.pid}`);
    await assert.rejects(holder.capture(Buffer.from(place.root), elsewhere, {}), { code: "unsupported" });
    assert.equal(fs.existsSync(elsewhere), false);
  });

  test("the event loop goes on while capture flushes pending writes", async () => {
    const place = await workspace();
    fs.writeFileSync(path.join(place.root, "waits"), Buffer.alloc(8 << 20, "to be written"));
    let went = false;
    setImmediate(() => (went = true));
    await capture(place, "point");
    assert.equal(went, true);
  });

  test("capture leaves nothing if a quota is exceeded", async (t) => {
    const disk = loopFileSystem(t, "btrfs");
    if (disk === null) return;
    const place = await workspace(disk.root);
    await makeSubvolume(place.at("points"));
    const quota = (...args: string[]): boolean => spawnSync("btrfs", args, { stdio: "ignore" }).status === 0;
    if (!quota("quota", "enable", disk.root) || !quota("qgroup", "limit", "1", place.at("points")))
      return t.skip("no quota groups here");
    await assert.rejects(capture(place, "points/point"), { code: "no_space", details: { errno: "EDQUOT" } });
    assert.deepEqual(fs.readdirSync(place.at("points")), []);
    await capture(place, "point");
  });

  test("capture on a full disk makes a complete point or none", async (t) => {
    const disk = loopFileSystem(t, "btrfs", { size: 120 << 20 });
    if (disk === null) return;
    const place = await workspace(disk.root);
    fs.writeFileSync(path.join(place.root, "small"), "whole");
    await withOpen(place.own, (fd) => fs.fsyncSync(fd));
    const filler = fs.openSync(place.at("filler"), "w");
    for (const size of [1 << 20, 4096]) {
      try {
        for (;;) fs.writeSync(filler, Buffer.alloc(size, Math.random().toString()));
      } catch (error) {
        assert.equal((error as { code?: string }).code, "ENOSPC");
      }
    }
    fs.closeSync(filler);
    for (let i = 0; i < 50; i++) {
      const name = `point-${i}`;
      const code = await capture(place, name).then(
        () => null,
        (error: unknown) => (error as { code: string }).code,
      );
      assert.equal(fs.existsSync(place.at(name)), code === null);
      if (code === null) assert.equal(fs.readFileSync(place.at(`${name}/small`), "utf8"), "whole");
      else {
        assert.equal(code, "no_space");
        break;
      }
    }
    await holder.remove(place.at("point-0"));
    assert.equal(fs.existsSync(place.at("point-0")), false);
  });

  test("remove deletes trees with nested and read-only subvolumes, also several at once", async () => {
    const place = await workspace();
    fs.mkdirSync(path.join(place.root, "locked"), { mode: 0o700 });
    fs.writeFileSync(path.join(place.root, "locked/file"), "x");
    fs.chmodSync(path.join(place.root, "locked"), 0);
    await capture(place, "point");
    await holder.materialise(place.at("point"), Buffer.from(place.at("copy")), {});
    fs.mkdirSync(place.at("copy/plain"));
    for (const name of ["copy/inner", "copy/inner/deeper", "copy/plain/other"]) await makeSubvolume(place.at(name));
    fs.writeFileSync(place.at("copy/inner/deeper/file"), "x");
    for (const name of ["copy/inner/deeper", "copy/inner", "copy"])
      await withOpen(place.at(name), (fd) => setReadOnly(fd, true));
    for (const name of ["point", "copy"]) {
      await holder.remove(place.at(name));
      assert.deepEqual(fs.existsSync(place.at(name)), false);
    }
    await Promise.all([capture(place, "one"), capture(place, "two")]);
    await Promise.all(["one", "two", "one"].map((name) => holder.remove(place.at(name))));
    assert.deepEqual(fs.readdirSync(place.own), ["root"]);
  });

  test(
    "remove deletes a tree with its subvolumes in a system without /proc",
    { skip: whyProcStays() ?? false },
    async () => {
      const place = await workspace();
      await makeSubvolume(path.join(place.root, "inside"));
      fs.writeFileSync(path.join(place.root, "inside/file"), "own");
      await withOpen(path.join(place.root, "inside"), (fd) => setReadOnly(fd, true));
      await capture(place, "point");
      const both = [place.root, place.at("point")];
      const body = `for (const each of ${JSON.stringify(both)}) await holders.btrfsHolder().remove(each);`;
      withoutProc({ holders: MODULE }, body);
      assert.deepEqual(fs.readdirSync(place.own), []);
    },
  );

  test("remove refuses a plain directory, a link and a file", async () => {
    const place = await workspace();
    fs.mkdirSync(place.at("plain"));
    fs.writeFileSync(place.at("plain/file"), "x");
    fs.symlinkSync("root", place.at("link"));
    for (const name of ["plain", "link", "plain/file"])
      await assert.rejects(holder.remove(place.at(name)), { code: "refused" }, name);
    assert.deepEqual(fs.readdirSync(place.own).toSorted(), ["link", "plain", "root"]);
    assert.equal(fs.existsSync(place.at("plain/file")), true);
  });
});

describe("the btrfs holder as an ordinary user", { skip }, () => {
  for (const mountOptions of [[], ["user_subvol_rm_allowed"]]) {
    test(`an ordinary user captures, materialises and removes own trees, mounted with [${String(mountOptions)}]`, async (t) => {
      const own = await ordinaryFolder(t, mountOptions);
      if (own === null) return;
      const left = asOrdinaryUser(
        { fs: "node:fs", holders: MODULE, btrfs: new URL("../fs/linux/btrfs.ts", import.meta.url).href },
        `const at = (name) => ${JSON.stringify(`${own}/`)} + name;
        const holder = holders.btrfsHolder();
        const fd = fs.openSync(at("."), "r");
        await btrfs.createSubvolume(fd, "root");
        fs.mkdirSync(at("root/locked/deep"), { recursive: true });
        fs.writeFileSync(at("root/locked/deep/file"), "x", { mode: 0 });
        fs.writeFileSync(Buffer.concat([Buffer.from(at("root/")), Buffer.from([255])]), "raw");
        fs.chmodSync(at("root/locked"), 0o500);
        await holder.capture(Buffer.from(at("root")), at("point"), {});
        await holder.materialise(at("point"), Buffer.from(at("copy")), {});
        const copy = fs.openSync(at("copy"), "r");
        await btrfs.createSubvolume(copy, "inner");
        fs.writeFileSync(at("copy/inner/file"), "x");
        fs.closeSync(copy);
        const held = fs.readdirSync(at("."));
        for (const name of ["point", "copy", "point"]) await holder.remove(at(name));
        const theirs = await holder.capture(Buffer.from(at("../theirs")), at("stolen"), {}).catch((e) => e.code);
        return [held.toSorted(), fs.readdirSync(at(".")), theirs];`,
      );
      assert.deepEqual(left, [["copy", "point", "root"], ["root"], "permission"]);
    });
  }

  test("an ordinary user captures a folder in a directory that the user may enter but not list", async (t) => {
    const own = await ordinaryFolder(t, []);
    if (own === null) return;
    const passed = path.join(path.dirname(own), "passed");
    fs.mkdirSync(passed);
    await makeSubvolume(path.join(passed, "root"));
    fs.chownSync(path.join(passed, "root"), ORDINARY_USER, ORDINARY_USER);
    fs.chmodSync(passed, 0o711);
    const captured = asOrdinaryUser(
      { holders: MODULE },
      `const [root, point, temporary] = ${JSON.stringify([`${passed}/root`, `${own}/point`, `${own}/tmp`])};
      return await holders.btrfsHolder().capture(Buffer.from(root), point, { temporary });`,
    );
    assert.deepEqual(captured, WHOLE);
  });

  test("remove names the mount option in its hint if the tree has files of another user", async (t) => {
    const own = await ordinaryFolder(t, []);
    if (own === null) return;
    await makeSubvolume(`${own}/tree`);
    fs.mkdirSync(`${own}/tree/roots`);
    fs.writeFileSync(`${own}/tree/roots/file`, "root's");
    fs.chownSync(`${own}/tree`, ORDINARY_USER, ORDINARY_USER);
    const said = asOrdinaryUser(
      { holders: MODULE },
      `return await holders.btrfsHolder().remove(${JSON.stringify(`${own}/tree`)}).catch((e) => [e.code, e.hint]);`,
    ) as string[];
    assert.equal(said[0], "permission");
    assert.match(said[1]!, /user_subvol_rm_allowed/);
    await holder.remove(`${own}/tree`);
    assert.deepEqual(fs.readdirSync(own), []);
  });

  async function ordinaryFolder(t: TestContext, mountOptions: readonly string[]): Promise<string | null> {
    const disk = loopFileSystem(t, "btrfs", { mountOptions });
    if (disk === null) return null;
    const own = path.join(disk.root, "own");
    fs.mkdirSync(own);
    fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
    await makeSubvolume(path.join(disk.root, "theirs"));
    return own;
  }
});
