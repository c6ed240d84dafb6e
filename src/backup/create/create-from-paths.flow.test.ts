import assert from "node:assert/strict";
import { existsSync, readdirSync, renameSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, test, type TestContext } from "node:test";
import type { PathsBackupResult } from "../../contract/index.ts";
import { syscalls } from "../../fs/linux/syscalls.ts";
import { nameAt } from "../../fs/listing.ts";
import { giveBackThreads, takeThreads } from "../../threads/threads.ts";
import { backupScene } from "../testing-far.ts";

/**
 * Backs up the folders `a` and `b` twice, the second time on this thread: `before` is called with each name that is
 * looked at, after the listing of its folder.
 */
async function backedUpTwice(
  t: TestContext,
  before: (name: string, move: (from: string, to: string) => void) => void,
): Promise<{ made: PathsBackupResult; files: string[]; folder: string }> {
  const { repository, folder, root, write } = await backupScene(t, "local");
  for (const name of ["a/1", "a/3", "b/2", "b/message"]) write(name, name);
  const paths = ["a", "b"].map((name) => join(folder, name));
  await repository.createFromPaths(paths);
  for (const name of ["a/0", "b/0"]) write(name, name);
  // With idle threads the scan would not run on this one.
  const held = await takeThreads({ kind: "scan", count: 100 });
  const sys = syscalls();
  const { stat } = sys;
  const mocked = t.mock.method(sys, "stat", (...args: Parameters<typeof stat>) => {
    before(Buffer.from(nameAt(args[1], args[2])).toString(), (from, to) =>
      renameSync(join(folder, from), join(folder, to)),
    );
    return stat(...args);
  });
  const made = await repository.createFromPaths(paths).finally(() => {
    mocked.mock.restore();
    giveBackThreads(held);
  });
  await repository.restore("latest", join(root, "restored"));
  const files = readdirSync(join(root, "restored"), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name, parentPath }) => `${basename(parentPath)}/${name}`);
  return { made, files: files.toSorted(), folder };
}

void describe("backup of two folders between which a file moves", () => {
  for (const [what, from, to] of [
    ["a file that moves from the folder that is read later into the other one", "b/message", "a/2"],
    ["under its new name only a file that moves after it was read", "a/1", "b/1"],
  ] as const)
    test(`backup of chosen paths saves ${what}`, async (t) => {
      let isMoved = false;
      const { made, files } = await backedUpTwice(t, (name, move) => {
        if (name !== "3" || isMoved) return;
        isMoved = true;
        move(from, to);
      });
      const all = ["a/0", "a/1", "a/3", "b/0", "b/2", "b/message"];
      assert.deepEqual(files, [...all.filter((each) => each !== from), to].toSorted());
      assert.equal(made.incomplete, null);
    });

  test("backup of chosen paths is incomplete if a file moves between the folders each time that it is found", async (t) => {
    let [at, count] = ["b/message", 0];
    const { made, folder } = await backedUpTwice(t, (name, move) => {
      if (name !== "3" && name !== basename(at)) return;
      if (name === "3" && count > 0) return;
      const to = `${at.startsWith("a") ? "b" : "a"}/message-${++count}`;
      move(at, to);
      at = to;
    });
    assert.ok(existsSync(join(folder, at)));
    assert.deepEqual([...new Set(made.incomplete?.left_out.map(({ reason }) => reason))], ["changing"]);
  });
});
