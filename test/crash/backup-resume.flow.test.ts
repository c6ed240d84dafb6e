import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { setAttribute } from "../../src/workspace/store/testing-edits.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { backup, newRepository, type TestRepository } from "../fixtures/repository.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { newFolder } from "../fixtures/work.ts";
import { oneOf } from "./rounds.ts";

const LARGE = 20 << 20;

interface Scene {
  place: TestRepository;
  folder: string;
  parent: string;
  args: (target: string) => string[];
}

async function scene(): Promise<Scene> {
  const folder = newFolder("resume");
  makeFirst(folder);
  fs.writeFileSync(path.join(folder, "large"), randomBytes(LARGE));
  fs.writeFileSync(path.join(folder, "middle"), randomBytes(3 << 20));
  for (const name of ["one", "two", "three"]) fs.writeFileSync(path.join(folder, name), randomBytes(100_000));
  const place = await newRepository("resumed");
  backup(place, "create", "-C", folder);
  const args = (target: string): string[] => ["backup", "restore", "latest", "--to", target, ...place.options];
  return { place, folder, parent: newFolder("targets"), args };
}

/** The one unfinished folder that a restore has left. */
function unfinished(parent: string): string {
  const left = fs.readdirSync(parent).filter((name) => name.includes(".cairn-partial"));
  assert.equal(left.length, 1, left.join());
  return path.join(parent, left[0]!);
}

/** Keeps the times, so that nothing tells but the content. */
function change(file: string, at: number): void {
  const { atime, mtime } = fs.statSync(file);
  const fd = fs.openSync(file, "r+");
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, at);
  fs.writeSync(fd, Buffer.from([byte[0]! ^ 1]), 0, 1, at);
  fs.closeSync(fd);
  fs.utimesSync(file, atime, mtime);
}

test("a restore keeps the correct files that a killed restore wrote, and writes the other files again", async () => {
  const { folder, parent, args } = await scene();
  const wanted = readFolder(folder);
  const target = path.join(parent, "target");
  assert.ok(cairn(args(target), { failpoint: "restore-backup.written" }).killed);
  const left = unfinished(parent);
  const inode = fs.statSync(path.join(left, "two")).ino;
  change(path.join(left, "one"), 50_000);
  change(path.join(left, "middle"), 2 << 20);
  change(path.join(left, "large"), LARGE >> 1);
  fs.truncateSync(path.join(left, "three"), 10);
  const { data } = cairnOk(args(target));
  const result = data as { bytes: number; kept_bytes: number; proof: object | null };
  assert.notEqual(result.proof, null);
  assert.equal(oneOf(target, { wanted }, "after the second call"), "wanted");
  assert.equal(fs.statSync(path.join(target, "two")).ino, inode);
  const missing = result.bytes - result.kept_bytes;
  assert.ok(missing > (3 << 20) + 200_000 && missing < 12 << 20, `${missing} bytes were written again`);
  assert.deepEqual(fs.readdirSync(parent), ["target"]);
});

test("a restore of other paths than a killed one starts from zero and removes what that left", async () => {
  const { parent, args } = await scene();
  const target = path.join(parent, "other");
  assert.ok(cairn(args(target), { failpoint: "restore-backup.written" }).killed);
  assert.equal((cairnOk([...args(target), "one"]).data as { kept_bytes: number }).kept_bytes, 0);
  assert.deepEqual([fs.readdirSync(target), fs.readdirSync(parent)], [["one"], ["other"]]);
});

test("a restore of a subfolder resumes a killed restore only if that restored the same subfolder", async () => {
  const { folder, place, parent, args } = await scene();
  for (const [name, file] of [
    ["inner", "one"],
    ["further", "two"],
  ] as const) {
    fs.mkdirSync(path.join(folder, name));
    fs.copyFileSync(path.join(folder, file), path.join(folder, name, "file"));
  }
  backup(place, "create", "-C", folder);
  const target = path.join(parent, "target");
  const of = (name: string): string[] => args(target).map((word) => (word === "latest" ? `latest:${name}` : word));
  const kept = (line: string[]): unknown => cairnOk(line).data["kept_bytes"];
  for (const [killed, next, bytes] of [
    [of("inner"), "inner", 100_000],
    [of("inner"), "further", 0],
    [args(target), "inner", 0],
  ] as const) {
    assert.ok(cairn(killed, { failpoint: "restore-backup.written" }).killed);
    assert.equal(kept(of(next)), bytes);
    assert.equal(oneOf(target, { wanted: readFolder(path.join(folder, next)) }, next), "wanted");
    assert.deepEqual(fs.readdirSync(parent), ["target"]);
    fs.rmSync(target, { recursive: true });
  }
  assert.ok(cairn(of("inner"), { failpoint: "restore-backup.written" }).killed);
  assert.equal(kept(args(target)), 0);
});

