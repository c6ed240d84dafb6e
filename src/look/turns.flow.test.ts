import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { multiplyTurns } from "../../test/fixtures/many-turns.ts";
import { Points } from "../workspace/points/points.ts";
import { testFolder } from "../keep/testing-folder.ts";

/** Makes a workspace with `count` points and `turns` turns. Returns how often `turns` lists and reads points. */
async function countsOf(t: TestContext, turns: number, count: number): Promise<{ lists: number; reads: number }> {
  const { client, write } = await testFolder(t, { a: "one", b: "one" });
  for (const text of ["one", "two", "three", "four"]) {
    write("a", text);
    await client.save();
  }
  assert.equal(multiplyTurns(client, { turns, points: count }), turns);
  const [ids, committed, read] = (["ids", "committed", "read"] as const).map((name) =>
    t.mock.method(Points.prototype, name),
  );
  const { turns: listed, more } = await client.turns({ limit: 5 });
  const lists = ids!.mock.callCount() + committed!.mock.callCount();
  const reads = read!.mock.callCount();
  t.mock.restoreAll();
  assert.deepEqual(
    [listed.length, more, listed[0]!.changed, listed[0]!.prompt?.includes(`part ${turns} `)],
    [5, turns - 5, count < turns ? 0 : 1, true],
  );
  await client.close();
  return { lists, reads };
}

test("turns lists the points once, and reads as many for many turns and points as for few", async (t) => {
  const few = await countsOf(t, 12, 12);
  assert.equal(few.lists, 2);
  assert.deepEqual(await countsOf(t, 300, 300), few);
  assert.ok((await countsOf(t, 300, 40)).reads <= few.reads);
});
