import assert from "node:assert/strict";
import { test } from "node:test";
import { Arrivals } from "./journal.ts";

test("arrivals since a mark are all inodes that were noted after it, or null if some were dropped for want of room", () => {
  const arrivals = new Arrivals();
  for (const [mark, first] of [
    [1, 0],
    [2, 1000],
  ] as const)
    for (let inode = first; inode < first + 3; inode++) arrivals.note(inode, mark);
  assert.deepEqual(arrivals.since(2), [1000, 1001, 1002]);
  assert.equal(arrivals.since(1)?.length, 6);
  for (let inode = 0; inode < 200_000; inode++) arrivals.note(inode, 3);
  assert.equal(arrivals.since(1), null);
  assert.equal(arrivals.since(2), null);
  assert.equal(arrivals.since(3)?.length, 200_000);
});
