import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { CairnError } from "../../src/errors.ts";
import type { HistoryResult } from "../../src/contract/looking.ts";
import { type DaemonState, encodeDaemonState } from "../../src/formats/records/daemon-state.ts";
import { cairnOk } from "../fixtures/command.ts";
import { newFolder } from "../fixtures/work.ts";
import { eventually } from "../fixtures/eventually.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { makeLoopFileSystem } from "../fixtures/loop-file-system.ts";
import { fillOddly } from "../fixtures/odd-entries.ts";
import { makeFirst } from "../fixtures/two-states.ts";

/** Workspaces on a btrfs in an image, of a daemon on a machine that has none. */

const ALLOW = { options: { allow: ["holders"] } };

/** Null where no image can be mounted: the test is skipped. */
function loopDaemon(t: TestContext, size = "512MiB"): TestDaemon | null {
  const made = makeLoopFileSystem("btrfs");
  if ("reason" in made) {
    t.skip(made.reason);
    return null;
  }
  made.close();
  const daemon = new TestDaemon(t);
  daemon.configure(`[backend]\ntype = "btrfs-loop"\n[loop]\nsize = "${size}"\n`);
  t.after(async () => {
    await daemon.kill();
    spawnSync("umount", ["-l", path.join(daemon.state, "btrfs")]);
  });
  return daemon;
}

function filled(name: string): string {
  const folder = newFolder(name);
  makeFirst(folder);
  fillOddly(folder);
  return folder;
}

async function history(daemon: TestDaemon, folder: string): Promise<HistoryResult["save_points"]> {
  return ((await daemon.call("history", { workspace: folder })) as HistoryResult).save_points;
}

test("the daemon moves a folder onto its btrfs image and back, with equal content and nothing removed", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  const folder = filled("moved");
  const state = readFolder(folder);
  await daemon.call("register", { path: folder, ...ALLOW });
  assert.ok(fs.lstatSync(folder).isSymbolicLink());
  const target = fs.readlinkSync(folder);
  assertFolder(target, state, "on the image");
  const beside = fs.readdirSync(path.dirname(folder)).filter((name) => name.startsWith(".cairn-original-"));
  assert.equal(beside.length, 1);
  const original = path.join(path.dirname(folder), beside[0]!);
  assertFolder(original, state, "the original");
  const named = (await daemon.status()).advice.filter((each) => each.includes(original));
  assert.equal(named.length, 1, "the status names it for as long as it is there");
  await daemon.call("save", { workspace: folder, options: { message: "one" } });
  fs.writeFileSync(path.join(folder, "more"), "more");
  await daemon.call("save", { workspace: folder });
  await daemon.call("restore", { workspace: folder, options: { target: "head~1" } });
  assertFolder(target, state, "restored");
  // Another start mounts it again.
  await daemon.stop();
  execFileSync("umount", [path.join(daemon.state, "btrfs")]);
  await daemon.start();
  assert.equal((await history(daemon, folder)).length, 2);
  fs.rmSync(folder);
  await daemon.reconciled();
  assert.equal(fs.readlinkSync(folder), target, "the link is made again");
  const done = (await daemon.call("recover", { path: folder, ...ALLOW })) as { original: string; entries: number };
  assert.equal(done.original, target);
  assert.ok(done.entries > 5, "it says how many entries it copied and compared");
  assert.ok(fs.lstatSync(folder).isDirectory());
  assertFolder(folder, state, "back again");
  assertFolder(target, state, "and still on the image");
  assert.deepEqual((await daemon.status()).workspaces, []);
  assert.deepEqual(daemon.stateNow().moves, []);
  fs.rmSync(original, { recursive: true });
  // Its points are found again: by the daemon, which moves the folder once more, and by root without it.
  const again = (await daemon.call("register", { path: folder, ...ALLOW })) as { created: boolean };
  assert.equal(again.created, true, "init says that it has taken the folder up");
  assert.deepEqual(
    (await history(daemon, folder)).map(({ message }) => message),
    ["", "one"],
  );
  await daemon.call("save", { workspace: folder, options: { message: "three" } });
  assert.equal((await history(daemon, folder))[0]!.engine, "btrfs-snapshot");
  await daemon.call("recover", { path: folder, ...ALLOW });
  await daemon.stop();
  const asRoot = { env: { CAIRN_STATE_DIR: daemon.state } };
  cairnOk(["init", folder], asRoot);
  fs.writeFileSync(path.join(folder, "more"), "changed");
  cairnOk(["save", folder, "-m", "four"], asRoot);
  const points = cairnOk(["-C", folder, "history"], asRoot).data["save_points"] as { message: string }[];
  assert.deepEqual(
    points.map(({ message }) => message),
    ["four", "three", "", "one"],
  );
  cairnOk(["-C", folder, "restore", "head~3"], asRoot);
  assertFolder(folder, state, "the first point");
});

