import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { request } from "node:http";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { SaveResult } from "../../src/contract/points.ts";
import type { HistoryResult } from "../../src/contract/looking.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertPromised } from "../../src/cli/testing-json-keys.ts";
import { Connection } from "../../src/api/client/connection.ts";
import { eventually } from "../fixtures/eventually.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { type LoopFileSystem, loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** The daemon's six scenarios, each with its opposite, on a real btrfs. */

interface Place {
  daemon: TestDaemon;
  volume: LoopFileSystem;
  folder: string;
}

/** A daemon over a btrfs with one workspace that has two points, of the contents `one` and `two`. */
async function place(t: TestContext): Promise<(Place & { points: string[] }) | null> {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return null;
  const daemon = new TestDaemon(t);
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  await daemon.start();
  const folder = path.join(volume.root, "ws");
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  await daemon.call("register", { path: folder });
  const points: string[] = [];
  for (const content of ["one", "two"]) {
    fs.writeFileSync(path.join(folder, "a"), content);
    points.push(
      ((await daemon.call("save", { workspace: folder, options: { message: content } })) as SaveResult).save_point_id,
    );
  }
  return { daemon, volume, folder, points };
}

async function historyOf({ daemon, folder }: Place): Promise<HistoryResult["save_points"]> {
  return ((await daemon.call("history", { workspace: folder })) as HistoryResult).save_points;
}

test("the daemon caches btrfs's answer about a first point before the first status call", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const daemon = new TestDaemon(t);
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  await daemon.start();
  const folder = path.join(volume.root, "ws");
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  fs.writeFileSync(path.join(folder, "a"), "one");
  await daemon.call("register", { path: folder });
  const { save_point_id: id } = (await daemon.call("save", { workspace: folder })) as SaveResult;
  const cache = path.join(daemon.stateNow().workspaces[0]!.control_directory, "cache");
  const kept = (): string[] =>
    fs
      .readdirSync(cache)
      .filter((name) => name.startsWith("ruleless-"))
      .map((name) => fs.readFileSync(path.join(cache, name), "latin1"));
  await eventually("the answer is kept", () => kept().some((text) => text.includes(id)));
  assert.equal(await daemon.stop(), 0);
});

test("a restarted daemon serves its workspaces and does not detect the backend again", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, points } = here;
  const before = await historyOf(here);
  const selected = daemon.stateNow().backend;
  assert.equal(await daemon.stop(), 0);
  await daemon.start();
  assert.match(daemon.log, /backend btrfs-base: the daemon's state says btrfs-base/);
  assert.doesNotMatch(daemon.log, /unclean/);
  assert.deepEqual({ ...daemon.stateNow().backend, selection_method: "" }, { ...selected, selection_method: "" });
  const after = await historyOf(here);
  assert.deepEqual(after, before);
  assert.deepEqual(
    after.map(({ message }) => message),
    ["two", "one"],
  );
  await daemon.call("restore", { workspace: folder, options: { target: points[0] } });
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "one");
  for (const line of ["service status", "service reload"])
    assertPromised(line, cairnOk(line.split(" "), daemon.asked).data);
  const other = cairnOk(["-C", folder, "history"], daemon.asked).data["save_points"] as { message: string }[];
  assert.deepEqual(
    other.map(({ message }) => message),
    ["two", "one"],
  );
});

test("the daemon refuses to start without its device, and names the affected workspaces", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, volume } = here;
  await daemon.reconciled();
  await daemon.stop();
  const file = path.join(daemon.state, "state.json");
  const before = fs.readFileSync(file);
  const [served] = daemon.stateNow().workspaces;
  execFileSync("umount", [volume.root]);
  const { status, error } = await daemon.refused();
  assert.notEqual(status, 0);
  assert.equal(error.code, "unsupported");
  for (const named of ["btrfs-base", "backend.type", daemon.config, file, served!.id.slice(0, 8), folder, "2 points"])
    assert.ok(error.message.includes(named), `${named} in ${error.message}`);
  assert.match(error.hint, /mount the file system|mount .* there/);
  assert.deepEqual(fs.readFileSync(file), before, "the state stays byte for byte");
  assert.deepEqual(fs.readdirSync(volume.root), [], "nothing is made where the device was");
  volume.remount();
  await daemon.start();
  assert.doesNotMatch(daemon.log, /unclean/, "a start that failed is no crash");
  assert.equal((await historyOf(here)).length, 2);
});

