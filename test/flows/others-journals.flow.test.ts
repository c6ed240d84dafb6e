import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test } from "node:test";
import { workOf } from "../../src/formats/records/unfinished.ts";
import { Unfinished } from "../../src/fs/unfinished.ts";
import type { ControlId } from "../../src/ids.ts";
import { cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";

/** What another user has written in a control directory of theirs is never done with root's rights. */

const OTHER = 4321;
const noRoot = process.geteuid?.() === 0 ? false : "needs root";

function giveAll(folder: string, uid: number): void {
  fs.lchownSync(folder, uid, uid);
  for (const name of fs.readdirSync(folder, { recursive: true, encoding: "utf8" }))
    fs.lchownSync(path.join(folder, name), uid, uid);
}

/** Self-contained: folder and control directory are given away together. */
function newWhole(name: string): { whole: string; folder: string } {
  const whole = path.join(newFolder(name), "whole");
  cairnOk(["init", whole, "--self-contained", "--engine", "copy"]);
  return { whole, folder: path.join(whole, "main") };
}

/** Root makes no files in another user's control directory, which that user could not use. */
function refusedSave(folder: string): void {
  const refused = cairn(["save", "-C", folder]);
  assert.equal(refused.status, 7);
  assert.match(refused.error!.message, /4321/);
}

describe("root in a workspace of another user", { skip: noRoot }, () => {
  test("root finishes its own killed restore, but not one that another user began", () => {
    const { whole, folder } = newWhole("others-restore");
    for (const name of ["a", "b", "c"]) fs.writeFileSync(path.join(folder, name), `${name}\n`);
    cairnOk(["save", "-C", folder]);
    const points = cairnOk(["history", "-C", folder]).data["save_points"] as { save_point_id: string }[];
    const first = points[0]!.save_point_id;
    for (const name of ["a", "b", "c"]) fs.rmSync(path.join(folder, name));
    const killed = ["restore", first, "-C", folder];
    assert.ok(cairn(killed, { failpoint: "restore.step:2" }).killed);
    const before = fs.readdirSync(folder);
    giveAll(whole, OTHER);
    refusedSave(folder);
    fs.chownSync(path.join(whole, ".cairn"), 0, 0);
    for (const command of ["save", "restore"]) {
      const refused = cairn([command, ...(command === "restore" ? [first] : []), "-C", folder]);
      assert.equal(refused.status, 9);
      assert.match(refused.error!.message, /restore of the user 4321 was interrupted/);
      assert.match(refused.error!.hint!, /sudo -u '#4321' cairn -C .*status/);
    }
    // Who looks goes on without it.
    cairnOk(["status", "-C", folder]);
    cairnOk(["history", "-C", folder]);
    assert.deepEqual(fs.readdirSync(folder), before);
    giveAll(whole, 0);
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(folder), ["a", "b", "c"]);
    fs.rmSync(path.join(folder, "a"));
    fs.chownSync(whole, OTHER, OTHER);
    assert.ok(cairn(killed, { failpoint: "restore.step:1" }).killed);
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(folder), ["a", "b", "c"], "what root began there");
  });

  test("root leaves unfinished folders that another user's records name", () => {
    const { whole, folder } = newWhole("others-partial");
    fs.writeFileSync(path.join(folder, "a"), "a\n");
    cairnOk(["save", "-C", folder]);
    const target = path.join(newFolder("others-target"), "made");
    assert.ok(cairn(["restore", "head", "--to", target, "-C", folder], { failpoint: "partial.made" }).killed);
    const left = (): string[] => fs.readdirSync(path.dirname(target));
    assert.equal(left().length, 1);
    giveAll(whole, OTHER);
    refusedSave(folder);
    assert.equal(left().length, 1);
    giveAll(whole, 0);
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(left(), []);
  });

  test("root removes no folder or control directory that another user's records name", () => {
    const { whole, folder } = newWhole("others-records");
    fs.writeFileSync(path.join(folder, "a"), "a\n");
    cairnOk(["save", "-C", folder]);
    const other = newFolder("of-root");
    const control = path.join(SCRATCH, "control-of-root");
    cairnOk(["init", other, "--control-dir", control]);
    const { id } = JSON.parse(fs.readFileSync(path.join(control, "cairn.json"), "utf8")) as { id: string };
    const target = path.join(path.dirname(whole), "t");
    const killed = cairn(["fork", "head", target, "--standalone", "-C", folder], { failpoint: "fork.noted" });
    assert.ok(killed.killed);
    const partials = path.join(whole, ".cairn/partial");
    const record = path.join(partials, fs.readdirSync(partials)[0]!);
    const said = new Unfinished(record, workOf("new-folder"));
    said.begin({ ...said.read()!, control: { path: control, id: id as ControlId } });
    giveAll(whole, OTHER);
    cairnOk(["status", "-C", folder]);
    refusedSave(folder);
    assert.ok(fs.existsSync(record));
    cairnOk(["history", "-C", other]);
    // Also of its own, and of a copy of it, only what they say was made.
    giveAll(whole, 0);
    cairnOk(["save", "-C", folder]);
    assert.ok(!fs.existsSync(record));
    cairnOk(["history", "-C", other]);
  });

  test("init by root follows another user's link on the way to a new control directory", () => {
    const place = newFolder("others-link");
    fs.mkdirSync(path.join(place, "theirs"));
    fs.symlinkSync("theirs", path.join(place, "link"));
    giveAll(place, OTHER);
    const env = { HOME: path.join(place, "link/home"), XDG_STATE_HOME: path.join(place, "link/state") };
    assert.equal(cairn(["save", newFolder("theirs-home")], { env }).status, 7, "their place");
    assert.deepEqual(fs.readdirSync(path.join(place, "theirs")), []);
    fs.chownSync(path.join(place, "theirs"), 0, 0);
    const folder = newFolder("begun");
    cairnOk(["init", folder, "--control-dir", path.join(place, "link/deep/control")]);
    cairnOk(["save", "-C", folder]);
    cairnOk(["restore", "head", "-C", folder]);
    assert.ok(fs.existsSync(path.join(place, "theirs/deep/control/cairn.json")));
    const other = newFolder("begun-too");
    fs.writeFileSync(path.join(other, "a"), "a\n");
    cairnOk(["save", other], { env });
    cairnOk(["fork", "head", path.join(newFolder("forked"), "to"), "--standalone", "-C", other], { env });
    const fork = path.join(newFolder("forked"), "to");
    cairnOk(["fork", "head", fork, "-C", other], { env });
    // To another disk, of which the link tells.
    fs.cpSync(path.join(place, "theirs"), path.join(place, "larger"), { recursive: true });
    fs.rmSync(path.join(place, "theirs"), { recursive: true });
    fs.rmSync(path.join(place, "link"));
    fs.symlinkSync("larger", path.join(place, "link"));
    for (const each of [other, fork]) cairnOk(["save", "-C", each], { env });
  });

  test("init by root works on a file system that gives all files to another user", (t) => {
    const [base, place] = [newFolder("given-base"), newFolder("given")];
    const given = ["--force-user=4321", "--force-group=4321", "--create-as-mounter", "--chown-ignore", base, place];
    if (spawnSync("bindfs", given).status !== 0) return t.skip("bindfs is not installed, or mounting is not allowed");
    t.after(() => void spawnSync("umount", ["--lazy", place]));
    const folder = newFolder("given-to-one");
    fs.writeFileSync(path.join(folder, "a"), "a\n");
    cairnOk(["init", folder, "--control-dir", path.join(place, "control")]);
    cairnOk(["save", "-C", folder]);
    cairnOk(["history", "-C", path.join(place, "control")]);
    fs.rmSync(path.join(folder, "a"));
    assert.ok(cairn(["restore", "head", "-C", folder], { failpoint: "restore.committed" }).killed);
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(folder), ["a"], "its own restore is finished");
  });

  test("history works in another user's control directory if the folder is gone", () => {
    const { whole, folder } = newWhole("others-gone");
    cairnOk(["save", "-C", folder]);
    giveAll(whole, OTHER);
    fs.rmSync(folder, { recursive: true });
    cairnOk(["history", "-C", path.join(whole, ".cairn")]);
  });

  test("root refuses another user's control directory that names a folder with another owner", () => {
    const control = path.join(SCRATCH, "planted");
    const folder = newFolder("of-root");
    cairnOk(["init", folder, "--control-dir", control]);
    fs.writeFileSync(path.join(folder, "a"), "a\n");
    giveAll(control, OTHER);
    for (const command of ["save", "history"]) {
      const refused = cairn([command, "-C", control]);
      assert.equal(refused.status, 7);
      assert.match(refused.error!.message, /the two have different owners/);
    }
    cairnOk(["history", "-C", folder, "--control-dir", control]);
    fs.lchownSync(folder, OTHER, OTHER);
    cairnOk(["history", "-C", control]);
  });
});
