import assert from "node:assert/strict";
import { test } from "node:test";
import type { ObjectId } from "../ids.ts";
import type { ListedSnapshot, SnapshotListing } from "../repository/repository.ts";
import { chosenSnapshot } from "./snapshots.ts";

const HOUR_MS = 3_600_000;

/** Snapshots of so many hours from now, called 1, 2, … */
function listingOf(...hours: number[]): SnapshotListing {
  const snapshots = hours.map((hour, at): ListedSnapshot => {
    const id = String(at + 1).repeat(64) as ObjectId;
    const time = new Date(Date.now() + hour * HOUR_MS).toISOString();
    return { id, snapshot: { time, tree: id, paths: ["/a"], hostname: "h", username: "u", uid: 0, gid: 0 } };
  });
  return { snapshots, damaged: [] };
}

test("the latest snapshot is warned of when a wrong clock has dated it in the future", () => {
  const warningsOf = (listing: SnapshotListing, word = "latest"): [string, string[]] => {
    const warnings: string[] = [];
    const { id } = chosenSnapshot(listing, word, { onWarning: (each) => void warnings.push(each) });
    return [id.slice(0, 1), warnings];
  };
  const [id, [warning]] = warningsOf(listingOf(-48, 50_000, -24));
  assert.equal(id, "2");
  assert.match(
    warning!,
    /^snapshot 22222222 counts as the latest because its date lies in the future: .*, and 33333333 is the newest/,
  );
  assert.match(warningsOf(listingOf(50_000))[1][0]!, /Z$/);
  // Another machine's clock, or its zone, may be a few hours ahead.
  assert.deepEqual(warningsOf(listingOf(-48, 3)), ["2", []]);
  assert.deepEqual(warningsOf(listingOf(-48, 50_000), "2222"), ["2", []]);
});
