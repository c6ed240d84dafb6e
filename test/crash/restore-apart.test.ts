import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { walkDigests } from "../../src/engines/testing-walk.ts";
import type { Client } from "../../src/contract/index.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { assertFolder, differencesOf, readFolder } from "../fixtures/folder-state.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { makeFirst, makeSecond, makeUnsaved } from "../fixtures/two-states.ts";
import { assertNoLeftovers, cairnLibrary, newFolder, resticCheck } from "../fixtures/work.ts";
import { chosenPasses, killAt, oneOf, passesOf, random, SEED } from "./rounds.ts";

/** Restores in places inside the folder that nothing can be renamed into: they have staging directories of their own. */

interface Apart {
  folder: string;
  /** inside it */
  place: string;
}

/** Another directory of the same file system, mounted inside. */
function mounted(t: TestContext): Apart | null {
  const folder = newFolder("apart");
  const place = path.join(folder, "deep/mounted");
  fs.mkdirSync(place, { recursive: true });
  try {
    execFileSync("mount", ["--bind", newFolder("apart-source"), place], { stdio: ["ignore", "ignore", "pipe"] });
  } catch (error) {
    t.skip(`nothing can be mounted: ${String((error as { stderr: unknown }).stderr).trim()}`);
    return null;
  }
  t.after(() => execFileSync("umount", [place]));
  return { folder, place };
}

function subvolume(t: TestContext): Apart | null {
  const volume = loopFileSystem(t, "btrfs");
  if (volume === null) return null;
  const folder = path.join(volume.root, "ws");
  const place = path.join(folder, "deep/inner");
  for (const each of [folder, place]) {
    fs.mkdirSync(path.dirname(each), { recursive: true });
    execFileSync("btrfs", ["-q", "subvolume", "create", each]);
  }
  return { folder, place };
}

const PLACES = { "on a file system mounted inside": mounted, "in a subvolume inside": subvolume };

for (const [where, make] of Object.entries(PLACES)) {
  test(`what is ${where} is put back in place, exactly, and taken back`, async (t) => {
    const at = make(t);
    if (at === null) return;
    const { folder, client, first, firstId, before } = await scene(at);
    const restored = cairnOk(["-C", folder, "restore", firstId]).data;
    assert.deepEqual(restored["left_out"], []);
    assertFolder(folder, first, "restored");
    assertNoLeftovers(client, folder, "restored");
    assert.equal((await client.status()).clean, true);
    const { undo_id: redo } = await client.undo();
    assertFolder(folder, before, "undone");
    await client.restore({ target: redo!, paths: ["deep"] });
    const compare = { withoutRootTime: true };
    const deep = [...readFolder(folder, compare)].filter(([name]) => name.startsWith("deep"));
    assert.deepEqual(differencesOf(new Map(deep), new Map([...first].filter(([name]) => name.startsWith("deep")))), []);
  });

  test(`a restore ${where} that is killed at any step ends exactly old or exactly new`, async (t) => {
    const at = make(t);
    if (at === null) return;
    const { folder, client, first, firstId, before } = await scene(at);
    t.diagnostic(`CAIRN_TEST_SEED=${SEED}`);
    const args = ["restore", firstId, "-C", folder];
    const names = passesOf(args);
    await client.undo();
    assertFolder(folder, before, "undone, not killed");
    const outcomes = new Set<string>();
    for (const pass of chosenPasses(names, 12)) {
      const kills = [`${pass} (${killAt(args, pass)})`];
      if (pass % 2 === 0) kills.push(String(killAt(["status", "-C", folder], 1 + Math.floor(random() * 30))));
      const context = `killed at ${kills.join(", then at ")}`;
      const saved = await client.save({ crossMounts: true, skipUnchanged: true });
      assert.equal(saved.payload_root_hash, walkDigests(folder).state, context);
      const outcome = oneOf(folder, { first, before }, context);
      outcomes.add(outcome);
      assertNoLeftovers(client, folder, context);
      const inPlace: string[] = fs.readdirSync(at.place).filter((name) => name.startsWith(".cairn"));
      assert.deepEqual(inPlace, [], `${context}: left in ${at.place}`);
      if (outcome === "before") continue;
      await client.undo();
      assertFolder(folder, before, `${context}, then undone`);
    }
    assert.equal(outcomes.size, 2, "both outcomes were seen");
    resticCheck(client, where);
  });

  test(`what somebody edits ${where} while it is restored stays, and is named`, async (t) => {
    const at = make(t);
    if (at === null) return;
    const { folder, client, firstId } = await scene(at);
    const args = ["restore", firstId, "-C", folder];
    assert.ok(cairn(args, { failpoint: "restore.committed" }).killed);
    const edited = path.join(at.place, "same/updated.txt");
    fs.rmSync(edited);
    fs.writeFileSync(edited, "edited meanwhile\n");
    await client.save({ crossMounts: true });
    const { recovered } = await client.status();
    const name = path.relative(folder, edited);
    assert.ok(recovered.at(-1)!.kept.some((kept) => kept.path === name));
    assert.equal(fs.readFileSync(edited, "utf8"), "edited meanwhile\n");
  });
}

test("what a restore that cannot be finished had displaced in a subvolume inside is kept, and doctor says where", async (t) => {
  const at = subvolume(t);
  if (at === null) return;
  const { folder, client, firstId } = await scene(at);
  assert.ok(cairn(["restore", firstId, "-C", folder], { failpoint: "restore.swapped" }).killed);
  const [workspace] = fs.readdirSync(path.join(client.controlDirectory, "workspaces"));
  fs.truncateSync(path.join(client.controlDirectory, "workspaces", workspace!, "journal/restore.steps"), 10);
  const [staging] = fs.readdirSync(at.place).filter((name) => name.startsWith(".cairn-restore-"));
  cairnOk(["doctor", "--repair", "-C", folder]);
  const kept = path.join(client.controlDirectory, "kept");
  const [of] = fs.readdirSync(kept);
  const noted = fs
    .readFileSync(path.join(kept, of!, "staging-place"), "utf8")
    .trim()
    .split("\n");
  // The main one too, which lies in the folder where the points lie in another subvolume.
  assert.deepEqual(
    noted,
    [folder, at.place].map((each) => path.join(each, staging!)),
  );
  for (const each of noted) assert.ok(fs.readdirSync(each).length > 3, each);
  await client.save();
});

interface Scene extends Apart {
  client: Client;
  first: ReturnType<typeof readFolder>;
  firstId: string;
  before: ReturnType<typeof readFolder>;
}

/** Both states of a folder, in itself and in the place inside it, saved; and then edits that are not. */
async function scene({ folder, place }: Apart): Promise<Scene> {
  const client = await (await cairnLibrary()).adopt(folder);
  const both = (make: (where: string) => void): void => [folder, place].forEach((each) => make(each));
  both(makeFirst);
  const { save_point_id: firstId, left_out: left } = await client.save({ crossMounts: true });
  assert.deepEqual(left, []);
  const first = readFolder(folder);
  both(makeSecond);
  await client.save({ crossMounts: true });
  both(makeUnsaved);
  return { folder, place, client, first, firstId, before: readFolder(folder) };
}
