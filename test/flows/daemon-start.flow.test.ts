import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { HistoryResult } from "../../src/contract/looking.ts";
import { cairn } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { type LoopFileSystem, loopFileSystem } from "../fixtures/loop-file-system.ts";
import { newFolder } from "../fixtures/work.ts";

/**
 * The first start of a daemon: what it says by its configuration, its state and what lies on the disk. A refused start
 * and `daemon --check` change nothing: no byte of the state directory, no mount, no loop device, no space of the disk.
 */

const ALLOW = { options: { allow: ["holders"] } };
const LOOP = '[backend]\ntype = "btrfs-loop"\n[loop]\nsize = "300MiB"\n';

interface Here {
  daemon: TestDaemon;
  /** A btrfs, and another one. */
  volume: LoopFileSystem;
  other: LoopFileSystem;
  image: string;
  mount: string;
  file: string;
  previous: string;
}

/** Null if no image can be mounted here: the test is skipped. */
function here(t: TestContext): Here | null {
  const volume = loopFileSystem(t, "btrfs");
  const other = volume === null ? null : loopFileSystem(t, "btrfs");
  if (volume === null || other === null) return null;
  const daemon = new TestDaemon(t);
  const mount = path.join(daemon.state, "btrfs");
  t.after(async () => {
    await daemon.kill();
    spawnSync("umount", ["-l", mount]);
  });
  const file = path.join(daemon.state, "state.json");
  const previous = path.join(daemon.state, "state.previous.json");
  return { daemon, volume, other, image: path.join(daemon.state, "btrfs.img"), mount, file, previous };
}

/** Everything that a start could change: files with content and times, mounts, loop devices, and used blocks of both file systems. */
function looked({ daemon, volume, other }: Here): Record<string, unknown> {
  const files: [string, string][] = [];
  const look = (folder: string): void => {
    for (const name of fs.existsSync(folder) ? fs.readdirSync(folder).sort() : []) {
      const at = path.join(folder, name);
      const found = fs.lstatSync(at, { bigint: true });
      const content = found.isFile() && found.size < 1n << 20n ? fs.readFileSync(at, "latin1") : "";
      files.push([at, `${found.ino} ${found.size} ${found.blocks} ${found.mtimeNs} ${content}`]);
      if (found.isDirectory() && name !== "btrfs") look(at);
    }
  };
  // Blocks are allocated when data is written back.
  spawnSync("sync", ["-f", daemon.folder]);
  look(daemon.folder);
  const places = [daemon.folder, volume.root, other.root];
  const mounts = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const isOurs = (text: string): boolean => places.some((each) => text.includes(each));
  return { files, devices: devicesBelow(places), mounts: mounts.filter(isOurs) };
}

/** A start and `daemon --check` refuse with one error, and leave everything as it was. */
async function assertRefused(place: Here, row: string, said: readonly string[]): Promise<void> {
  const { daemon } = place;
  const before = looked(place);
  const checked = cairn(["daemon", "--check", ...daemon.more], { own: true, env: daemon.places });
  assert.deepEqual(looked(place), before, `${row}: --check changes nothing`);
  const { status, error } = await daemon.refused();
  // Not even the lock is taken.
  assert.deepEqual(looked(place), before, `${row}: the start changes nothing`);
  assert.equal(checked.status, status, `${row}: ${checked.stdout}`);
  assert.equal(withoutFreeSpace(checked.error!.message), withoutFreeSpace(error.message), row);
  for (const each of said) assert.ok(error.message.includes(each), `${row}: ${each} in ${error.message}`);
}

/** Other tests write to the same disk between the two calls. */
function withoutFreeSpace(message: string): string {
  return message.replace(/the free space \([\d.]+ [KMGT]iB\)/, "the free space");
}

async function assertStarts(place: Here, row: string, word: string, type: string): Promise<void> {
  const { daemon } = place;
  const before = looked(place);
  const checked = cairn(["daemon", "--check", ...daemon.more], { own: true, env: daemon.places });
  assert.equal(checked.status, 0, `${row}: ${checked.stdout}`);
  assert.deepEqual(looked(place), before, `${row}: --check changes nothing`);
  await daemon.start();
  assert.match(daemon.log, new RegExp(`${word}: backend ${type}: `), `${row}: ${daemon.log}`);
  assert.equal((await daemon.status()).backend.type, type, row);
}

/** The end of a row that served: nothing is mounted, and no loop device is left, which the kernel ends after the unmount. */
async function stopped(place: Here): Promise<void> {
  await place.daemon.stop();
  spawnSync("umount", [place.mount]);
  await eventually("the image's device ends", () => devicesBelow([place.daemon.folder]).length === 0);
}