test("the daemon refuses to start without its image, and grows the image to a larger configured size", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  const folder = filled("kept");
  await daemon.call("register", { path: folder, ...ALLOW });
  for (const content of ["one", "two"]) {
    fs.writeFileSync(path.join(folder, "counted"), content);
    await daemon.call("save", { workspace: folder });
  }
  // The points are counted without a stop.
  await eventually("two points are counted", () => daemon.stateNow().workspaces[0]!.points === 2);
  await daemon.kill();
  const mount = path.join(daemon.state, "btrfs");
  const image = path.join(daemon.state, "btrfs.img");
  daemon.configure('[loop]\nsize = "768MiB"\n');
  await daemon.start();
  const { bsize, blocks } = fs.statfsSync(mount);
  assert.equal(bsize * blocks, 768 << 20);
  assert.equal(daemon.stateNow().paths.loop_image!.bytes, 768 << 20);
  assert.equal((await history(daemon, folder)).length, 2);
  await daemon.stop();
  daemon.configure('[loop]\nsize = "300MiB"\n');
  await daemon.start();
  assert.equal(fs.statSync(image).size, 768 << 20, "it is never shrunk");
  await daemon.stop();
  daemon.configure("");
  await daemon.start();
  assert.equal(fs.statSync(image).size, 768 << 20, "it does not grow to the default size once the setting is gone");
  await daemon.stop();
  execFileSync("umount", [mount]);
  fs.renameSync(image, `${image}.away`);
  const { error } = await daemon.refused();
  assert.equal(error.code, "unsupported");
  for (const said of ["btrfs-loop", image, "state.json", `${folder}: 2 points`])
    assert.ok(error.message.includes(said), `${said} in ${error.message}`);
  assert.equal(fs.existsSync(image), false);
  fs.renameSync(`${image}.away`, image);
  await daemon.start();
  assert.equal((await history(daemon, folder)).length, 2);
});

test("register refuses to move a folder in which a process works", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  const folder = filled("busy");
  const holder = spawn("sleep", ["100"], { cwd: folder });
  try {
    await assert.rejects(daemon.call("register", { path: folder, ...ALLOW }), { code: "refused", message: /sleep/ });
  } finally {
    holder.kill();
  }
  assert.ok(fs.lstatSync(folder).isDirectory());
  assert.deepEqual([daemon.stateNow().moves ?? [], fs.readdirSync(path.join(daemon.state, "btrfs"))], [[], []]);
});

test("a folder stays whole if a move to or from the image, or a first start, is killed at any step", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  for (const failpoint of [
    "daemon-loop.allocated",
    "daemon-loop.formatted",
    "daemon-loop.attached",
    "daemon-loop.named",
  ])
    await assert.rejects(daemon.start({ CAIRN_FAILPOINT: failpoint }), failpoint);
  await daemon.start();
  await daemon.stop();
  const steps = ["intent", "made", "copied", "compared", "exchanged"].map((step) => `daemon-move.${step}`);
  for (const failpoint of [...steps, "daemon.kept"]) {
    const folder = filled(failpoint.replace(".", "-"));
    const state = readFolder(folder);
    await daemon.start({ CAIRN_FAILPOINT: failpoint });
    await assert.rejects(daemon.call("register", { path: folder, ...ALLOW }), failpoint);
    await daemon.ended();
    assertFolder(fs.realpathSync(folder), state, `killed at ${failpoint}`);
    await daemon.start();
    assertFolder(fs.realpathSync(folder), state, `killed at ${failpoint}, started again`);
    assert.deepEqual(daemon.stateNow().moves, []);
    const isMoved = fs.lstatSync(folder).isSymbolicLink();
    assert.equal(isMoved, ["daemon-move.exchanged", "daemon.kept"].includes(failpoint), failpoint);
    await daemon.call("register", { path: folder, ...ALLOW });
    await daemon.call("save", { workspace: folder });
    assert.equal((await history(daemon, folder)).length, 1);
    const target = fs.readlinkSync(folder);
    await daemon.stop();
    for (const back of [...steps, "daemon.left-image", "daemon.released"]) {
      const where = `${failpoint}, then back and killed at ${back}`;
      if (!fs.lstatSync(folder).isSymbolicLink()) break;
      await daemon.start({ CAIRN_FAILPOINT: back });
      await assert.rejects(daemon.call("recover", { path: folder, ...ALLOW }), where);
      await daemon.ended();
      assertFolder(fs.realpathSync(folder), state, where);
      await daemon.start();
      assertFolder(fs.realpathSync(folder), state, `${where}, started again`);
      assert.deepEqual(daemon.stateNow().moves, [], where);
      assertFolder(target, state, `${where}: on the image`);
      await daemon.stop();
    }
  }
});

