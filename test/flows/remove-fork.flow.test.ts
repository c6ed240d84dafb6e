import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { TestContext } from "node:test";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { readFolder } from "../fixtures/folder-state.ts";
import { btrfsPlace } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { clientOf, newFolder, pauseFile } from "../fixtures/work.ts";

/** `fork --remove` removes only the folder that it looked at, and loses nothing. */

interface Forked {
  client: Client;
  folder: string;
  fork: string;
  remove: (...more: string[]) => ReturnType<typeof cairn>;
}

let forks = 0;

async function forked(from?: { client: Client; folder: string }): Promise<Forked> {
  const folder = from?.folder ?? newFolder("removed");
  if (from === undefined) makeFirst(folder);
  const client = from?.client ?? (await clientOf(folder));
  await client.save();
  const fork = `${folder}-fork-${forks++}`;
  await client.fork("head", fork);
  return { client, folder, fork, remove: (...more) => cairn(["-C", folder, "fork", "--remove", fork, ...more]) };
}

/** Removes the fork, whose state then comes back from the point of the result. */
async function assertSaved({ client, fork, remove }: Forked, ...more: string[]): Promise<void> {
  const state = readFolder(fork, { withoutRootTime: true });
  const done = remove(...more);
  assert.equal(done.status, 0, done.stdout);
  assert.equal(fs.existsSync(fork), false);
  await client.restore({ target: done.data["save_point_id"] as string, to: fork });
  assert.deepEqual(readFolder(fork, { withoutRootTime: true }), state);
}

function refused(done: ReturnType<typeof cairn>, status: number, message: RegExp): void {
  assert.equal(done.status, status, done.stdout);
  assert.match(done.error!.message, message);
}

/** Mounts, or says why the test is skipped; unmounted at the end. */
function mounted(t: TestContext, program: string, args: readonly string[], place: string): boolean {
  const done = spawnSync(program, args, { encoding: "utf8" });
  if (done.status !== 0) {
    t.skip(`${program}: ${done.error?.message ?? done.stderr}`);
    return false;
  }
  t.after(() => void spawnSync("umount", [place]));
  return true;
}

function asidesIn(parent: string): string[] {
  return fs.readdirSync(parent).filter((name) => name.startsWith(".cairn-removing-"));
}

for (const kind of ["bind", "file", "tmpfs", "loop", "bindfs"] as const)
  test(`fork --remove refuses a fork with a mount inside, and touches nothing: ${kind}`, async (t) => {
    const all = await forked();
    const precious = newFolder("precious");
    fs.writeFileSync(path.join(precious, "photo"), "photo");
    const place = path.join(all.fork, "other", "mounted here");
    if (kind === "file") fs.writeFileSync(place, "");
    else fs.mkdirSync(place);
    const before = (await all.client.history(undefined, 0, { all: true })).save_points.length;
    if (kind === "loop") {
      const disk = loopFileSystem(t, "ext4");
      if (disk === null) return;
      fs.writeFileSync(path.join(disk.root, "photo"), "photo");
      if (!mounted(t, "mount", ["--bind", disk.root, place], place)) return;
    } else if (kind === "tmpfs") {
      if (!mounted(t, "mount", ["-t", "tmpfs", "none", place], place)) return;
      fs.writeFileSync(path.join(place, "photo"), "photo");
    } else if (kind === "bindfs") {
      if (!mounted(t, "bindfs", [precious, place], place)) return;
    } else if (!mounted(t, "mount", ["--bind", kind === "file" ? `${precious}/photo` : precious, place], place)) return;
    const state = readFolder(all.fork);
    refused(all.remove(), 7, /a file system is mounted at .*mounted here/);
    assert.deepEqual(readFolder(all.fork), state);
    assert.equal((await all.client.history(undefined, 0, { all: true })).save_points.length, before);
    execFileSync("umount", [place]);
    await assertSaved(all);
    if (kind !== "loop" && kind !== "tmpfs") assert.equal(fs.readFileSync(`${precious}/photo`, "utf8"), "photo");
  });

