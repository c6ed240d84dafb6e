import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, describe, test, type TestContext } from "node:test";
import {
  asOrdinaryUser,
  loopFileSystem,
  makeLoopFileSystem,
  ORDINARY_USER,
} from "../../../test/fixtures/loop-file-system.ts";
import * as btrfs from "./btrfs.ts";
import { mayBeLimited } from "./btrfs.ts";
import { filesystemUuid } from "./mounts.ts";

const MODULE = new URL("btrfs.ts", import.meta.url).href;
const made = makeLoopFileSystem("btrfs");
const skip = "reason" in made ? made.reason : false;
const root = "reason" in made ? "" : made.root;
let folders = 0;

/** A plain directory of one test on the shared file system, held. */
function folder(t: TestContext): { at: (name: string) => string; fd: number } {
  const own = path.join(root, `test-${folders++}`);
  fs.mkdirSync(own);
  return { at: (name) => path.join(own, name), fd: opened(t, own) };
}

function opened(t: TestContext, place: string): number {
  const fd = fs.openSync(place, "r");
  t.after(() => fs.closeSync(fd));
  return fd;
}

function refusal(code: string, errno?: string): (error: unknown) => boolean {
  return (error) => {
    const { code: got, details } = error as { code?: string; details?: { errno?: string } };
    assert.equal(got, code, String(error));
    if (errno !== undefined) assert.equal(details?.errno, errno);
    return true;
  };
}

