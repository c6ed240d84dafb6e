import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { CopyEngine } from "../../src/engines/copy/copy-engine.ts";
import { walkDigests } from "../../src/engines/testing-walk.ts";
import type { CairnError } from "../../src/errors.ts";
import { read } from "../../src/operations/show.ts";
import { findWorkspace } from "../../src/workspace/find-workspace.ts";
import { verifyAll, verifyPoint } from "../../src/workspace/verify.ts";
import { Workspace } from "../../src/workspace/workspace.ts";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, type HeldKind, heldPlace, type HoldingEngine, treeOf } from "../fixtures/held-place.ts";
import { makeFirst, makeSecond } from "../fixtures/two-states.ts";
import { resticCheck } from "../fixtures/work.ts";

/** Attempts to lose something between the moment when a tree is held and the one when it is read. */

const CASES: readonly { kind: HeldKind; engine: HoldingEngine }[] = [
  { kind: "btrfs", engine: "btrfs-snapshot" },
  { kind: "xfs", engine: "reflink-copy" },
  { kind: "juicefs", engine: "juicefs-clone" },
];

function command(args: readonly string[]): void {
  execFileSync(args[0]!, args.slice(1), { stdio: ["ignore", "ignore", "pipe"] });
}

/** Writes into a held tree behind Cairn's back, read-only or not. */
function tamper(tree: string, engine: HoldingEngine, edit: () => void): void {
  if (engine === "btrfs-snapshot") command(["btrfs", "property", "set", "-ts", tree, "ro", "false"]);
  edit();
  if (engine === "btrfs-snapshot") command(["btrfs", "property", "set", "-ts", tree, "ro", "true"]);
}

/** Longer than the clock is in doubt. */
function later(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1200);
}

