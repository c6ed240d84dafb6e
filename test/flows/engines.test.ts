import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { walkDigests } from "../../src/engines/testing-walk.ts";
import type { Client, EngineType } from "../../src/operations/contract.ts";
import { startCairn } from "../fixtures/command.ts";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { assertHeldTidy, type HeldKind, heldVolume, makeHoldable } from "../fixtures/held-place.ts";
import { juicefsVolume } from "../fixtures/juicefs.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary, resticCheck } from "../fixtures/work.ts";

const CASES: readonly { on: HeldKind; engine: EngineType }[] = [
  { on: "btrfs", engine: "btrfs-snapshot" },
  { on: "btrfs", engine: "reflink-copy" },
  { on: "btrfs", engine: "copy" },
  { on: "xfs", engine: "reflink-copy" },
  { on: "xfs", engine: "copy" },
  { on: "ext4", engine: "copy" },
  { on: "juicefs", engine: "juicefs-clone" },
  { on: "juicefs", engine: "copy" },
];

interface Place {
  client: Client;
  folder: string;
  root: string;
}

/** A workspace on a fresh file system; null where there can be none, and the test is skipped. */
async function placeOn(t: TestContext, on: HeldKind, engine: EngineType): Promise<Place | null> {
  const volume = heldVolume(t, on);
  if (volume === null) return null;
  const folder = path.join(volume.root, "ws");
  makeHoldable(folder, engine);
  makeFirst(folder);
  const client = await (await cairnLibrary()).adopt(folder, { engineType: engine });
  return { client, folder, root: volume.root };
}

for (const { on, engine } of CASES) {
  test(`${engine} on ${on}: points are saved, sealed, proven, given back and forked with the digests that a walk finds`, async (t) => {
    const place = await placeOn(t, on, engine);
    if (place === null) return;
    const { client, folder, root } = place;
    const first = { state: readFolder(folder), digests: walkDigests(folder) };
    const a = await client.save({ message: "first" });
    makeSecond(folder);
    const second = { state: readFolder(folder), digests: walkDigests(folder) };
    const b = await client.save({ message: "second" });
    const held = engine !== "copy";
    for (const point of [a, b]) {
      assert.equal(point.effective_engine, engine);
      assert.deepEqual(point.degraded, []);
      assert.deepEqual([point.sealed, point.entries === null], [!held, held]);
    }
    assert.deepEqual(await client.seal(), { sealed: held ? 2 : 0 });
    const [sealedB, sealedA] = (await client.history()).save_points;
    assert.equal(sealedA!.payload_root_hash, first.digests.state);
    assert.equal(sealedB!.payload_root_hash, second.digests.state);
    assert.equal((await client.status()).clean, true);
    await client.setEngine("copy");
    const copied = await client.save({ message: "by the copy engine" });
    assert.deepEqual([copied.unchanged, copied.metadata_digest], [true, sealedB!.metadata_digest]);
    await client.setEngine(engine);
    assert.deepEqual((await client.verifyAll()).problems, []);

    makeUnsaved(folder);
    const unsaved = readFolder(folder);
    await client.restore({ target: a.save_point_id });
    assertFolder(folder, first.state, "restored");
    await client.undo();
    assertFolder(folder, unsaved, "undone");

    const fork = path.join(root, "fork");
    await client.fork(b.save_point_id, fork);
    assertFolder(fork, second.state, "forked");
    resticCheck(client, engine);
  });
}