test("the daemon refuses a data root on another file system than its state names", async (t) => {
  const here = await place(t);
  const other = here === null ? null : loopFileSystem(t, "btrfs");
  if (here === null || other === null) return;
  await here.daemon.stop();
  here.daemon.configure(`[backend]\ndata_root = "${other.root}"\n`);
  const { error } = await here.daemon.refused();
  assert.equal(error.code, "unsupported");
  assert.match(error.message, /lies on the file system/);
  here.daemon.configure(`[backend]\ntype = "plain"\n`);
  await here.daemon.start();
  assert.match(here.daemon.log, /the daemon's state says btrfs-base, but the configuration says plain/);
  assert.equal((await here.daemon.status()).workspaces[0]!.origin_backend, "btrfs-base");
  assert.equal((await historyOf(here)).length, 2);
});

test("the daemon reports an unclean shutdown once after a kill, and refuses a second daemon", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon } = here;
  const second = await daemon.refused();
  assert.equal(second.error.code, "busy");
  assert.match(second.error.message, new RegExp(`pid ${daemon.pid}`));
  assert.equal((await historyOf(here)).length, 2);
  await daemon.kill();
  await daemon.start();
  assert.match(daemon.log, /unclean shutdown/);
  assert.match((await daemon.status()).unclean_shutdown!, /^pid \d+/);
  assert.equal((await historyOf(here)).length, 2);
  await daemon.stop();
  await daemon.start();
  assert.doesNotMatch(daemon.log, /unclean/);
  assert.equal((await daemon.status()).unclean_shutdown, null);
});

test("a point whose snapshot is missing is kept but not restored, and works again once the snapshot is back", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, volume, points } = here;
  const control = daemon.stateNow().workspaces[0]!.control_directory;
  const tree = fs.globSync(`${control}/workspaces/*/points/0000000001/tree`)[0]!;
  const away = path.join(volume.root, "away");
  execFileSync("btrfs", ["property", "set", tree, "ro", "false"]);
  fs.renameSync(tree, away);
  const lost = (await daemon.reconciled()).workspaces[0]!;
  assert.equal(lost.health, "points_missing");
  assert.deepEqual(lost.missing, [points[0]]);
  assert.equal(lost.points, 2);
  await assert.rejects(daemon.call("restore", { workspace: folder, options: { target: points[0] } }), {
    code: "damaged",
  });
  await daemon.call("restore", { workspace: folder, options: { target: points[1] } });
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "two");
  fs.renameSync(away, tree);
  execFileSync("btrfs", ["property", "set", tree, "ro", "true"]);
  assert.equal((await daemon.reconciled()).workspaces[0]!.health, "ok");
  await daemon.call("restore", { workspace: folder, options: { target: points[0] } });
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "one");
});

test("a snapshot without its record becomes one pinned, recovered point", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, points } = here;
  const control = daemon.stateNow().workspaces[0]!.control_directory;
  fs.rmSync(fs.globSync(`${control}/workspaces/*/points/0000000001/descriptor.json`)[0]!);
  for (let look = 0; look < 2; look++) {
    await daemon.reconciled();
    const found = await historyOf(here);
    assert.deepEqual(
      found.map(({ pinned, cause }) => [pinned, cause.kind]),
      [
        [true, "recovered"],
        [false, "person"],
      ],
    );
    assert.equal(found[1]!.save_point_id, points[1]);
  }
  // It is neither what the folder stands at, nor the latest.
  for (const target of ["latest", "head"])
    assert.equal(
      ((await daemon.call("resolve", { workspace: folder, target })) as { save_point_id: string }).save_point_id,
      points[1],
      target,
    );
  assert.match(daemon.log, /recovered and pinned 1 point/);
  await daemon.call("restore", { workspace: folder, options: { target: (await historyOf(here))[0]!.save_point_id } });
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "one");
});

test("a workspace whose folder is missing affects no other, and is served again once the folder is back", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, volume } = here;
  const other = path.join(volume.root, "other");
  execFileSync("btrfs", ["-q", "subvolume", "create", other]);
  await daemon.call("register", { path: other });
  fs.renameSync(folder, `${folder}-away`);
  const seen = (await daemon.reconciled()).workspaces.map(({ path: at, health }) => [path.basename(at), health]);
  assert.deepEqual(seen.toSorted(), [
    ["other", "ok"],
    ["ws", "folder_gone"],
  ]);
  const status = cairn(["service", "status", "--check"], daemon.asked);
  assert.deepEqual([status.status, status.error!.code], [3, "not_found"]);
  assert.ok(status.error!.message.includes(folder), status.error!.message);
  const gone = cairn(["service", "recover", `${folder}-none`], daemon.asked);
  assert.match(gone.error!.hint!, /service status/);
  await daemon.call("save", { workspace: other });
  await daemon.kill();
  await daemon.start();
  await daemon.call("save", { workspace: other });
  fs.renameSync(`${folder}-away`, folder);
  assert.ok((await daemon.reconciled()).workspaces.every(({ health }) => health === "ok"));
  assert.equal(cairn(["service", "status", "--check"], daemon.asked).status, 0);
  const control = daemon.stateNow().workspaces.find(({ path: at }) => at === folder)!.control_directory;
  fs.renameSync(control, `${control}-away`);
  const damaged = cairn(["service", "status", "--check"], daemon.asked);
  assert.deepEqual([damaged.status, damaged.error!.code], [6, "damaged"]);
  assert.ok(damaged.error!.message.includes(control), damaged.error!.message);
  fs.renameSync(`${control}-away`, control);
  assert.equal((await historyOf(here)).length, 2);
});