for (const on of CASES) {
  const title = `${on.engine} on ${on.kind}`;

  test(`${title}: what is written between a save and its seal is in no earlier point`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder, volume } = place;
    const before = { state: readFolder(folder), digest: walkDigests(folder).state };
    const open = fs.openSync(path.join(folder, "same/updated.txt"), "r+");
    const { save_point_id: id } = await client.save();
    // Through a descriptor that was open, in place, by size, and by name.
    fs.writeSync(open, "LATER", 0);
    fs.closeSync(open);
    fs.appendFileSync(path.join(folder, "big"), "later");
    fs.rmSync(path.join(folder, "goes"), { recursive: true });
    fs.writeFileSync(path.join(folder, "later"), "later\n");
    assert.deepEqual(await client.seal(), { sealed: 1 });
    const { save_points } = await client.history();
    assert.equal(save_points[0]!.payload_root_hash, before.digest);
    const to = path.join(volume.root, "to");
    await client.restore({ target: id, to });
    assertFolder(to, before.state, "as it was saved");
    assert.equal((await client.status()).clean, false);
  });

  test(`${title}: ignore files and exclusions are obeyed when a point is sealed, as they were when it was saved`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder, volume } = place;
    fs.writeFileSync(path.join(folder, ".cairnignore"), "/goes/\n*.log\n");
    fs.writeFileSync(path.join(folder, "same/noise.log"), "noise\n");
    fs.writeFileSync(path.join(folder, "secret"), "not this time\n");
    const { save_point_id: id } = await client.save({ exclude: ["/secret"] });
    // Rules of later do not count.
    fs.writeFileSync(path.join(folder, ".cairnignore"), "/same/\n");
    await client.seal();
    const to = path.join(volume.root, "to");
    await client.restore({ target: id, to });
    for (const name of ["goes", "same/noise.log", "secret"])
      assert.equal(fs.existsSync(path.join(to, name)), false, name);
    assert.equal(fs.readFileSync(path.join(to, ".cairnignore"), "utf8"), "/goes/\n*.log\n");
    assert.ok(fs.existsSync(path.join(to, "same/kept.txt")));
    const [point] = (await client.history()).save_points;
    assert.equal(point!.payload_root_hash, walkDigests(to).state);
    // The same from the engine that reads at once.
    fs.writeFileSync(path.join(folder, ".cairnignore"), "/goes/\n*.log\n");
    await client.setEngine("copy");
    const copied = await client.save({ exclude: ["/secret"] });
    assert.equal(copied.payload_root_hash, point!.payload_root_hash);
  });

  test(`${title}: a held tree that is gone or was changed is named, and keeps nobody from the others`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder, volume } = place;
    const states = new Map<string, ReturnType<typeof readFolder>>();
    const save = async (): Promise<string> => {
      fs.appendFileSync(path.join(folder, "same/updated.txt"), "more\n");
      const { save_point_id: id } = await client.save();
      states.set(id, readFolder(folder));
      return id;
    };
    const well = await save();
    const gone = await save();
    const changed = await save();
    const last = await save();
    command(
      on.engine === "btrfs-snapshot"
        ? ["btrfs", "-q", "subvolume", "delete", treeOf(client, 2)]
        : ["rm", "-r", treeOf(client, 2)],
    );
    if (on.engine !== "btrfs-snapshot") later();
    tamper(treeOf(client, 3), on.engine, () => {
      fs.writeFileSync(path.join(treeOf(client, 3), "same/kept.txt"), "NEVER changed\n");
    });

    const doctor = await client.doctor();
    assert.equal(doctor.healthy, false);
    await assert.rejects(client.seal(), { code: "damaged" });
    const seal = cairn(["seal", "-C", folder]);
    assert.equal(seal.status, 6, seal.stdout);
    const { save_points, damaged } = await client.history();
    assert.deepEqual(damaged, []);
    assert.deepEqual(
      save_points.map(({ save_point_id: id, sealed }) => [id, sealed]),
      [
        [last, true],
        [changed, false],
        [gone, false],
        [well, true],
      ],
    );
    const { problems } = await client.verifyAll();
    assert.deepEqual(problems.map(({ point }) => point).toSorted(), [gone, changed].toSorted());
    const named = (await client.doctor()).findings.filter(({ severity }) => severity === "damage");
    assert.ok(
      named.some(({ detail }) => detail.includes(gone)),
      JSON.stringify(named),
    );
    for (const each of [gone, changed]) {
      assert.equal((await client.verify(each)).problems.length, 1);
      await assert.rejects(client.restore({ target: each }), { code: "damaged" });
      await assert.rejects(client.restore({ target: each, to: path.join(volume.root, "no") }), { code: "damaged" });
      await assert.rejects(client.fork(each, path.join(volume.root, "no")), { code: "damaged" });
      assert.equal(fs.existsSync(path.join(volume.root, "no")), false);
    }
    assert.equal((await client.status()).clean, true);
    assert.equal(JSON.stringify(await client.diff(well, last)).includes("updated.txt"), true);
    await client.restore({ target: well });
    assertFolder(folder, states.get(well)!, "restored");
    await client.undo();
    assertFolder(folder, states.get(last)!, "undone");
    await save();
    // They go like any other point.
    cairnOk(["cleanup", "--keep-last", "1", "-C", folder]);
    assert.deepEqual((await client.verifyAll()).problems, []);
    assert.deepEqual(
      (await client.doctor()).findings.filter(({ severity }) => severity === "damage"),
      [],
    );
    assertHeldTidy(place, "cleaned up");
  });

  test(`${title}: a head whose tree is gone is named, and the next save goes on without it`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    const { save_point_id: head } = await client.save();
    command(
      on.engine === "btrfs-snapshot"
        ? ["btrfs", "-q", "subvolume", "delete", treeOf(client, 2)]
        : ["rm", "-r", treeOf(client, 2)],
    );
    await assert.rejects(
      client.status(),
      (error: CairnError) => error.code === "damaged" && error.message.includes(head),
    );
    const next = await client.save();
    assert.equal(next.parent_id, head);
    assert.equal((await client.status()).clean, true);
    assert.equal((await client.history()).save_points[0]!.payload_root_hash, walkDigests(folder).state);
  });

  test(`${title}: a point that another process saves while all are verified is no damage, and is read when it is asked for`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    await client.seal();
    fs.writeFileSync(path.join(folder, "later"), "later\n");
    await client.save();
    // As after the call has sealed what there was.
    const workspace = new Workspace(
      findWorkspace(folder)!,
      (found, options) => new CopyEngine({ ...options, control: found.control.root }),
    );
    const warnings: string[] = [];
    const onWarning = (message: string): number => warnings.push(message);
    const all = await verifyAll(workspace, { onWarning, unsealed: [] });
    assert.deepEqual([all.checked.points, all.problems, warnings.length], [1, [], 1]);
    assert.match(warnings[0]!, /is not sealed, its content was not looked at: it was saved meanwhile/);
    await assert.rejects(verifyPoint(workspace, "latest", { unsealed: [] }), /was never read/);
    const pieces: Uint8Array[] = [];
    for await (const piece of read(workspace, "latest", "later", {})) pieces.push(piece);
    assert.equal(Buffer.concat(pieces).toString(), "later\n");
    await workspace.close();
    assert.deepEqual((await client.verify("latest")).problems, []);
  });

  test(`${title}: doctor and verify of points that are not sealed yet`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    makeSecond(folder);
    await client.save();
    const doctor = cairnOk(["doctor", "-C", folder]).data as {
      healthy: boolean;
      findings: { kind: string; severity: string }[];
    };
    assert.equal(doctor.healthy, true);
    assert.deepEqual(
      doctor.findings.map(({ kind, severity }) => [kind, severity]),
      [["held", "info"]],
    );
    cairnOk(["doctor", "--repair", "-C", folder]);
    assert.deepEqual(
      (await client.history()).save_points.map(({ sealed }) => sealed),
      [false, false],
    );
    const verified = cairnOk(["verify", "--all", "-C", folder]).data as {
      checked: { points: number };
      problems: unknown[];
    };
    assert.deepEqual([verified.checked.points, verified.problems], [2, []]);
    assert.deepEqual(
      (await client.history()).save_points.map(({ sealed, integrity_state }) => [sealed, integrity_state]),
      [
        [true, "verified"],
        [true, "verified"],
      ],
    );
  });
}

