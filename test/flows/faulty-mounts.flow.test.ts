import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { cairn, cairnOk, type Outcome, SCRATCH, startCairn } from "../fixtures/command.ts";
import { eventually } from "../fixtures/eventually.ts";
import { type Fault, FaultyFuse, whyNoFuse } from "../fixtures/faulty-fuse.ts";
import { LONG } from "../fixtures/long.ts";
import { newRepository, type TestRepository } from "../fixtures/repository.ts";
import { newFolder } from "../fixtures/work.ts";
import { mountOf } from "../../src/fs/linux/mounts.ts";
import { isSilent, type KernelWait, kernelWaits, readsServed } from "../../src/fs/silent-mounts.ts";

/** Every verb that reads a folder, on and beside a file system that fails or does not answer. */

const reason = whyNoFuse();
const needs = reason === null ? {} : { skip: reason };

/** A hang is for ever; a busy machine only takes long. */
const DEADLINE_MS = 100_000;
/** The errors differ only in their words: EIO and EACCES have tests of their own below. */
const FAULTS: readonly (Fault | "ENOTCONN")[] = LONG
  ? ["EIO", "ESTALE", "EACCES", "hang", "stuck", "ENOTCONN"]
  : ["ESTALE", "hang", "ENOTCONN"];

/** Where the faulty mount is: at a folder inside, also included in points, or left out by a rule; or it is the folder. */
const SHAPES = ["inside", "entered", "excluded", "whole"] as const;
type Shape = (typeof SHAPES)[number];

interface Place {
  folder: string;
  fuse: FaultyFuse;
  repository: TestRepository;
}

async function place(t: TestContext, shape: Shape): Promise<Place> {
  const folder = newFolder(`faulty-${shape}`);
  const at = shape === "whole" ? folder : path.join(folder, "sub");
  fs.mkdirSync(at, { recursive: true });
  const fuse = await FaultyFuse.mount(t, at);
  fs.mkdirSync(path.join(folder, "d"));
  fs.writeFileSync(path.join(folder, "d/a"), "a");
  fs.writeFileSync(path.join(folder, "top"), "1");
  if (shape === "excluded") fs.writeFileSync(path.join(folder, ".cairnignore"), "sub\n");
  fs.mkdirSync(path.join(fuse.behind, "deep"));
  fs.writeFileSync(path.join(fuse.behind, "deep/in"), "in");
  const repository = await newRepository();
  const crossing = shape === "entered" ? ["--cross-mounts"] : [];
  cairnOk(["save", folder, ...crossing]);
  fs.writeFileSync(path.join(folder, "top"), "2");
  cairnOk(["-C", folder, "save", ...crossing]);
  cairnOk(["-C", folder, "backup", "create", ...repository.options]);
  fs.writeFileSync(path.join(folder, "top"), "3");
  return { folder, fuse, repository };
}

function verbs({ folder, repository }: Place, shape: Shape): Record<string, string[]> {
  const at = (...args: string[]): string[] => ["-C", folder, ...args];
  const beside = path.join(SCRATCH, `beside-${shape}-${Math.random()}`);
  return {
    status: at("status"),
    diff: at("diff"),
    "restore --plan": at("restore", "head~1", "--plan"),
    restore: at("restore", "head~1"),
    undo: at("undo"),
    "restore of a path": at("restore", "head", "d/a"),
    save: at("save", ...(shape === "entered" ? ["--cross-mounts"] : [])),
    history: at("history"),
    find: at("find", "a"),
    show: at("show", "head:top"),
    fork: at("fork", "head", `${beside}-fork`),
    verify: at("verify"),
    doctor: at("doctor"),
    cleanup: at("cleanup", "--plan"),
    "backup create": at("backup", "create", ...repository.options),
    "backup restore --in-place": at(
      "backup",
      "restore",
      "latest",
      "--path",
      folder,
      "--in-place",
      "--plan",
      ...repository.options,
    ),
    "backup create of paths": ["backup", "create", folder, newFolder("other"), ...repository.options],
    "backup restore --to": ["backup", "restore", "latest", "--to", `${beside}-new`, ...repository.options],
    "engine show": ["engine", "show", folder],
    "init inside": ["init", path.join(folder, "d")],
    "save of another folder": ["save", newFolder("another")],
    workspaces: ["workspaces"],
    relocate: at("relocate", folder, `${beside}-moved`),
  };
}