/** Files below these folders that are behind loop devices. */
function devicesBelow(folders: readonly string[]): string[] {
  const names = fs.readdirSync("/sys/block").filter((name) => name.startsWith("loop"));
  const files = names.flatMap((name) => {
    try {
      return [fs.readFileSync(`/sys/block/${name}/loop/backing_file`, "utf8").trim()];
    } catch {
      return [];
    }
  });
  return files.filter((each) => folders.some((folder) => each.includes(folder))).sort();
}

function changeState({ file }: Here, change: (state: Record<string, Record<string, unknown>>) => void): void {
  const state = JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, Record<string, unknown>>;
  change(state);
  fs.writeFileSync(file, JSON.stringify(state));
}

test("a first start that cannot be served is refused, and makes not even the state directory", async (t) => {
  const place = here(t);
  if (place === null) return;
  const { daemon, volume, other } = place;
  const plainFile = path.join(daemon.folder, "file");
  fs.writeFileSync(plainFile, "");
  const base = (root: string): string =>
    `[backend]\ntype = "btrfs-base"\n${root === "" ? "" : `data_root = "${root}"\n`}`;
  const rows: [string, config: string, said: string[]][] = [
    ["btrfs-base without data_root", base(""), ["backend.data_root is not set"]],
    ["data_root is /proc", base("/proc"), ["/proc lies on proc"]],
    ["data_root is /proc, and no type", '[backend]\ndata_root = "/proc"\n', ["/proc lies on proc"]],
    ["data_root is missing", base(`${volume.root}/gone`), ["does not exist"]],
    ["data_root is missing, and no type", `[backend]\ndata_root = "${volume.root}/gone"\n`, ["is not a folder"]],
    ["data_root is a file", base(plainFile), ["is not a folder"]],
    ["data_root is elsewhere", base(daemon.folder), ["lies on "]],
    ["a loop of 10 KiB", '[backend]\ntype = "btrfs-loop"\n[loop]\nsize = "10KiB"\n', ["8 KiB", "too small"]],
    [
      "[migrate] state is missing",
      `[migrate]\nstate = "${daemon.folder}/no"\n`,
      [`${daemon.folder}/no does not exist`],
    ],
    ["[migrate] data_root is missing", `[migrate]\ndata_root = "${daemon.folder}/no"\n`, [`${daemon.folder}/no`]],
    ["no such group", '[socket]\ngroup = "no-such-group"\n', ["no-such-group"]],
    ["no such group for a loop", `${LOOP}[socket]\ngroup = "no-such-group"\n`, ["no-such-group"]],
  ];
  for (const [row, config, said] of rows) {
    daemon.configure(config);
    await assertRefused(place, row, said);
    assert.equal(fs.existsSync(daemon.state), false, row);
  }
  // Without the programs.
  daemon.configure(LOOP);
  const { error } = await daemon.refused({ PATH: "/nonexistent" });
  if (!fs.existsSync("/usr/sbin/mkfs.btrfs") && !fs.existsSync("/sbin/mkfs.btrfs"))
    assert.match(error.message, /not installed/);
  else assert.match(error.message, /fallocate.* not installed/);
  assert.equal(fs.existsSync(daemon.state), false);
  // The same in a state directory that exists, as systemd makes it.
  fs.mkdirSync(daemon.state);
  daemon.configure(base(""));
  await assertRefused(place, "an empty state directory", ["backend.data_root is not set"]);
  assert.deepEqual(fs.readdirSync(daemon.state), []);
  // Right after it the start is a first one.
  daemon.configure(base(other.root));
  await assertStarts(place, "btrfs-base", "first start", "btrfs-base");
  await daemon.stop();
});

test("a start refuses a socket or a state directory that cannot be made, before anything is made", async (t) => {
  const place = here(t);
  if (place === null) return;
  const { daemon } = place;
  daemon.configure(LOOP);
  const long = path.join(daemon.folder, "x".repeat(120));
  const file = path.join(daemon.folder, "file");
  fs.writeFileSync(file, "");
  const { state, socket } = daemon;
  for (const places of [
    { socket: long },
    { socket: file },
    { socket: path.join(file, "s.sock") },
    { socket: "/proc/nowhere/s.sock" },
    { state: file },
    { state: path.join(file, "state") },
    { state: "/proc/nowhere" },
  ]) {
    Object.assign(daemon, { state, socket, ...places });
    await assertRefused(place, JSON.stringify(places), Object.values(places));
    assert.equal(fs.existsSync(state), false, JSON.stringify(places));
  }
  Object.assign(daemon, { state, socket });
  daemon.configure('[http]\nlisten = "127.0.0.1:99999"\n');
  await assertRefused(place, "a port that does not exist", ["99999"]);
});