describe("btrfs subvolumes", { skip }, () => {
  after(() => {
    if (!("reason" in made)) made.close();
  });

  test("filesystemUuid returns the UUID that `btrfs filesystem show` prints, for every path of the file system", (t) => {
    const { at } = folder(t);
    fs.mkdirSync(at("inside"));
    const shown = spawnSync("btrfs", ["filesystem", "show", root], { encoding: "utf8" }).stdout;
    const [, uuid] = /uuid: ([0-9a-f-]{36})/.exec(shown) ?? [];
    assert.equal(filesystemUuid(root), uuid);
    assert.equal(filesystemUuid(at("inside")), uuid);
    assert.equal(mayBeLimited(Buffer.from(root)), false);
  });

  test("isSubvolume is true only for the root of a subvolume", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    fs.mkdirSync(at("plain"));
    fs.writeFileSync(at("file"), "");
    fs.symlinkSync("sub", at("link"));
    assert.equal(btrfs.isSubvolume(root), true);
    assert.equal(btrfs.isSubvolume(at("sub")), true);
    assert.equal(btrfs.isSubvolume(Buffer.from(at("sub"))), true);
    assert.equal(btrfs.isSubvolume(opened(t, at("sub"))), true);
    for (const other of [at("plain"), at("file"), at("link"), "/proc", "/dev/null"])
      assert.equal(btrfs.isSubvolume(other), false, other);
    assert.throws(() => btrfs.isSubvolume(at("none")), refusal("not_found"));
  });

  test("a snapshot contains data that was written before it and is not on the disk yet", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    const sub = opened(t, at("sub"));
    fs.writeFileSync(at("sub/file"), Buffer.alloc(300_000, "before "));
    await btrfs.createSnapshot(sub, fd, "snap", { readOnly: true });
    fs.writeFileSync(at("sub/file"), "after");
    fs.writeFileSync(at("sub/new"), "after");
    assert.deepEqual(fs.readdirSync(at("snap")), ["file"]);
    assert.equal(fs.readFileSync(at("snap/file"), "latin1"), Buffer.alloc(300_000, "before ").toString("latin1"));
  });

  test("subvolumeInfo returns the name, parent and source of a subvolume", async (t) => {
    const { at, fd } = folder(t);
    const name = Buffer.from([0x73, 0xff, 0x0a, 0x20]);
    await btrfs.createSubvolume(fd, name);
    const source = opened(t, at("."));
    const sub = fs.openSync(Buffer.concat([Buffer.from(at("")), Buffer.from("/"), name]), "r");
    t.after(() => fs.closeSync(sub));
    await btrfs.createSnapshot(sub, fd, "snap", { readOnly: true });
    const info = btrfs.subvolumeInfo(sub);
    const snap = btrfs.subvolumeInfo(opened(t, at("snap")));
    const listed = spawnSync("btrfs", ["subvolume", "show", at("snap")], { encoding: "utf8" });
    assert.deepEqual(info.name, name);
    assert.equal(info.parentId, 5);
    assert.equal(info.directoryInode, fs.fstatSync(source).ino);
    assert.equal(info.readOnly, false);
    assert.equal(info.parentUuid, null);
    assert.equal(info.receivedUuid, null);
    assert.equal(snap.readOnly, true);
    assert.equal(snap.parentUuid, info.uuid);
    assert.notEqual(snap.id, info.id);
    assert.ok(snap.otransid >= info.otransid && snap.otransid > 0);
    if (listed.status !== 0) return;
    const told = (key: string): string => new RegExp(`${key}:\\s+(.*)`).exec(listed.stdout)?.[1] ?? "";
    assert.equal(snap.uuid, told("\tUUID"));
    assert.equal(snap.parentUuid, told("Parent UUID"));
    assert.equal(snap.id, Number(told("Subvolume ID")));
    assert.equal(snap.generation, Number(told("Generation")));
    assert.equal(snap.otransid, Number(told("Gen at creation")));
  });

  test("a read-only snapshot refuses every write until setReadOnly makes it writable", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    fs.writeFileSync(at("sub/file"), "content");
    await btrfs.createSnapshot(opened(t, at("sub")), fd, "snap", { readOnly: true });
    const snap = opened(t, at("snap"));
    assert.equal(btrfs.isReadOnly(snap), true);
    const writes = [
      () => fs.writeFileSync(at("snap/new"), ""),
      () => fs.writeFileSync(at("snap/file"), ""),
      () => fs.unlinkSync(at("snap/file")),
      () => fs.chmodSync(at("snap/file"), 0o600),
      () => fs.renameSync(at("snap/file"), at("snap/other")),
      () => fs.utimesSync(at("snap"), 1, 1),
    ];
    for (const write of writes) assert.throws(write, { code: "EROFS" }, String(write));
    await assert.rejects(btrfs.createSubvolume(snap, "inner"), refusal("permission", "EROFS"));
    await btrfs.setReadOnly(snap, false);
    await btrfs.setReadOnly(snap, false);
    assert.equal(btrfs.isReadOnly(snap), false);
    fs.writeFileSync(at("snap/new"), "");
    await btrfs.setReadOnly(snap, true);
    assert.throws(() => fs.unlinkSync(at("snap/new")), { code: "EROFS" });
    assert.throws(() => btrfs.isReadOnly(fd), refusal("unsupported", "EINVAL"));
  });

  test("nestedSubvolumes lists the direct subvolumes, and not the subvolumes inside them", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    const sub = opened(t, at("sub"));
    assert.deepEqual(btrfs.nestedSubvolumes(sub), []);
    const odd = Buffer.from([0xff, 0x0a, 0x5c]);
    fs.mkdirSync(at("sub/a/b"), { recursive: true });
    await btrfs.createSubvolume(sub, "top");
    await btrfs.createSubvolume(opened(t, at("sub/a/b")), odd);
    await btrfs.createSubvolume(opened(t, at("sub/top")), "deeper");
    await btrfs.createSnapshot(opened(t, at("sub/top")), opened(t, at("sub/a")), "snap", { readOnly: true });
    const paths = btrfs.nestedSubvolumes(sub).map((each) => each.path?.toString("latin1"));
    assert.deepEqual(paths.toSorted(), [`a/b/${odd.toString("latin1")}`, "a/snap", "top"]);
    fs.rmdirSync(at("sub/top/deeper"));
    await btrfs.destroySubvolume(sub, "top");
    assert.equal(btrfs.nestedSubvolumes(sub).length, 2);
  });

  test("nestedSubvolumes lists 300 subvolumes, more than one kernel reply holds", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    const sub = opened(t, at("sub"));
    const names = Array.from({ length: 300 }, (_, i) => `n${String(i).padStart(3, "0")}`);
    for (const name of names) await btrfs.createSubvolume(sub, name);
    assert.deepEqual(
      btrfs.nestedSubvolumes(sub).map((each) => String(each.path)),
      names,
    );
  });

  test("destroySubvolume removes read-only and writable subvolumes", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    const sub = opened(t, at("sub"));
    fs.mkdirSync(at("sub/full/deep"), { recursive: true });
    fs.writeFileSync(at("sub/full/deep/file"), "x");
    for (const name of ["one", "two"]) await btrfs.createSnapshot(sub, fd, name, { readOnly: true });
    await btrfs.destroySubvolume(fd, "one");
    await btrfs.destroySubvolume(fd, "two");
    assert.deepEqual(fs.readdirSync(at(".")), ["sub"]);
    await assert.rejects(btrfs.destroySubvolume(fd, "one"), refusal("not_found", "ENOENT"));
    await btrfs.createSubvolume(sub, "inner");
    await assert.rejects(btrfs.destroySubvolume(fd, "sub"), refusal("conflict", "ENOTEMPTY"));
    await btrfs.destroySubvolume(sub, "inner");
    await btrfs.destroySubvolume(fd, "sub");
    fs.mkdirSync(at("plain"));
    await assert.rejects(btrfs.destroySubvolume(fd, "plain"), refusal("unsupported", "EINVAL"));
    assert.deepEqual(fs.readdirSync(at(".")), ["plain"]);
  });

  test("subvolume calls refuse an invalid name before they change anything", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    const sub = opened(t, at("sub"));
    for (const name of ["", ".", "..", "a/b", "/", "a\0b", "n".repeat(256), Buffer.alloc(4096, "n")]) {
      await assert.rejects(btrfs.createSubvolume(fd, name), refusal("usage"));
      await assert.rejects(btrfs.createSnapshot(sub, fd, name, { readOnly: true }), refusal("usage"));
      await assert.rejects(btrfs.destroySubvolume(fd, name), refusal("usage"));
    }
    await btrfs.createSubvolume(fd, "n".repeat(255));
    await btrfs.destroySubvolume(fd, "n".repeat(255));
    assert.deepEqual(fs.readdirSync(at(".")), ["sub"]);
  });

  test("createSnapshot creates nothing and names the reason if source and parent do not fit", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    fs.mkdirSync(at("plain"));
    const sub = opened(t, at("sub"));
    const elsewhere = opened(t, os.tmpdir());
    const make = (from: number, parent: number, name: string): Promise<void> =>
      btrfs.createSnapshot(from, parent, name, { readOnly: true });
    await assert.rejects(make(opened(t, at("plain")), fd, "snap"), refusal("unsupported", "EINVAL"));
    await assert.rejects(make(sub, fd, "plain"), refusal("already_exists", "EEXIST"));
    if (!btrfs.isSubvolume(os.tmpdir())) {
      await assert.rejects(make(sub, elsewhere, "snap"), refusal("unsupported"));
      await assert.rejects(make(elsewhere, fd, "snap"), refusal("unsupported"));
    }
    const other = loopFileSystem(t, "btrfs");
    if (other !== null) {
      const parent = fs.openSync(other.root, "r");
      await assert.rejects(make(sub, parent, "snap"), refusal("unsupported", "EXDEV"));
      fs.closeSync(parent);
    }
    assert.deepEqual(fs.readdirSync(at(".")).toSorted(), ["plain", "sub"]);
  });

  test("btrfs calls throw unsupported for a folder on another file system", async (t) => {
    const proc = opened(t, "/proc");
    assert.throws(() => btrfs.subvolumeInfo(proc), refusal("unsupported"));
    assert.throws(() => btrfs.nestedSubvolumes(proc), refusal("unsupported"));
    assert.throws(() => btrfs.isReadOnly(proc), refusal("unsupported"));
    assert.throws(() => btrfs.startSync(proc), refusal("unsupported"));
    await assert.rejects(btrfs.createSubvolume(proc, "sub"), refusal("unsupported"));
    await assert.rejects(btrfs.destroySubvolume(proc, "sub"), refusal("unsupported"));
    assert.throws(() => btrfs.requireSubvolume(proc, "/proc"), /lies on .*, not on btrfs/);
  });

  test("waitSync returns for the transaction that startSync started", async (t) => {
    const { at, fd } = folder(t);
    fs.writeFileSync(at("file"), "x");
    const transaction = btrfs.startSync(fd);
    await btrfs.waitSync(fd, transaction);
    await btrfs.waitSync(fd, 0n);
    assert.ok(btrfs.subvolumeInfo(fd).generation <= Number(transaction) + 2);
  });

  test("150 concurrent createSnapshot calls each return their own result", async (t) => {
    const { at, fd } = folder(t);
    await btrfs.createSubvolume(fd, "sub");
    const sub = opened(t, at("sub"));
    const calls = Array.from({ length: 150 }, async (_, i) => {
      const name = i % 3 === 0 ? "sub" : `snap-${i}`;
      const error = await btrfs.createSnapshot(sub, fd, name, { readOnly: true }).then(
        () => null,
        (thrown: unknown) => (thrown as { code: string }).code,
      );
      assert.equal(error, i % 3 === 0 ? "already_exists" : null);
    });
    await Promise.all(calls);
    assert.equal(fs.readdirSync(at(".")).length, 101);
  });
});

