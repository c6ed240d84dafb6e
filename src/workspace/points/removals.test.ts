import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { type TestContext, test } from "node:test";
import { Removals } from "./held-trees.ts";

/** Removals that end one by one when told to. */
function heldUp(t: TestContext): {
  folder: string;
  removals: Removals;
  tree: (n: number) => string;
  endOne: () => void;
} {
  const folder = mkdtempSync(join(tmpdir(), "cairn-removals-"));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const waiting: (() => void)[] = [];
  const removals = new Removals(async (place) => {
    await new Promise<void>((resolve) => waiting.push(resolve));
    rmSync(place, { recursive: true });
  });
  const tree = (n: number): string => {
    const place = join(folder, `tree-${n}`);
    mkdirSync(place);
    writeFileSync(join(place, "file"), "");
    return place;
  };
  return { folder, removals, tree, endOne: () => waiting.shift()!() };
}

test("Removals.add moves a tree aside at once and removes it in the background", async (t) => {
  const { folder, removals, tree, endOne } = heldUp(t);
  const place = tree(0);
  await removals.add(place, undefined);
  assert.ok(!existsSync(place));
  assert.equal(readdirSync(folder).length, 1);
  endOne();
  await removals.settled();
  assert.deepEqual(readdirSync(folder), []);
});

test("Removals.add waits while four removals run", async (t) => {
  const { folder, removals, tree, endOne } = heldUp(t);
  for (let n = 0; n < 4; n++) await removals.add(tree(n), undefined);
  const place = tree(4);
  let added = false;
  const fifth = removals.add(place, undefined).then(() => (added = true));
  await setImmediate();
  assert.equal(added, false);
  assert.ok(existsSync(place));
  endOne();
  await fifth;
  for (let n = 0; n < 4; n++) endOne();
  await removals.settled();
  assert.deepEqual(readdirSync(folder), []);
});

test("Removals.add removes a tree before it returns if the tree cannot be moved aside", async (t) => {
  const { folder } = heldUp(t);
  const removed: string[] = [];
  const removals = new Removals(async (place) => Promise.resolve(void removed.push(place)));
  const absent = join(folder, "absent");
  await removals.add(absent, undefined);
  assert.deepEqual(removed, [absent]);
});

test("a background removal that fails causes a warning and no error", async (t) => {
  const { tree } = heldUp(t);
  const warnings: string[] = [];
  const removals = new Removals(async () => Promise.reject(new Error("not today")));
  await removals.add(tree(0), (message) => warnings.push(message));
  await removals.settled();
  assert.match(warnings.join("\n"), /tree-0 could not be removed: not today/);
});
