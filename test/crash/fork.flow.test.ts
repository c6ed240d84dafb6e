import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { walkDigests } from "../../src/workspace/store/testing-walk.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";
import { makeFirst } from "../fixtures/two-states.ts";
import { cairn, cairnOk } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";

test("restore --to leaves a complete folder if the power fails after the command has ended", async (t) => {
  const disk = loopFileSystem(t, "ext4");
  if (disk === null) return;
  const folder = newFolder("powered");
  makeFirst(folder);
  const { payload_root_hash: wanted } = await (await clientOf(folder)).save();
  const target = path.join(disk.root, "target");
  cairnOk(["restore", "head", "--to", target, "-C", folder], { own: true });
  disk.cutPower();
  assert.equal(walkDigests(target).state, wanted);
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