describe("btrfs as an ordinary user", { skip }, () => {
  const body = (own: string): string => `
    const { default: fs } = await import("node:fs");
    const said = [];
    const say = (work) => Promise.resolve().then(work).then(() => "done", (e) => e.code + " " + e.details?.errno + " " + e.hint);
    const fd = fs.openSync(${JSON.stringify(own)}, "r");
    said.push(await say(() => btrfs.createSubvolume(fd, "sub")));
    fs.writeFileSync(${JSON.stringify(`${own}/sub/file`)}, "x");
    const sub = fs.openSync(${JSON.stringify(`${own}/sub`)}, "r");
    said.push(await say(() => btrfs.createSnapshot(sub, fd, "snap", { readOnly: true })));
    const snap = fs.openSync(${JSON.stringify(`${own}/snap`)}, "r");
    said.push(btrfs.subvolumeInfo(snap).readOnly, btrfs.nestedSubvolumes(snap).length);
    said.push(await say(() => btrfs.destroySubvolume(fd, "snap")));
    said.push(await say(() => btrfs.setReadOnly(snap, false)));
    said.push(await say(() => btrfs.destroySubvolume(fd, "snap")));
    const top = fs.openSync(${JSON.stringify(`${own}/../roots`)}, "r");
    said.push(await say(() => btrfs.createSnapshot(top, fd, "stolen", { readOnly: true })));
    said.push(await say(() => btrfs.setReadOnly(top, true)));
    return said;`;

  async function runIn(t: TestContext, mountOptions: readonly string[]): Promise<{ said: string[]; own: string }> {
    const volume = loopFileSystem(t, "btrfs", { mountOptions });
    if (volume === null) return { said: [], own: "" };
    const own = path.join(volume.root, "own");
    const top = fs.openSync(volume.root, "r");
    await btrfs.createSubvolume(top, "roots");
    fs.closeSync(top);
    fs.mkdirSync(own);
    fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
    const said = asOrdinaryUser({ btrfs: MODULE }, body(own)) as unknown[];
    return { said: said.map(String), own };
  }

  test("an ordinary user may create subvolumes, and the error of a removal names the needed mount option", async (t) => {
    const { said, own } = await runIn(t, []);
    if (said.length === 0) return;
    const refused = /^permission EPERM mount with user_subvol_rm_allowed/;
    assert.deepEqual(said.slice(0, 4), ["done", "done", "true", "0"]);
    assert.match(said[4]!, refused);
    assert.equal(said[5], "done");
    assert.match(said[6]!, refused);
    assert.match(said[7]!, /^permission EPERM only root and the owner/);
    assert.match(said[8]!, /^permission EPERM work as root or as the owner/);
    // What is empty can be removed like a directory.
    const emptied = asOrdinaryUser(
      { fs: "node:fs" },
      `fs.unlinkSync("${own}/snap/file"); fs.rmdirSync("${own}/snap"); return fs.readdirSync("${own}");`,
    );
    assert.deepEqual(emptied, ["sub"]);
  });

  test("an ordinary user may remove an own writable subvolume if mounted with user_subvol_rm_allowed", async (t) => {
    const { said, own } = await runIn(t, ["user_subvol_rm_allowed"]);
    if (said.length === 0) return;
    assert.match(said[4]!, /^permission EROFS make the read-only snapshot writable first/);
    assert.deepEqual(said.slice(5, 7), ["done", "done"]);
    assert.deepEqual(fs.readdirSync(own), ["sub"]);
  });
});
