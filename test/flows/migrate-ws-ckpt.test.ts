import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import type { HistoryResult } from "../../src/contract/looking.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

/** Layouts of ws-ckpt, v0 and v1, made by their rules, are taken over by a daemon that starts. */

function subvolume(place: string, content: string): void {
  execFileSync("btrfs", ["-q", "subvolume", "create", place]);
  fs.writeFileSync(path.join(place, "a"), content);
}

function snapshot(dataRoot: string, id: string, name: string, content: string): void {
  const [live, folder] = [path.join(dataRoot, id), path.join(dataRoot, "snapshots", id)];
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(live, "a"), content);
  execFileSync("btrfs", ["-q", "subvolume", "snapshot", "-r", live, path.join(folder, name)]);
}

const at = (minute: number): string => `2026-05-01T10:0${minute}:00.123456Z`;

test("the old layouts are taken over once, bad files stop no good ones, and nothing of theirs is changed", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const dataRoot = path.join(volume.root, "ws-ckpt-data");
  const daemon = new TestDaemon(t);
  const old = path.join(daemon.folder, "old");
  fs.mkdirSync(dataRoot);
  fs.mkdirSync(path.join(old, "indexes/ws-aaaaaa"), { recursive: true });
  for (const id of ["ws-aaaaaa", "ws-bbbbbb", "ws-cccccc-2"]) subvolume(path.join(dataRoot, id), "new");
  fs.symlinkSync(path.join(dataRoot, "ws-aaaaaa"), path.join(volume.root, "project"));
  // v1: its index lies in the state directory.
  snapshot(dataRoot, "ws-aaaaaa", "before upgrade", "one");
  snapshot(dataRoot, "ws-aaaaaa", "s2", "two");
  snapshot(dataRoot, "ws-aaaaaa", "unlisted", "three");
  const listed = {
    s2: { message: "the second", metadata: { step: 7 }, pinned: false, created_at: at(2), missing: false },
    "before upgrade": { message: "the first", pinned: true, created_at: at(1), missing: false },
    gone: { message: "lost", pinned: false, created_at: at(3), missing: true },
    "../evil": { message: "x", pinned: false, created_at: at(4), missing: false },
  };
  const index = { workspace_path: path.join(volume.root, "project"), snapshots: listed };
  fs.writeFileSync(path.join(old, "indexes/ws-aaaaaa/index.json"), JSON.stringify(index));
  const paths = {
    backend: "BtrfsBase",
    mount_path: volume.root,
    data_root: dataRoot,
    snapshots_root: `${dataRoot}/snapshots`,
  };
  fs.writeFileSync(
    path.join(old, "state.json"),
    JSON.stringify({ version: 1, backend: { backend_type: "BtrfsBase" }, paths, workspaces: [] }, null, 2),
  );
  // v0: beside the snapshots; one is cut.
  snapshot(dataRoot, "ws-bbbbbb", "cut", "four");
  fs.writeFileSync(path.join(dataRoot, "snapshots/ws-bbbbbb/index.json"), '{"workspace_path": "/x", "snaps');
  snapshot(dataRoot, "ws-cccccc-2", "v0", "five");
  snapshot(dataRoot, "ws-bbbbbb", "5f3a9c01", "six");
  fs.writeFileSync(
    path.join(dataRoot, "snapshots/ws-cccccc-2/index.json"),
    JSON.stringify({ workspace_path: "/y", snapshots: { v0: { message: "old", pinned: false, created_at: at(5) } } }),
  );
  fs.mkdirSync(path.join(dataRoot, "snapshots/ws-dddddd"));
  const before = execFileSync("btrfs", ["subvolume", "list", "-u", volume.root], { encoding: "utf8" })
    .split("\n")
    .filter((line) => line !== "");
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n[migrate]\nstate = "${old}"\n`);
  // Killed between any two steps, it goes on.
  for (const failpoint of ["daemon-migration.registered", "daemon-migration.imported", "daemon-migration.imported:2"])
    await assert.rejects(daemon.start({ CAIRN_FAILPOINT: failpoint }), failpoint);
  await daemon.start();
  for (const said of ['"gone"', "../evil", "ws-dddddd"])
    assert.ok(daemon.log.includes(said), `${said} in ${daemon.log}`);
  assert.match(daemon.log, /ws-bbbbbb.index\.json: .*not valid JSON/);
  const pointsOf = async (id: string): Promise<HistoryResult["save_points"]> =>
    ((await daemon.call("history", { workspace: path.join(dataRoot, id) })) as HistoryResult).save_points.toReversed();
  const points = await pointsOf("ws-aaaaaa");
  const seen = points.map(({ tags, message, pinned, created_at: made }) => [tags[0], message, pinned, made]);
  const [unlisted, ...rest] = [...seen].sort((a, b) => Number(a[0] !== "unlisted") - Number(b[0] !== "unlisted"));
  assert.deepEqual(unlisted!.slice(0, 3), ["unlisted", "", true]);
  assert.deepEqual(rest, [
    ["before upgrade", "the first", true, "2026-05-01T10:01:00.123Z"],
    ["s2", "the second", false, "2026-05-01T10:02:00.123Z"],
  ]);
  assert.deepEqual(points.find(({ tags }) => tags[0] === "s2")!.cause["metadata"], { step: 7 });
  assert.deepEqual((await pointsOf("ws-bbbbbb")).map(({ tags }) => tags[0]).toSorted(), ["5f3a9c01", "cut"]);
  // By the name that it had, and by a part of it as there.
  for (const target of ["5f3a9c01", "5f3a9"]) {
    await daemon.call("restore", { workspace: path.join(dataRoot, "ws-bbbbbb"), options: { target } });
    assert.equal(fs.readFileSync(path.join(dataRoot, "ws-bbbbbb/a"), "utf8"), "six");
  }
  assert.deepEqual(
    (await pointsOf("ws-cccccc-2")).map(({ message }) => message),
    ["old"],
  );
  // By the path that its user knows, which is a link.
  await daemon.call("restore", { workspace: path.join(volume.root, "project"), options: { target: "before upgrade" } });
  assert.equal(fs.readFileSync(path.join(volume.root, "project/a"), "utf8"), "one");
  const { length } = await pointsOf("ws-aaaaaa");
  await daemon.stop();
  await daemon.start();
  assert.doesNotMatch(daemon.log, /snapshots are points now/, "a second start takes nothing over");
  assert.equal((await pointsOf("ws-aaaaaa")).length, length);
  const now = execFileSync("btrfs", ["subvolume", "list", "-u", volume.root], { encoding: "utf8" });
  for (const line of before.filter((each) => each.includes("/snapshots/")))
    assert.ok(now.includes(/uuid (\S+)/.exec(line)![1]!), line);
  // What was lost is taken over once it is back.
  execFileSync("btrfs", [
    "-q",
    "subvolume",
    "snapshot",
    "-r",
    path.join(dataRoot, "ws-aaaaaa"),
    path.join(dataRoot, "snapshots/ws-aaaaaa/gone"),
  ]);
  await daemon.stop();
  await daemon.start();
  assert.ok((await pointsOf("ws-aaaaaa")).some(({ tags }) => tags[0] === "gone"));
});
