import assert from "node:assert/strict";
import { test } from "node:test";
import { CairnError } from "../errors.ts";
import type { ObjectId } from "../ids.ts";
import type { ListedSnapshot, SnapshotListing } from "../repository/repository.ts";
import { changedSnapshots, chosenSnapshot, inOrder, publicSnapshot, removedSnapshots } from "./open/snapshots.ts";

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

test("chosenSnapshot warns if `latest` is a snapshot dated in the future", () => {
  const warningsOf = (listing: SnapshotListing, word = "latest"): [string, string[]] => {
    const warnings: string[] = [];
    const { id } = chosenSnapshot(listing, word, { onWarning: (each) => void warnings.push(each) });
    return [id.slice(0, 1), warnings];
  };
  const [id, [warning]] = warningsOf(listingOf(-48, 50_000, -24));
  assert.equal(id, "2");
  assert.match(
    warning!,
    /^snapshot 22222222 counts as the latest because its date lies in the future: .*; 33333333 is the newest/,
  );
  assert.match(warningsOf(listingOf(50_000))[1][0]!, /Z$/);
  // Another machine's clock, or its zone, may be a few hours ahead.
  assert.deepEqual(warningsOf(listingOf(-48, 3)), ["2", []]);
  assert.deepEqual(warningsOf(listingOf(-48, 50_000), "2222"), ["2", []]);
});

test("chosenSnapshot finds the newest snapshot until a time, and snapshots are not changed by a time", () => {
  const listing = listingOf(-24 * 30, -72, -2);
  const idOf = (word: string, latestOf = {}): string => chosenSnapshot(listing, word, { latestOf }).id.slice(0, 1);
  const isoDay = (hours: number): string => {
    const date = new Date(Date.now() + hours * HOUR_MS);
    return [date.getFullYear(), date.getMonth() + 1, date.getDate()].map((n) => String(n).padStart(2, "0")).join("-");
  };
  const words = ["now", "1 hour ago", "10 hours ago", "2 weeks ago", isoDay(-72), `${isoDay(-48)} 12:00`];
  assert.deepEqual(
    words.map((word) => idOf(word)),
    ["3", "3", "2", "1", "2", "2"],
  );
  // Hex digits stay the beginning of an id.
  assert.throws(() => idOf("5d"), /no snapshot 5d/);
  assert.throws(() => idOf("1 year ago"), {
    code: "not_found",
    message: /^no snapshot had been made by /,
    hint: /^the oldest is 11111111, of /,
  });
  assert.throws(() => idOf("yesterday", { hosts: ["other"] }), /no snapshot fits the filter, so there is none of/);
  assert.throws(() => idOf("monday"), { hint: /or a time: yesterday, "2 hours ago", 14:00, 2026-11-23/ });
  const damaged = [{ name: "d".repeat(64) as ObjectId, error: new CairnError("damaged", "torn") }];
  assert.throws(() => chosenSnapshot({ ...listing, damaged }, "yesterday", {}), { code: "damaged" });
  for (const choose of [removedSnapshots, changedSnapshots])
    assert.throws(() => choose(listing, { snapshots: ["yesterday"] }), { code: "usage", message: /^a time does not/ });
});

/** Snapshots of so many hours from now, and the one that each was made after. */
function chainOf(...of: { hour: number; end?: number; parent?: number }[]): ListedSnapshot[] {
  const at = (hour: number): string => new Date(Date.now() + hour * HOUR_MS).toISOString();
  return listingOf(...of.map(({ hour }) => hour)).snapshots.map(({ id, snapshot }, i) => {
    const { end, parent } = of[i]!;
    const ends = end === undefined ? {} : { summary: { backup_end: at(end) } };
    const above = parent === undefined ? {} : { parent: String(parent).repeat(64) as ObjectId };
    return { id, snapshot: { ...snapshot, ...ends, ...above } };
  });
}

test("inOrder places a snapshot dated in the future by its upload time or its successors", () => {
  const order = (...of: Parameters<typeof chainOf>): string =>
    inOrder(chainOf(...of))
      .map(({ id }) => id[0])
      .join("");
  // Of three in the future the second was made after the first; the fourth and fifth came once the clock was right.
  assert.equal(
    order(
      { hour: -50 },
      { hour: 90_000 },
      { hour: 80_000, parent: 2 },
      { hour: -30, parent: 3 },
      { hour: -20, parent: 4 },
    ),
    "12345",
  );
  assert.equal(order({ hour: -50 }, { hour: 90_000, end: -40 }, { hour: -30 }), "123");
  assert.equal(order({ hour: -50 }, { hour: 90_000 }, { hour: -30 }), "132", "nothing tells");
  // An older state that was uploaded later stays where its date has it.
  assert.equal(order({ hour: -50, end: -49 }, { hour: -80, end: -30, parent: 1 }), "21");
});

test("publicSnapshot has the added sizes only if the snapshot's program recorded them", () => {
  const [{ id, snapshot }] = listingOf(-1).snapshots as [ListedSnapshot];
  const summary = { data_added: 100, data_added_packed: 40, total_bytes_processed: 1000 };
  assert.equal(publicSnapshot({ id, snapshot: { ...snapshot, summary } }).bytes_stored, 40);
  assert.equal(publicSnapshot({ id, snapshot }).bytes_stored, null);
});
