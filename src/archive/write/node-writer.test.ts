import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test } from "node:test";
import { loopFileSystem } from "../../../test/fixtures/loop-file-system.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { openDirectory, syscalls } from "../../fs/linux/syscalls.ts";
import { bitsOfNewFiles, umaskNow } from "../../fs/linux/mounts.ts";
import { arenaOver, newArena } from "../../native.ts";
import { temporaryFolder } from "../../workspace/store/testing-store.ts";
import { isDiskTrouble, NodeWriter, type NotSet } from "./node-writer.ts";

function nodeOf(type: TreeNode["type"], more: Partial<TreeNode> = {}): TreeNode {
  const owner = { uid: process.geteuid!(), gid: process.getegid!(), user: "", group: "" };
  const facts = { inode: 0n, deviceId: 0n, links: 1, size: 0, xattrs: [], device: 0n };
  return { name: Buffer.from("x"), type, mode: 0o640, mtimeSec: 1000, mtimeNs: 5, ...owner, ...facts, ...more };
}

function accessList(at: string): string {
  return execFileSync("getfacl", ["-cp", at], { encoding: "utf8" });
}

function setAccessList(...args: string[]): boolean {
  try {
    execFileSync("setfacl", args, { stdio: "pipe" });
    return true;
  } catch {
    return false;
  }
}

function attributesOf(at: string): string[] {
  const list = newArena(4096);
  const fd = fs.openSync(at, "r");
  const length = syscalls().flistxattr(fd, list);
  fs.closeSync(fd);
  return Buffer.from(list.bytes.subarray(0, length)).toString().split("\0").slice(0, -1);
}