/** What an answer says of deleted or missing entries. */
function saidToBeGone(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) => {
    const isCount = (key === "removed" || key === "deleted") && typeof member === "number" && member > 0;
    const isEntry = (key === "change" && member === "removed") || (key === "action" && member === "delete");
    return isCount || isEntry ? [JSON.stringify(value)] : saidToBeGone(member);
  });
}

function requireTold(name: string, done: Outcome): void {
  assert.notEqual(done.status, null, `${name} hangs`);
  assert.deepEqual(saidToBeGone(done.data), [], name);
  assert.notEqual(done.error?.code, "internal", `${name}: ${done.error?.message}`);
  assert.doesNotMatch(done.stdout + done.stderr, /Unknown system error/, name);
}

for (const shape of SHAPES)
  test(`every verb ends, and takes nothing for deleted, if the mount is ${shape} and faulty`, needs, async (t) => {
    const there = await place(t, shape);
    const { folder, fuse } = there;
    for (const fault of FAULTS) {
      if (fault === "ENOTCONN") await fuse.die();
      else await fuse.faults({ fault, path: "" });
      // A process knows for a while if a mount answers, so a new one calls the first verb, and others come later.
      for (const [i, [name, args]] of Object.entries(verbs(there, shape)).entries()) {
        const done = cairn(args, { timeoutMs: DEADLINE_MS, own: i === 0 });
        requireTold(`${name}, ${fault}`, done);
        if (shape === "excluded" && !["init inside", "relocate", "undo"].includes(name))
          assert.ok([0, 10].includes(done.status!), `${name}, ${fault}: ${done.stdout}`);
      }
      if (fault === "ENOTCONN") break;
      await fuse.faults();
      assert.equal(fs.readFileSync(path.join(fuse.behind, "deep/in"), "utf8"), "in", fault);
      const whole = cairnOk(["-C", folder, "save", ...(shape === "entered" ? ["--cross-mounts"] : [])], { own: true });
      assert.equal((whole.data["save_point"] as { complete?: boolean }).complete, true, fault);
    }
  });

test("status and restore keep an entry that cannot be looked at", needs, async (t) => {
  const { folder, fuse } = await place(t, "whole");
  for (const fault of ["EIO", "ESTALE", "EACCES"] as const) {
    await fuse.faults({ fault, path: "deep" });
    assert.equal(
      (cairnOk(["-C", folder, "status"], { own: true }).data["changes"] as { removed: number }).removed,
      0,
      fault,
    );
    const differs = cairnOk(["-C", folder, "diff"]);
    assert.match(differs.warnings.join(), new RegExp(`could not be read: deep \\(${fault}\\)`));
    const restored = cairn(["-C", folder, "restore", "head~1"]);
    assert.equal(restored.status, 10, restored.stdout);
    assert.match(JSON.stringify(restored.data["left_out"]), /"path":"deep","reason":"unreadable"/);
    assert.equal(cairn(["-C", folder, "undo"]).status, 10);
    await fuse.faults();
    assert.equal(fs.readFileSync(path.join(folder, "deep/in"), "utf8"), "in");
  }
});

