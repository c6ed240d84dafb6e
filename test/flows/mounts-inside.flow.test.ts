import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { newRepository } from "../fixtures/repository.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/** Mounts inside a folder that `save --cross-mounts` goes into, that come and go, and that hold what is nobody's to save. */

/** False where nothing can be mounted, and the test is skipped. */
function mount(t: TestContext, place: string, ...how: string[]): boolean {
  fs.mkdirSync(place, { recursive: true });
  try {
    execFileSync("mount", [...how, place], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    t.skip(`nothing can be mounted: ${String((error as { stderr: unknown }).stderr).trim()}`);
    return false;
  }
  t.after(() => unmount(place));
  return true;
}

function unmount(place: string): void {
  try {
    execFileSync("umount", [place], { stdio: "ignore" });
  } catch {
    // It is not mounted any more.
  }
}

const TMPFS = ["-t", "tmpfs", "none"];

function write(...files: [name: string, text: string][]): void {
  for (const [name, text] of files) {
    fs.mkdirSync(path.dirname(name), { recursive: true });
    fs.writeFileSync(name, text);
  }
}

/** What the latest point holds. */
function entriesOf(folder: string): string[] {
  const to = path.join(newFolder("shown"), "to");
  cairnOk(["restore", "latest", "-C", folder, "--to", to]);
  return [...readFolder(to).keys()];
}

function leftOut(data: Record<string, unknown>): [string, string][] {
  return (data["left_out"] as { path: string; reason: string }[]).map((each) => [each.path, each.reason]);
}

function pathsLeftOut(data: Record<string, unknown>): string[] {
  return leftOut(data)
    .map(([name]) => name)
    .toSorted();
}

test("save --cross-mounts and restore skip another workspace's control directory on a mount inside", async (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const other = path.join(volume.root, "other");
  write([path.join(other, "theirs"), "first\n"]);
  cairnOk(["save", other]);
  const folder = newFolder("around");
  const inside = path.join(folder, "m");
  write([path.join(folder, "own"), "own\n"]);
  if (!mount(t, inside, "--bind", volume.root)) return;
  const first = cairnOk(["save", folder, "--cross-mounts"]).data["save_point"] as { save_point_id: string };
  const names = [...readFolder(inside).keys()].filter((name) => name.startsWith(".cairn-control/"));
  assert.ok(names.length > 3, "there is one");
  assert.deepEqual(
    entriesOf(folder).filter((name) => /\.cairn-control\/./.test(name)),
    [],
  );
  write([path.join(other, "theirs"), "second\n"]);
  cairnOk(["save", other]);
  cairn(["restore", first.save_point_id, "-C", folder]);
  assert.equal((await (await clientOf(other)).history(undefined, 0, { all: true })).save_points.length, 2);
  assert.deepEqual((await (await clientOf(other)).verifyAll()).problems, []);
});

test("save --cross-mounts skips the folder's own control directory if a mount inside shows it", (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const folder = path.join(volume.root, "deep/ws");
  write([path.join(folder, "own"), "first\n"]);
  cairnOk(["save", folder]);
  for (const from of [volume.root, path.join(volume.root, ".cairn-control")]) {
    const inside = path.join(folder, "m");
    if (!mount(t, inside, "--bind", from)) return;
    for (const text of ["a", "b", "c"]) {
      write([path.join(folder, "own"), text]);
      // The folder itself is in there too, where its own file system is.
      cairn(["save", folder, "--cross-mounts", "--exclude", "/m/deep"]);
    }
    assert.deepEqual(
      entriesOf(folder).filter((name) => name.includes("store-password") || /^m\/[0-9a-f]{32}/.test(name)),
      [],
    );
    cairn(["restore", "head~2", "-C", folder]);
    assert.equal(fs.readFileSync(path.join(folder, "own"), "utf8"), "a");
    assert.deepEqual(cairnOk(["verify", "--all", "-C", folder]).data["problems"], []);
    unmount(inside);
  }
});

test("restore keeps files under a former mount point that the point left out", (t) => {
  const folder = newFolder("left-out");
  const inside = path.join(folder, "m");
  write([path.join(folder, "own"), "first\n"], [path.join(inside, "under"), "below the mount\n"]);
  if (!mount(t, inside, ...TMPFS)) return;
  cairnOk(["save", folder]);
  unmount(inside);
  write([path.join(folder, "own"), "second\n"]);
  const plan = cairnOk(["restore", "head", "--plan", "-C", folder]).data["plan"] as { entries: { action: string }[] };
  assert.deepEqual(
    plan.entries.map(({ action }) => action),
    ["keep", "keep", "update"],
  );
  const { status, data } = cairn(["restore", "head", "-C", folder]);
  assert.deepEqual(
    [status, leftOut(data)],
    [
      10,
      [
        ["m", "mounted"],
        ["m/under", "mounted"],
      ],
    ],
  );
  assert.equal(fs.readFileSync(path.join(inside, "under"), "utf8"), "below the mount\n");
  assert.equal(fs.readFileSync(path.join(folder, "own"), "utf8"), "first\n");
});

test("restore of one path says if the point left the path out, and why", (t) => {
  const folder = newFolder("left-out");
  const inside = path.join(folder, "m");
  write([path.join(folder, "own"), "own\n"], [path.join(folder, "skipped/file"), "not kept\n"]);
  if (!mount(t, inside, ...TMPFS)) return;
  write([path.join(inside, "file"), "on it\n"]);
  cairnOk(["save", folder, "--exclude", "/skipped"]);
  const later = path.join(folder, "later");
  if (!mount(t, later, ...TMPFS)) return;
  const refused = (where: string, ...more: string[]): string | undefined => {
    const { status, error } = cairn(["restore", "latest", where, "-C", folder, ...more]);
    return status === 3 ? error?.message : undefined;
  };
  const mounted = "is not in the save point: a file system was mounted there at the save, and was left out";
  for (const more of [[], ["--plan"]]) {
    assert.equal(refused("m", ...more), `"m" ${mounted}`);
    assert.equal(refused("m/file", ...more), `"m/file" ${mounted}`);
    assert.match(
      refused("later", ...more)!,
      /"later" is not in the save point: another file system is mounted there, and/,
    );
    const ruled = "is not in the save point: the ignore rules of the save left it out";
    assert.equal(refused("skipped", ...more), `"skipped" ${ruled}`);
    assert.equal(refused("skipped/file", ...more), `"skipped/file" ${ruled}`);
    assert.equal(refused("nowhere", ...more), '"nowhere" is neither in the save point nor in the folder');
    assert.equal(
      refused("skipped/nowhere", ...more),
      '"skipped/nowhere" is neither in the save point nor in the folder',
    );
  }
  // Where it is gone, the point still says that there was something.
  unmount(inside);
  fs.rmdirSync(inside);
  assert.equal(refused("m"), `"m" ${mounted}`);
  assert.equal(fs.readFileSync(path.join(folder, "skipped/file"), "utf8"), "not kept\n");
});

test("backup restore --in-place leaves mounts inside unchanged, and backup restore --to restores everything", async (t) => {
  const folder = newFolder("backed-up");
  const inside = path.join(folder, "m");
  if (!mount(t, inside, ...TMPFS)) return;
  write([path.join(folder, "own"), "first\n"], [path.join(inside, "f"), "first\n"], [path.join(inside, "d/g"), "g\n"]);
  const state = readFolder(folder);
  cairnOk(["save", folder, "--cross-mounts"]);
  const place = await newRepository();
  cairnOk(["backup", "create", "-C", folder, "head", ...place.options]);
  cairnOk(["release", folder, "--delete-points"]);
  fs.rmSync(path.join(inside, "d"), { recursive: true });
  write([path.join(folder, "own"), "second\n"]);
  write([path.join(inside, "f"), "second\n"], [path.join(inside, "more"), "more\n"]);
  cairnOk(["save", folder, "--cross-mounts"]);
  const args = ["-C", folder, "backup", "restore", "latest", "--in-place", ...place.options];
  const planned = cairn([...args, "--plan"]).data["changes"] as object;
  const { status, data } = cairn(args);
  const { changes, proof } = data as { changes: object; proof: object | null };
  assert.deepEqual(changes, planned);
  assert.deepEqual(changes, { created: 0, updated: 1, deleted: 0, metadata: 0 });
  assert.deepEqual([status, proof], [10, null]);
  assert.deepEqual(pathsLeftOut(data), ["m", "m/d", "m/d/g", "m/f", "m/more"]);
  assert.equal(fs.readFileSync(path.join(folder, "own"), "utf8"), "first\n");
  assert.equal(fs.readFileSync(path.join(inside, "f"), "utf8"), "second\n");
  const to = path.join(newFolder("elsewhere"), "to");
  cairnOk(["backup", "restore", "latest", "--to", to, ...place.options]);
  assertFolder(to, state, "elsewhere");
});

test("doctor names the staging folder of a killed restore whose folder was unmounted during the recovery", (t) => {
  const folder = newFolder("mounted");
  const source = newFolder("volume");
  const own = path.join(folder, "own");
  if (!mount(t, folder, "--bind", source)) return;
  write([own, "first\n"]);
  cairnOk(["save", folder]);
  write([own, "second\n"]);
  assert.ok(cairn(["restore", "head", "-C", folder], { failpoint: "restore.committed" }).killed);
  unmount(folder);
  const { recovered } = cairnOk(["status", "-C", folder]).data as { recovered: { detail: string }[] };
  assert.match(recovered.at(-1)!.detail, /was removed or unmounted before the restore/);
  assert.ok(mount(t, folder, "--bind", source));
  const { findings } = cairnOk(["doctor", "-C", folder]).data as { findings: { detail: string }[] };
  assert.ok(
    findings.some(({ detail }) => detail.includes(`${folder}/.cairn-restore-`)),
    JSON.stringify(findings),
  );
  assert.equal(fs.readFileSync(own, "utf8"), "second\n");
});

function subvolume(t: TestContext, folder: string): boolean {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null || !mount(t, folder, "--bind", volume.root)) return false;
  execFileSync("btrfs", ["-q", "subvolume", "create", path.join(folder, "m")]);
  return true;
}

