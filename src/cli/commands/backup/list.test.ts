import assert from "node:assert/strict";
import { CREATED } from "../../testing-fake-library.ts";
import { test } from "node:test";
import { PLAIN } from "../../render/style.ts";
import { digitsOf, rowOf } from "./list.ts";

test("backup list shows a snapshot's size, and its added bytes if they were recorded", () => {
  const snapshot = { ...CREATED.snapshot!, bytes: 5 << 20, bytes_stored: 2 << 20 };
  const cells = (row: typeof snapshot | { bytes_stored: null }): string[] =>
    rowOf({ ...snapshot, ...row }, PLAIN, Date.now()).slice(3, 5);
  assert.deepEqual(cells(snapshot), ["5 MiB", "+2 MiB"]);
  assert.deepEqual(cells({ bytes_stored: null }), ["5 MiB", ""]);
});

test("backup list prints as much of each id as names one snapshot, and marks incomplete ones", () => {
  const ids = ["20261127T101112Z-1a2b", "20261127T101113Z-77aa", "20261127T101113Z-77ab"];
  const digits = digitsOf(ids);
  const row = rowOf(
    { ...CREATED.snapshot!, snapshot_id: ids[1]!, incomplete: true, tags: ["daily"] },
    PLAIN,
    0,
    digits,
  );
  assert.deepEqual([row[0], row[5]], [ids[1], "incomplete daily"]);
  assert.equal(new Set(ids.map((id) => id.slice(0, digits))).size, 3);
  assert.deepEqual([digitsOf([]), digitsOf(["1a2b3c4d5e6f", "9"])], [8, 8]);
});