test("the daemon sets a damaged state file aside and still serves every workspace", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon } = here;
  const file = path.join(daemon.state, "state.json");
  const whole = async (context: string): Promise<void> => {
    await daemon.start();
    assert.equal((await daemon.reconciled()).workspaces.length, 1, context);
    assert.equal((await historyOf(here)).length, 2, context);
    await daemon.stop();
  };
  await daemon.stop();
  const bytes = fs.readFileSync(file);
  for (const damage of [bytes.subarray(0, bytes.length / 2), Buffer.alloc(0), Buffer.from("{}\n")]) {
    fs.writeFileSync(file, damage);
    await whole(`${damage.length} bytes`);
    assert.ok(fs.readdirSync(daemon.state).some((name) => name.startsWith("state.json.damaged-")));
  }
  for (const name of fs.readdirSync(daemon.state))
    if (name.startsWith("state.")) fs.rmSync(path.join(daemon.state, name));
  assert.equal((await daemon.refused()).error.code, "damaged", "no state at all, and records of a folder");
  daemon.more = ["--rebuild-state"];
  await whole("no state at all, rebuilt");
  daemon.more = [];
  const newer = JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>;
  fs.writeFileSync(file, JSON.stringify({ ...newer, later: { kept: 1 } }));
  await whole("a member of a later writer");
  assert.deepEqual((JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>)["later"], { kept: 1 });
  fs.writeFileSync(file, JSON.stringify({ ...newer, version: 2 }));
  assert.equal((await daemon.refused()).error.code, "newer_version");
  assert.equal((JSON.parse(fs.readFileSync(file, "utf8")) as Record<string, unknown>)["version"], 2);
});

test("the daemon rebuilds an unreadable state only if --rebuild-state is given", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon } = here;
  await daemon.stop();
  const names = ["state.json", "state.previous.json"];
  for (const name of names) fs.writeFileSync(path.join(daemon.state, name), "cut");
  for (let start = 0; start < 2; start++) assert.equal((await daemon.refused()).error.code, "damaged");
  // An earlier version set both aside before it refused.
  for (const name of names) fs.renameSync(path.join(daemon.state, name), path.join(daemon.state, `${name}.damaged-1`));
  assert.equal((await daemon.refused()).error.code, "damaged");
  assert.equal(fs.existsSync(path.join(daemon.state, "state.json")), false);
  daemon.more = ["--rebuild-state"];
  await daemon.start();
  assert.equal((await daemon.status()).backend.type, "btrfs-base");
  assert.equal((await daemon.reconciled()).workspaces.length, 1);
  assert.equal((await historyOf(here)).length, 2);
  await daemon.stop();
  daemon.more = [];
  await daemon.start();
  assert.equal((await historyOf(here)).length, 2);
});

test("the btrfs-base backend is refused outside btrfs, and the state directory may be a link", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const daemon = new TestDaemon(t);
  daemon.configure(`[backend]\ntype = "btrfs-base"\ndata_root = "${daemon.folder}"\n`);
  const { error } = await daemon.refused();
  assert.equal(error.code, "unsupported");
  assert.match(error.message, /does not exist, or its file system has no UUID|lies on (?!btrfs)\w+/);
  assert.equal(fs.existsSync(path.join(daemon.state, "state.json")), false);
  fs.rmSync(daemon.state, { recursive: true, force: true });
  const real = path.join(daemon.folder, "real");
  fs.mkdirSync(real);
  fs.symlinkSync(real, daemon.state);
  daemon.configure(`[backend]\ntype = "btrfs-base"\ndata_root = "${volume.root}"\n`);
  for (let start = 0; start < 2; start++) {
    await daemon.start();
    assert.equal((await daemon.status()).backend.type, "btrfs-base");
    await daemon.stop();
  }
});