for (const on of CASES) {
  const title = `${on.engine} on ${on.kind}`;

  test(`${title}: a save on a full disk fails with what is missing, leaves nothing, and works again when there is room`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder, volume } = place;
    await client.save();
    await client.seal();
    const before = (await client.history()).save_points;
    const filler = path.join(volume.root, "filler");
    fill(filler);
    for (const args of [["save"], ["save", "--allow", "space"]]) {
      const failed = cairn([...args, "-C", folder]);
      if (failed.status === 0) continue;
      assert.deepEqual([failed.status, failed.error?.code], [8, "no_space"], failed.stdout);
    }
    // Whatever became of these: points are whole, nothing is left, and there is a way out.
    const meanwhile = cairn(["status", "-C", folder]);
    assert.ok(meanwhile.status === 0 || meanwhile.status === 8, meanwhile.stdout);
    fs.rmSync(filler, { recursive: true });
    if (on.kind === "btrfs") command(["btrfs", "filesystem", "sync", volume.root]);
    const state = readFolder(folder);
    const { save_point_id: id } = await client.save();
    await client.seal();
    const { save_points, damaged } = await client.history();
    assert.deepEqual(damaged, []);
    assert.deepEqual(
      save_points.slice(-before.length).map(({ save_point_id }) => save_point_id),
      before.map(({ save_point_id }) => save_point_id),
    );
    assert.deepEqual((await client.verifyAll()).problems, []);
    const to = path.join(volume.root, "to");
    await client.restore({ target: id, to });
    assertFolder(to, state, "restored");
    fs.rmSync(to, { recursive: true });
    assertHeldTidy(place, "full");
    resticCheck(client, "full");
  });

  test(`${title}: processes that save, seal and look at once lose nothing`, async (t) => {
    const place = await heldPlace(t, { ...on, fill: makeFirst });
    if (place === null) return;
    const { client, folder } = place;
    await client.save();
    const outcomes: string[] = [];
    const run = async (args: readonly string[], times: number): Promise<void> => {
      for (let i = 0; i < times; i++) {
        const done = await startCairn([...args, "-C", folder]).ended;
        if (done.status !== 0) outcomes.push(`${args.join(" ")}: ${done.status} ${done.stdout}`);
      }
    };
    await Promise.all([
      run(["save"], 6),
      run(["save"], 6),
      run(["seal"], 6),
      run(["verify", "--all"], 3),
      run(["status"], 5),
    ]);
    assert.deepEqual(outcomes, []);
    await client.seal();
    const { save_points, damaged } = await client.history();
    assert.deepEqual(damaged, []);
    assert.equal(save_points.length, 13);
    const { state } = walkDigests(folder);
    for (const { payload_root_hash: digest } of save_points) assert.equal(digest, state);
    assert.deepEqual((await client.verifyAll()).problems, []);
    assertHeldTidy(place, "at once");
  });
}