test("a backup of several folders saves the others if one cannot be looked at", needs, async (t) => {
  const folders = ["one", "two", "three"].map((name) => newFolder(name));
  for (const folder of folders) fs.writeFileSync(path.join(folder, "f"), folder);
  const [first, second, third] = folders as [string, string, string];
  const fuse = await FaultyFuse.mount(t, second);
  const { options } = await newRepository();
  const backup = (): Outcome =>
    cairn(["backup", "create", first, second, third, ...options], { timeoutMs: DEADLINE_MS, own: true });
  const requirePartly = (fault: string): void => {
    const done = backup();
    assert.equal(done.status, 10, `${fault}: ${done.stdout}`);
    const { left_out: left } = done.data["incomplete"] as { left_out: { path: string; reason: string }[] };
    assert.deepEqual(
      left.map((each) => [each.path, each.reason]),
      [[second, "unreadable"]],
      fault,
    );
    const listed = cairnOk(["backup", "list", "latest", ...options]).stdout;
    for (const folder of [first, third]) assert.ok(listed.includes(path.basename(folder)), fault);
  };
  for (const fault of ["EIO", "ESTALE", "EACCES", "hang"] as const) {
    await fuse.faults({ fault, path: "" });
    requirePartly(fault);
  }
  await fuse.die();
  requirePartly("ENOTCONN");
  const alone = cairn(["backup", "create", second, ...options]);
  assert.deepEqual([alone.status, alone.error?.code], [1, "io"]);
});

test("a refused chmod names the path and says what helps", needs, async (t) => {
  const at = newFolder("no-modes");
  const fuse = await FaultyFuse.mount(t, at);
  await fuse.faults({ fault: "EPERM", path: "", operations: ["SETATTR"] });
  const work = newFolder("beside");
  const done = cairn(["--control-dir", path.join(at, "control"), "init", work]);
  assert.deepEqual([done.status, done.error?.code], [9, "permission"], done.stdout);
  assert.ok(done.error!.message.includes(at), done.error!.message);
  assert.match(done.error!.hint ?? "", /keeps permissions/);
});

test("a bind mount, a link and a file in a mount that does not answer are known as such", needs, async (t) => {
  const at = newFolder("server");
  const fuse = await FaultyFuse.mount(t, at);
  fs.mkdirSync(path.join(at, "inner"));
  const [bound, linked] = [newFolder("bound"), path.join(newFolder("links"), "to")];
  assert.equal(spawnSync("mount", ["--bind", path.join(at, "inner"), bound]).status, 0);
  t.after(() => spawnSync("umount", ["-l", bound]));
  fs.symlinkSync(path.join(at, "inner"), linked);
  await fuse.faults({ fault: "hang", path: "" });
  for (const folder of [bound, linked, path.join(at, "inner")]) {
    const done = cairn(["save", folder], { timeoutMs: DEADLINE_MS, own: true });
    assert.deepEqual([done.status, done.error?.code], [1, "io"], folder);
    assert.match(done.error!.message, /does not answer/);
    assert.match(done.error!.hint ?? "", /unmount it/);
  }
});

test("a mount that has the id of a silent mount that has gone is looked at", needs, async (t) => {
  const idOf = (at: string): number => mountOf(at)!.id;
  const first = newFolder("silent");
  const fuse = await FaultyFuse.mount(t, first);
  const id = idOf(first);
  await fuse.faults({ fault: "hang", path: "" });
  assert.equal(isSilent(first), true);
  await fuse.die();
  assert.equal(spawnSync("umount", ["-l", first]).status, 0);
  // The kernel gives the smallest free id.
  for (let tries = 0; tries < 20; tries++) {
    const next = newFolder(`next-${tries}`);
    await FaultyFuse.mount(t, next);
    assert.equal(isSilent(next), false);
    if (idOf(next) === id) return;
  }
  t.skip("the kernel gave no mount the id again");
});

test("a mount that answers again, or is mounted again, is used at once", needs, async (t) => {
  const at = newFolder("again");
  const first = await FaultyFuse.mount(t, at);
  await first.faults({ fault: "hang", path: "" });
  assert.equal(isSilent(at), true);
  const began = performance.now();
  assert.equal(isSilent(at), true);
  assert.ok(performance.now() - began < 1000, "a look that waits already is not repeated");
  await first.faults();
  await eventually("the mount answers and counts as silent", () => !isSilent(at), 5000);
  await first.faults({ fault: "hang", path: "" });
  await eventually("an earlier answer counts too long", () => isSilent(at));
  assert.equal(spawnSync("umount", ["-l", at]).status, 0);
  await FaultyFuse.mount(t, at);
  assert.equal(isSilent(at), false);
});