test("run and release work on folders that a daemon serves, and commands use the nearest workspace", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, volume } = here;
  const run = (args: string[], cwd = "/"): ReturnType<typeof cairn> => cairn(args, { ...daemon.asked, cwd, own: true });
  const ran = run(["-C", folder, "run", "--", "sh", "-c", `echo three > ${folder}/a`]);
  assert.equal(ran.status, 0, ran.stderr);
  assert.deepEqual(
    (await historyOf(here)).slice(0, 2).map(({ cause }) => [cause.kind, cause["phase"]]),
    [
      ["command", "after"],
      ["command", "before"],
    ],
  );
  // One below that its user keeps without the daemon.
  const inner = path.join(folder, "inner");
  fs.mkdirSync(inner);
  cairnOk(["init", inner, "--allow", "nested"]);
  assert.equal((run(["status"], inner).data["workspace"] as { path: string }).path, inner);
  assert.equal((run(["status"], folder).data["workspace"] as { path: string }).path, folder);
  assert.equal(run(["service", "unregister", path.join(folder, "inner", "x")]).error?.code, "not_a_workspace");
  const outer = path.join(volume.root, "outer");
  fs.mkdirSync(path.join(outer, "mine"), { recursive: true });
  cairnOk(["init", path.join(outer, "mine")]);
  assert.equal(run(["save", outer]).error?.code, "refused");
  assert.equal(run(["release", folder]).status, 0);
  assert.deepEqual((await daemon.status()).workspaces, []);
  const other = new TestDaemon(t);
  other.configure("");
  fs.mkdirSync(path.dirname(other.socket));
  fs.writeFileSync(other.socket, "precious");
  assert.equal((await other.refused()).error.code, "already_exists");
  assert.equal(fs.readFileSync(other.socket, "utf8"), "precious");
});

test("a start and a reload fail with the line number if the configuration does not parse", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure("[backend]\ntype = plain\n");
  const { status, error } = await daemon.refused();
  assert.equal(status, 2);
  assert.match(error.message, /config\.toml, line 2/);
  daemon.configure('[backend]\ntype = "plain"\n[retention]\nkeep = { last = 2 }\n');
  await daemon.start();
  daemon.configure("[retention]\nkeep = { lats = 3 }\n");
  await assert.rejects(daemon.call("reload"), { code: "usage", message: /line 2: keep/ });
  assert.ok((await daemon.status()).retention.next_at !== null);
});

test("the daemon refuses invalid calls and changes nothing", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder } = here;
  const call = (name: string, members: Record<string, unknown>): Promise<unknown> => daemon.call(name, members);
  await assert.rejects(call("restore", { workspace: folder, options: { target: "../x" } }), { code: "invalid_id" });
  await assert.rejects(call("pin", { workspace: folder, target: "../../etc" }), { code: "invalid_id" });
  await assert.rejects(call("save", { workspace: "ws" }), { code: "usage" });
  await assert.rejects(call("save", { workspace: "/nowhere" }), { code: "not_a_workspace" });
  await assert.rejects(call("save", { workspace: folder, options: { mesage: "x" } }), { code: "usage" });
  await assert.rejects(call("save", { workspace: folder, more: 1 }), { code: "usage" });
  await assert.rejects(call("save", { workspace: folder, options: { workspaceName: "other" } }), { code: "usage" });
  await assert.rejects(call("run", { workspace: folder, command: ["id"] }), { code: "unsupported" });
  await assert.rejects(call("restore", { workspace: folder, options: { target: "latest", to: "x" } }), {
    code: "usage",
  });
  await assert.rejects(call("constructor", { workspace: folder }), { code: "usage" });
  await assert.rejects(call("save", { workspace: folder, options: { message: "x".repeat(2 << 20) } }), {
    code: "usage",
  });
  assert.equal((await historyOf(here)).length, 2);
  const done = cairn(["-C", folder, "run", "--", "true"], daemon.asked);
  assert.equal(done.status, 0, done.stderr);
});

test("service recover turns a workspace into an equal plain folder, and register finds its points again", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder } = here;
  fs.symlinkSync("a", path.join(folder, "link"));
  const done = cairnOk(["service", "recover", folder, "--allow", "holders"], daemon.asked).data;
  assertPromised("service recover", done);
  assert.equal(done["entries"], 2);
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "two");
  assert.equal(fs.readFileSync(path.join(done["original"] as string, "a"), "utf8"), "two");
  assert.throws(() => execFileSync("btrfs", ["subvolume", "show", folder], { stdio: "pipe" }));
  assert.deepEqual((await daemon.status()).workspaces, []);
  await assert.rejects(daemon.call("history", { workspace: folder }), { code: "not_a_workspace" });
  const control = done["control_directory"] as string;
  assert.ok(fs.globSync(`${control}/workspaces/*/points/0000000002/descriptor.json`).length === 1, "its points stay");
  await daemon.call("register", { path: folder, options: { allow: ["holders"] } });
  assert.equal((await historyOf(here)).length, 2);
});

