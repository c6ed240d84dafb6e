import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { CairnError } from "../errors.ts";
import { Points } from "../workspace/points/points.ts";
import { StepRunner } from "../workspace/restore/apply.ts";
import { backupScene } from "../backup/testing-far.ts";
import { hasCode, testFolder } from "../keep/testing-folder.ts";

/** Descriptors get their names, and what comes after that fails once. */
function failAfterCommit(context: TestContext): void {
  const { commit } = Points.prototype;
  context.mock.method(Points.prototype, "commit", function (this: Points, ...given: Parameters<typeof commit>) {
    context.mock.restoreAll();
    commit.apply(this, given);
    throw new CairnError("io", "the disk failed after the descriptor had its name");
  });
}

test("a save that fails after its commit keeps the point's snapshot", async (t) => {
  const { client, write } = await testFolder(t, { "a.txt": "a\n" });
  await client.save();
  write("a.txt", "changed\n");
  failAfterCommit(t);
  await assert.rejects(client.save({ message: "there" }), hasCode("io"));
  const { save_points: points } = await client.history(undefined, 0, { all: true });
  assert.equal(points[0]?.message, "there");
  const kinds = (await client.doctor()).findings.map(({ kind }) => kind);
  assert.deepEqual(kinds, ["interrupted"]);
  await client.doctor({ repair: true });
  assert.equal((await client.status()).head, points[0]?.save_point_id);
  assert.deepEqual((await client.doctor()).findings, []);
});

test("a restore that fails half-way says that the next command finishes it", async (t) => {
  const { client, folder, write } = await testFolder(t, { a: "one", b: "one" });
  const { save_point_id: target } = await client.save();
  for (const name of ["a", "b"]) write(name, "two");
  t.mock.method(StepRunner.prototype, "run", () => {
    t.mock.restoreAll();
    throw Object.assign(new Error("EMFILE: too many open files, open 'a'"), { code: "EMFILE" });
  });
  await assert.rejects(client.restore({ target }), (error: CairnError) => {
    assert.deepEqual([error.code, error.retryable], ["io", true]);
    assert.match(error.message, /^the restore stopped half-way: EMFILE/);
    assert.match(error.hint ?? "", /next command finishes the restore/);
    return true;
  });
  assert.equal((await client.status()).recovered.at(-1)?.outcome, "completed");
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "one");
  await client.undo();
  assert.equal(readFileSync(join(folder, "a"), "utf8"), "two");
});

test("a restoreBackup that fails after its commit keeps the point's snapshot", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  const { save_point_id: gone } = await client.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  await client.save({ message: "later" });
  await client.runCleanup({ only: [gone] });
  failAfterCommit(t);
  await assert.rejects(client.restoreBackup(repository, "latest"), hasCode("io"));
  assert.equal((await client.history()).save_points[0]?.cause.kind, "backup");
  assert.deepEqual((await client.doctor()).findings, []);
  assert.equal((await client.restoreBackup(repository, "latest")).stored_bytes! > 0, true);
  assert.deepEqual((await client.verifyAll()).problems, []);
});
