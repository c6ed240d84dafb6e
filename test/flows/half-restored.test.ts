import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { cairn, cairnOk, type Outcome, SCRATCH } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** What meets a restore on its way, or comes between it and its recovery, never keeps the workspace from being used. */

function leftOut(done: Outcome): [string, string][] {
  return (done.data["left_out"] as { path: string; reason: string }[]).map(({ path: where, reason }) => [
    where,
    reason,
  ]);
}

/** False where that is not allowed. */
function mount(t: TestContext, ...args: string[]): boolean {
  if (spawnSync("mount", args, { stdio: "ignore" }).status !== 0) return false;
  t.after(() => spawnSync("umount", ["--lazy", args.at(-1)!], { stdio: "ignore" }));
  return true;
}

describe("a restore that was killed is finished", () => {
  test("when what it had made was removed since", async () => {
    const folder = newFolder();
    for (const name of ["a", "b", "c"]) fs.writeFileSync(path.join(folder, name), `${name}\n`);
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    for (const name of ["a", "b", "c"]) fs.rmSync(path.join(folder, name));
    assert.ok(cairn(["restore", first, "-C", folder], { failpoint: "restore.step:2" }).killed);
    fs.rmSync(path.join(folder, "a"));
    cairnOk(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(folder), ["b", "c"], "what was removed since stays away, the rest is finished");
  });

  test("without touching what was written to since", async () => {
    const folder = newFolder();
    for (const name of ["a", "b"]) fs.writeFileSync(path.join(folder, name), "before\n", { mode: 0o600 });
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    for (const name of ["a", "b"]) fs.chmodSync(path.join(folder, name), 0o644);
    await client.save();
    assert.ok(cairn(["restore", first, "-C", folder], { failpoint: "restore.step:1" }).killed);
    fs.writeFileSync(path.join(folder, "a"), "edited\n");
    const { mtimeNs } = fs.statSync(path.join(folder, "a"), { bigint: true });
    cairnOk(["save", "-C", folder]);
    assert.equal(fs.statSync(path.join(folder, "a"), { bigint: true }).mtimeNs, mtimeNs);
    assert.equal(fs.statSync(path.join(folder, "b")).mode & 0o777, 0o600);
  });

  test("when folder and control directory were moved together since", async () => {
    const whole = path.join(SCRATCH, "self-contained");
    cairnOk(["init", whole, "--self-contained"]);
    const folder = path.join(whole, "main");
    for (const name of ["a", "b", "c"]) fs.writeFileSync(path.join(folder, name), "first\n");
    cairnOk(["save", "-C", folder]);
    const first = readFolder(folder);
    for (const name of ["a", "b", "c"]) fs.writeFileSync(path.join(folder, name), "second\n");
    cairnOk(["save", "-C", folder]);
    assert.ok(cairn(["restore", "head~1", "-C", folder], { failpoint: "restore.step:2" }).killed);
    fs.renameSync(whole, `${whole}-moved`);
    cairnOk(["save", "--skip-unchanged", "-C", path.join(`${whole}-moved`, "main")]);
    assertFolder(path.join(`${whole}-moved`, "main"), first, "finished where it is now");
    assert.deepEqual(fs.readdirSync(path.join(`${whole}-moved`, ".cairn/tmp")), []);
  });
});

describe("a restore leaves what is mounted alone and lists it", () => {
  test("where a file is mounted on a file that differs", async (t) => {
    const folder = newFolder();
    const at = path.join(folder, "env");
    fs.writeFileSync(at, "first\n");
    fs.writeFileSync(path.join(folder, "other"), "first\n");
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    const outside = path.join(SCRATCH, "outside");
    fs.writeFileSync(outside, "mounted\n");
    fs.writeFileSync(path.join(folder, "other"), "second\n");
    if (!mount(t, "--bind", outside, at)) return t.skip("mounting is not allowed");
    const done = cairn(["restore", first, "-C", folder]);
    assert.equal(done.status, 10, done.stdout + done.stderr);
    assert.deepEqual(leftOut(done), [["env", "mounted"]]);
    assert.equal(fs.readFileSync(outside, "utf8"), "mounted\n");
    assert.equal(fs.readFileSync(path.join(folder, "other"), "utf8"), "first\n");
    cairnOk(["save", "-C", folder]);
  });

  test("where a folder is mounted in which the target has entries", async (t) => {
    const folder = newFolder();
    const at = path.join(folder, "sub");
    fs.mkdirSync(path.join(at, "deep"), { recursive: true });
    fs.writeFileSync(path.join(at, "deep/file"), "first\n");
    fs.writeFileSync(path.join(folder, "other"), "first\n");
    const client = await clientOf(folder);
    const { save_point_id: first } = await client.save();
    fs.rmSync(path.join(at, "deep"), { recursive: true });
    fs.writeFileSync(path.join(folder, "other"), "second\n");
    if (!mount(t, "-t", "tmpfs", "none", at)) return t.skip("mounting is not allowed");
    fs.writeFileSync(path.join(at, "inside"), "of another file system\n");
    const done = cairn(["restore", first, "-C", folder]);
    assert.equal(done.status, 10, done.stdout + done.stderr);
    assert.deepEqual(fs.readdirSync(at), ["inside"]);
    assert.ok(
      leftOut(done).some(([where, reason]) => where === "sub" && reason === "mounted"),
      done.stdout,
    );
    assert.equal(fs.readFileSync(path.join(folder, "other"), "utf8"), "first\n");
    cairn(["save", "-C", folder]);
    assert.deepEqual(fs.readdirSync(at), ["inside"]);
  });
});
