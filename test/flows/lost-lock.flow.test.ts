import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { cairn, cairnOk, startCairn } from "../fixtures/command.ts";
import { clientOf, newFolder } from "../fixtures/work.ts";

/**
 * A process that stands still for so long that another takes its lock over (a suspended laptop beside a share) commits nothing
 * when it wakes up. Here somebody takes the lock's file away meanwhile, as `doctor --force` does.
 */

interface Scene {
  folder: string;
  ids: string[];
  lock: string;
  pause: string;
}

async function scene(name: string): Promise<Scene> {
  const folder = newFolder(name);
  const client = await clientOf(folder);
  const ids: string[] = [];
  for (const text of ["one", "two", "three"]) {
    fs.writeFileSync(path.join(folder, "a"), text);
    ids.push((await client.save()).save_point_id);
  }
  const pause = path.join(newFolder(`${name}-pause`), "pause");
  fs.writeFileSync(pause, "");
  return { folder, ids, lock: path.join(client.controlDirectory, "workspaces/main/lock"), pause };
}

const points = (folder: string): string[] =>
  (cairnOk(["history", "--all", "-C", folder]).data["save_points"] as { save_point_id: string }[]).map(
    ({ save_point_id: id }) => id,
  );

test("a cleanup that lost its lock removes no points", async () => {
  const { folder, ids, lock, pause } = await scene("lost-cleanup");
  const running = startCairn(["cleanup", "-C", folder, "--keep-last", "1"], { failpoint: `cleanup.checked@${pause}` });
  await running.paused;
  fs.rmSync(lock);
  cairnOk(["pin", ids[0]!, "-C", folder]);
  cairnOk(["restore", ids[1]!, "-C", folder]);
  fs.rmSync(pause);
  const { status, error } = await running.ended;
  assert.deepEqual([status, error?.code], [5, "busy"]);
  for (const id of ids) assert.ok(points(folder).includes(id));
  cairnOk(["restore", ids[0]!, "-C", folder]);
});

for (const failpoint of ["restore.staged", "restore.folder-durable"])
  test(`a restore that lost its lock at ${failpoint} changes neither head nor journal of the next restore`, async () => {
    const { folder, ids, lock, pause } = await scene(`lost-${failpoint}`);
    const running = startCairn(["restore", ids[0]!, "-C", folder], { failpoint: `${failpoint}@${pause}` });
    await running.paused;
    fs.rmSync(lock);
    cairnOk(["restore", ids[1]!, "-C", folder]);
    fs.rmSync(pause);
    const { status, error } = await running.ended;
    assert.deepEqual([status, error?.code], [5, "busy"]);
    assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "two");
    assert.equal(cairnOk(["status", "-C", folder]).data["head"], ids[1]);
    assert.equal(cairn(["doctor", "-C", folder]).status, 0);
  });

test("a save that lost its lock makes no point and does not affect the save that took over", async () => {
  const { folder, ids, lock, pause } = await scene("lost-save");
  fs.writeFileSync(path.join(folder, "a"), "four");
  const running = startCairn(["save", "-C", folder], { failpoint: `save.staged@${pause}` });
  await running.paused;
  fs.rmSync(lock);
  fs.writeFileSync(path.join(folder, "a"), "five");
  cairnOk(["save", "-C", folder]);
  fs.rmSync(pause);
  const { status, error } = await running.ended;
  assert.deepEqual([status, error?.code], [5, "busy"]);
  assert.equal(points(folder).length, ids.length + 1);
  cairnOk(["restore", "latest", "-C", folder]);
  assert.equal(fs.readFileSync(path.join(folder, "a"), "utf8"), "five");
  assert.equal(cairn(["doctor", "-C", folder]).status, 0);
});

test("save and doctor --repair remove an empty store lock that a crash left, and doctor reports the lock", async () => {
  const folder = newFolder("empty-lock");
  fs.writeFileSync(path.join(folder, "file"), "one");
  const client = await clientOf(folder);
  await client.save();
  const locks = path.join(client.controlDirectory, "store/locks");
  const leave = (): void => fs.writeFileSync(path.join(locks, "ab".repeat(32)), "");
  fs.appendFileSync(path.join(folder, "file"), "more");
  for (const args of [["save"], ["doctor", "--repair"]]) {
    leave();
    cairnOk([...args, "-C", folder]);
    assert.deepEqual(fs.readdirSync(locks), [], args.join(" "));
  }
  leave();
  const { findings } = cairnOk(["doctor", "-C", folder]).data as { findings: { kind: string }[] };
  assert.ok(findings.some(({ kind }) => kind === "lock"));
});