test("a mount that appears during fork --remove stays as it is, before and behind the commit", async (t) => {
  if (process.geteuid?.() !== 0) return t.skip("needs root to mount");
  for (const [failpoint, status] of [
    ["fork.aside", 7],
    ["fork.released", 10],
  ] as const) {
    const all = await forked();
    const precious = newFolder("precious");
    fs.writeFileSync(path.join(precious, "photo"), "photo");
    const pause = pauseFile();
    const args = ["-C", all.folder, "fork", "--remove", all.fork];
    const running = startCairn(args, { failpoint: `${failpoint}@${pause}` });
    await running.paused;
    const parent = path.dirname(all.fork);
    const [aside] = asidesIn(parent);
    const place = path.join(parent, aside!, "same");
    execFileSync("mount", ["--bind", precious, place]);
    fs.rmSync(pause);
    const out = await running.ended;
    assert.equal(out.status, status, out.stdout);
    assert.equal(fs.readFileSync(`${precious}/photo`, "utf8"), "photo");
    const at = status === 7 ? path.join(all.fork, "same") : place;
    assert.equal(fs.readFileSync(path.join(at, "photo"), "utf8"), "photo");
    if (status === 10) {
      const { data, warnings } = cairnOk(["-C", all.folder, "status"]);
      assert.ok(data);
      assert.match(warnings.join(" "), /the rest lies in .*a file system is mounted at/);
    }
    execFileSync("umount", [at]);
    cairnOk(["-C", all.folder, "status"]);
    assert.deepEqual(asidesIn(parent), []);
    if (status === 7) assert.equal(all.remove().status, 0);
  }
});

test("everything that a program flushed before fork --remove ended is in the point or still in the folder", async () => {
  const all = await forked();
  const writer = spawn(process.execPath, ["-e", WRITER, all.fork], { stdio: ["pipe", "pipe", "inherit"] });
  let acknowledged = "";
  writer.stdout.on("data", (text: Buffer) => (acknowledged += text.toString()));
  await once(writer.stdout, "data");
  let done = all.remove();
  for (let i = 0; i < 10 && done.status === 5; i++) done = all.remove();
  writer.kill();
  await once(writer, "close");
  const names = acknowledged.split("\n").slice(0, -1);
  if (done.status === 0) await all.client.restore({ target: done.data["save_point_id"] as string, to: all.fork });
  else assert.equal(done.status, 5, done.stdout);
  assert.deepEqual(
    names.filter((name) => !fs.existsSync(path.join(all.fork, name))),
    [],
  );
});

/** Flushes a file each 20 ms, then names it; the folder may be gone. */
const WRITER = `
const fs = require("node:fs");
let n = 0;
setInterval(() => {
  const name = "w" + n;
  try {
    fs.writeFileSync(process.argv[1] + "/" + name, name, { flush: true });
    n++;
    process.stdout.write(name + "\\n");
  } catch {}
}, 20);
`;

test("a process that writes through an open file keeps the fork in its place", async () => {
  const all = await forked();
  const fd = fs.openSync(path.join(all.fork, "log"), "a");
  const holder = spawn("cat", { stdio: ["pipe", fd, "inherit"] });
  fs.closeSync(fd);
  try {
    refused(all.remove(), 5, /process \d+ \(cat\) has the folder, or a file in it, open/);
    assert.equal(all.remove().error!.retryable, true);
  } finally {
    holder.stdin!.end();
    await once(holder, "close");
  }
  await assertSaved(all);
});

test("fork --remove lists ignored entries and refuses, or saves them with --allow ignored", async () => {
  const all = await forked();
  fs.writeFileSync(path.join(all.fork, ".cairnignore"), ".env\nnode_modules/\n");
  fs.writeFileSync(path.join(all.fork, ".env"), "KEY=1");
  fs.mkdirSync(path.join(all.fork, "node_modules", "pkg"), { recursive: true });
  fs.writeFileSync(path.join(all.fork, "node_modules", "pkg", "index.js"), "");
  const state = readFolder(all.fork, { withoutRootTime: true });
  const done = all.remove();
  refused(done, 7, /ignore rules keep 2 entries out of every point: \.env, node_modules/);
  assert.match(done.error!.hint!, /--allow ignored/);
  assert.deepEqual(readFolder(all.fork, { withoutRootTime: true }), state);
  await assertSaved(all, "--allow", "ignored");
});

for (const kind of ["copy", "btrfs"] as const)
  test(`${kind}: an ignored file that appears after the look keeps the fork in its place`, async (t) => {
    const place = kind === "copy" ? undefined : await btrfsPlace(t, makeFirst);
    if (place === null) return;
    const all = await forked(place);
    fs.writeFileSync(path.join(all.fork, ".cairnignore"), ".env\n");
    const pause = pauseFile();
    const running = startCairn(["-C", all.folder, "fork", "--remove", all.fork], { failpoint: `fork.aside@${pause}` });
    await running.paused;
    const parent = path.dirname(all.fork);
    fs.writeFileSync(path.join(parent, asidesIn(parent)[0]!, ".env"), "KEY=1");
    fs.rmSync(pause);
    const { status, stdout } = await running.ended;
    assert.equal(status, 7, stdout);
    assert.match(stdout, /the fork stays, and its last state is also the save point [0-9a-f]{32}/);
    assert.equal(fs.readFileSync(path.join(all.fork, ".env"), "utf8"), "KEY=1");
    // The point before had an ignored file that is gone now.
    cairnOk(["save", all.fork]);
    fs.rmSync(path.join(all.fork, ".env"));
    await assertSaved(all);
  });

