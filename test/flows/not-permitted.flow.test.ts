import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test } from "node:test";
import { makeNode, setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { TYPE } from "../../src/fs/linux/syscalls.ts";
import type { LeftOut } from "../../src/contract/index.ts";
import { cairn, cairnOk, type Outcome, type RunOptions } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { newRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";

/** Restores in place by who may not make or set all that the point has. */

const skip = whyNoOrdinaryUser() ?? (canMakeDevices() ? false : "devices cannot be made here");
const NO_DEVICES = ["setpriv", "--bounding-set=-mknod", "--inh-caps=-mknod", "--"];

function canMakeDevices(): boolean {
  return makeNode(path.join(newFolder("devices"), "null"), TYPE.CHARDEV, [1, 3]);
}

/** Path, reason and aspects of each. */
function leftOf(done: Outcome): [string, string, string][] {
  assert.equal(done.status, 10, done.stdout + done.stderr);
  return (done.data["left_out"] as LeftOut[]).map(({ path: name, reason, aspects = [] }) => [
    name,
    reason,
    aspects.join(),
  ]);
}

function cannotBeMade(...names: string[]): [string, string, string][] {
  return names.map((name) => [name, "not_permitted", "type"]);
}

describe("devices that cannot be made", { skip }, () => {
  const DEVICES = ["gone", "in/folder/only", "linked-1", "linked-2", "now-a-file", "now-a-folder"];
  let folder: string;
  let point: string;
  let saved: ReturnType<typeof readFolder>;
  let edited: ReturnType<typeof readFolder>;
  const at = (...names: string[]): string => path.join(folder, ...names);
  const without = (): RunOptions => ({ cwd: folder, prefix: NO_DEVICES });

  before(() => {
    folder = newFolder();
    fs.mkdirSync(at("in/folder"), { recursive: true });
    fs.writeFileSync(at("file"), "as it was");
    for (const name of DEVICES) if (name !== "linked-2") makeNode(at(name), TYPE.CHARDEV, [1, 3]);
    fs.linkSync(at("linked-1"), at("linked-2"));
    saved = readFolder(folder);
    point = (cairnOk(["save", folder]).data["save_point"] as { save_point_id: string }).save_point_id;
    fs.writeFileSync(at("file"), "changed");
    for (const name of ["in", ...DEVICES]) fs.rmSync(at(name), { recursive: true, force: true });
    fs.writeFileSync(at("now-a-file"), "stays");
    fs.mkdirSync(at("now-a-folder/deep"), { recursive: true });
    fs.writeFileSync(at("now-a-folder/deep/file"), "stays too");
    edited = readFolder(folder);
  });

  function assertAsFarAsAllowed(context: string): void {
    assert.equal(fs.readFileSync(at("file"), "utf8"), "as it was", context);
    assert.equal(fs.readFileSync(at("now-a-file"), "utf8"), "stays", context);
    assert.equal(fs.readFileSync(at("now-a-folder/deep/file"), "utf8"), "stays too", context);
    assert.deepEqual(fs.readdirSync(folder).toSorted(), ["file", "in", "now-a-file", "now-a-folder"], context);
    assert.deepEqual(fs.readdirSync(at("in/folder")), [], context);
  }

  test("restore lists each device that it may not make, and keeps the entries in their place", () => {
    assert.deepEqual(leftOf(cairn(["restore", point], without())).toSorted(), cannotBeMade(...DEVICES));
    assertAsFarAsAllowed("restored");
    cairnOk(["undo"], { cwd: folder });
    assertFolder(folder, edited, "undone");
    cairnOk(["restore", point], { cwd: folder });
    assertFolder(folder, saved, "restored by who may make them");
    cairnOk(["undo"], { cwd: folder });
    assertFolder(folder, edited, "undone again");
  });

  test("recovery of a killed restore leaves out devices that the user may not make", () => {
    for (const failpoint of ["restore.staged", "restore.committed", "restore.swapped"]) {
      assert.equal(cairn(["restore", point], { ...without(), failpoint }).killed, true, failpoint);
      cairn(["status"], without());
      if (failpoint === "restore.staged") assertFolder(folder, edited, failpoint);
      else {
        assertAsFarAsAllowed(failpoint);
        cairnOk(["undo"], { cwd: folder });
        assertFolder(folder, edited, `${failpoint}, undone`);
      }
    }
  });

  test("backup restore --in-place leaves out devices that the user may not make", async () => {
    const repository = await newRepository();
    cairnOk(["backup", "create", "-C", folder, ...repository.options, point]);
    const done = cairn(["backup", "restore", point, "--in-place", ...repository.options], without());
    const made = leftOf(done).filter(([, , aspects]) => aspects === "type");
    assert.deepEqual(made.toSorted(), cannotBeMade(...DEVICES));
    assert.equal(done.data["proof"], null);
    assertAsFarAsAllowed("from the repository");
  });
});

test("restore removes attributes that were added to links, pipes, devices and sockets", { skip }, (t) => {
  const folder = newFolder();
  const at = (name: string): string => path.join(folder, name);
  fs.symlinkSync("nowhere", at("link"));
  makeNode(at("pipe"), TYPE.PIPE);
  makeNode(at("null"), TYPE.CHARDEV, [1, 3]);
  makeNode(at("socket"), TYPE.SOCKET);
  const saved = readFolder(folder);
  cairnOk(["save", folder]);
  for (const name of fs.readdirSync(folder))
    if (!setAttribute(at(name), "trusted.test", "x")) return t.skip("trusted attributes cannot be set here");
  const edited = readFolder(folder);
  cairnOk(["restore", "head", "-C", folder]);
  assertFolder(folder, saved, "restored");
  cairnOk(["undo", "-C", folder]);
  assertFolder(folder, edited, "undone");
});

describe("an ordinary user", { skip }, () => {
  let user: OrdinaryUser;
  let folder: string;
  let options: RunOptions;
  const at = (...names: string[]): string => path.join(folder, ...names);

  before(() => {
    user = installForOrdinaryUser();
    folder = path.join(user.place, "work");
    fs.mkdirSync(at("theirs"), { recursive: true });
    options = user.optionsIn(folder);
  });
  after(() => user.remove());

  test("restore reports each entry whose owner or type an ordinary user may not set", () => {
    const files = ["of-a-group", "theirs/of-a-group", "linked-1"];
    for (const name of [...files, "plain"]) fs.writeFileSync(at(name), "as it was");
    fs.linkSync(at("linked-1"), at("linked-2"));
    fs.mkdirSync(at("folder-of-a-group"));
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    for (const name of [...files, "folder-of-a-group"]) fs.chownSync(at(name), ORDINARY_USER, 0);
    fs.chownSync(at("theirs"), 0, 0);
    makeNode(at("null"), TYPE.CHARDEV, [1, 3]);
    cairnOk(["save"], options);
    for (const name of [...files, "plain"]) fs.writeFileSync(at(name), "changed");
    for (const name of ["folder-of-a-group", "null"]) fs.rmSync(at(name), { recursive: true });
    const left = leftOf(cairn(["restore", "head"], options));
    assert.deepEqual(left.toSorted(), [
      ["folder-of-a-group", "not_permitted", "owner"],
      ["linked-1", "not_permitted", ""],
      ["linked-2", "not_permitted", ""],
      ["null", "not_permitted", "type"],
    ]);
    // Written in place, or kept: the group has no other way to get its files back.
    for (const name of ["of-a-group", "theirs/of-a-group", "plain"])
      assert.equal(fs.readFileSync(at(name), "utf8"), "as it was");
    for (const name of ["linked-1", "linked-2"]) assert.equal(fs.readFileSync(at(name), "utf8"), "changed");
    assert.equal(fs.statSync(at("of-a-group")).gid, 0);
  });

  test("restore reports only the times of another user's file if nothing else differs", () => {
    const file = path.join(user.place, "mine/of-another");
    fs.mkdirSync(path.dirname(file));
    fs.writeFileSync(file, "as it was");
    fs.chownSync(path.dirname(file), ORDINARY_USER, ORDINARY_USER);
    const here = user.optionsIn(path.dirname(file));
    cairnOk(["save"], here);
    fs.utimesSync(file, 1000, 1000);
    assert.deepEqual(leftOf(cairn(["restore", "head"], here)), [["of-another", "not_permitted", "times"]]);
  });

  test("restore reports that it cannot set the owner of a link and a pipe that now belong to another user", () => {
    const at = (...names: string[]): string => path.join(user.place, "links", ...names);
    fs.mkdirSync(at());
    fs.symlinkSync("nowhere", at("link"));
    makeNode(at("pipe"), TYPE.PIPE);
    for (const each of [at(), at("link"), at("pipe")]) fs.lchownSync(each, ORDINARY_USER, ORDINARY_USER);
    const here = user.optionsIn(at());
    cairnOk(["save"], here);
    for (const name of ["link", "pipe"]) fs.lchownSync(at(name), 0, 0);
    assert.deepEqual(leftOf(cairn(["restore", "head"], here)), [
      ["link", "not_permitted", "owner"],
      ["pipe", "not_permitted", "owner"],
    ]);
  });

  test("restore reports attributes that an ordinary user may not remove", (t) => {
    const at = (...names: string[]): string => path.join(user.place, "attributes", ...names);
    fs.mkdirSync(at("folder"), { recursive: true });
    for (const name of ["able", "file"]) fs.writeFileSync(at(name), name);
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, at()]);
    const here = user.optionsIn(at());
    cairnOk(["save"], here);
    // cap_net_raw, as it is on ping.
    const able = Buffer.from("0100000200200000000000000000000000000000", "hex");
    if (!setAttribute(at("able"), "security.capability", able))
      return t.skip("there are no capabilities of files here");
    for (const name of ["file", "folder"]) setAttribute(at(name), "security.test", "x");
    assert.deepEqual(leftOf(cairn(["restore", "head"], here)).toSorted(), [
      ["file", "not_permitted", "xattrs"],
      ["folder", "not_permitted", "xattrs"],
    ]);
    assert.doesNotMatch(readFolder(at()).get("able")!, /security/);
  });

  test("restore reports that an ordinary user may not set the owner of the folder itself", () => {
    const file = path.join(user.place, "other/file");
    fs.mkdirSync(path.dirname(file));
    fs.writeFileSync(file, "as it was");
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, path.dirname(file)]);
    fs.chownSync(path.dirname(file), ORDINARY_USER, 0);
    const here = user.optionsIn(path.dirname(file));
    cairnOk(["save"], here);
    fs.chownSync(path.dirname(file), ORDINARY_USER, ORDINARY_USER);
    fs.writeFileSync(file, "changed");
    assert.deepEqual(leftOf(cairn(["restore", "head"], here)), [["", "not_permitted", "owner"]]);
    assert.equal(fs.readFileSync(file, "utf8"), "as it was");
  });

  test("restore reports that it cannot set the times of a folder that belongs to another user", () => {
    const file = path.join(user.place, "of-all/file");
    fs.mkdirSync(path.dirname(file));
    fs.writeFileSync(file, "as it was");
    fs.chownSync(file, ORDINARY_USER, ORDINARY_USER);
    fs.chownSync(path.dirname(file), 0, ORDINARY_USER);
    fs.chmodSync(path.dirname(file), 0o775);
    const here = user.optionsIn(path.dirname(file));
    cairnOk(["save"], here);
    fs.writeFileSync(file, "changed");
    assert.deepEqual(leftOf(cairn(["restore", "head"], here)), [["", "not_permitted", "times"]]);
    assert.equal(fs.readFileSync(file, "utf8"), "as it was");
  });
});