test("save --id names points per workspace, and cleanup drop removes points by id", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder, volume } = here;
  const other = path.join(volume.root, "other");
  execFileSync("btrfs", ["-q", "subvolume", "create", other]);
  const run = (...args: string[]): ReturnType<typeof cairn> => cairn(args, daemon.asked);
  assert.equal(run("save", other, "--id", "step-1").status, 0);
  assert.equal(run("save", other, "--id", "step-1").error?.code, "already_exists");
  for (const id of ["../x", "head~1", "latest", "yesterday", "a b", "-x"])
    assert.equal(run("save", other, `--id=${id}`).error?.code, "invalid_id", id);
  assert.equal(run("save", folder, "--id", "step-1").status, 0, "another workspace has ids of its own");
  fs.writeFileSync(path.join(folder, "a"), "three");
  assert.equal(run("-C", folder, "restore", "step-1").status, 0);
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "two");
  const listed = run("workspaces", "--points").data["save_points"] as {
    workspace: string;
    save_point_id: string;
    tags: string[];
  }[];
  assert.deepEqual(
    listed
      .filter(({ tags }) => tags.includes("step-1"))
      .map(({ workspace }) => workspace)
      .toSorted(),
    [other, folder].toSorted(),
  );
  const { save_point_id: id } = listed.find((each) => each.workspace === other)!;
  assert.equal(run("-C", other, "pin", id).status, 0);
  assert.equal(run("-C", other, "cleanup", "drop", id).error?.code, "refused", "it is pinned");
  assert.equal(run("-C", other, "save").status, 0, "so that it is not head");
  assert.equal(
    run("cleanup", "drop", "--force", id, "latest~99", "-C", other).status,
    2,
    "nothing is unpinned for what fails",
  );
  assert.equal(run("-C", other, "cleanup", "drop", id).error?.code, "refused", "it is pinned still");
  assert.deepEqual(run("-C", other, "cleanup", "drop", "--force", id).data["removed"], [id]);
  assert.equal(run("-C", other, "cleanup", "drop", id).error?.code, "not_found");
  // Eight hex digits, as the plugins of ws-ckpt make them.
  for (const chosen of ["deadbeef", "00000001"]) {
    fs.writeFileSync(path.join(other, "b"), chosen);
    assert.equal(run("save", other, "--id", chosen).status, 0, chosen);
  }
  assert.equal(run("-C", other, "show", "deadbeef").status, 0);
  assert.equal(run("-C", other, "diff", "deadbeef", "00000001").status, 0);
  for (const [target, content] of [
    ["deadbeef", "deadbeef"],
    ["deadb", "deadbeef"],
    ["00000001", "00000001"],
  ] as const) {
    assert.equal(run("-C", other, "restore", target).status, 0, target);
    assert.equal(fs.readFileSync(path.join(other, "b"), "utf8"), content);
  }
  const removed = run("-C", other, "cleanup", "drop", "--force", "deadbeef");
  assert.equal((removed.data["removed"] as string[] | undefined)?.length, 1, removed.stdout);
  assert.equal(run("-C", other, "restore", "deadbeef").error?.code, "not_found");
});