test("fork --remove refuses another folder at the fork's path, and forgets a fork that is gone or moved", async () => {
  const all = await forked();
  const name = path.basename(all.fork);
  fs.writeFileSync(path.join(all.fork, "unsaved"), "unsaved");
  fs.renameSync(all.fork, `${all.fork}-away`);
  const byName = (...more: string[]) =>
    cairn(["-C", all.folder, "fork", "--remove", name, ...more], { cwd: all.folder });
  for (const [make, what] of [
    [() => fs.mkdirSync(all.fork), "folder"],
    [() => fs.writeFileSync(all.fork, "file"), "entry"],
    [() => fs.symlinkSync(`${all.fork}-away`, all.fork), "entry"],
  ] as const) {
    make();
    refused(byName(), 7, new RegExp(`another ${what} lies at its path`));
    fs.rmSync(all.fork, { recursive: true });
  }
  const done = byName();
  assert.equal(done.status, 0, done.stdout);
  assert.match(done.warnings.join(" "), /was missing, so the fork's newest save point was kept/);
  assert.equal(fs.readFileSync(path.join(`${all.fork}-away`, "unsaved"), "utf8"), "unsaved");
  await all.client.restore({ target: done.data["save_point_id"] as string, to: all.fork });
  assert.equal(byName().status, 3);
});

test("fork --remove of a new fork does not stop at the rest of an older one with its name", async (t) => {
  if (process.geteuid?.() !== 0) return t.skip("needs root to make a file immutable");
  const { client, fork, remove } = await forked();
  const stuck = path.join(fork, "stuck");
  fs.writeFileSync(stuck, "stuck");
  if (spawnSync("chattr", ["+i", stuck]).status !== 0) return t.skip("no immutable files here");
  const rest = path.join(path.dirname(fork), path.basename(cairnRest(remove())));
  await client.fork("head", fork);
  fs.writeFileSync(path.join(fork, "new"), "new");
  execFileSync("chattr", ["-i", path.join(rest, "stuck")]);
  const done = remove();
  assert.equal(done.status, 0, done.stdout);
  assert.deepEqual([fs.existsSync(rest), fs.existsSync(fork)], [false, false]);
  await client.restore({ target: done.data["save_point_id"] as string, to: fork });
  assert.equal(fs.readFileSync(path.join(fork, "new"), "utf8"), "new");
});

function cairnRest(done: ReturnType<typeof cairn>): string {
  assert.equal(done.status, 10, done.stdout);
  return (done.data["rest"] as { path: string }).path;
}

test("a folder that has got the fork's inode number again is not the fork", async (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = path.join(disk.root, "work");
  fs.mkdirSync(folder);
  makeFirst(folder);
  const all = await forked({ client: await clientOf(folder), folder });
  const { ino } = fs.statSync(all.fork);
  fs.rmSync(all.fork, { recursive: true });
  const others: string[] = [];
  // ext4 gives a free number to the next new directory of the same parent.
  while (others.length < 200 && !(fs.existsSync(all.fork) && fs.statSync(all.fork).ino === ino)) {
    if (fs.existsSync(all.fork)) fs.renameSync(all.fork, (others.push(`${all.fork}-${others.length}`), others.at(-1)!));
    fs.mkdirSync(all.fork);
  }
  if (fs.statSync(all.fork).ino !== ino) return t.skip("the inode number was not used again");
  fs.writeFileSync(path.join(all.fork, "other"), "other");
  refused(all.remove(), 7, /another folder lies at its path/);
  assert.equal(fs.readFileSync(path.join(all.fork, "other"), "utf8"), "other");
});

test("btrfs: fork --remove knows subvolumes apart, also after a restore by exchange, and saves nested ones", async (t) => {
  const place = await btrfsPlace(t, makeFirst);
  if (place === null) return;
  const all = await forked(place);
  fs.renameSync(all.fork, `${all.fork}-away`);
  execFileSync("btrfs", ["-q", "subvolume", "create", all.fork]);
  refused(all.remove(), 7, /another folder lies at its path/);
  execFileSync("btrfs", ["-q", "subvolume", "delete", all.fork], { stdio: "ignore" });
  fs.renameSync(`${all.fork}-away`, all.fork);
  fs.writeFileSync(path.join(all.fork, "later"), "later");
  const { data } = cairnOk(["-C", all.fork, "restore", "latest", "--method", "exchange"]);
  assert.equal(data["method"], "exchange");
  execFileSync("btrfs", ["-q", "subvolume", "create", path.join(all.fork, "nested")]);
  fs.writeFileSync(path.join(all.fork, "nested", "in"), "in");
  execFileSync("btrfs", ["-q", "subvolume", "snapshot", "-r", `${all.fork}/nested`, `${all.fork}/frozen`]);
  const done = all.remove();
  assert.equal(done.status, 0, done.stdout);
  assert.equal(fs.existsSync(all.fork), false);
  await all.client.restore({ target: done.data["save_point_id"] as string, to: `${all.fork}-to` });
  assert.equal(fs.readFileSync(`${all.fork}-to/nested/in`, "utf8"), "in");
  assert.equal(fs.readFileSync(`${all.fork}-to/frozen/in`, "utf8"), "in");
});

test("a fork of a fork is removed from its original, or from any workspace beside it once that is gone", async () => {
  const all = await forked();
  const inner = `${all.fork}-inner`;
  cairnOk(["-C", all.fork, "fork", "head", inner]);
  const done = cairn(["-C", all.folder, "fork", "--remove", inner]);
  refused(done, 7, /is a fork of .*, not of this workspace/);
  assert.equal(all.remove().status, 0);
  cairnOk(["-C", all.folder, "fork", "--remove", inner]);
  assert.equal(fs.existsSync(inner), false);
});

test("a full disk and a read-only parent keep the fork, and say so", async (t) => {
  const disk = loopFileSystem(t, "ext4", { size: 32 << 20 });
  if (disk === null) return;
  const folder = path.join(disk.root, "work");
  fs.mkdirSync(folder);
  makeFirst(folder);
  const all = await forked({ client: await clientOf(folder), folder });
  fs.writeFileSync(path.join(all.fork, "new"), "new");
  const state = readFolder(all.fork);
  const filler = path.join(disk.root, "filler");
  const fd = fs.openSync(filler, "w");
  try {
    for (;;) fs.writeSync(fd, Buffer.alloc(1 << 16, "x"));
  } catch (error) {
    assert.equal((error as NodeJS.ErrnoException).code, "ENOSPC");
  } finally {
    fs.closeSync(fd);
  }
  assert.equal(all.remove().error!.code, "no_space");
  assert.deepEqual(readFolder(all.fork), state);
  fs.rmSync(filler);
  await assertSaved(all);
});

test("an ordinary user is told before anything is changed that the fork's parent is not theirs", async (t) => {
  const why = whyNoOrdinaryUser();
  if (why !== null) return t.skip(why);
  const user = installForOrdinaryUser();
  t.after(() => user.remove());
  const home = path.join(user.place, "home");
  const options = user.optionsIn(home);
  const work = path.join(home, "work");
  const parent = path.join(user.place, "shared");
  for (const each of [work, parent]) fs.mkdirSync(each);
  const { uid, gid } = fs.statSync(home);
  for (const each of [work, parent]) fs.chownSync(each, uid, gid);
  const run = (...args: string[]) => cairn(args, options);
  assert.equal(run("save", work).status, 0);
  const fork = path.join(parent, "fork");
  assert.equal(run("-C", work, "fork", "head", fork).status, 0);
  fs.writeFileSync(path.join(fork, "theirs"), "theirs", { mode: 0o600 });
  refused(run("-C", work, "fork", "--remove", fork), 7, /would not have "theirs" \(permission denied/);
  fs.chmodSync(path.join(fork, "theirs"), 0o644);
  fs.chownSync(parent, 0, 0);
  refused(run("-C", work, "fork", "--remove", fork), 9, /from its parent folder/);
  fs.chownSync(parent, uid, gid);
  // Entries of another user's directory can be saved, but not removed.
  fs.mkdirSync(path.join(fork, "root's"));
  fs.writeFileSync(path.join(fork, "root's", "file"), "stays");
  const done = run("-C", work, "fork", "--remove", fork);
  assert.equal(done.status, 10, done.stdout);
  const rest = (done.data["rest"] as { path: string }).path;
  assert.equal(fs.readFileSync(path.join(rest, "root's", "file"), "utf8"), "stays");
  assert.match(done.data["save_point_id"] as string, /^[0-9a-f]{32}$/);
  fs.rmSync(rest, { recursive: true });
  assert.equal(run("-C", work, "status").status, 0);
});
