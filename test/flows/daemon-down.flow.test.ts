import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { RestoreResult } from "../../src/contract/points.ts";
import { cairn, cairnOk, type Outcome, type RunOptions, SCRATCH } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** Folders that root's daemon keeps, while that daemon is down: their users, root, and the daemon when it is back. */

interface Place {
  daemon: TestDaemon;
  /** A folder of the ordinary user. */
  folder: string;
  asUser: (args: string[], cwd?: string) => Outcome;
  asRoot: (args: string[]) => Outcome;
}

/** A daemon of root's that keeps a folder of an ordinary user, with two points. */
async function place(t: TestContext, parent?: string): Promise<Place | null> {
  const why = whyNoOrdinaryUser();
  if (why !== null) {
    t.skip(why);
    return null;
  }
  const user = installForOrdinaryUser();
  t.after(() => user.remove());
  const daemon = new TestDaemon(t);
  daemon.configure(
    parent === undefined ? '[backend]\ntype = "plain"\n' : `[backend]\ntype = "btrfs-base"\ndata_root = "${parent}"\n`,
  );
  await daemon.start();
  // The test's own folders are closed to others.
  for (const each of [SCRATCH, daemon.folder, path.dirname(daemon.socket)]) fs.chmodSync(each, 0o755);
  fs.chmodSync(daemon.socket, 0o666);
  const folder = path.join(parent ?? user.place, "project");
  if (parent !== undefined) execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  fs.mkdirSync(path.join(folder, "inner"), { recursive: true });
  for (const each of [folder, path.join(folder, "inner")]) fs.chownSync(each, ORDINARY_USER, ORDINARY_USER);
  if (parent === undefined) fs.chownSync(user.place, ORDINARY_USER, ORDINARY_USER);
  const env = { CAIRN_SOCKET: daemon.socket, CAIRN_STATE_DIR: daemon.state };
  const asUser = (args: string[], cwd = "/"): Outcome => {
    const options = user.optionsIn(cwd);
    return cairn(args, { ...options, env: { ...options.env, ...env }, own: true });
  };
  const asRoot = (args: string[]): Outcome => cairn(args, { env, own: true } satisfies RunOptions);
  for (const content of ["one", "two"]) {
    fs.writeFileSync(path.join(folder, "a"), content);
    fs.chownSync(path.join(folder, "a"), ORDINARY_USER, ORDINARY_USER);
    const saved = asUser(["save", folder, "-m", content]);
    assert.equal(saved.status, 0, saved.stdout);
  }
  return { daemon, folder, asUser, asRoot };
}

function assertDaemonIsDown({ daemon }: Place, outcome: Outcome, context: string): void {
  assert.equal(outcome.error?.code, "no_daemon", `${context}: ${outcome.stdout}${outcome.stderr}`);
  assert.equal(outcome.status, 5, context);
  assert.equal(outcome.error.retryable, true, context);
  assert.ok(outcome.error.message.includes(daemon.socket), `${context}: ${outcome.error.message}`);
}

function messagesOf({ asUser, folder }: Place): string[] {
  const { data, stderr } = asUser(["-C", folder, "history", "--all"]);
  assert.ok(Array.isArray(data?.["save_points"]), stderr);
  return (data["save_points"] as { message: string }[]).map(({ message }) => message);
}

test("a user's commands are refused, and begin no second history, while root's daemon is down", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, asUser } = here;
  await daemon.stop();
  const link = `${folder}-link`;
  fs.symlinkSync(folder, link);
  const inner = path.join(folder, "inner");
  const commands: [args: string[], cwd?: string][] = [
    [["save", folder]],
    [["save", link]],
    [["save"], inner],
    [["save", inner]],
    [["init", folder]],
    [["init", folder, "--self-contained"]],
    [["-C", folder, "history"]],
    [["status"], inner],
    [["-C", folder, "restore", "head"]],
    [["-C", folder, "undo"]],
  ];
  for (const [args, cwd] of commands) assertDaemonIsDown(here, asUser(args, cwd), args.join(" "));
  assert.equal(asUser(["-C", folder, "run", "--", "true"]).status, 5);
  assert.equal(fs.existsSync(path.join(folder, ".cairn")), false);
  await daemon.kill();
  fs.renameSync(folder, `${folder}-moved`);
  assertDaemonIsDown(here, asUser(["save", `${folder}-moved`]), "moved");
  fs.renameSync(`${folder}-moved`, folder);
  // A folder around it is kept no more than while the daemon is there.
  const around = asUser(["save", path.dirname(folder)]);
  assert.equal(around.error?.code, "refused", around.stdout);
  assert.match(
    `${around.error.message} ${around.error.hint}`,
    /a workspace of root's daemon lies in it .*--allow nested/,
  );
  // Another folder beside it is the user's to keep.
  const other = `${folder}-other`;
  fs.mkdirSync(other);
  fs.chownSync(other, ORDINARY_USER, ORDINARY_USER);
  assert.equal(asUser(["save", other]).status, 0);
  await daemon.start();
  fs.chmodSync(daemon.socket, 0o666);
  assert.equal(asUser(["save", folder, "-m", "three"]).status, 0);
  assert.deepEqual(messagesOf(here), ["three", "two", "one"]);
  const listed = asUser(["workspaces"]).data["workspaces"] as { path: string }[];
  assert.equal(listed.filter((each) => each.path === folder).length, 1);
});

