import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import type { HistoryResult } from "../../src/contract/looking.ts";
import { TestDaemon } from "../fixtures/daemon.ts";
import { loopFileSystem, makeLoopFileSystem } from "../fixtures/loop-file-system.ts";

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

test("the daemon migrates ws-ckpt layouts once, skips damaged files, and keeps the old snapshots", async (t) => {
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
  assert.doesNotMatch(daemon.log, /snapshots became save points/, "a second start takes nothing over");
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

interface OldImage {
  daemon: TestDaemon;
  old: string;
  image: string;
  mount: string;
  /** The user's path, a link to the live folder. */
  project: string;
}

/** What ws-ckpt has left on a machine without btrfs that was started again: its image is not mounted. */
function oldImage(t: TestContext): OldImage | null {
  const made = makeLoopFileSystem("btrfs");
  if ("reason" in made) {
    t.skip(made.reason);
    return null;
  }
  made.close();
  const daemon = new TestDaemon(t);
  const old = path.join(daemon.folder, "ws-ckpt");
  const image = path.join(old, "btrfs-data.img");
  const mount = path.join(daemon.folder, "btrfs-workspace");
  for (const each of [old, mount]) fs.mkdirSync(each);
  execFileSync("fallocate", ["--length", "256MiB", image]);
  execFileSync("mkfs.btrfs", ["-q", image]);
  execFileSync("mount", ["-o", "loop", image, mount]);
  t.after(async () => {
    await daemon.kill();
    spawnSync("umount", ["-l", mount]);
  });
  subvolume(path.join(mount, "ws-aaaaaa"), "new");
  snapshot(mount, "ws-aaaaaa", "5f3a9c01", "one");
  fs.writeFileSync(path.join(mount, "ws-aaaaaa/a"), "two");
  const project = path.join(daemon.folder, "project");
  fs.symlinkSync(path.join(mount, "ws-aaaaaa"), project);
  const listed = { "5f3a9c01": { message: "the first", pinned: false, created_at: at(1), missing: false } };
  fs.mkdirSync(path.join(old, "indexes/ws-aaaaaa"), { recursive: true });
  fs.writeFileSync(
    path.join(old, "indexes/ws-aaaaaa/index.json"),
    JSON.stringify({ workspace_path: project, snapshots: listed }),
  );
  const loop = { img_path: image, img_size_bytes: 256 << 20, last_loop_device: "/dev/loop7" };
  const paths = {
    backend: "BtrfsLoop",
    mount_path: mount,
    data_root: mount,
    snapshots_root: `${mount}/snapshots`,
    loop_img: loop,
  };
  const workspaces = [
    { ws_id: "ws-aaaaaa", workspace_path: project, registered_at: at(0), origin_backend: "BtrfsLoop" },
  ];
  const backend = { backend_type: "BtrfsLoop", selection_method: "auto-detect", selected_at: at(0) };
  fs.writeFileSync(path.join(old, "state.json"), JSON.stringify({ version: 1, backend, paths, workspaces }));
  execFileSync("umount", [mount]);
  return { daemon, old, image, mount, project };
}

for (const backend of ["btrfs-loop", "plain"] as const)
  test(`each start mounts the image of a migrated ws-ckpt daemon, with the backend ${backend}`, async (t) => {
    const here = oldImage(t);
    if (here === null) return;
    const { daemon, old, image, mount, project } = here;
    daemon.configure(`${backend === "plain" ? '[backend]\ntype = "plain"\n' : ""}[migrate]\nstate = "${old}"\n`);
    const size = fs.statSync(image).size;
    for (let start = 0; start < 2; start++) {
      await daemon.start();
      assert.equal((await daemon.status()).backend.type, backend);
      const { save_points: points } = (await daemon.call("history", { workspace: project })) as HistoryResult;
      assert.ok(
        points.some(({ message }) => message === "the first"),
        daemon.log,
      );
      fs.writeFileSync(path.join(project, "a"), `new ${start}`);
      await daemon.call("save", { workspace: project });
      await daemon.call("restore", { workspace: project, options: { target: "5f3a9" } });
      assert.equal(fs.readFileSync(path.join(project, "a"), "utf8"), "one");
      assert.equal((await daemon.reconciled()).workspaces[0]!.health, "ok");
      assert.equal(daemon.stateNow().workspaces[0]!.link, project);
      const { loop_image: kept } = daemon.stateNow().paths;
      assert.deepEqual([kept!.path, kept!.mount], [image, mount]);
      assert.equal(fs.statSync(image).size, size, "its size stays");
      await daemon.stop();
      execFileSync("umount", [mount]);
    }
    // The device is lost: the user's path is named.
    fs.renameSync(image, `${image}.away`);
    if (backend === "btrfs-loop") {
      const { error } = await daemon.refused();
      for (const said of [image, project]) assert.ok(error.message.includes(said), `${said} in ${error.message}`);
    } else {
      await daemon.start();
      assert.ok(daemon.log.includes(image), daemon.log);
    }
    assert.equal(fs.existsSync(image), false);
  });

test("a start names the workspaces of a ws-ckpt image that cannot be mounted, and creates nothing", async (t) => {
  const here = oldImage(t);
  if (here === null) return;
  const { daemon, old, image, project } = here;
  daemon.configure(`[migrate]\nstate = "${old}"\n`);
  const bytes = fs.readFileSync(image);
  fs.writeFileSync(image, Buffer.alloc(1 << 20));
  const { error } = await daemon.refused();
  assert.equal(error.code, "unsupported");
  assert.equal(execFileSync("losetup", ["--associated", image], { encoding: "utf8" }), "", "no device is left");
  for (const said of [image, "ws-aaaaaa", project])
    assert.ok(error.message.includes(said), `${said} in ${error.message}`);
  assert.equal(fs.existsSync(path.join(daemon.state, "state.json")), false);
  // Without its state file, as the oldest layout: the place of the image is known.
  fs.rmSync(path.join(old, "state.json"));
  daemon.configure(`[migrate]\nstate = "${old}"\ndata_root = "${here.mount}"\n`);
  assert.ok((await daemon.refused()).error.message.includes(image));
  fs.writeFileSync(image, bytes);
  await daemon.start();
  assert.equal(((await daemon.call("history", { workspace: project })) as HistoryResult).save_points.length, 1);
});

test("snapshots of ws-ckpt 0.5 keep their parents and the head, and a cleanup policy is named", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const dataRoot = path.join(volume.root, "ws-ckpt-data");
  const daemon = new TestDaemon(t);
  const old = path.join(daemon.folder, "old");
  const id = "ws-aaaaaa";
  const live = path.join(dataRoot, id);
  fs.mkdirSync(path.join(old, "indexes", id), { recursive: true });
  fs.mkdirSync(dataRoot);
  subvolume(live, "new");
  // first ─ second ─ third, and after a rollback first ─ other; the clock went back before "early", a child of "other".
  const names = ["first", "second", "third", "other", "early"];
  for (const name of names) snapshot(dataRoot, id, name, name);
  const entry = (minute: number, parent: string | null, children: string[]): object => ({
    message: "",
    pinned: false,
    created_at: at(minute),
    missing: false,
    parent_id: parent,
    child_ids: children,
  });
  const snapshots = {
    first: entry(1, null, ["second", "other"]),
    second: entry(2, "first", ["third"]),
    third: entry(4, "second", []),
    other: entry(3, "first", ["early", "__live__"]),
    early: entry(0, "other", []),
  };
  fs.writeFileSync(path.join(old, "indexes", id, "index.json"), JSON.stringify({ workspace_path: "/x", snapshots }));
  fs.writeFileSync(path.join(old, "indexes", id, "policy.toml"), "auto_cleanup = true\nauto_cleanup_keep = 5\n");
  const paths = { backend: "BtrfsBase", mount_path: volume.root, data_root: dataRoot };
  fs.writeFileSync(
    path.join(old, "state.json"),
    JSON.stringify({ version: 1, backend: { backend_type: "BtrfsBase" }, paths, workspaces: [] }),
  );
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n[migrate]\nstate = "${old}"\n`);
  for (const failpoint of ["daemon-migration.imported", "daemon-migration.imported:2"])
    await assert.rejects(daemon.start({ CAIRN_FAILPOINT: failpoint }), failpoint);
  await daemon.start();
  const { save_points: points } = (await daemon.call("history", { workspace: live })) as HistoryResult;
  const nameOf = new Map<string, string>(points.map(({ save_point_id: own, tags }) => [own, tags[0]!]));
  const parents = points.map(({ tags, parent_id: parent }) => [tags[0], parent && nameOf.get(parent)]);
  assert.deepEqual(Object.fromEntries(parents), {
    first: null,
    second: "first",
    third: "second",
    other: "first",
    early: "other",
  });
  const status = (await daemon.call("status", { workspace: live })) as { head: string };
  assert.equal(nameOf.get(status.head), "other");
  await daemon.call("restore", { workspace: live, options: { target: "head~1" } });
  assert.equal(fs.readFileSync(path.join(live, "a"), "utf8"), "first");
});

test("a cleanup policy of ws-ckpt 0.5 is named with the command that sets it", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const daemon = new TestDaemon(t);
  const old = path.join(daemon.folder, "old");
  const dataRoot = path.join(volume.root, "ws-ckpt-data");
  fs.mkdirSync(dataRoot);
  const policies = {
    "ws-aaaaaa": ["auto_cleanup = true\nauto_cleanup_keep = 5\n", /cairn -C \S+ws-aaaaaa cleanup policy --keep-last 5/],
    "ws-bbbbbb": ['auto_cleanup_keep = "30d"\n', /cairn -C \S+ws-bbbbbb cleanup policy --keep-within 30d/],
    "ws-cccccc": ["auto_cleanup = false\n", /ws-cccccc.*not taken over; .*\[retention\]/],
    "ws-dddddd": ["auto_cleanup = ", /ws-dddddd.*policy\.toml/],
  } as const;
  for (const [id, [policy]] of Object.entries(policies)) {
    subvolume(path.join(dataRoot, id), "new");
    snapshot(dataRoot, id, "one", "one");
    fs.mkdirSync(path.join(old, "indexes", id), { recursive: true });
    fs.writeFileSync(path.join(old, "indexes", id, "policy.toml"), policy);
  }
  const paths = { backend: "BtrfsBase", mount_path: volume.root, data_root: dataRoot };
  fs.writeFileSync(
    path.join(old, "state.json"),
    JSON.stringify({ version: 1, backend: { backend_type: "BtrfsBase" }, paths, workspaces: [] }),
  );
  daemon.configure(`[backend]\ndata_root = "${volume.root}"\n[migrate]\nstate = "${old}"\n`);
  await daemon.start();
  for (const [, said] of Object.values(policies)) assert.match(daemon.log, said);
  await daemon.stop();
  await daemon.start();
  assert.doesNotMatch(daemon.log, /policy\.toml/, "it is named once");
});