test("a state whose backend was changed to btrfs-loop is refused, and no image is made", async (t) => {
  const place = here(t);
  if (place === null) return;
  const { daemon, volume, file, image, mount } = place;
  daemon.configure(`[backend]\ntype = "btrfs-base"\ndata_root = "${volume.root}"\n`);
  await assertStarts(place, "the first start", "first start", "btrfs-base");
  const folder = path.join(volume.root, "project");
  fs.mkdirSync(folder);
  await daemon.call("register", { path: folder, ...ALLOW });
  await daemon.call("save", { workspace: folder });
  await daemon.stop();
  const bytes = fs.readFileSync(file);
  for (const config of ["", LOOP, `[backend]\ndata_root = "${volume.root}"\n`])
    for (const uuid of [undefined, null, "01234567-89ab-cdef-0123-456789abcdef"]) {
      const row = `${JSON.stringify(config)}, filesystem_uuid ${String(uuid)}`;
      fs.writeFileSync(file, bytes);
      changeState(place, ({ backend }) => {
        backend!["type"] = "btrfs-loop";
        if (uuid !== undefined) backend!["filesystem_uuid"] = uuid;
      });
      daemon.configure(config);
      await assertRefused(place, row, ["btrfs-loop", image, daemon.config, file, "names no other"]);
      assert.deepEqual([fs.existsSync(image), fs.existsSync(mount)], [false, false], row);
    }
  // The way back: the state as it was.
  fs.writeFileSync(file, bytes);
  daemon.configure("");
  await assertStarts(place, "as it was", "go on", "btrfs-base");
  assert.equal(((await daemon.call("history", { workspace: folder })) as HistoryResult).save_points.length, 1);
  await daemon.stop();
  // Without a UUID in the state the data root decides, and its UUID is recorded.
  changeState(place, ({ backend }) => (backend!["filesystem_uuid"] = null));
  await assertStarts(place, "btrfs-base, filesystem_uuid null", "go on", "btrfs-base");
  assert.notEqual(daemon.stateNow().backend.filesystem_uuid, null);
  await daemon.stop();
});

test("a start without its state is refused while an image, marks or records lie beside it", async (t) => {
  const place = here(t);
  if (place === null) return;
  const { daemon, volume, file, previous, image, mount } = place;
  daemon.configure(LOOP);
  await assertStarts(place, "the first start", "first start", "btrfs-loop");
  const folder = newFolder("linked");
  fs.writeFileSync(path.join(folder, "a"), "a");
  await daemon.call("register", { path: folder, ...ALLOW });
  await daemon.call("save", { workspace: folder });
  await stopped(place);
  const [kept, before] = [fs.readFileSync(file), fs.readFileSync(previous)];
  fs.rmSync(file);
  fs.rmSync(previous);
  daemon.configure("");
  const traces = [file, image, "records of 1 folder", "of kept folders", "records.db"];
  await assertRefused(place, "image, records and marks", traces);
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  await assertRefused(place, "with a data_root", traces);
  // The image is gone, too: none is made anew, whatever the configuration says.
  fs.renameSync(image, `${image}.away`);
  for (const config of ["", LOOP]) {
    daemon.configure(config);
    await assertRefused(place, `no image, ${JSON.stringify(config)}`, config === "" ? ["marks"] : ["lie on it"]);
    assert.equal(fs.existsSync(image), false);
  }
  fs.rmSync(path.join(daemon.state, "cairn", "workspaces"), { recursive: true });
  await assertRefused(place, "marks alone below the mount", ["lie on it"]);
  fs.rmSync(path.join(daemon.state, "kept"), { recursive: true });
  await assertRefused(place, "records.db alone", ["is lost"]);
  assert.equal(fs.existsSync(image), false);
  fs.renameSync(`${image}.away`, image);
  // A person says that it is given up: the image beside is the backend.
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  daemon.more = ["--rebuild-state"];
  await assertRefused(place, "two possible backends", [image, volume.root]);
  daemon.configure("");
  await assertStarts(place, "rebuilt", "go on", "btrfs-loop");
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "a", "the person's link leads to the folder again");
  await stopped(place);
  daemon.more = [];
  // One of two generations that is there or can be read is enough.
  fs.rmSync(previous, { force: true });
  for (const [row, own, older] of [
    ["the newest is cut", kept.subarray(0, 100), kept],
    ["the newest is missing", null, kept],
    ["the older is cut", kept, before.subarray(0, 10)],
  ] as const) {
    for (const [at, bytes] of [
      [file, own],
      [previous, older],
    ] as const)
      if (bytes === null) fs.rmSync(at);
      else fs.writeFileSync(at, bytes);
    await assertStarts(place, row, "go on", "btrfs-loop");
    await stopped(place);
  }
  // A refusal leaves both generations, and sets nothing aside.
  fs.writeFileSync(file, "cut");
  fs.writeFileSync(previous, kept);
  fs.renameSync(image, `${image}.away`);
  await assertRefused(place, "a cut generation, and no image", [image, `${folder}: 1 point`]);
  fs.renameSync(`${image}.away`, image);
  changeState({ ...place, file: previous }, (state) => (state["version"] = 2 as never));
  await assertRefused(place, "a newer version", [previous]);
  fs.writeFileSync(file, kept);
  fs.writeFileSync(previous, kept);
  assert.equal(fs.existsSync(path.join(mount, "project")), false);
});