test("root's commands use the daemon's history while the daemon is down", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, asRoot, asUser } = here;
  await daemon.stop();
  fs.writeFileSync(path.join(folder, "a"), "three");
  const saved = asRoot(["save", folder, "-m", "three"]);
  assert.equal(saved.status, 0, saved.stderr);
  assert.equal(asRoot(["-C", folder, "restore", "head~2"]).status, 0);
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "one");
  assert.equal(asRoot(["-C", folder, "undo"]).status, 0);
  const listed = asRoot(["workspaces"]).data["workspaces"] as { path: string }[];
  assert.equal(listed.filter((each) => each.path === folder).length, 1);
  fs.renameSync(folder, `${folder}-moved`);
  assertDaemonIsDown(here, asRoot(["save", `${folder}-moved`]), "moved");
  fs.renameSync(`${folder}-moved`, folder);
  await daemon.start();
  fs.chmodSync(daemon.socket, 0o666);
  assert.ok(messagesOf(here).includes("three"));
  assert.equal((await daemon.reconciled()).workspaces.length, 1);
  // Root gives the folder up without the daemon, and its user keeps it from then on.
  await daemon.stop();
  assert.equal(asRoot(["release", folder]).status, 0);
  assert.equal(asUser(["save", folder]).status, 0);
  await daemon.start();
  assert.deepEqual((await daemon.reconciled()).workspaces, []);
});

test("hooks that root sets while its daemon is down are the daemon's, and those of a user's own workspace are the user's", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, asRoot, asUser } = here;
  await daemon.stop();
  const noted = path.join(daemon.folder, "noted");
  const set = ["--set", `after-save=echo run >> ${noted}`];
  assertDaemonIsDown(here, asUser(["hooks", folder, ...set]), "hooks");
  assert.equal(asRoot(["hooks", folder, ...set]).status, 0);
  assert.equal(asRoot(["save", folder]).status, 0);
  assert.equal(fs.readFileSync(noted, "utf8"), "run\n");
  const own = `${folder}-own`;
  fs.mkdirSync(own);
  fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
  assert.equal(asUser(["init", own, "--self-contained"]).status, 0);
  const refused = asRoot(["hooks", own, ...set]);
  assert.deepEqual([refused.status, refused.error?.code], [7, "refused"]);
  assert.match(refused.error!.hint!, new RegExp(`work as that user: sudo -u '#${ORDINARY_USER}' cairn`));
  assert.equal(asUser(["hooks", own, ...set]).status, 0);
  await daemon.start();
  fs.chmodSync(daemon.socket, 0o666);
  assert.equal(asUser(["save", folder]).status, 0);
  assert.equal(fs.readFileSync(noted, "utf8"), "run\nrun\n");
});

test("an unregistered folder is its user's own; the daemon's next start clears the mark of a killed first save", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, asUser } = here;
  assert.equal(asUser(["service", "unregister", folder]).status, 0);
  await daemon.stop();
  assert.equal(asUser(["save", folder]).status, 0);
  const next = `${folder}-next`;
  fs.mkdirSync(next);
  fs.chownSync(next, ORDINARY_USER, ORDINARY_USER);
  await daemon.start({ CAIRN_FAILPOINT: "daemon.marked" });
  fs.chmodSync(daemon.socket, 0o666);
  asUser(["save", next]);
  await daemon.ended();
  assertDaemonIsDown(here, asUser(["save", next]), "marked before it is a workspace");
  await daemon.start();
  fs.chmodSync(daemon.socket, 0o666);
  assert.deepEqual((await daemon.reconciled()).workspaces, []);
  assert.equal(asUser(["save", next]).status, 0);
  assert.equal((await daemon.status()).workspaces.length, 1);
});

test("a moved subvolume that a restore exchanged still belongs to root's daemon while the daemon is down", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  fs.chmodSync(volume.root, 0o755);
  const here = await place(t, volume.root);
  if (here === null) return;
  const { daemon, folder, asUser } = here;
  const before = fs.statSync(folder).dev;
  const restored = (await daemon.call("restore", {
    workspace: folder,
    options: { target: "head~1", method: "exchange" },
  })) as RestoreResult;
  assert.equal(restored.method, "exchange");
  assert.notEqual(fs.statSync(folder).dev, before, "it is another subvolume");
  await daemon.stop();
  fs.renameSync(folder, `${folder}-moved`);
  for (const args of [
    ["save", `${folder}-moved`],
    ["-C", `${folder}-moved`, "history"],
  ])
    assertDaemonIsDown(here, asUser(args), args.join(" "));
  // Seen through another mount it is the same folder.
  const mount = path.join(daemon.folder, "bound");
  fs.mkdirSync(mount);
  execFileSync("mount", ["--bind", volume.root, mount]);
  t.after(() => execFileSync("umount", [mount]));
  assertDaemonIsDown(here, asUser(["save", path.join(mount, "project-moved")]), "bound elsewhere");
  await daemon.start();
  fs.chmodSync(daemon.socket, 0o666);
  cairnOk(["save", `${folder}-moved`], { env: { CAIRN_SOCKET: daemon.socket } });
  assert.equal((await daemon.reconciled()).workspaces.length, 1);
});