void describe("NodeWriter", () => {
  test("NodeWriter sets an attribute again once the mode made an existing entry writable", (t) => {
    const folder = temporaryFolder(t);
    fs.writeFileSync(path.join(folder, "f"), "", { mode: 0o400 });
    const writer = new NodeWriter();
    const { sys } = writer;
    const set = sys.lsetxattr.bind(sys);
    const isWritable = (): boolean => (fs.statSync(path.join(folder, "f")).mode & 0o200) !== 0;
    // As for an ordinary user; root may set attributes of any file.
    t.mock.method(sys, "lsetxattr", (...args: Parameters<typeof set>) => (isWritable() ? set(...args) : -13));
    const node = nodeOf("file", { xattrs: [{ name: Buffer.from("user.a"), value: Buffer.from("b") }] });
    const directory = openDirectory(folder);
    writer.metadataByName(directory, node, { name: Buffer.from("f"), path: Buffer.from("f") });
    fs.closeSync(directory);
    assert.deepEqual(writer.notSet, []);
    assert.deepEqual(attributesOf(path.join(folder, "f")), ["user.a"]);
  });

  test("NodeWriter keeps the access list of an existing directory, and clears inherited lists of new entries", (t) => {
    const folder = temporaryFolder(t);
    fs.mkdirSync(path.join(folder, "old"));
    if (!setAccessList("-m", "u:7:rwx,d:u:8:rx", path.join(folder, "old"))) return t.skip("no access lists here");
    const before = accessList(path.join(folder, "old"));
    const old = openDirectory(path.join(folder, "old"));
    const writer = new NodeWriter();
    writer.finishDirectory(old, nodeOf("dir", { mode: fs.fstatSync(old).mode & 0o7777 }), Buffer.from("old"));
    assert.equal(accessList(path.join(folder, "old")), before);

    for (const name of ["made", "file", "pipe"]) {
      const place = { name: Buffer.from(name), path: Buffer.from(`old/${name}`) };
      if (name === "made") writer.directory(old, place);
      else if (name === "file") writer.file(old, nodeOf("file"), place, [Buffer.from("abc")]);
      else assert.equal(writer.special(old, nodeOf("fifo"), place), true);
      assert.doesNotMatch(accessList(path.join(folder, "old", name)), /user:7|user:8|default|mask/u, name);
    }
    assert.equal(fs.statSync(path.join(folder, "old/file")).mode & 0o7777, 0o640);
    assert.equal(fs.statSync(path.join(folder, "old/pipe")).mode & 0o7777, 0o640);
    assert.deepEqual(writer.notSet, []);
    fs.closeSync(old);
  });

  test("NodeWriter sets all extended attributes except those that Linux cannot hold, which it lists", (t) => {
    const folder = temporaryFolder(t);
    const fd = openDirectory(folder);
    const writer = new NodeWriter();
    const value = Buffer.from("v");
    const odd: [string, Buffer, RegExp][] = [
      ["user.long", Buffer.alloc(200_000, 7), /"user.long" has 200000 bytes/],
      [`user.${"n".repeat(3000)}`, value, /a name of 3005 bytes/],
      ["user.good\0too", value, /a NUL in its name/],
    ];
    for (const [i, [name, content, detail]] of odd.entries()) {
      const xattrs = [
        { name: Buffer.from(name), value: content },
        { name: Buffer.from("user.fine"), value },
      ];
      const place = (kind: string) => ({ name: Buffer.from(`${kind}${i}`), path: Buffer.from(`${kind}${i}`) });
      writer.file(fd, nodeOf("file", { xattrs }), place("file"), [value]);
      writer.directory(fd, place("dir"));
      const made = openDirectory(path.join(folder, `dir${i}`));
      writer.finishDirectory(made, nodeOf("dir", { mode: 0o755, xattrs }), Buffer.from(`dir${i}`));
      fs.closeSync(made);
      assert.equal(writer.special(fd, nodeOf("fifo", { xattrs: xattrs.slice(0, 1) }), place("fifo")), true);
      const listed = writer.notSet.splice(0);
      assert.deepEqual(
        listed.map((each) => [Buffer.from(each.path).toString(), each.aspects]),
        ["file", "dir", "fifo"].map((kind) => [`${kind}${i}`, ["xattrs"]]),
      );
      for (const each of listed) assert.match(each.detail, detail);
      for (const kind of ["file", "dir"])
        assert.deepEqual(attributesOf(path.join(folder, `${kind}${i}`)), ["user.fine"]);
    }
    fs.closeSync(fd);
  });

  test("NodeWriter neither writes nor lists the redundant attribute trusted.SGI_ACL_FILE", (t) => {
    const folder = temporaryFolder(t);
    const fd = openDirectory(folder);
    const writer = new NodeWriter();
    const xattrs = [{ name: Buffer.from("trusted.SGI_ACL_FILE"), value: Buffer.alloc(16, 1) }];
    const place = (name: string) => ({ name: Buffer.from(name), path: Buffer.from(name) });
    writer.file(fd, nodeOf("file", { xattrs }), place("file"), []);
    assert.equal(writer.special(fd, nodeOf("fifo", { xattrs }), place("fifo")), true);
    assert.deepEqual(writer.notSet, []);
    const value = newArena(64);
    for (const name of ["file", "fifo"]) {
      const found = syscalls().lgetxattr(fd, arenaOver(Buffer.from(`${name}\0`)), 0, xattrs[0]!.name, value, 0);
      assert.ok(found < 0, `${name} has ${found} bytes of it`);
    }
    fs.closeSync(fd);
  });

  test("NodeWriter reports a full or read-only file system as the reason if metadata cannot be set", (t) => {
    const folder = temporaryFolder(t);
    const fd = openDirectory(folder);
    const { errno } = os.constants;
    const cases = {
      ENOSPC: /no room/,
      EDQUOT: /quota/,
      EROFS: /read-only/,
      EIO: /disk/,
      EPERM: /the system refuses it/,
    };
    for (const [name, words] of Object.entries(cases)) {
      const writer = new NodeWriter();
      const refused = (): number => -errno[name as keyof typeof cases];
      Object.assign(writer, { sys: { ...writer.sys, utimens: refused } });
      const at = { name: Buffer.from(name), path: Buffer.from(name) };
      writer.file(fd, nodeOf("file", { mtimeSec: 1 }), at, []);
      const [{ detail, aspects }] = writer.notSet as [NotSet];
      assert.match(detail, words);
      assert.deepEqual([aspects, isDiskTrouble(detail)], [["times"], name !== "EPERM"]);
    }
    fs.closeSync(fd);
  });

  test("NodeWriter clears the setuid bit of a program whose owner cannot be set, and lists the mode", (t) => {
    const folder = temporaryFolder(t);
    const fd = openDirectory(folder);
    const writer = new NodeWriter();
    const refused = (): number => -1;
    Object.assign(writer, { sys: { ...writer.sys, fchown: refused, lchown: refused } });
    const [uid, gid] = [process.geteuid!(), process.getegid!()];
    const cases: [string, Partial<TreeNode>, number, string[]][] = [
      ["other", { uid: uid + 1, gid: gid + 1 }, 0o755, ["owner", "mode"]],
      ["group", { uid, gid: gid + 1 }, 0o4755, ["owner", "mode"]],
      ["own", { uid, gid }, 0o6755, []],
    ];
    for (const [name, owner, mode, aspects] of cases) {
      const node = nodeOf("file", { ...owner, mode: 0o6755 });
      const place = { name: Buffer.from(name), path: Buffer.from(name) };
      writer.file(fd, node, place, []);
      const check = (): void => {
        assert.equal((fs.statSync(path.join(folder, name)).mode & 0o7777).toString(8), mode.toString(8), name);
        assert.deepEqual(
          writer.notSet.splice(0).map((each) => each.aspects),
          aspects.length === 0 ? [] : [aspects],
        );
      };
      check();
      fs.chmodSync(path.join(folder, name), 0o600);
      writer.metadataByName(fd, node, place);
      check();
    }
    fs.closeSync(fd);
  });

  test("NodeWriter sets the group of a new entry on a mount with the option grpid", (t) => {
    const volume = loopFileSystem(t, "xfs", { mountOptions: ["grpid"] });
    if (volume === null) return;
    fs.chownSync(volume.root, 0, 12);
    const within = openDirectory(volume.root);
    const writer = new NodeWriter({ within });
    writer.file(within, nodeOf("file"), { name: Buffer.from("file"), path: Buffer.from("file") }, [Buffer.from("abc")]);
    assert.equal(fs.statSync(path.join(volume.root, "file")).gid, nodeOf("file").gid);
    fs.closeSync(within);
  });

  test("NodeWriter writes pieces around holes whose ends are not those of the pieces", (t) => {
    const folder = temporaryFolder(t);
    const fd = openDirectory(folder);
    const size = 300_000;
    const content = Buffer.alloc(size, "z");
    const holes: [number, number][] = [
      [0, 8192],
      [65_536, 131_072],
      [290_816, size - 290_816],
    ];
    for (const [at, length] of holes) content.fill(0, at, at + length);
    const pieces = [0, 10_000, 70_000, 70_001, 250_000].map((from, i, all) =>
      content.subarray(from, all[i + 1] ?? size),
    );
    new NodeWriter().file(
      fd,
      nodeOf("file", { size }),
      { name: Buffer.from("x"), path: Buffer.from("x"), holes },
      pieces,
    );
    fs.closeSync(fd);
    assert.deepEqual(fs.readFileSync(path.join(folder, "x")), content);
    const stat = fs.statSync(path.join(folder, "x"), { bigint: true });
    assert.ok(stat.blocks * 512n < 200_000n);
    assert.equal(stat.mtimeNs, 1_000_000_000_005n);
  });

  test("NodeWriter writes zeros over existing content, and leaves them out of a new sparse file", (t) => {
    const file = path.join(temporaryFolder(t), "x");
    fs.writeFileSync(file, Buffer.alloc(300_000, "old"));
    const fd = fs.openSync(file, "r+");
    const zeros = arenaOver(Buffer.alloc(300_000));
    const part = { offset: 0, length: 131_072, position: 0, path: Buffer.from("x") };
    const writer = new NodeWriter({ sparse: true });
    writer.write(fd, zeros, part);
    assert.equal(fs.readFileSync(file)[0], "o".charCodeAt(0));
    writer.write(fd, zeros, { ...part, over: true });
    fs.closeSync(fd);
    assert.ok(
      fs
        .readFileSync(file)
        .subarray(0, 131_072)
        .every((byte) => byte === 0),
    );
    assert.equal(fs.readFileSync(file)[131_072], "d".charCodeAt(0));
  });

  test("NodeWriter neither follows nor replaces an existing entry at the path", (t) => {
    const folder = temporaryFolder(t);
    const fd = openDirectory(folder);
    fs.writeFileSync(path.join(folder, "outside"), "kept");
    fs.symlinkSync("outside", path.join(folder, "x"));
    const writer = new NodeWriter();
    const place = { name: Buffer.from("x"), path: Buffer.from("x") };
    assert.throws(() => writer.file(fd, nodeOf("file"), place, []), { message: /EEXIST/u });
    assert.throws(() => writer.directory(fd, place), { message: /EEXIST/u });
    assert.equal(writer.special(fd, nodeOf("fifo"), place), false);
    assert.match(writer.notSet[0]!.detail, /EEXIST/u);
    assert.equal(fs.readFileSync(path.join(folder, "outside"), "utf8"), "kept");
    fs.closeSync(fd);
  });

  test("NodeWriter gives a file its mode when it creates the file, or afterwards if that is impossible", (t) => {
    const folder = temporaryFolder(t);
    const within = openDirectory(folder);
    t.after(() => fs.closeSync(within));
    const newBits = bitsOfNewFiles(Buffer.from(folder));
    if (newBits === 0) return t.skip("this file system's new files may have another mode");
    assert.equal(newBits, 0o777 & ~umaskNow());
    const writer = new NodeWriter({ within, newBits });
    const attribute = { name: Buffer.from("user.x"), value: Buffer.from("y") };
    const cases: [node: Partial<TreeNode>, atOnce: boolean][] = [
      [{ mode: newBits }, true],
      [{ mode: newBits & 0o444 }, true],
      [{ mode: 0 }, true],
      [{ mode: newBits | 0o4000 }, false],
      [{ mode: 0o777 }, newBits === 0o777],
      [{ mode: newBits, uid: 12 }, false],
      [{ mode: newBits & 0o444, xattrs: [attribute] }, false],
    ];
    for (const [i, [more, atOnce]] of cases.entries()) {
      const name = `file-${i}`;
      const node = nodeOf("file", more);
      assert.equal(writer.firstMode(node), atOnce ? node.mode : null, name);
      writer.file(within, node, { name: Buffer.from(name), path: Buffer.from(name) }, [Buffer.from("abc")]);
      const { mode } = fs.statSync(path.join(folder, name));
      assert.equal((mode & 0o7777).toString(8), node.mode.toString(8), name);
    }
  });
});