test(
  "callers of root's daemon may act only on workspaces that they may write to",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const here = await place(t);
    if (here === null) return;
    const { daemon, folder, volume } = here;
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    const own = path.join(volume.root, "own");
    execFileSync("btrfs", ["-q", "subvolume", "create", own]);
    fs.chownSync(own, ORDINARY_USER, ORDINARY_USER);
    fs.chmodSync(own, 0o700);
    fs.chmodSync(daemon.folder, 0o755);
    fs.chmodSync(path.dirname(daemon.folder), 0o711);
    fs.chmodSync(daemon.state, 0o711);
    const options = user.optionsIn("/");
    const run = (...args: string[]): ReturnType<typeof cairn> =>
      cairn(args, { ...options, own: true, env: { ...options.env, CAIRN_SOCKET: daemon.socket } });
    const closed = run("service", "status");
    assert.equal(closed.error?.code, "permission", "the socket is the daemon's own user's without a group");
    fs.chmodSync(daemon.socket, 0o666);
    assert.equal(run("-C", folder, "history").error?.code, "permission");
    assert.equal(run("save", folder).error?.code, "permission");
    assert.equal(run("service", "unregister", folder).error?.code, "permission");
    assert.deepEqual(run("service", "status").data["workspaces"] as unknown[], [], "others' workspaces are not listed");
    assert.equal(run("service", "status", "--check").error?.code, "permission");
    assert.equal(run("service", "reload").error?.code, "permission");
    fs.writeFileSync(path.join(own, "a"), "mine");
    fs.chownSync(path.join(own, "a"), ORDINARY_USER, ORDINARY_USER);
    assert.equal(run("save", own).status, 0);
    assert.equal((run("service", "status").data["workspaces"] as unknown[]).length, 1);
    fs.writeFileSync(path.join(own, "a"), "other");
    assert.equal(run("-C", own, "restore", "head").status, 0);
    assert.equal(fs.readFileSync(path.join(own, "a"), "utf8"), "mine");
    assert.equal(fs.statSync(path.join(own, "a")).uid, ORDINARY_USER);
    assert.equal(run("-C", own, "restore", "head", "--to", "/root/evil").error?.code, "permission");
    assert.equal(fs.existsSync("/root/evil"), false);
  },
);

test("a call fails if the daemon cannot save its state, and the daemon keeps serving", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, volume } = here;
  const small = new TestDaemon(t);
  fs.mkdirSync(small.state);
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", small.state]);
  t.after(() => execFileSync("umount", ["-l", small.state]));
  small.configure(`[backend]\ndata_root = "${volume.root}"\n`);
  await daemon.stop();
  await small.start();
  const folder = path.join(volume.root, "late");
  execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
  const before = fs.readFileSync(path.join(small.state, "state.json"));
  const filler = path.join(small.state, "filler");
  assert.throws(() => fs.writeFileSync(filler, Buffer.alloc(4 << 20)), { code: "ENOSPC" });
  await assert.rejects(small.call("register", { path: folder }), { code: "no_space" });
  assert.deepEqual(fs.readFileSync(path.join(small.state, "state.json")), before);
  assert.deepEqual((await small.status()).workspaces, []);
  fs.rmSync(filler);
  await small.call("register", { path: folder });
  await small.call("save", { workspace: folder });
  await small.kill();
  await small.start();
  assert.equal((await small.status()).workspaces[0]!.path, folder);
});

test("an application that offers to freeze is frozen while the daemon saves its workspace", async (t) => {
  const here = await place(t);
  if (here === null) return;
  const { daemon, folder } = here;
  const application = new Connection(daemon.socket);
  t.after(() => application.close());
  const file = path.join(folder, "state");
  fs.writeFileSync(file, "half");
  const seen: string[] = [];
  const offered = (async () => {
    for await (const line of application.stream("freezeOffer", { workspace: folder })) {
      const { freeze } = line as { freeze?: string };
      fs.writeFileSync(file, freeze === undefined ? "half" : "whole");
      seen.push(freeze === undefined ? "thaw" : "freeze");
      if (freeze !== undefined) await daemon.call("frozen", { token: freeze });
    }
  })();
  // Until the offer has arrived.
  await eventually("the application is asked", async () => {
    const { token, frozen } = (await daemon.call("freezeBegin", { workspace: folder })) as {
      token: string;
      frozen: number;
    };
    await daemon.call("freezeEnd", { token });
    return frozen === 1;
  });
  const { save_point_id: id } = (await daemon.call("save", { workspace: folder })) as SaveResult;
  await eventually("it is told of the end", () => seen.length === 4);
  assert.deepEqual(seen, ["freeze", "thaw", "freeze", "thaw"]);
  await daemon.call("restore", { workspace: folder, options: { target: id } });
  assert.equal(fs.readFileSync(file, "utf8"), "whole");
  assert.equal(await daemon.stop(), 0);
  await offered;
});

