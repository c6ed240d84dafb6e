import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, describe, test, type TestContext } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairn, cairnOk, type Outcome, type RunOptions } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { type HoldingEngine, subvolumesOf } from "../fixtures/held-place.ts";
import { type LoopFileSystem, type LoopKind, loopFileSystem, ORDINARY_USER } from "../fixtures/loop-file-system.ts";
import { installForOrdinaryUser, type OrdinaryUser, whyNoOrdinaryUser } from "../fixtures/ordinary-user.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { firstOf } from "../fixtures/long.ts";

/** Held trees of an ordinary user, and in a folder that is a mount of its own. */

const skip = whyNoOrdinaryUser() ?? false;

interface Point {
  save_point_id: string;
  effective_engine: string;
  degraded: { what: string; reason: string }[];
  payload_root_hash: string | null;
  complete: boolean;
}

describe("an ordinary user", { skip }, () => {
  let user: OrdinaryUser;

  before(() => (user = installForOrdinaryUser()));

  after(() => user.remove());

  /** The command as the user, who owns a folder on a fresh file system and the place of its control directory. */
  function begin(
    t: TestContext,
    on: { kind: LoopKind; engine: HoldingEngine; mountOptions?: readonly string[]; fill?: (folder: string) => void },
  ): { volume: LoopFileSystem; folder: string; run: (...args: string[]) => Outcome; options: RunOptions } | null {
    const volume = loopFileSystem(t, on.kind, { mountOptions: on.mountOptions ?? [] });
    if (volume === null) return null;
    fs.chownSync(volume.root, ORDINARY_USER, ORDINARY_USER);
    const folder = path.join(volume.root, "ws");
    if (on.engine === "btrfs-snapshot") execFileSync("btrfs", ["-q", "subvolume", "create", folder]);
    else fs.mkdirSync(folder);
    makeFirst(folder);
    spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
    on.fill?.(folder);
    const options = user.optionsIn(folder);
    cairnOk(["init", folder, "--engine", on.engine], options);
    return { volume, folder, options, run: (...args) => cairnOk(args, options) };
  }

  for (const [kind, engine, mountOptions] of firstOf(
    [
      ["btrfs", "btrfs-snapshot", ["user_subvol_rm_allowed"]],
      ["xfs", "reflink-copy", []],
      ["btrfs", "btrfs-snapshot", []],
      ["btrfs", "reflink-copy", []],
    ] as const,
    2,
  )) {
    const how = [kind, engine, ...mountOptions].join(", ");
    test(`an ordinary user restores, forks and removes points of read-only folders: ${how}`, (t) => {
      const lock = (folder: string): void => void spawnSync("chmod", ["-R", "a-w", folder]);
      const begun = begin(t, { kind, engine, mountOptions, fill: lock });
      if (begun === null) return;
      const { volume, folder, run } = begun;
      const states = [readFolder(folder)];
      const { save_point_id: first } = run("save").data["save_point"] as Point;
      fs.mkdirSync(path.join(folder, "added/deeper"), { recursive: true });
      fs.writeFileSync(path.join(folder, "added/deeper/file"), "added\n");
      spawnSync("chown", ["-R", `${ORDINARY_USER}:${ORDINARY_USER}`, folder]);
      lock(folder);
      states.push(readFolder(folder));
      run("save");
      for (const [args, state] of [
        [["restore", first, "--method", "exchange"], 0],
        [["undo"], 1],
        [["restore", first], 0],
      ] as const) {
        run(...args);
        assertFolder(folder, states[state]!, args.join(" "));
      }
      const [to, fork] = ["to", "fork"].map((name) => path.join(volume.root, name));
      run("restore", "latest", "--to", to!);
      run("fork", "latest", fork!);
      for (const each of [to!, fork!]) assertFolder(each, states[1]!, each);
      run("release", fork!, "--delete-points");
      run("cleanup", "--keep-last", "1");
      run("verify", "--all");
      run("release", folder, "--delete-points");
      const left = fs.readdirSync(volume.root).filter((name) => name !== "lost+found");
      assert.deepEqual(left.toSorted(), [".cairn-control", "fork", "to", "ws"]);
      assert.deepEqual(fs.readdirSync(path.join(volume.root, ".cairn-control")), ["adopt.lock"]);
    });
  }

  for (const mountOptions of firstOf([[], ["user_subvol_rm_allowed"]], 1)) {
    const how = mountOptions.length > 0 ? "with user_subvol_rm_allowed" : "without user_subvol_rm_allowed";
    test(`an ordinary user saves, seals, restores, cleans up and releases btrfs snapshots, ${how}`, (t) => {
      const begun = begin(t, { kind: "btrfs", engine: "btrfs-snapshot", mountOptions });
      if (begun === null) return;
      const { volume, folder, run } = begun;
      const state = readFolder(folder);
      const { state: digest } = walkDigests(folder);
      const first = run("save").data["save_point"] as Point;
      assert.deepEqual([first.effective_engine, first.degraded], ["btrfs-snapshot", []]);
      for (let i = 0; i < 10; i++) {
        fs.writeFileSync(path.join(folder, "same/updated.txt"), `turn ${i}\n`);
        run("save");
      }
      run("seal");
      const history = run("history", "--all", "--limit", "0").data["save_points"] as Point[];
      assert.equal(history.at(-1)!.payload_root_hash, digest);
      // Of eleven, the trees of eight are left.
      assert.equal(subvolumesOf(volume.root).filter((each) => each.endsWith("/tree")).length, 8);
      run("restore", first.save_point_id);
      assertFolder(folder, state, "restored");
      run("undo");
      assert.equal(fs.readFileSync(path.join(folder, "same/updated.txt"), "utf8"), "turn 9\n");
      run("verify", "--all");
      run("cleanup", "--keep-last", "2");
      run("release", folder, "--delete-points");
      assert.deepEqual(subvolumesOf(volume.root), ["ws"]);
    });
  }

  /** What the user's processes have come to hold in the folder and the user may not read. */
  function addClosed(folder: string): void {
    fs.writeFileSync(path.join(folder, "secret"), "not for everybody\n", { mode: 0o600 });
    fs.mkdirSync(path.join(folder, "pgdata"), { mode: 0o700 });
    fs.writeFileSync(path.join(folder, "pgdata/base"), "a database\n");
    fs.chownSync(path.join(folder, "pgdata"), 999, 999);
  }

  test("a point keeps its snapshot until a user who may read every entry seals the point", (t) => {
    const begun = begin(t, { kind: "btrfs", engine: "btrfs-snapshot", mountOptions: ["user_subvol_rm_allowed"] });
    if (begun === null) return;
    const { volume, folder, options, run } = begun;
    addClosed(folder);
    const { state: digest } = walkDigests(folder);
    const first = run("save").data["save_point"] as Point;
    assert.equal(first.complete, true);
    for (let turn = 0; turn < 10; turn++) {
      fs.writeFileSync(path.join(folder, "same/updated.txt"), `turn ${turn}\n`);
      run("save");
      const { clean } = run("status").data as { clean: boolean };
      assert.equal(clean, true);
    }
    fs.writeFileSync(path.join(folder, "same/updated.txt"), "the last turn\n");
    const { save_point_id: last } = run("save").data["save_point"] as Point;
    run("save");
    const { warnings } = run("seal");
    assert.match(
      warnings.join("\n"),
      /2 entries of the point [0-9a-f]{8} could not be read \(pgdata: permission denied/,
    );
    const trees = (): string[] => subvolumesOf(volume.root).filter((each) => each.endsWith("/tree"));
    assert.equal(trees().length, 13);
    const { findings } = run("doctor").data as { findings: { kind: string; severity: string; detail: string }[] };
    assert.match(
      findings.find(({ severity }) => severity === "warning")?.detail ?? "",
      /and entries of 12 more points.*setpriv/,
    );
    const mayRead = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "--"];
    const sealing = { ...options, prefix: [...options.prefix!.filter((each) => !/caps|^--$/.test(each)), ...mayRead] };
    assert.equal(cairnOk(["seal", folder], sealing).data["sealed"], 13);
    assert.equal(trees().length, 8);
    assert.deepEqual(run("cleanup", "drop", last).data["removed"], [last]);
    const points = run("history", "--all", "--limit", "0").data["save_points"] as Point[];
    assert.deepEqual([points.at(-1)!.payload_root_hash, points.at(-1)!.complete], [digest, true]);
    assert.deepEqual(run("verify", "--all").data["problems"], []);
    assert.deepEqual(run("doctor").data["findings"], []);
    const to = path.join(volume.root, "to");
    cairn(["restore", first.save_point_id, "--to", to], options);
    assert.equal(fs.readFileSync(path.join(to, "pgdata/base"), "utf8"), "a database\n");
  });

  test("restore --method exchange gives back entries that an ordinary user's seal could not read", (t) => {
    const begun = begin(t, { kind: "btrfs", engine: "btrfs-snapshot", mountOptions: ["user_subvol_rm_allowed"] });
    if (begun === null) return;
    const { folder, run } = begun;
    addClosed(folder);
    const states = [readFolder(folder)];
    const { save_point_id: first } = run("save").data["save_point"] as Point;
    fs.rmSync(path.join(folder, "secret"));
    fs.writeFileSync(path.join(folder, "pgdata/base"), "a larger database\n");
    states.push(readFolder(folder));
    for (const [args, state] of [
      [["restore", first, "--method", "exchange"], 0],
      [["undo", "--method", "exchange"], 1],
      [["redo", "--method", "exchange"], 0],
    ] as const) {
      assert.equal(run(...args).data["method"], "exchange");
      assertFolder(folder, states[state]!, args.join(" "));
      run("seal");
    }
  });

  /** A folder of root's in the user's, who cannot remove a snapshot that has it. */
  function addRoots(folder: string): void {
    fs.mkdirSync(path.join(folder, "roots"));
    fs.writeFileSync(path.join(folder, "roots/file"), "root's\n");
  }

  test("commands of an ordinary user succeed if old snapshots cannot be removed, and print the command to remove them", (t) => {
    const begun = begin(t, { kind: "btrfs", engine: "btrfs-snapshot" });
    if (begun === null) return;
    const { volume, folder, options, run } = begun;
    addRoots(folder);
    const save = (): Point => {
      fs.appendFileSync(path.join(folder, "same/updated.txt"), "more\n");
      return run("save").data["save_point"] as Point;
    };
    save();
    save();
    const cleaned = run("cleanup", "--keep-last", "1");
    assert.equal((cleaned.data["removed"] as string[]).length, 1);
    assert.match(cleaned.warnings.join("\n"), /could not be removed.*sudo rm -rf/);
    const { save_point_id: target } = save();
    const state = readFolder(folder);
    save();
    const exchange = ["restore", target, "--method", "exchange"];
    const restored = run(...exchange);
    assert.equal(restored.data["method"], "exchange");
    assertFolder(folder, state, "exchanged");
    for (const failpoint of ["exchange.staged", "exchange.recorded"]) {
      save();
      assert.ok(cairn(exchange, { ...options, failpoint }).killed, failpoint);
      save();
    }
    assert.ok(cairn(["save"], { ...options, failpoint: "capture.announced" }).killed);
    save();
    execFileSync("btrfs", ["-q", "subvolume", "create", path.join(folder, "inner")]);
    assert.equal(save().effective_engine, "copy");
    execFileSync("btrfs", ["-q", "subvolume", "delete", path.join(folder, "inner")]);
    assert.equal(save().effective_engine, "btrfs-snapshot");
    assert.deepEqual(run("history", "--limit", "0").data["damaged"], []);
    assert.deepEqual(run("verify", "--all").data["problems"], []);
    const { findings } = run("doctor", "--repair").data as { findings: { kind: string; detail: string }[] };
    const left = findings.filter(({ kind }) => kind === "leftovers").map(({ detail }) => detail);
    assert.match(left.join("\n"), /could not be removed.*sudo rm -rf/);
    for (const [, place] of left.join("\n").matchAll(/sudo rm -rf "([^"]+)"/g)) execFileSync("rm", ["-rf", place!]);
    const { findings: after } = run("doctor").data as { findings: { kind: string }[] };
    assert.deepEqual(
      after.filter(({ kind }) => kind === "leftovers"),
      [],
    );
    assert.deepEqual(
      subvolumesOf(volume.root).filter((each) => /\/tmp\/|going|coming/.test(each)),
      [],
    );
  });

  test("doctor and engine leave no test snapshots that an ordinary user cannot remove", (t) => {
    const begun = begin(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: addRoots });
    if (begun === null) return;
    const { volume, folder, options, run } = begun;
    const points = subvolumesOf(volume.root);
    assert.deepEqual(run("doctor").data["findings"], []);
    const reasons = run("engine", folder).data["engine_reasons"] as { engine: string; chosen: boolean }[];
    assert.ok(reasons.some(({ engine, chosen }) => engine === "btrfs-snapshot" && chosen));
    assert.deepEqual(subvolumesOf(volume.root), points);
    const left = fs.readdirSync(volume.root, { recursive: true, encoding: "utf8" });
    assert.deepEqual(
      left.filter((name) => name.includes(".cairn-tmp-")),
      [],
    );
    fs.chownSync(folder, 0, 0);
    fs.chmodSync(folder, 0o777);
    const [finding] = cairn(["doctor"], options).data["findings"] as { kind: string; detail: string }[];
    assert.match(`${finding?.kind} ${finding?.detail}`, /^engine .*only root and the owner/);
  });

  test("save puts a user's points in their state directory if another user owns .cairn-control at the mount", (t) => {
    const volume = loopFileSystem(t, "ext4");
    if (volume === null) return;
    const [first, folder] = ["first", "second"].map((name) => path.join(volume.root, name)) as [string, string];
    for (const each of [first, folder]) fs.mkdirSync(each);
    cairnOk(["save", first]);
    const shared = path.join(volume.root, ".cairn-control");
    fs.chmodSync(shared, 0o1777);
    fs.chownSync(folder, ORDINARY_USER, ORDINARY_USER);
    const before = fs.readdirSync(shared);
    const options = user.optionsIn(folder);
    cairnOk(["save", folder], options);
    const { workspace } = cairnOk(["status", folder], options).data as { workspace: { control_directory: string } };
    assert.equal(path.dirname(workspace.control_directory), path.join(user.place, "state/cairn/control"));
    assert.deepEqual(fs.readdirSync(shared), before);
    // Where the lock is shared as well, so is the place.
    cairnOk(["release", "--delete-points", folder], options);
    fs.chmodSync(path.join(shared, "adopt.lock"), 0o666);
    // What a killed process of another user left there is that one's to remove.
    const left = path.join(shared, ".cairn-tmp-1-0123456789abcdef");
    fs.mkdirSync(left, { mode: 0o700 });
    fs.writeFileSync(path.join(left, "file"), "unfinished\n");
    cairnOk(["save", folder], options);
    assert.equal(fs.readdirSync(shared).length, before.length + 2);
  });

  test("save copies into the store, and says why, if the subvolume belongs to another user", (t) => {
    const begun = begin(t, { kind: "btrfs", engine: "btrfs-snapshot" });
    if (begun === null) return;
    const { folder, run } = begun;
    run("save");
    fs.chownSync(folder, 4711, 4711);
    const saved = run("save", folder).data["save_point"] as Point;
    assert.equal(saved.effective_engine, "copy");
    assert.equal(saved.degraded[0]?.what, "btrfs-snapshot");
  });

  test("save copies into the store if a clone cannot get the owner of a file", (t) => {
    const begun = begin(t, { kind: "xfs", engine: "reflink-copy" });
    if (begun === null) return;
    const { folder, run } = begun;
    const held = run("save").data["save_point"] as Point;
    assert.equal(held.effective_engine, "reflink-copy");
    fs.chownSync(path.join(folder, "same/kept.txt"), 4711, 4712);
    const saved = run("save").data["save_point"] as Point;
    assert.deepEqual([saved.effective_engine, saved.degraded[0]?.what, saved.complete], ["copy", "reflink-copy", true]);
    fs.chmodSync(path.join(folder, "same/kept.txt"), 0o600);
    const partly = cairn(["save"], begun.options);
    assert.equal(partly.status, 10, partly.stdout);
    const point = partly.data["save_point"] as Point;
    assert.deepEqual([point.effective_engine, point.complete], ["copy", false]);
    run("seal");
  });
});

