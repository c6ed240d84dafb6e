import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { CairnError } from "../errors.ts";
import { Points } from "../workspace/points.ts";
import { backupScene } from "./backup/testing-far.ts";
import { hasCode, testFolder } from "./testing-folder.ts";

/** Descriptors get their names, and what comes after that fails once. */
function failAfterCommit(context: TestContext): void {
  const { commit } = Points.prototype;
  context.mock.method(Points.prototype, "commit", function (this: Points, ...given: Parameters<typeof commit>) {
    context.mock.restoreAll();
    commit.apply(this, given);
    throw new CairnError("io", "the disk failed after the descriptor had its name");
  });
}

test("a point whose save failed after its commit keeps its snapshot", async (t) => {
  const { client, write } = await testFolder(t, { "a.txt": "a\n" });
  await client.save();
  write("a.txt", "changed\n");
  failAfterCommit(t);
  await assert.rejects(client.save({ message: "there" }), hasCode("io"));
  const { save_points: points } = await client.history();
  assert.equal(points[0]?.message, "there");
  const kinds = (await client.doctor()).findings.map(({ kind }) => kind);
  assert.deepEqual(kinds, ["interrupted"]);
  await client.doctor({ repair: true });
  assert.equal((await client.status()).head, points[0]?.save_point_id);
  assert.deepEqual((await client.doctor()).findings, []);
});

test("a point that was received keeps its snapshot when its commit failed at the end", async (t) => {
  const { client, repository, write } = await backupScene(t, "local");
  const { save_point_id: gone } = await client.createBackup(repository, { save: true });
  write("a.txt", "changed\n");
  await client.save({ message: "later" });
  await client.runCleanup((await client.previewCleanup({ only: [gone] })).plan_id);
  failAfterCommit(t);
  await assert.rejects(client.restoreBackup(repository, "latest"), hasCode("io"));
  assert.equal((await client.history()).save_points[0]?.cause.kind, "backup");
  assert.deepEqual((await client.doctor()).findings, []);
  assert.equal((await client.restoreBackup(repository, "latest")).stored_bytes! > 0, true);
  assert.deepEqual((await client.verifyAll()).problems, []);
});