test("a start refuses another image in the place of its own, and a foreign mount at its mount", async (t) => {
  const place = here(t);
  if (place === null) return;
  const { daemon, other, image, mount } = place;
  daemon.configure(LOOP);
  await assertStarts(place, "the first start", "first start", "btrfs-loop");
  const { filesystem_uuid: uuid } = daemon.stateNow().backend;
  assert.ok(uuid !== null);
  await stopped(place);
  fs.renameSync(image, `${image}.own`);
  const put = (make: (at: string) => void): void => {
    fs.rmSync(image, { force: true });
    make(image);
  };
  for (const config of [LOOP, ""]) {
    daemon.configure(config);
    put((at) => execFileSync("cp", ["--sparse=always", other.image, at]));
    await assertRefused(place, "another's image", [image, uuid, "lie on the image"]);
    put((at) => fs.writeFileSync(at, Buffer.alloc(1 << 20)));
    await assertRefused(place, "no btrfs", [image, "is not a btrfs"]);
    put((at) => fs.writeFileSync(at, ""));
    await assertRefused(place, "an empty file", [image, "is not a btrfs"]);
    put((at) => fs.mkdirSync(at));
    await assertRefused(place, "a folder", [image, "is not a btrfs"]);
    fs.rmdirSync(image);
    put((at) => execFileSync("mkfifo", [at]));
    await assertRefused(place, "a pipe", [image, "is not a btrfs"]);
    put(() => undefined);
    await assertRefused(place, "missing", [image, "missing"]);
  }
  // A link to where a person moved it is its image.
  fs.symlinkSync(`${image}.own`, image);
  execFileSync("mount", ["-t", "tmpfs", "tmpfs", mount]);
  await assertRefused(place, "a tmpfs at the mount", [mount, "already a mount of"]);
  execFileSync("umount", [mount]);
  execFileSync("mount", ["--bind", other.root, mount]);
  await assertRefused(place, "another's file system at the mount", [mount, "already a mount of"]);
  execFileSync("umount", [mount]);
});

test("a start goes on with its image, or takes it back, after a kill at any step", async (t) => {
  const place = here(t);
  if (place === null) return;
  const { daemon, image, mount } = place;
  const unfinished = `${image}.unfinished`;
  for (const failpoint of ["daemon-loop.allocated", "daemon-loop.formatted", "daemon-loop.attached"])
    for (const next of [LOOP, '[backend]\ntype = "plain"\n']) {
      daemon.configure(LOOP);
      await assert.rejects(daemon.start({ CAIRN_FAILPOINT: failpoint }), failpoint);
      assert.deepEqual([fs.existsSync(unfinished), fs.existsSync(image)], [true, false], failpoint);
      daemon.configure(next);
      await assertStarts(place, failpoint, "first start", next === LOOP ? "btrfs-loop" : "plain");
      assert.deepEqual([fs.existsSync(unfinished), fs.existsSync(image)], [false, next === LOOP], failpoint);
      await stopped(place);
      assert.deepEqual(looked(place)["devices"], [], failpoint);
      fs.rmSync(daemon.state, { recursive: true });
    }
  for (const failpoint of ["daemon-state.previous-kept", "daemon-state.saved", "daemon.decided", "daemon-loop.named"]) {
    daemon.configure(LOOP);
    await assert.rejects(daemon.start({ CAIRN_FAILPOINT: failpoint }), failpoint);
    const isSaved = fs.existsSync(place.file);
    await assertStarts(place, failpoint, isSaved ? "go on" : "first start", "btrfs-loop");
    const { backend, paths } = daemon.stateNow();
    const shown = execFileSync("blkid", ["-o", "value", "-s", "UUID", image], { encoding: "utf8" }).trim();
    assert.deepEqual([backend.filesystem_uuid, paths.loop_image!.path], [shown, image], failpoint);
    await stopped(place);
    assert.deepEqual(
      fs.readdirSync(daemon.state).filter((name) => name.includes("unfinished")),
      [],
    );
    fs.rmSync(daemon.state, { recursive: true });
  }
  // The mount fails: nothing of the image stays.
  fs.mkdirSync(mount, { recursive: true });
  execFileSync("mount", ["-t", "tmpfs", "tmpfs", mount]);
  await assertRefused(place, "a tmpfs at the mount", ["already a mount of"]);
  execFileSync("umount", [mount]);
});