/** Begins a call that pauses at a failpoint, does `meanwhile`, and returns the refusal of the call. */
async function refusedAfter(
  daemon: TestDaemon,
  failpoint: string,
  { call, folder, meanwhile }: { call: "register" | "recover"; folder: string; meanwhile: () => void },
): Promise<CairnError> {
  const pause = `${folder}.pause`;
  fs.writeFileSync(pause, "");
  await daemon.start({ CAIRN_FAILPOINT: `${failpoint}@${pause}` });
  const refused = daemon.call(call, { path: folder, ...ALLOW }).then(
    () => assert.fail(`the ${call} is done`),
    (error: CairnError) => error,
  );
  await eventually(`the pause at ${failpoint}`, () => daemon.log.includes(`failpoint ${failpoint}`));
  meanwhile();
  fs.rmSync(pause);
  return refused;
}

/** Lists the entries beside a folder and on the image, which a move may have made. */
function aroundMove(daemon: TestDaemon, folder: string): string[] {
  const parents = [path.dirname(folder), path.join(daemon.state, "btrfs")];
  return parents.flatMap((parent) => fs.readdirSync(parent).map((name) => path.join(parent, name)));
}

/** Lists those that are new since `before`. */
function leftOf(daemon: TestDaemon, folder: string, before: readonly string[]): string[] {
  const own = new Set([...before, `${folder}.pause`, path.join(daemon.state, "btrfs/.cairn-control")]);
  return aroundMove(daemon, folder).filter((each) => !own.has(each));
}

test("a move is taken back if somebody writes into the original, and a copy with writes of its own stays", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  await daemon.stop();
  // Away from the image and back to it; only into the original, or into its copy, too.
  for (const isBoth of [false, true]) {
    const folder = filled(`written-${isBoth}`);
    const late = (at: string, text: string): void => fs.appendFileSync(path.join(at, "late"), text);
    const before = aroundMove(daemon, folder);
    const error = await refusedAfter(daemon, "daemon-move.exchanged", {
      call: "register",
      folder,
      meanwhile: () => {
        const [aside] = leftOf(daemon, folder, before).filter((each) => path.dirname(each) === path.dirname(folder));
        assert.match(daemon.stateNow().moves![0]!.made!, /^\d{19}$/);
        late(aside!, "original");
        if (isBoth) late(folder, "copy");
      },
    });
    assert.deepEqual(
      [error.code, error.message.includes("late") || error.message.includes("itself")],
      ["conflict", true],
    );
    assert.equal(fs.lstatSync(folder).isSymbolicLink(), false);
    assert.equal(fs.readFileSync(path.join(folder, "late"), "utf8"), "original");
    assert.deepEqual(daemon.stateNow().moves, []);
    const kept = leftOf(daemon, folder, before);
    assert.equal(kept.length, isBoth ? 1 : 0, kept.join(" "));
    if (isBoth) assert.ok(error.message.includes(kept[0]!), error.message);
    if (isBoth) assert.equal(fs.readFileSync(path.join(kept[0]!, "late"), "utf8"), "copy");
    await daemon.call("register", { path: folder, ...ALLOW });
    const target = fs.readlinkSync(folder);
    await daemon.stop();
    const known = aroundMove(daemon, folder);
    const back = await refusedAfter(daemon, "daemon-move.exchanged", {
      call: "recover",
      folder,
      meanwhile: () => {
        late(target, " again");
        if (isBoth) late(folder, " copy again");
      },
    });
    assert.equal(back.code, "conflict", back.message);
    assert.equal(fs.readlinkSync(folder), target);
    assert.equal(fs.readFileSync(path.join(folder, "late"), "utf8"), "original again");
    const keptBack = leftOf(daemon, folder, known);
    assert.equal(keptBack.length, isBoth ? 1 : 0, keptBack.join(" "));
    if (isBoth) assert.equal(fs.readFileSync(path.join(keptBack[0]!, "late"), "utf8"), "original copy again");
    await daemon.call("recover", { path: folder, ...ALLOW });
    assert.equal(fs.readFileSync(path.join(folder, "late"), "utf8"), "original again");
    await daemon.stop();
  }
});