test("points can be looked at and removed while the folder's mount does not answer", needs, async (t) => {
  const { folder, fuse } = await place(t, "whole");
  for (const fault of LONG ? (["stuck", "hang"] as const) : (["hang"] as const)) {
    await fuse.faults({ fault, path: "" });
    // A process knows for a while if a mount answers, so a new one calls the first verb.
    for (const [i, words] of [
      ["history"],
      ["find", "top"],
      ["show", "head"],
      ["show", "head:top"],
      ["cleanup", "--plan"],
      ["verify"],
    ].entries()) {
      const done = cairn(["-C", folder, ...words], { timeoutMs: DEADLINE_MS, own: i === 0 });
      assert.equal(done.status, 0, `${words.join(" ")}, ${fault}: ${done.stdout}`);
    }
    const refused = cairn(["-C", folder, "status"], { timeoutMs: DEADLINE_MS });
    assert.deepEqual([refused.status, refused.error?.code], [1, "io"]);
    const list = (): unknown[] => cairnOk(["-C", folder, "history"]).data["save_points"] as unknown[];
    const before = list().length;
    if (fault === "hang") cairnOk(["-C", folder, "cleanup", "--keep-last", "1", "--keep-undo", "0"]);
    if (fault === "hang") assert.ok(list().length < before);
    await fuse.faults();
  }
  cairnOk(["-C", folder, "save"], { own: true });
});

test("points on the mount that does not answer cannot be looked at", needs, async (t) => {
  const at = newFolder("control-there");
  const fuse = await FaultyFuse.mount(t, at);
  const work = newFolder("beside-control");
  const control = ["--control-dir", path.join(at, "control")];
  cairnOk([...control, "save", work]);
  await fuse.faults({ fault: "hang", path: "" });
  const done = cairn([...control, "-C", work, "history"], { timeoutMs: DEADLINE_MS, own: true });
  assert.deepEqual([done.status, done.error?.code], [1, "io"], done.stdout);
  assert.match(done.error!.message, /control lies on a mount that does not answer/);
});

test("a mount that falls silent during the reading is named, and SIGTERM ends the save", needs, async (t) => {
  const at = newFolder("silent-meanwhile");
  const fuse = await FaultyFuse.mount(t, at);
  fs.writeFileSync(path.join(at, "slow"), "1");
  const above = path.dirname(at);
  assert.deepEqual([readsServed(at, false), readsServed(above, false), readsServed(above, true)], [true, false, true]);
  await fuse.faults({ fault: "hang", path: "slow", operations: ["READ"] });
  const reading = fs.promises.readFile(path.join(at, "slow"), "utf8");
  let waits = kernelWaits(new Map());
  const onMounts = () => [...(waits = kernelWaits(waits)).values()].filter(({ mountPoint }) => mountPoint !== null);
  // The time of the first look stays.
  const isKept = (wait: KernelWait | undefined): boolean =>
    wait?.mountPoint?.toString() === at && onMounts()[0]?.since === wait.since;
  await eventually("the read waits", () => isKept(onMounts()[0]));
  await fuse.faults();
  assert.equal(await reading, "1");
  assert.deepEqual(onMounts(), []);
  // The command waits 10 s before it is ended.
  if (!LONG) return;
  cairnOk(["save", at], { own: true });
  await fuse.faults({ fault: "hang", path: "slow", operations: ["READ"] });
  fs.writeFileSync(path.join(fuse.behind, "slow"), "22");
  const { child, ended } = startCairn(["-C", at, "save"], { own: true });
  const opened = (): string => spawnSync("ls", ["-l", `/proc/${child.pid!}/fd`], { encoding: "utf8" }).stdout;
  await eventually("the save opens the file", () => opened().includes(`${at}/slow`), DEADLINE_MS);
  child.kill("SIGTERM");
  assert.equal((await ended).killed, true);
  await fuse.faults();
  cairnOk(["-C", at, "save"], { own: true });
});