test(
  "root's daemon gives callers no access that they do not have themselves",
  { skip: whyNoOrdinaryUser() ?? false },
  async (t) => {
    const here = await place(t);
    if (here === null) return;
    const { daemon, volume } = here;
    const user = installForOrdinaryUser();
    t.after(() => user.remove());
    for (const each of [path.dirname(daemon.folder), daemon.folder]) fs.chmodSync(each, 0o755);
    fs.chmodSync(daemon.socket, 0o666);
    const { prefix, node } = user.optionsIn("/");
    const script = `const [socketPath, path, body] = process.argv.slice(1);
require("http").request({ socketPath, path, method: "POST", headers: { accept: "application/x-ndjson" } }, (r) => { let s = ""; r.on("data", (d) => (s += d)); r.on("end", () => console.log(s)); }).end(body);`;
    const call = (name: string, members: object): Answered["body"] => {
      const [program, ...rest] = [
        ...prefix!,
        node!,
        "-e",
        script,
        daemon.socket,
        `/v1/${name}`,
        JSON.stringify(members),
      ];
      const lines = execFileSync(program!, rest, { encoding: "utf8" }).trim().split("\n");
      return JSON.parse(lines.at(-1)!) as Answered["body"];
    };
    const codeOf = (name: string, members: object): string | undefined => call(name, members).error?.code;
    const make = (name: string, owner = ORDINARY_USER): string => {
      const folder = path.join(volume.root, name);
      execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
      fs.chownSync(folder, owner, owner);
      return folder;
    };
    const own = make("mine");
    fs.mkdirSync(path.join(own, "closed"), { mode: 0o700 });
    for (const [name, mode] of [
      ["secret", 0o600],
      ["open", 0o644],
      ["closed/inner", 0o644],
    ] as const) {
      fs.writeFileSync(path.join(own, name), name);
      fs.chmodSync(path.join(own, name), mode);
    }
    fs.symlinkSync("/etc", path.join(own, "etc"));
    assert.equal(call("register", { path: own }).ok, true);
    assert.equal(call("save", { workspace: own }).ok, true);
    const read = (target: string | null, name: string): string | undefined =>
      codeOf("read", { workspace: own, target, path: name });
    assert.equal(read("latest", "open"), undefined);
    for (const name of ["secret", "closed/inner"]) assert.equal(read("latest", name), "permission", name);
    assert.equal(read(null, "open"), "unsupported");
    const compared = (name: string, b: string | null): string | undefined =>
      codeOf("diffText", { workspace: own, path: name, a: "latest", b });
    assert.equal(compared("open", "latest"), undefined);
    for (const name of ["secret", "closed/inner"]) assert.equal(compared(name, "latest"), "permission", name);
    assert.equal(compared("open", null), "unsupported");
    assert.notEqual(read("latest", "etc/passwd"), undefined, "a link leads nowhere");
    // Also root reads through no link in a folder.
    await assert.rejects(daemon.call("read", { workspace: own, target: null, path: "etc/passwd" }), {
      code: "conflict",
    });
    // A control directory that is theirs says what they like.
    const crafted = make("crafted");
    fs.rmdirSync(crafted);
    cairnOk(["init", crafted, "--self-contained"]);
    execFileSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, crafted]);
    for (const each of [crafted, path.join(crafted, "main")])
      assert.equal(codeOf("register", { path: each }), "permission", each);
    const [control] = daemon.stateNow().workspaces.map((each) => each.control_directory);
    assert.equal(codeOf("register", { path: make("joins"), options: { controlDirectory: control } }), "permission");
    // Points stay with whoever had the folder.
    const private_ = make("private", 0);
    fs.writeFileSync(path.join(private_, "key"), "key");
    await daemon.call("register", { path: private_ });
    await daemon.call("save", { workspace: private_ });
    fs.renameSync(private_, `${private_}-away`);
    assert.equal(codeOf("history", { workspace: private_ }), "permission", "it is gone");
    fs.mkdirSync(private_);
    fs.chownSync(private_, ORDINARY_USER, ORDINARY_USER);
    for (const name of ["history", "save", "release"])
      assert.equal(
        codeOf(name, { workspace: private_, path: private_, ...(name === "unregister" ? {} : { path: undefined }) }),
        "permission",
        name,
      );
    assert.equal((await daemon.status()).workspaces.length, 3);
    // Who may write to a folder that is not theirs saves it, and gets no content of it.
    const shared = make("shared", 0);
    fs.chmodSync(shared, 0o777);
    fs.writeFileSync(path.join(shared, "a"), "a");
    await daemon.call("register", { path: shared });
    assert.equal(codeOf("save", { workspace: shared }), undefined);
    assert.equal(codeOf("read", { workspace: shared, target: "latest", path: "a" }), "permission");
    assert.equal(codeOf("setPolicy", { workspace: shared, policy: {} }), "permission");
    execFileSync("setfacl", ["-m", `u:${ORDINARY_USER}:---`, shared]);
    assert.equal(codeOf("save", { workspace: shared }), "permission", "an access list stands behind the bits");
  },
);

interface Answered {
  status: number;
  body: { ok: boolean; error: { code: string } | null; data: unknown };
}

