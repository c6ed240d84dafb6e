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

test("a control directory on what is mounted inside is no part of a point, and no restore touches it", async (t) => {
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
  cairnOk(["restore", first.save_point_id, "-C", folder]);
  assert.equal(fs.readFileSync(path.join(other, "theirs"), "utf8"), "first\n");
  assert.equal((await (await clientOf(other)).history()).save_points.length, 2);
  assert.deepEqual((await (await clientOf(other)).verifyAll()).problems, []);
});

test("the folder's own control directory, seen through a mount inside it, is no part of a point either", (t) => {
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

test("what lies where something was mounted, and left out, stays when that is not mounted any more", (t) => {
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

test("a path that the save point left out is refused with the reason, and one that is in neither as such", (t) => {
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
  const mounted = "is not in the save point: something was mounted there when it was saved, and left out";
  for (const more of [[], ["--plan"]]) {
    assert.equal(refused("m", ...more), `"m" ${mounted}`);
    assert.equal(refused("m/file", ...more), `"m/file" ${mounted}`);
    assert.match(
      refused("later", ...more)!,
      /"later" is not in the save point: another file system is mounted there, and/,
    );
    const ruled = "is not in the save point: the rules that it was saved by leave it out";
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

test("a backup of a point that went into mounts comes back into them, also where the point is gone", async (t) => {
  const folder = newFolder("backed-up");
  const inside = path.join(folder, "m");
  if (!mount(t, inside, ...TMPFS)) return;
  write([path.join(folder, "own"), "first\n"], [path.join(inside, "f"), "first\n"], [path.join(inside, "d/g"), "g\n"]);
  const state = readFolder(folder);
  cairnOk(["save", folder, "--cross-mounts"]);
  const place = await newRepository();
  cairnOk(["backup", "create", "-C", folder, ...place.options]);
  cairnOk(["release", folder, "--delete-points"]);
  fs.rmSync(path.join(inside, "d"), { recursive: true });
  write([path.join(inside, "f"), "second\n"], [path.join(inside, "more"), "more\n"]);
  cairnOk(["save", folder, "--cross-mounts"]);
  const args = ["-C", folder, "backup", "restore", "latest", "--in-place", ...place.options];
  const planned = cairnOk([...args, "--dry-run"]).data["changes"] as object;
  const { changes, proof } = cairnOk(args).data as { changes: object; proof: object | null };
  assert.deepEqual(changes, planned);
  assert.deepEqual(changes, { created: 2, updated: 1, deleted: 1, metadata: 0 });
  assert.notEqual(proof, null);
  assertFolder(folder, state, "restored");
});

test("a restore that was interrupted touches nothing of what is mounted there now instead", (t) => {
  const folder = newFolder("other-mount");
  const source = newFolder("source");
  const inside = path.join(folder, "m");
  if (!mount(t, inside, "--bind", source)) return;
  write([path.join(folder, "own"), "first\n"], [path.join(inside, "f"), "first\n"], [path.join(inside, "d/g"), "g\n"]);
  const saved = cairnOk(["save", folder, "--cross-mounts"]).data["save_point"] as { save_point_id: string };
  write([path.join(folder, "own"), "second\n"], [path.join(inside, "f"), "second\n"]);
  fs.rmSync(path.join(inside, "d"), { recursive: true });
  assert.ok(cairn(["restore", "head", "-C", folder], { failpoint: "restore.committed" }).killed);
  unmount(inside);
  assert.ok(mount(t, inside, ...TMPFS, "-o", "mode=700"));
  write([path.join(inside, "f"), "another's\n"]);
  const there = readFolder(inside);
  const { recovered } = cairnOk(["status", "-C", folder]).data as { recovered: { kept: { path: string }[] }[] };
  assert.deepEqual(
    recovered.at(-1)!.kept.map(({ path: name }) => name),
    ["m/d/g", "m/f"],
  );
  assertFolder(inside, there, "the other one");
  assert.equal(fs.readFileSync(path.join(folder, "own"), "utf8"), "first\n");
  // What was staged on the first one is named there, and no part of a point.
  unmount(inside);
  assert.ok(mount(t, inside, "--bind", source));
  const { findings } = cairnOk(["doctor", "-C", folder]).data as { findings: { detail: string }[] };
  assert.ok(
    findings.some(({ detail }) => detail.includes(`${inside}/.cairn-restore-`)),
    JSON.stringify(findings),
  );
  cairnOk(["save", folder, "--cross-mounts"]);
  assert.deepEqual(
    entriesOf(folder).filter((name) => name.includes(".cairn-restore-")),
    [],
  );
  cairnOk(["restore", saved.save_point_id, "-C", folder]);
  assert.equal(fs.readFileSync(path.join(inside, "d/g"), "utf8"), "g\n");
});

test("what an interrupted restore left in a folder that was not mounted at its recovery is named", (t) => {
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
  assert.match(recovered.at(-1)!.detail, /what was mounted there is not/);
  assert.ok(mount(t, folder, "--bind", source));
  const { findings } = cairnOk(["doctor", "-C", folder]).data as { findings: { detail: string }[] };
  assert.ok(
    findings.some(({ detail }) => detail.includes(`${folder}/.cairn-restore-`)),
    JSON.stringify(findings),
  );
  assert.equal(fs.readFileSync(own, "utf8"), "second\n");
});

test("a restore that cannot clean up where something is read-only now says so, and goes on when it is not", (t) => {
  const folder = newFolder("read-only");
  const inside = path.join(folder, "m");
  if (!mount(t, inside, ...TMPFS)) return;
  write([path.join(inside, "f"), "first\n"]);
  cairnOk(["save", folder, "--cross-mounts"]);
  write([path.join(inside, "f"), "second\n"]);
  assert.ok(cairn(["restore", "head", "-C", folder], { failpoint: "restore.swapped" }).killed);
  execFileSync("mount", ["-o", "remount,ro", inside]);
  const refused = cairn(["save", folder]);
  assert.equal(refused.status, 9, refused.stdout);
  assert.match(refused.stdout, /m\/\.cairn-restore-/);
  cairnOk(["status", "-C", folder]);
  execFileSync("mount", ["-o", "remount,rw", inside]);
  cairnOk(["save", folder, "--cross-mounts"]);
  assert.deepEqual(fs.readdirSync(inside), ["f"]);
  assert.equal(fs.readFileSync(path.join(inside, "f"), "utf8"), "first\n");
});

test("names of one file on both sides of a mount come back as copies, which is said", (t) => {
  const folder = newFolder("linked");
  const inside = path.join(folder, "m");
  const source = newFolder("linked-source");
  write([path.join(source, "b"), "first\n"]);
  fs.linkSync(path.join(source, "b"), path.join(folder, "a"));
  if (!mount(t, inside, "--bind", source)) return;
  cairnOk(["save", folder, "--cross-mounts"]);
  for (const name of ["a", "m/b"]) fs.rmSync(path.join(folder, name));
  const { status, data } = cairn(["restore", "head", "-C", folder]);
  assert.deepEqual([status, leftOut(data)], [10, [["m/b", "not_permitted"]]]);
  for (const name of ["a", "m/b"]) assert.equal(fs.readFileSync(path.join(folder, name), "utf8"), "first\n");
});