describe("a folder that is the mount of a subvolume", { skip }, () => {
  test("a mounted subvolume whose control directory lies on another mount is saved by snapshots", (t) => {
    const volume = loopFileSystem(t, "btrfs");
    if (volume === null) return;
    execFileSync("btrfs", ["-q", "subvolume", "create", path.join(volume.root, "inner")]);
    const folder = path.join(path.dirname(volume.root), "mounted");
    fs.mkdirSync(folder);
    const device = execFileSync("findmnt", ["-no", "SOURCE", volume.root], { encoding: "utf8" }).trim();
    execFileSync("mount", ["-o", "subvol=inner", device, folder]);
    try {
      makeFirst(folder);
      const control = path.join(volume.root, "control");
      const cloned = cairn(["init", folder, "--engine", "reflink-copy", "--control-dir", control]);
      assert.match(cloned.error?.message ?? "", /another mount of the file system/);
      const elsewhere = cairn(["init", folder, "--engine", "btrfs-snapshot"]);
      assert.match(elsewhere.error?.message ?? "", /another file system/);
      assert.match(elsewhere.error?.hint ?? "", /--control-dir/);
      cairnOk(["init", folder, "--engine", "btrfs-snapshot", "--control-dir", control]);
      const state = readFolder(folder);
      const { state: digest } = walkDigests(folder);
      const saved = cairnOk(["save", folder]).data["save_point"] as Point;
      assert.deepEqual([saved.effective_engine, saved.degraded], ["btrfs-snapshot", []]);
      fs.writeFileSync(path.join(folder, "same/kept.txt"), "edited\n");
      const restored = cairnOk(["restore", saved.save_point_id, "-C", folder]);
      assert.equal(restored.data["method"], "entries");
      assertFolder(folder, state, "restored");
      cairnOk(["undo", "-C", folder]);
      assert.equal(fs.readFileSync(path.join(folder, "same/kept.txt"), "utf8"), "edited\n");
      cairnOk(["verify", "--all", "-C", folder]);
      const points = cairnOk(["history", "--all", "--limit", "0", "-C", folder]).data["save_points"] as Point[];
      assert.equal(points.find(({ save_point_id: id }) => id === saved.save_point_id)?.payload_root_hash, digest);
      cairnOk(["release", folder, "--delete-points"]);
      assert.deepEqual(subvolumesOf(volume.root), ["inner"]);
    } finally {
      execFileSync("umount", [folder]);
      fs.rmdirSync(folder);
    }
  });
});