/** A request as any HTTP client sends it. */
function ask(
  daemon: TestDaemon,
  at: { path: string; method?: string; headers?: Record<string, string>; body?: string },
): Promise<Answered> {
  const { promise, resolve, reject } = Promise.withResolvers<Answered>();
  const { path: name, method = "POST", headers = {}, body = "" } = at;
  const call = request({ socketPath: daemon.socket, path: name, method, headers }, (response) => {
    let text = "";
    response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
    response.on("end", () => resolve({ status: response.statusCode!, body: JSON.parse(text) as Answered["body"] }));
  });
  call.on("error", reject);
  call.end(body);
  return promise;
}

test("the daemon refuses malformed requests with a status and a code, and does not count freeze offers as calls", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[socket]\ncalls = 2\nconnections = 20\nrequest_size = "10K"\n');
  await daemon.start();
  for (const [at, status, code] of [
    [{ path: "/v1/daemon", method: "GET" }, 400, "usage"],
    [{ path: "/v2/daemon" }, 404, "not_found"],
    [{ path: "/v1/daemon/../x" }, 404, "not_found"],
    [{ path: "/v1/nothing", body: "{}" }, 400, "usage"],
    [{ path: "/v1/toString", body: "{}" }, 400, "usage"],
    [{ path: "/v1/at", body: "[]" }, 400, "usage"],
    [{ path: "/v1/at", body: "{" }, 400, "usage"],
    [{ path: "/v1/at", body: '{"path": "relative"}' }, 400, "usage"],
    [{ path: "/v1/at", body: '{"path": {"$b64": "L3RtcA=="}}' }, 400, "usage"],
    [{ path: "/v1/save", body: '{"workspace": "/tmp", "options": 3}' }, 400, "usage"],
    [{ path: "/v1/at", body: JSON.stringify({ path: "/".repeat(20_000) }) }, 400, "usage"],
    [{ path: "/v1/daemon", headers: { origin: "http://evil" } }, 403, "permission"],
  ] as const) {
    const { status: found, body } = await ask(daemon, at);
    assert.deepEqual([found, body.ok, body.error?.code], [status, false, code], JSON.stringify(at).slice(0, 200));
  }
  const { status, body } = await ask(daemon, { path: "/v1/daemon" });
  assert.deepEqual([status, body.ok], [200, true]);
  // What takes long is counted: a save whose application is asked and does not answer.
  const folder = path.join(daemon.folder, "ws");
  fs.mkdirSync(folder);
  await daemon.call("register", { path: folder });
  assert.equal(
    (await ask(daemon, { path: "/v1/walk", body: JSON.stringify({ workspace: folder, target: "latest" }) })).body.error
      ?.code,
    "not_found",
  );
  const connections = Array.from({ length: 40 }, () => new Connection(daemon.socket));
  const offers = connections.map(async (each) => each.call("freezeOffer", { workspace: folder }));
  const failures = Promise.allSettled(offers);
  await eventually(
    "offers are no calls under way",
    async () => (await ask(daemon, { path: "/v1/daemon" })).status === 200,
  );
  for (const each of connections) each.close();
  await failures;
});

test("a start and daemon --check refuse a missing configuration, and --check tries what the file names", async (t) => {
  const daemon = new TestDaemon(t);
  fs.rmSync(daemon.config);
  const missing = await daemon.refused();
  assert.equal(missing.status, 2);
  assert.ok(missing.error.message.includes(daemon.config), missing.error.message);
  const checked = (): ReturnType<typeof cairn> => cairn(["daemon", "--check"], { env: daemon.places });
  assert.equal(checked().status, 2);
  const [repository, file, other] = ["repository", "password", "other"].map((name) => path.join(daemon.folder, name));
  const row = (where: string, password: string): string =>
    `[[backup]]\nrepository = "${where}"\npassword_file = "${password}"\nevery = "1d"\n`;
  daemon.configure(`[socket]\ngroup = "no-such-group"\n${row(repository!, file!)}${row(other!, `${file}-2`)}`);
  const refused = checked();
  assert.equal(refused.status, 2, refused.stdout);
  for (const said of ["no-such-group", file!, `${file}-2`])
    assert.ok(refused.error!.message.includes(said), `${said} in ${refused.error!.message}`);
  fs.writeFileSync(file!, "secret\n", { mode: 0o600 });
  daemon.configure(row(repository!, file!));
  assert.match(checked().error!.message, /repository/, "it is not there");
  cairnOk(["backup", "init", "-r", repository!, "--password-file", file!]);
  assert.equal(checked().status, 0, checked().stdout);
  fs.writeFileSync(file!, "other\n");
  assert.match(checked().error!.message, /password/);
  assert.equal(fs.existsSync(daemon.state), false, "a check makes nothing");
});