test("a folder on xfs, or with a modification time in the future, is moved onto the image and back", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  const made = makeLoopFileSystem("xfs");
  if ("reason" in made) return void t.skip(made.reason);
  t.after(() => made.close());
  await daemon.start();
  for (const folder of [path.join(made.root, "on-xfs"), newFolder("in-the-future")]) {
    fs.mkdirSync(folder, { recursive: true });
    makeFirst(folder);
    fs.utimesSync(folder, 2e9, 2e9);
    const state = readFolder(folder);
    await daemon.call("register", { path: folder, ...ALLOW });
    assertFolder(fs.realpathSync(folder), state, "on the image");
    assert.equal(fs.statSync(folder).mtimeMs, 2e12);
    await daemon.call("recover", { path: folder, ...ALLOW });
    assertFolder(folder, state, "back again");
    assert.equal(fs.lstatSync(folder).isDirectory(), true);
  }
});

test("a move does not take the place of a folder that came to the path meanwhile", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  await daemon.stop();
  const folder = filled("replaced");
  const other = filled("other");
  fs.writeFileSync(path.join(other, "theirs"), "theirs");
  const around = aroundMove(daemon, folder);
  const error = await refusedAfter(daemon, "daemon-move.compared", {
    call: "register",
    folder,
    meanwhile: () => {
      fs.renameSync(folder, `${folder}-aside`);
      fs.renameSync(other, folder);
    },
  });
  assert.equal(error.code, "conflict", error.message);
  assert.equal(fs.readFileSync(path.join(folder, "theirs"), "utf8"), "theirs");
  assert.deepEqual(daemon.stateNow().moves, []);
  assert.deepEqual(leftOf(daemon, folder, around), [`${folder}-aside`]);
});

test("a move is refused if its copy cannot be removed, and the next start removes it", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  await daemon.stop();
  // Before the exchange, and after it.
  for (const failpoint of ["daemon-move.compared", "daemon-move.exchanged"]) {
    const folder = filled(failpoint.replace(".", "-"));
    const before = aroundMove(daemon, folder);
    let mounted = "";
    await refusedAfter(daemon, failpoint, {
      call: "register",
      folder,
      meanwhile: () => {
        const left = leftOf(daemon, folder, before);
        const target = left.find((each) => path.dirname(each) !== path.dirname(folder))!;
        const aside = left.find((each) => each !== target)!;
        fs.appendFileSync(path.join(failpoint.endsWith("exchanged") ? aside : folder, "late"), "late");
        mounted = path.join(target, "goes");
        execFileSync("mount", ["--bind", mounted, mounted]);
      },
    });
    try {
      assert.equal(fs.readFileSync(path.join(folder, "late"), "utf8"), "late");
      assert.equal(daemon.stateNow().moves!.length, 1, "the move stays listed");
    } finally {
      execFileSync("umount", [mounted]);
    }
    await daemon.stop();
    await daemon.start();
    assert.deepEqual(daemon.stateNow().moves, [], daemon.log);
    assert.deepEqual(leftOf(daemon, folder, before), []);
    assert.equal(fs.readFileSync(path.join(folder, "late"), "utf8"), "late");
    await daemon.call("register", { path: folder, ...ALLOW });
    assert.equal(fs.readFileSync(path.join(folder, "late"), "utf8"), "late");
    await daemon.call("recover", { path: folder, ...ALLOW });
    await daemon.stop();
  }
});

test("a folder whose link was renamed during an unfinished move keeps its content, and the daemon starts", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  const folder = filled("renamed");
  await daemon.start({ CAIRN_FAILPOINT: "daemon.kept" });
  await assert.rejects(daemon.call("register", { path: folder, ...ALLOW }));
  await daemon.ended();
  const target = fs.readlinkSync(folder);
  fs.writeFileSync(path.join(folder, "since"), "work");
  fs.rmSync(daemon.stateNow().moves![0]!.aside, { recursive: true });
  fs.renameSync(folder, `${folder}-2`);
  await daemon.start();
  assert.match(daemon.log, /it is not known how far it got/);
  assert.equal(fs.readFileSync(path.join(target, "since"), "utf8"), "work");
});