test("points of several engines live in one history when the engine is changed", async (t) => {
  const place = await placeOn(t, "btrfs", "btrfs-snapshot");
  if (place === null) return;
  const { client, folder } = place;
  const states = new Map<string, ReturnType<typeof readFolder>>();
  const save = async (): Promise<void> => {
    fs.appendFileSync(path.join(folder, "same/updated.txt"), "more\n");
    states.set((await client.save()).save_point_id, readFolder(folder));
  };
  await save();
  for (const engine of ["reflink-copy", "copy", "btrfs-snapshot"] as const) {
    assert.equal((await client.setEngine(engine)).engine, engine);
    const again = await (await cairnLibrary()).open(folder);
    assert.equal(again.engineType, engine);
    await save();
    await again.save({ message: engine });
  }
  for (const [id, state] of states) {
    await client.restore({ target: id });
    assertFolder(folder, state, id);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("points that hold trees are cleaned up, and the workspace released, with nothing left of them", async (t) => {
  for (const { on, engine } of [
    { on: "btrfs", engine: "btrfs-snapshot" },
    { on: "btrfs", engine: "reflink-copy" },
    { on: "juicefs", engine: "juicefs-clone" },
  ] as const) {
    const place = await placeOn(t, on, engine);
    if (place === null) return;
    const { client, folder, root } = place;
    for (let i = 0; i < 12; i++) {
      fs.writeFileSync(path.join(folder, "turn"), `turn ${i}\n`);
      await client.save({ message: `turn ${i}` });
    }
    const plan = await client.previewCleanup({ retention: { keepLast: 3 } });
    const { removed } = await client.runCleanup(plan.plan_id);
    assert.equal(removed.length, 9, engine);
    assert.equal((await client.history()).save_points.length, 3);
    assert.deepEqual((await client.verifyAll()).problems, []);
    await client.save();
    await client.release({ deletePoints: true });
    assert.equal(fs.existsSync(client.controlDirectory), false, engine);
    if (on !== "btrfs") continue;
    const subvolumes = execFileSync("btrfs", ["subvolume", "list", root], { encoding: "utf8" }).trim().split("\n");
    assert.equal(
      subvolumes.filter((line) => line !== "").length,
      engine === "btrfs-snapshot" ? 1 : 0,
      subvolumes.join(),
    );
  }
});

test("an engine that does not work at a place is refused, with why", async (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  const library = await cairnLibrary();
  const { engine, engine_reasons: reasons } = await library.detectEngine(folder);
  assert.equal(engine, "copy");
  assert.deepEqual(
    reasons.map(({ engine: each, chosen }) => [each, chosen]),
    [
      ["btrfs-snapshot", false],
      ["juicefs-clone", false],
      ["reflink-copy", false],
      ["copy", true],
    ],
  );
  for (const each of ["btrfs-snapshot", "reflink-copy", "juicefs-clone"] as const)
    await assert.rejects(library.adopt(folder, { engineType: each }), { code: "unsupported" });
  assert.deepEqual(
    fs.readdirSync(volume.root).filter((name) => name !== "lost+found"),
    ["ws"],
  );
});

test("a subvolume is adopted with snapshots and a plain folder with copy when no engine is asked for", async (t) => {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return;
  const library = await cairnLibrary();
  const [subvolume, plain] = ["subvolume", "plain"].map((name) => path.join(volume.root, name)) as [string, string];
  execFileSync("btrfs", ["-q", "subvolume", "create", subvolume]);
  fs.mkdirSync(plain);
  for (const [folder, engine] of [
    [subvolume, "btrfs-snapshot"],
    [plain, "copy"],
  ] as const) {
    assert.equal((await library.detectEngine(folder)).engine, engine);
    const client = await library.adopt(folder);
    assert.equal(client.engineType, engine);
    assert.equal((await client.save()).effective_engine, engine);
    const { engine: used, engine_reasons: reasons } = await client.status();
    assert.deepEqual([used, reasons.find(({ chosen }) => chosen)?.engine], [engine, engine]);
    assert.equal(reasons.length, 4, "why the others were passed over");
  }
});

test("a folder that is no subvolume any more is saved into the store, and the point says why", async (t) => {
  const place = await placeOn(t, "btrfs", "btrfs-snapshot");
  if (place === null) return;
  const { client, folder } = place;
  await client.save();
  execFileSync("btrfs", ["-q", "subvolume", "delete", folder]);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "in a plain folder\n");
  const saved = await client.save();
  assert.deepEqual([saved.engine, saved.effective_engine, saved.sealed], ["btrfs-snapshot", "copy", true]);
  assert.equal(saved.degraded[0]?.what, "btrfs-snapshot");
});

test("a folder on JuiceFS is adopted with clones when they are asked for, whose points lie at the root of its mount; without the program copy is used, and says why", async (t) => {
  const volume = juicefsVolume(t, "stand-in");
  if (volume === null) return;
  const library = await cairnLibrary();
  const folder = path.join(volume.root, "a b", "ws");
  fs.mkdirSync(folder, { recursive: true });
  makeFirst(folder);
  const withProgram = process.env["PATH"];
  const { engine, engine_reasons: reasons } = await library.detectEngine(folder);
  assert.equal(engine, "copy", JSON.stringify(reasons));
  assert.match(reasons.find((each) => each.engine === "juicefs-clone")?.reason ?? "", /works here/);
  assert.deepEqual(fs.readdirSync(volume.root), ["a b"], "nothing is left");
  const client = await library.adopt(folder, { engineType: "juicefs-clone" });
  assert.equal(client.engineType, "juicefs-clone");
  assert.equal(path.dirname(client.controlDirectory), path.join(volume.root, ".cairn-control"));
  const held = await client.save();
  assert.deepEqual([held.effective_engine, held.degraded, held.sealed], ["juicefs-clone", [], false]);

  process.env["PATH"] = withProgram!.slice(volume.programs.length + 1);
  const without = await library.detectEngine(folder);
  assert.equal(without.engine, "copy");
  const why = without.engine_reasons.find(({ engine: each }) => each === "juicefs-clone");
  assert.match(why?.reason ?? "", /program juicefs is not/);
  assert.match(why?.hint ?? "", /install/);
  const saved = await client.save();
  assert.deepEqual([saved.engine, saved.effective_engine, saved.complete], ["juicefs-clone", "copy", true]);
  assert.equal(saved.degraded[0]?.what, "juicefs-clone");
  assert.match(saved.degraded[0]?.reason ?? "", /program juicefs is not/);
  const { healthy, findings } = await client.doctor();
  const finding = findings.find(({ kind }) => kind === "engine");
  assert.deepEqual([healthy, finding?.severity], [true, "warning"]);
  assert.match(finding?.detail ?? "", /program juicefs is not .*; install/);
  process.env["PATH"] = withProgram;
  assert.ok((await client.doctor()).findings.every(({ kind }) => kind !== "engine"));
  await client.seal();
  const digests = (await client.history()).save_points.map((each) => each.payload_root_hash);
  assert.deepEqual(digests, [walkDigests(folder).state, walkDigests(folder).state]);
  assert.deepEqual((await client.verifyAll()).problems, []);
});

test("a clone by JuiceFS that is not whole, or that fails, is saved into the store whole, and the point says why", async (t) => {
  const volume = juicefsVolume(t, "stand-in");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  makeFirst(folder);
  const client = await (await cairnLibrary()).adopt(folder, { engineType: "juicefs-clone" });
  const { state } = walkDigests(folder);
  const program = path.join(volume.programs, "juicefs");
  fs.renameSync(program, path.join(volume.programs, "whole"));
  for (const [lines, why] of [
    ['"${0%/*}/whole" "$@" && rm "$4/big" && touch -r "$3" "$4"', /big is not in it/],
    ['"${0%/*}/whole" "$@" && touch "$4/moded/mode"', /another time/],
    ['echo "<FATAL>: clone failed: input/output error" >&2; exit 1', /input\/output error/],
    ["echo nonsense", /no clone is at/],
    ['mkdir "$4"; echo "permission denied" >&2; exit 1', /permission denied/],
  ] as const) {
    fs.writeFileSync(program, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
    const saved = await client.save();
    assert.deepEqual([saved.effective_engine, saved.complete], ["copy", true], lines);
    assert.equal(saved.payload_root_hash, state);
    assert.match(saved.degraded[0]?.reason ?? "", why);
  }
  assert.deepEqual((await client.verifyAll()).problems, []);
  assertNoLeftovers(client, folder, "fallen back");
});

test("a clone that goes on after its save was killed comes to nothing", async (t) => {
  const volume = juicefsVolume(t, "stand-in");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  makeFirst(folder);
  const client = await (await cairnLibrary()).adopt(folder, { engineType: "juicefs-clone" });
  const program = path.join(volume.programs, "juicefs");
  const [whole, begun, ended] = ["whole", "begun", "ended"].map((name) => path.join(volume.programs, name)) as [
    string,
    string,
    string,
  ];
  fs.renameSync(program, whole);
  // Both before and after the next call has cleaned up.
  for (const afterwards of [false, true]) {
    const wait = afterwards ? `while [ -e '${begun}' ]; do sleep 0.05; done;` : "sleep 0.3;";
    const lines = `touch '${begun}'; ${wait} '${whole}' "$@"; touch '${ended}'`;
    fs.writeFileSync(program, `#!/bin/sh\n${lines}\n`, { mode: 0o755 });
    const saving = startCairn(["save", folder]);
    await until(() => fs.existsSync(begun));
    saving.child.kill("SIGKILL");
    await saving.ended;
    if (!afterwards) await until(() => fs.existsSync(ended));
    fs.rmSync(program);
    fs.symlinkSync(whole, program);
    const points = (await client.history()).save_points.length;
    const saved = await client.save();
    assert.equal(saved.effective_engine, "juicefs-clone");
    fs.rmSync(begun);
    await until(() => fs.existsSync(ended));
    for (const each of [ended, program]) fs.rmSync(each);
    await client.seal();
    const { save_points: all, damaged } = await client.history();
    assert.deepEqual([all.length, damaged], [points + 1, []]);
    assert.equal(all[0]!.payload_root_hash, walkDigests(folder).state);
    assertHeldTidy(
      { engine: "juicefs-clone", volume: { kind: "juicefs", root: volume.root }, folder, client },
      `${afterwards}`,
    );
  }
});

/** Waits for something that another process does. */
async function until(isSo: () => boolean): Promise<void> {
  for (let i = 0; !isSo(); i++) {
    assert.ok(i < 600, "it does not happen");
    await setTimeout(50);
  }
}