test("a restore does not resume in a link or in another user's folder at the path of its partial folder", async () => {
  const { folder, parent, args } = await scene();
  const wanted = readFolder(folder);
  const victim = newFolder("victim");
  fs.writeFileSync(path.join(victim, "one"), "the victim's");
  fs.chmodSync(victim, 0o755);
  const before = readFolder(victim);
  const puts: ((at: string) => void)[] = [(at) => fs.symlinkSync(victim, at)];
  if (process.getuid!() === 0)
    puts.push((at) => {
      fs.mkdirSync(at);
      fs.writeFileSync(path.join(at, "planted"), "somebody else's");
      fs.chownSync(at, 65_534, 65_534);
    });
  const stay: string[] = [];
  for (const [i, put] of puts.entries()) {
    const target = path.join(parent, `target-${i}`);
    assert.ok(cairn(args(target), { failpoint: "restore-backup.written" }).killed);
    const [name] = fs.readdirSync(parent).filter((each) => each.includes(".cairn-partial-") && !stay.includes(each));
    const left = path.join(parent, name!);
    stay.push(name!);
    const aside = path.join(parent, `aside-${i}`);
    fs.renameSync(left, aside);
    put(left);
    assert.equal((cairnOk(args(target)).data as { kept_bytes: number }).kept_bytes, 0);
    assert.deepEqual(readFolder(victim), before);
    assert.equal(oneOf(target, { wanted }, `put ${i}`), "wanted");
    fs.rmSync(aside, { recursive: true });
  }
  assert.deepEqual(
    fs.readdirSync(parent).toSorted(),
    [...puts.map((_, i) => `target-${i}`), ...stay].toSorted(),
    "what somebody has put there stays",
  );
});

test("a restore writes nothing through a link that replaces its partial folder while it runs", async () => {
  const { parent, args } = await scene();
  const victim = newFolder("victim");
  fs.chmodSync(victim, 0o755);
  const before = readFolder(victim);
  const hold = path.join(newFolder("hold"), "held");
  fs.writeFileSync(hold, "");
  const running = startCairn(args(path.join(parent, "target")), { failpoint: `partial.made@${hold}` });
  await running.paused;
  const left = unfinished(parent);
  fs.renameSync(left, `${left}-aside`);
  fs.symlinkSync(victim, left);
  fs.rmSync(hold);
  assert.notEqual((await running.ended).status, 0);
  assert.deepEqual(readFolder(victim), before);
});

test("a restore reuses or frees the disk space that a killed restore to the same target took", async (t) => {
  const { folder, parent, args } = await scene();
  if (spawnSync("mount", ["-t", "tmpfs", "-o", "size=32m", "none", parent]).status !== 0)
    return t.skip("no right to mount");
  t.after(() => execFileSync("umount", [parent]));
  const wanted = readFolder(folder);
  const target = path.join(parent, "target");
  assert.ok(cairn(args(target), { failpoint: "restore-backup.written" }).killed);
  const { kept_bytes: kept } = cairnOk(args(target)).data as { kept_bytes: number };
  assert.ok(kept > LARGE, `${kept} bytes were kept`);
  assert.equal(oneOf(target, { wanted }, "after the second call"), "wanted");
  fs.rmSync(target, { recursive: true });
  assert.ok(cairn(args(target), { failpoint: "restore-backup.written" }).killed);
  cairnOk([...args(target), "large"]);
  assert.deepEqual(fs.readdirSync(target), ["large"]);
  const { status, error } = cairn(args(path.join(parent, "another")));
  assert.deepEqual([status, error!.code], [8, "no_space"]);
  assert.doesNotMatch(error!.hint!, /--allow/);
});

test("a resumed restore gives a file no access list that only the parent folder has", async (t) => {
  const { folder, place, parent, args } = await scene();
  const inside = path.join(folder, "listed");
  fs.mkdirSync(inside);
  const file = path.join(inside, "file");
  fs.writeFileSync(file, "of its own", { mode: 0o640 });
  // With an attribute it is written again.
  if (!setAttribute(file, "user.note", "kept")) return t.skip("no attributes here");
  if (spawnSync("setfacl", ["-d", "-m", "u:65534:rwx", inside]).status !== 0) return t.skip("no access lists here");
  backup(place, "create", "-C", folder);
  const wanted = readFolder(folder);
  const target = path.join(parent, "target");
  assert.ok(cairn(args(target), { failpoint: "restore-backup.proven" }).killed);
  cairnOk(args(target));
  assert.equal(oneOf(target, { wanted }, "after the second call"), "wanted");
});

for (const [what, more] of [
  ["that is not proven", ["--prove", "no"]],
  ["of chosen paths", ["one", "two", "same", "middle"]],
] as const)
  test(`a restore ${what} leaves a complete folder if the power fails after the command has ended`, async (t) => {
    const disk = loopFileSystem(t, "ext4");
    if (disk === null) return;
    const { args } = await scene();
    const target = path.join(disk.root, "target");
    cairnOk([...args(target), ...more], { own: true });
    const wanted = readFolder(target);
    disk.cutPower();
    assert.equal(oneOf(target, { wanted }, "after the power cut"), "wanted");
  });
