import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { assertFolder, readFolder } from "../fixtures/folder-state.ts";
import { heldPlace } from "../fixtures/held-place.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { cairnLibrary } from "../fixtures/work.ts";

/** Which engine a workspace has, and several in one history. What each of them must do: test/engines. */

const SUBVOLUME = { kind: "btrfs", engine: "btrfs-snapshot", fill: makeFirst } as const;

test("points of several engines stay in one history if the engine is changed", async (t) => {
  const place = await heldPlace(t, SUBVOLUME);
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

test("init refuses an engine that does not work on the file system", async (t) => {
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
    await assert.rejects(library.init(folder, { engineType: each }), { code: "unsupported" });
  assert.deepEqual(
    fs.readdirSync(volume.root).filter((name) => name !== "lost+found"),
    ["ws"],
  );
});

test("init accepts reflink-copy for an absent or empty path if the file system supports clones", async (t) => {
  const [plain, cloning] = [loopFileSystem(t, "ext4"), loopFileSystem(t, "xfs")];
  if (plain === null || cloning === null) return;
  const library = await cairnLibrary();
  for (const name of ["absent", "deeper/absent", "empty"]) {
    if (name === "empty") for (const { root } of [plain, cloning]) fs.mkdirSync(path.join(root, name));
    const refused = library.init(path.join(plain.root, name), { selfContained: true, engineType: "reflink-copy" });
    await assert.rejects(refused, { code: "unsupported" });
    assert.deepEqual(fs.existsSync(path.join(plain.root, name)), name === "empty");
    const client = await library.openOrInit(path.join(cloning.root, name), {
      selfContained: true,
      engineType: "reflink-copy",
    });
    fs.writeFileSync(path.join(client.workspacePath(), "file"), "x");
    const { effective_engine: engine } = await client.save();
    assert.deepEqual([client.created, engine], [true, "reflink-copy"]);
  }
});

test("init chooses btrfs-snapshot for a subvolume and copy for a plain folder", async (t) => {
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
    const client = await library.init(folder);
    assert.equal(client.engineType, engine);
    assert.equal((await client.save()).effective_engine, engine);
    const { engine: used, engine_reasons: reasons } = await client.status();
    assert.deepEqual([used, reasons.find(({ chosen }) => chosen)?.engine], [engine, engine]);
    assert.equal(reasons.length, 4, "why the others were passed over");
  }
});

test("save copies into the store, and says why, if the folder is no longer a subvolume", async (t) => {
  const place = await heldPlace(t, SUBVOLUME);
  if (place === null) return;
  const { client, folder } = place;
  await client.save();
  execFileSync("btrfs", ["-q", "subvolume", "delete", folder]);
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "in a plain folder\n");
  assert.deepEqual((await client.status()).degraded, []);
  const saved = await client.save();
  assert.deepEqual([saved.engine, saved.effective_engine, saved.sealed], ["btrfs-snapshot", "copy", true]);
  assert.equal(saved.degraded[0]?.what, "btrfs-snapshot");
  assert.deepEqual((await client.status()).degraded, saved.degraded);
  const { healthy, engine, engine_reasons: reasons, findings } = await client.doctor();
  assert.deepEqual([healthy, engine, reasons[0]?.chosen], [true, "btrfs-snapshot", true]);
  assert.match(
    findings.map(({ detail }) => detail).join("\n"),
    /^btrfs-snapshot does not work here now.*plain directory/m,
  );
});

test("save copies into the store, and says why, if the folder has a swap file in use", async (t) => {
  const place = await heldPlace(t, SUBVOLUME);
  if (place === null) return;
  const { client, folder } = place;
  const swap = path.join(folder, "swap");
  fs.writeFileSync(swap, "", { mode: 0o600 });
  execFileSync("chattr", ["+C", swap]);
  fs.writeFileSync(swap, Buffer.alloc(1 << 20));
  execFileSync("mkswap", ["-q", swap]);
  try {
    execFileSync("swapon", [swap], { stdio: "pipe" });
  } catch (error) {
    return t.skip(`no swap file can be used here: ${String((error as { stderr?: Buffer }).stderr)}`);
  }
  try {
    const saved = await client.save();
    assert.deepEqual([saved.effective_engine, saved.complete], ["copy", true]);
    assert.match(saved.degraded[0]?.reason ?? "", /it contains a swap file that is in use/);
  } finally {
    execFileSync("swapoff", [swap]);
  }
  const { effective_engine: engine, degraded } = await client.save();
  assert.deepEqual([engine, degraded], ["btrfs-snapshot", []]);
});

test("status, doctor and setEngine list the other working engines and how to choose them", async (t) => {
  const place = await heldPlace(t, SUBVOLUME);
  if (place === null) return;
  const { client, folder } = place;
  const asked = (reasons: readonly { engine: string; hint?: string }[]): string[] =>
    reasons.filter(({ hint }) => hint?.startsWith("to choose it: ") === true).map(({ engine }) => engine);
  for (const [engine, others] of [
    ["copy", ["btrfs-snapshot", "reflink-copy"]],
    ["reflink-copy", ["btrfs-snapshot"]],
    ["btrfs-snapshot", ["reflink-copy"]],
  ] as const) {
    const all = [await client.setEngine(engine), await client.status(), await client.doctor()];
    all.push(await (await cairnLibrary()).detectEngine(folder));
    for (const { engine: used, engine_reasons: reasons } of all) {
      assert.deepEqual([used, reasons.find(({ chosen }) => chosen)?.engine, asked(reasons)], [engine, engine, others]);
      assert.equal(reasons.length, 4);
    }
  }
  const library = await cairnLibrary();
  // Of a fork in the same control directory other things may be true.
  await client.setEngine("copy");
  const plain = path.join(place.volume.root, "plain");
  await client.fork((await client.save()).save_point_id, plain);
  await client.status();
  const { engine_reasons: ofPlain } = await (await library.open(plain)).status();
  assert.match(ofPlain[0]?.reason ?? "", /plain directory/);
  assert.equal((await client.status()).engine_reasons[0]?.reason, "works here (tried)");
  const warnings: string[] = [];
  await client.setEngine("btrfs-snapshot", { onWarning: (message) => warnings.push(message) });
  assert.match(warnings.join(), /changed for these too: plain$/);
  await assert.rejects(
    library.init(folder, { engineType: "copy" }),
    (error: { code?: string; hint?: string }) =>
      error.code === "already_exists" && error.hint?.includes("cairn engine set copy") === true,
  );
});
