import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { cairnLibrary, assertNoLeftovers, clientOf, newFolder, resticCheck } from "../fixtures/work.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { chosenPasses, killAt, passesOf, random, saveAndCheck, SEED } from "./rounds.ts";

let failed = true;
after(() => {
  if (failed) process.stderr.write(`fork.flow.test.ts: repeat with CAIRN_TEST_SEED=${SEED}\n`);
});

/** Kills `fork` at each pass; after the next command there is no fork or a whole one, and nothing else. */
async function killForks(name: string, more: readonly string[]): Promise<void> {
  const folder = newFolder(name);
  makeFirst(folder);
  const client = await clientOf(folder);
  const { payload_root_hash: wanted } = await client.save();
  const parent = newFolder(`${name}-forks`);
  const forkTo = (target: string): string[] => ["fork", "head", target, ...more, "-C", folder];
  const names = passesOf(forkTo(path.join(parent, "listed")));
  const outcomes = new Set<boolean>();
  let whole = 1;
  for (const pass of chosenPasses(names)) {
    const target = path.join(parent, `at-${pass}`);
    if (pass % 3 === 0) fs.mkdirSync(target);
    const kills = [killAt(forkTo(target), pass)];
    if (pass % 2 === 0) kills.push(killAt(["save", "--skip-unchanged", "-C", folder], 1 + Math.floor(random() * 8)));
    const where = `fork ${more.join(" ")} killed at ${pass} (${kills.join(", then ")})`;
    await saveAndCheck(client, folder, where);
    const made = fs.existsSync(target) && fs.readdirSync(target).length > 0;
    outcomes.add(made);
    if (made) {
      whole++;
      const fork = await (await cairnLibrary()).open(target);
      assert.equal(walkDigests(target).state, wanted, where);
      const status = await fork.status();
      assert.equal(status.clean, true, where);
      assert.equal((await fork.history(undefined, 0, { all: true })).save_points.length, 1, where);
    } else await assert.rejects((await cairnLibrary()).open(target), where);
    assert.deepEqual(
      fs.readdirSync(parent).filter((each) => each.startsWith(".cairn") || each.includes("cairn-partial")),
      [],
      where,
    );
    assert.deepEqual(partial(client.controlDirectory), [], where);
    if (more.length === 0)
      assert.equal(fs.readdirSync(path.join(client.controlDirectory, "workspaces")).length, 1 + whole, where);
    assertNoLeftovers(client, folder, where);
    // The same place can be taken at once.
    if (!made && pass % 4 === 1) {
      const done = cairn(forkTo(target));
      assert.equal(done.status, 0, `${where}: ${done.stdout}${done.stderr}`);
      whole++;
    }
  }
  assert.equal(outcomes.size, 2, "both outcomes were seen");
  resticCheck(client, name);
}

function partial(control: string): string[] {
  try {
    return fs.readdirSync(path.join(control, "partial"));
  } catch {
    return [];
  }
}

test("fork, if killed at any step, leaves no fork or a complete one", async () => {
  await killForks("fork", []);
});

test("fork --standalone, if killed at any step, leaves no fork or a complete one", async () => {
  await killForks("alone", ["--standalone"]);
});

test("restore --to, if killed at any step, leaves no folder or a complete one", async () => {
  const folder = newFolder("elsewhere");
  makeFirst(folder);
  const client = await clientOf(folder);
  const { payload_root_hash: wanted } = await client.save();
  const parent = newFolder("targets");
  const args = (target: string): string[] => ["restore", "head", "--to", target, "-C", folder];
  const names = passesOf(args(path.join(parent, "listed")));
  for (const pass of chosenPasses(names)) {
    const target = path.join(parent, `at-${pass}`);
    const where = `restore --to killed at ${pass} (${killAt(args(target), pass)})`;
    await saveAndCheck(client, folder, where);
    if (fs.existsSync(target)) assert.equal(walkDigests(target).state, wanted, where);
    assert.deepEqual(
      fs.readdirSync(parent).filter((each) => each.includes("cairn-partial")),
      [],
      where,
    );
    assert.deepEqual(partial(client.controlDirectory), [], where);
    assertNoLeftovers(client, folder, where);
  }
  failed = false;
});

test("restore --to leaves a complete folder if the power fails after the command has ended", async (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  failed = true;
  const folder = newFolder("powered");
  makeFirst(folder);
  const { payload_root_hash: wanted } = await (await clientOf(folder)).save();
  const target = path.join(disk.root, "target");
  cairnOk(["restore", "head", "--to", target, "-C", folder], { own: true });
  disk.cutPower();
  assert.equal(walkDigests(target).state, wanted);
  failed = false;
});

test("all recoveries that one command makes have the same time", async () => {
  const folder = newFolder("both");
  makeFirst(folder);
  const client = await clientOf(folder);
  await client.save();
  for (const [args, failpoint] of [
    [["save"], "save.staged"],
    [["fork", "head", `${folder}-fork`], "fork.noted"],
  ] as const)
    assert.ok(cairn(["-C", folder, ...args], { failpoint }).killed, failpoint);
  cairnOk(["-C", folder, "save"]);
  const { recovered } = await client.status();
  assert.deepEqual(recovered.map(({ operation }) => operation).toSorted(), ["fork", "save"]);
  assert.equal(new Set(recovered.map(({ at }) => at)).size, 1);
});

test("release removes the leftovers of killed forks, even if the workspace's folder is missing", async () => {
  for (const more of [[], ["--standalone"]])
    for (const isGone of [false, true]) {
      const folder = newFolder("released");
      makeFirst(folder);
      const { controlDirectory } = await clientOf(folder);
      cairnOk(["-C", folder, "save"]);
      const parent = newFolder("released-forks");
      assert.ok(
        cairn(["-C", folder, "fork", "head", path.join(parent, "fork"), ...more], { failpoint: "fork.noted" }).killed,
      );
      if (isGone) fs.rmSync(folder, { recursive: true });
      cairnOk(["release", folder, "--delete-points"]);
      assert.deepEqual([fs.existsSync(controlDirectory), fs.readdirSync(parent)], [false, []]);
    }
});
