import assert from "node:assert/strict";
import { CREATED } from "../../testing-fake-library.ts";
import { test } from "node:test";
import { PLAIN } from "../../render/style.ts";
import { rowOf } from "./list.ts";

test("backup list shows a snapshot's size, and its added bytes if they were recorded", () => {
  const snapshot = { ...CREATED.snapshot!, bytes: 5 << 20, bytes_stored: 2 << 20 };
  const cells = (row: typeof snapshot | { bytes_stored: null }): string[] =>
    rowOf({ ...snapshot, ...row }, PLAIN, Date.now()).slice(3, 5);
  assert.deepEqual(cells(snapshot), ["5 MiB", "+2 MiB"]);
  assert.deepEqual(cells({ bytes_stored: null }), ["5 MiB", ""]);
});
