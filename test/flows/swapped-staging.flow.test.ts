import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairnOk, type Outcome, startCairn } from "../fixtures/command.ts";
import { loopFileSystem } from "../fixtures/loop-file-system.ts";
import { newFolder, pauseFile } from "../fixtures/work.ts";

/** What a command makes for itself in a folder where others may change names, and what they put in its place. */

/** A command during which a folder of somebody else's is put in the place of the one that is named so. */
async function swapped(
  args: readonly string[],
  { failpoint, parent, named }: { failpoint: string; parent: string; named: string },
): Promise<{ ended: Outcome; staging: string }> {
  const theirs = path.join(parent, "theirs");
  const pause = pauseFile();
  const running = startCairn(args, { failpoint: `${failpoint}@${pause}` });
  await running.paused;
  const staging = path.join(
    parent,
    fs.readdirSync(parent).find((name) => name.includes(named))!,
  );
  fs.renameSync(staging, path.join(parent, "ours"));
  fs.renameSync(theirs, staging);
  fs.rmSync(pause);
  return { ended: await running.ended, staging };
}

test("restore does not remove a folder that others put in the place of its staging directory", async (t) => {
  const volume = loopFileSystem(t, "ext4");
  if (volume === null) return;
  const folder = path.join(volume.root, "ws");
  fs.mkdirSync(folder);
  fs.writeFileSync(path.join(folder, "file"), "one\n");
  fs.mkdirSync(path.join(folder, "theirs/deep"), { recursive: true });
  cairnOk(["init", folder, "--control-dir", newFolder("control"), "--engine", "copy"]);
  cairnOk(["save", "-C", folder]);
  fs.writeFileSync(path.join(folder, "file"), "other\n");
  const { ended, staging } = await swapped(["restore", "latest", "-C", folder], {
    failpoint: "restore.recorded",
    parent: folder,
    named: ".cairn-restore-",
  });
  assert.equal(ended.status, 0, ended.stderr);
  assert.deepEqual(fs.readdirSync(staging), ["deep"]);
  assert.match(ended.warnings.join("\n"), /is not the folder that Cairn made there: it is not removed/);
  assert.equal(fs.readFileSync(path.join(folder, "file"), "utf8"), "one\n");
});

test("restore --to does not use a folder that others put in the place of its partial folder", async () => {
  const folder = newFolder("ws");
  fs.mkdirSync(folder, { recursive: true });
  fs.writeFileSync(path.join(folder, "file"), "one\n");
  cairnOk(["init", folder, "--engine", "copy"]);
  cairnOk(["save", "-C", folder]);
  const parent = newFolder("around");
  fs.mkdirSync(path.join(parent, "theirs/deep"), { recursive: true });
  const to = path.join(parent, "to");
  const { ended, staging } = await swapped(["restore", "latest", "-C", folder, "--to", to], {
    failpoint: "write.content-written",
    parent,
    named: ".cairn-partial-",
  });
  assert.equal(ended.error?.code, "conflict", ended.stdout);
  assert.deepEqual(fs.readdirSync(staging), ["deep"]);
  assert.equal(fs.existsSync(to), false);
  // Nothing is recorded that a later command would remove.
  cairnOk(["status", "-C", folder]);
  assert.deepEqual(fs.readdirSync(staging), ["deep"]);
});