test("register refuses to move a .git directory, and recover refuses if the link was replaced by a folder", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  const folder = filled("guarded");
  const repository = path.join(folder, ".git");
  fs.mkdirSync(repository);
  await assert.rejects(daemon.call("register", { path: repository, ...ALLOW }), { code: "refused" });
  assert.ok(fs.lstatSync(repository).isDirectory());
  const other = filled("replaced");
  await daemon.call("register", { path: other, ...ALLOW });
  const target = fs.readlinkSync(other);
  fs.rmSync(other);
  fs.mkdirSync(other);
  fs.writeFileSync(path.join(other, "new"), "new");
  await assert.rejects(daemon.call("recover", { path: target, ...ALLOW }), {
    code: "refused",
    message: /is no longer a link to /,
  });
  assert.equal(fs.readFileSync(path.join(other, "new"), "utf8"), "new");
});

test("the daemon does not rebuild a lost state by itself if its image or its records exist", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  const folder = filled("traces");
  await daemon.call("register", { path: folder, ...ALLOW });
  await daemon.call("save", { workspace: folder });
  await daemon.stop();
  const config = fs.readFileSync(daemon.config, "utf8");
  daemon.configure("");
  for (const name of ["state.json", "state.previous.json"]) fs.writeFileSync(path.join(daemon.state, name), "cut");
  // However often it is started again, as systemd does.
  for (let start = 0; start < 3; start++) {
    const { error } = await daemon.refused();
    assert.equal(error.code, "damaged");
    assert.match(error.message, /btrfs\.img and records of 1 folder/);
    assert.match(error.hint, /--rebuild-state/);
    assert.equal(fs.readFileSync(path.join(daemon.state, "state.json"), "utf8"), "cut");
  }
  daemon.configure(config);
  // Its image is away, and records lie below its mount.
  execFileSync("umount", [path.join(daemon.state, "btrfs")]);
  const image = path.join(daemon.state, "btrfs.img");
  fs.renameSync(image, `${image}.away`);
  assert.equal((await daemon.refused()).error.code, "unsupported");
  assert.equal(fs.existsSync(image), false);
  fs.renameSync(`${image}.away`, image);
  await daemon.start();
  assert.equal((await daemon.reconciled()).workspaces.length, 1);
  assert.equal((await history(daemon, folder)).length, 1);
});

test("the daemon creates no image if a btrfs-loop state names none", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  const selected = { type: "btrfs-loop", selection_method: "auto-detect", selected_at: "2026-05-01T10:00:00.000Z" };
  const state = {
    backend: { ...selected, filesystem_uuid: "01234567-89ab-cdef-0123-456789abcdef" },
    paths: { data_root: "/mnt/gone", loop_image: null },
    workspaces: [],
    schedules: {},
  } as const;
  const bytes = encodeDaemonState(state as unknown as DaemonState);
  fs.mkdirSync(daemon.state, { recursive: true });
  const file = path.join(daemon.state, "state.json");
  for (const config of ["", fs.readFileSync(daemon.config, "utf8")]) {
    daemon.configure(config);
    fs.writeFileSync(file, bytes);
    const { error } = await daemon.refused();
    assert.equal(error.code, "unsupported");
    for (const said of ["btrfs-loop", path.join(daemon.state, "btrfs.img"), daemon.config, file])
      assert.ok(error.message.includes(said), `${said} in ${error.message}`);
    assert.deepEqual(
      fs.readdirSync(daemon.state).filter((name) => /img|^btrfs/.test(name)),
      [],
    );
    assert.deepEqual(fs.readFileSync(file), Buffer.from(bytes), "the state stays byte for byte");
  }
});

test("register and save refuse a new folder in the place of a workspace's link", async (t) => {
  const daemon = loopDaemon(t);
  if (daemon === null) return;
  await daemon.start();
  const folder = newFolder("made-anew");
  fs.writeFileSync(path.join(folder, "file"), "first");
  await daemon.call("register", { path: folder, ...ALLOW });
  const target = fs.readlinkSync(folder);
  await daemon.call("save", { workspace: folder });
  fs.rmSync(folder);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "second");
  for (const [verb, members] of [
    ["register", { path: folder, ...ALLOW }],
    ["save", { workspace: folder }],
    ["history", { workspace: folder }],
  ] as const)
    await assert.rejects(daemon.call(verb, members), (error: CairnError) => {
      assert.equal(error.code, "conflict", verb);
      for (const said of [target, "1 point"]) assert.ok(error.message.includes(said), error.message);
      assert.match(error.hint ?? "", /restore latest/);
      return true;
    });
  assert.equal((await daemon.status()).workspaces.length, 1);
  assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "second");
  fs.renameSync(folder, `${folder}.new`);
  fs.symlinkSync(target, folder);
  await daemon.call("restore", { workspace: folder, options: { target: "latest" } });
  assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "first");
  assert.equal((await history(daemon, folder)).length, 1);
});
