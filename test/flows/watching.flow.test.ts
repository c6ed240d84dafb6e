import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { Connection } from "../../src/api/client/connection.ts";
import { connect } from "../../src/client.ts";
import type { HistoryResult, SaveResult, StatusResult } from "../../src/contract/index.ts";
import type { ServiceEvent } from "../../src/contract/service.ts";
import { buildCommand, cairnOk, type RunOptions } from "../fixtures/command.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { eventually } from "../fixtures/eventually.ts";
import { ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";

/** A daemon that is told what changes in its folders. */

function fill(folder: string): void {
  fs.mkdirSync(path.join(folder, "a/deep"), { recursive: true });
  fs.writeFileSync(path.join(folder, "a/deep/file"), "one");
}

function listen(t: TestContext, socket: string): ServiceEvent[] {
  const stop = new AbortController();
  t.after(() => stop.abort());
  const heard: ServiceEvent[] = [];
  void (async () => {
    for await (const each of connect({ socket }).events({ after: 0, types: ["changed", "save"], signal: stop.signal }))
      heard.push(each);
  })().catch(() => undefined);
  return heard;
}

function isTold(heard: readonly ServiceEvent[], name: string): boolean {
  return heard.some(({ type, data }) => type === "changed" && (data as { names: string[] }).names.includes(name));
}

test("the daemon reports a change and saves the folder once it has been quiet", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure('[saves]\nwhen_quiet = "1s"\nat_most_every = "1h"\n');
  await daemon.start();
  const folder = path.join(daemon.folder, "told");
  fill(folder);
  const heard = listen(t, daemon.socket);
  await daemon.call("register", { path: folder });
  const points = async (): Promise<HistoryResult["save_points"]> =>
    ((await daemon.call("history", { workspace: folder })) as HistoryResult).save_points;
  await eventually("a first point", async () => (await points()).length === 1);
  fs.writeFileSync(path.join(folder, "a/deep/file"), "two");
  await eventually("the change is told", () => isTold(heard, "a/deep/file"));
  await eventually("a second point", async () => (await points()).length === 2);
  const [second] = await points();
  assert.equal(second!.cause.kind, "schedule");
  assert.ok(heard.some(({ type }) => type === "save"));
  assert.match(shownBy(daemon.asked), /^watched +yes, by the daemon/m);
  const alone = path.join(daemon.folder, "alone");
  fill(alone);
  cairnOk(["save", alone]);
  assert.equal(cairnOk(["status", alone]).data["watched"], false);

  function shownBy({ env }: RunOptions): string {
    const asked = { env: { ...process.env, ...env }, encoding: "utf8" } as const;
    return spawnSync(process.execPath, [buildCommand(), "status", folder], asked).stdout;
  }
});

test("the daemon's next save sees saves of other processes and changes made while no daemon ran", async (t) => {
  const daemon = new TestDaemon(t);
  daemon.configure("");
  await daemon.start();
  const folder = path.join(daemon.folder, "shared");
  fill(folder);
  await daemon.call("register", { path: folder });
  const save = async (): Promise<SaveResult> =>
    (await daemon.call("save", { workspace: folder, options: { skipUnchanged: true } })) as SaveResult;
  await save();
  fs.writeFileSync(path.join(folder, "a/deep/file"), "by another");
  const { control_directory: control } = daemon.stateNow().workspaces[0]!;
  const env = { ...process.env, CAIRN_SOCKET: "none", XDG_STATE_HOME: path.join(daemon.folder, "others") };
  const other = spawn(process.execPath, [buildCommand(), "save", folder, "--control-dir", control], { env });
  assert.equal((await once(other, "exit"))[0], 0);
  assert.equal((await save()).made, false, "another process has saved it");
  fs.writeFileSync(path.join(folder, "a/deep/file"), "after that");
  assert.deepEqual((await save()).changes, { added: 0, modified: 1, removed: 0 });
  for (const isKilled of [false, true]) {
    fs.writeFileSync(path.join(folder, "a/deep/file"), `before ${isKilled}`);
    await save();
    await (isKilled ? daemon.kill() : daemon.stop());
    fs.writeFileSync(path.join(folder, "a/deep/file"), `while nobody looks ${isKilled}`);
    await daemon.start();
    assert.deepEqual((await save()).changes, { added: 0, modified: 1, removed: 0 });
    assert.equal((await save()).made, false);
  }
});

test("an ordinary user's daemon reports changes in its folders", { skip: whyNoOrdinaryUser() ?? false }, async (t) => {
  const user = installForOrdinaryUser();
  t.after(() => user.remove());
  const own = path.join(user.place, "home");
  const { prefix, node, command, env } = user.optionsIn("/");
  const socket = path.join(own, "run", "s");
  const [state, config] = [path.join(own, "daemon"), path.join(own, "none")];
  fs.writeFileSync(path.join(own, "none"), "");
  const [program, ...rest] = [...prefix!, node!, command!, "daemon"];
  const daemon = spawn(program!, rest, {
    cwd: "/",
    env: { ...env, PATH: process.env["PATH"], CAIRN_STATE_DIR: state, CAIRN_SOCKET: socket, CAIRN_CONFIG: config },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => void daemon.kill("SIGKILL"));
  await once(daemon.stdout, "data", { signal: AbortSignal.timeout(60_000) });
  const folder = path.join(own, "folder");
  fill(folder);
  for (const each of ["", "a", "a/deep", "a/deep/file"])
    fs.chownSync(path.join(folder, each), ORDINARY_USER, ORDINARY_USER);
  const connection = new Connection(socket);
  t.after(() => connection.close());
  await connection.call("register", { path: folder });
  await connection.call("save", { workspace: folder });
  const heard = listen(t, socket);
  await eventually("the change is told", () => {
    // Its directories are watched some time after it is registered.
    fs.writeFileSync(path.join(folder, "a/deep/file"), String(performance.now()));
    return isTold(heard, "a/deep/file");
  });
  const status = (await connection.call("status", { workspace: folder })) as StatusResult;
  assert.deepEqual(status.changes, { added: 0, modified: 1, removed: 0 });
});
