import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { buildCommand, cairn, cairnOk, SCRATCH } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { newFolder } from "../fixtures/work.ts";

/** One folder under two names: it has one history and one lock, and the second name is refused with the first one. */

/** Mounts, and unmounts after the test. Returns false, and skips the test, if nothing can be mounted here. */
function mounted(t: TestContext, program: string, ...args: string[]): boolean {
  fs.mkdirSync(args.at(-1)!, { recursive: true });
  try {
    execFileSync(program, args, { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    t.skip(`${program} cannot be used here: ${String((error as Error).message).trim()}`);
    return false;
  }
  t.after(() => execFileSync("umount", [args.at(-1)!]));
  return true;
}

/** A folder `w` with a part, saved once. */
function saved(root: string): string {
  const folder = path.join(root, "w");
  fs.mkdirSync(path.join(folder, "part"), { recursive: true });
  fs.writeFileSync(path.join(folder, "a"), "a\n");
  fs.writeFileSync(path.join(folder, "part/b"), "b\n");
  cairnOk(["save", folder]);
  return folder;
}

/** Each call by the second name is refused with the first one, and changes nothing. */
function assertOneWorkspace(first: string, second: string): void {
  const before = workspaces();
  for (const args of [
    ["save", second],
    ["init", second],
    ["status", second],
    ["-C", second, "history"],
    ["save", "-C", path.join(second, "part")],
    ["save", path.join(second, "part")],
  ]) {
    const { status, said } = refusal(args);
    assert.equal(status, 7, `${args.join(" ")}: ${said}`);
    assert.ok(said.includes(`${second} is the folder of the workspace ${first}, mounted at a second place`), said);
    assert.ok(said.includes(`cairn -C ${first} `), said);
  }
  assert.deepEqual(workspaces(), before);
  assert.equal(cairn(["save", first]).status, 0);
}

function refusal(args: readonly string[]): { status: number | null; said: string } {
  const { status, error } = cairn(args);
  return { status, said: `${error?.message}; ${error?.hint}` };
}

function workspaces(): string[] {
  return (cairnOk(["workspaces"]).data["workspaces"] as { path: string }[]).map((each) => each.path).toSorted();
}

test("a bind mount of a workspace is refused with the workspace's name", (t) => {
  const root = newFolder("bind");
  const folder = saved(root);
  if (!mounted(t, "mount", "--bind", folder, path.join(root, "again"))) return;
  assertOneWorkspace(folder, path.join(root, "again"));
});

test("a part of a workspace, or a folder around it, at a second place is refused", (t) => {
  const root = newFolder("nested");
  const inner = saved(path.join(root, "around"));
  if (!mounted(t, "mount", "--bind", path.join(inner, "part"), path.join(root, "part"))) return;
  if (!mounted(t, "mount", "--bind", path.join(root, "around"), path.join(root, "again"))) return;
  for (const [name, why] of [
    ["part", "it is a part of the workspace"],
    ["again", "lies in it"],
  ] as const) {
    const { status, said } = refusal(["save", path.join(root, name)]);
    assert.deepEqual([status, said.includes(why), said.includes(inner)], [7, true, true], said);
  }
  assertOneWorkspace(inner, path.join(root, "again/w"));
});

test("on btrfs a subvolume at a second place is refused, and a snapshot of it is another workspace", (t) => {
  const disk = loopFileSystem(t, "btrfs");
  if (disk === null) return;
  const folder = path.join(disk.root, "w");
  execFileSync("btrfs", ["subvolume", "create", folder], { stdio: "ignore" });
  saved(disk.root);
  const again = path.join(newFolder("subvolume"), "again");
  if (
    !mounted(
      t,
      "mount",
      "-o",
      "subvol=/w",
      "-t",
      "btrfs",
      execFileSync("findmnt", ["-no", "SOURCE", disk.root]).toString().trim(),
      again,
    )
  )
    return;
  assertOneWorkspace(folder, again);
  const copy = path.join(disk.root, "snapshot");
  execFileSync("btrfs", ["subvolume", "snapshot", folder, copy], { stdio: "ignore" });
  assert.equal(fs.statSync(copy).ino, fs.statSync(folder).ino, "the root of each subvolume has the same inode");
  cairnOk(["save", copy]);
});

test("in a mount namespace in which the first name is not visible the second one is refused with the first one", (t) => {
  const root = newFolder("namespace");
  const folder = saved(path.join(root, "host"));
  const [hidden, again] = [path.join(root, "host"), path.join(root, "again")];
  fs.mkdirSync(again);
  const before = workspaces();
  const script = `mount --bind "${folder}" "${again}" && mount -t tmpfs none "${hidden}" && exec "$@"`;
  const inside = (...args: string[]): { status: number | null; said: string } => {
    const command = ["-m", "sh", "-c", script, "sh", process.execPath, buildCommand(), ...args];
    const { status, stderr } = spawnSync("unshare", command, { cwd: SCRATCH, encoding: "utf8" });
    return { status, said: stderr };
  };
  const { status, said } = inside("save", again);
  if (/unshare|mount:/.test(said)) return t.skip(`no mount namespaces: ${said}`);
  assert.equal(status, 7, said);
  assert.ok(said.includes(folder) && said.includes("is not visible here"), said);
  assert.deepEqual(workspaces(), before);
  // A folder that was renamed is followed, as before.
  fs.renameSync(folder, path.join(root, "renamed"));
  cairnOk(["save", path.join(root, "renamed")]);
});

test("the same folder through FUSE has another device, and is another workspace", (t) => {
  const root = newFolder("fuse");
  const folder = saved(root);
  const again = path.join(root, "again");
  if (!mounted(t, "bindfs", folder, again)) return;
  assert.notEqual(fs.statSync(again).dev, fs.statSync(folder).dev);
  cairnOk(["save", again]);
  assert.ok([folder, again].every((each) => workspaces().includes(each)));
});