const PLACES = {
  "on a file system mounted inside": (t: TestContext, folder: string) => mount(t, path.join(folder, "m"), ...TMPFS),
  "in a subvolume inside": subvolume,
};

for (const [where, make] of Object.entries(PLACES))
  test(`restore leaves and lists entries ${where}, and restore --to gives them back`, (t) => {
    const folder = newFolder("left");
    const inside = path.join(folder, "m");
    if (!make(t, folder)) return;
    const saveAll = (): string => {
      const { save_point: point } = cairnOk(["save", folder, "--cross-mounts"]).data;
      return (point as { save_point_id: string }).save_point_id;
    };
    write(
      [path.join(folder, "own"), "first\n"],
      [path.join(inside, "f"), "first\n"],
      [path.join(inside, "d/g"), "g\n"],
    );
    fs.linkSync(path.join(inside, "f"), path.join(inside, "name"));
    const id = saveAll();
    const first = readFolder(folder);
    write([path.join(folder, "own"), "second\n"], [path.join(inside, "f"), "second\n"], [path.join(inside, "new"), ""]);
    fs.rmSync(path.join(inside, "d"), { recursive: true });
    saveAll();
    const there = readFolder(inside);
    const before = readFolder(folder);
    const { status, data } = cairn(["restore", id, "-C", folder]);
    assert.equal(status, 10);
    assert.deepEqual(pathsLeftOut(data), ["m", "m/d", "m/d/g", "m/f", "m/name", "m/new"]);
    assertFolder(inside, there, "left");
    assert.equal(fs.readFileSync(path.join(folder, "own"), "utf8"), "first\n");
    cairnOk(["undo", "-C", folder]);
    assertFolder(folder, before, "undone");
    const to = path.join(newFolder("elsewhere"), "to");
    cairnOk(["restore", id, "-C", folder, "--to", to]);
    assertFolder(to, first, "elsewhere");
  });