/** Writes until there is no room, in ever smaller pieces. */
function fill(place: string): void {
  fs.mkdirSync(place);
  for (let size = 8 << 20, n = 0; size >= 512; size >>= 2) {
    for (;;) {
      const file = path.join(place, `${n++}`);
      try {
        const fd = fs.openSync(file, "w");
        try {
          const bytes = Buffer.alloc(size, n);
          for (let at = 0; at < size;) at += fs.writeSync(fd, bytes, at);
          fs.fsyncSync(fd);
        } finally {
          fs.closeSync(fd);
        }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
        break;
      }
    }
  }
}

test("a folder with a subvolume inside is saved into the store, whole, and forked whole", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  await client.save();
  await client.seal();
  const inner = path.join(folder, "same/inner");
  command(["btrfs", "-q", "subvolume", "create", inner]);
  fs.writeFileSync(path.join(inner, "file"), "in the inner one\n");
  const state = readFolder(folder);
  const saved = await client.save();
  assert.deepEqual([saved.engine, saved.effective_engine, saved.sealed], ["btrfs-snapshot", "copy", true]);
  assert.deepEqual(
    saved.degraded.map(({ what, reason }) => [what, reason.includes("same/inner")]),
    [["btrfs-snapshot", true]],
  );
  assert.equal(saved.payload_root_hash, walkDigests(folder).state);
  assert.equal((await client.status()).clean, true);
  fs.writeFileSync(path.join(folder, "same/kept.txt"), "edited\n");
  fs.writeFileSync(path.join(inner, "file"), "edited\n");
  // Nothing is renamed across its border: what cannot be put in place stays as it is, and is named.
  const { left_out: left } = await client.restore({ target: saved.save_point_id });
  assert.deepEqual(
    left.map(({ path: where, reason }) => [where, reason]),
    [["same/inner/file", "mounted"]],
  );
  assert.equal(fs.readFileSync(path.join(folder, "same/kept.txt"), "utf8"), "never changes\n");
  assert.equal(fs.readFileSync(path.join(inner, "file"), "utf8"), "edited\n");
  const fork = path.join(volume.root, "fork");
  await client.fork(saved.save_point_id, fork);
  assertFolder(fork, state, "forked");
  // Without it snapshots go on.
  command(["btrfs", "-q", "subvolume", "delete", inner]);
  assert.equal((await client.save()).effective_engine, "btrfs-snapshot");
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a held tree that was changed after its point was sealed gives nothing back", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder, volume } = place;
  const state = readFolder(folder);
  const { save_point_id: id } = await client.save();
  await client.seal();
  tamper(treeOf(client, 1), "btrfs-snapshot", () => {
    fs.writeFileSync(path.join(treeOf(client, 1), "same/kept.txt"), "NEVER changed\n");
  });
  fs.appendFileSync(path.join(folder, "same/kept.txt"), "edited\n");
  await client.restore({ target: id });
  assertFolder(folder, state, "restored");
  const to = path.join(volume.root, "to");
  await client.restore({ target: id, to });
  assertFolder(to, state, "beside");
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("what is mounted inside the folder is no part of its points, and what lies below is once it is seen", async (t) => {
  const place = await heldPlace(t, { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst });
  if (place === null) return;
  const { client, folder } = place;
  const inner = path.join(folder, "goes/mounted");
  fs.mkdirSync(inner);
  fs.writeFileSync(path.join(inner, "hidden"), "below the mount\n");
  command(["mount", "-t", "tmpfs", "none", inner]);
  fs.writeFileSync(path.join(inner, "on-it"), "on the mount\n");
  const saved = await client.save();
  assert.equal(saved.effective_engine, "copy");
  assert.match(saved.degraded[0]!.reason, /goes\/mounted/);
  assert.deepEqual(
    saved.left_out.map(({ path: where, reason }) => [where, reason]),
    [["goes/mounted", "mounted"]],
  );
  command(["umount", inner]);
  const state = readFolder(folder);
  const again = await client.save();
  assert.equal(again.effective_engine, "btrfs-snapshot");
  await client.seal();
  const [held] = (await client.history()).save_points;
  assert.equal(held!.payload_root_hash, walkDigests(folder).state);
  await client.restore({ target: again.save_point_id });
  assertFolder(folder, state, "restored");
});
