import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { LiveDatabases } from "./live-databases.ts";
import { recoverCopy, whyNotInPlace } from "./recover-copy.ts";
import { type HalfTransaction, makeHalfTransaction, trailer, valuesOf } from "./testing-half-transaction.ts";

function newFolder(t: TestContext): string {
  const folder = fs.mkdtempSync(path.join(fs.realpathSync(os.tmpdir()), "cairn-recover-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** What becomes of each database of a tree that was made of a folder which is gone since. */
function recoveredOf(t: TestContext, tree: string, names: readonly string[], folders: readonly string[]): string[] {
  return names.map((name) => {
    const stage = newFolder(t);
    const place = path.join(tree, name);
    const before = fs.readFileSync(place);
    const { label, isImage, sidecars } = recoverCopy({
      path: Buffer.from(place),
      tree: Buffer.from(tree),
      folders: folders.map((each) => Buffer.from(each)),
      stage,
    });
    assert.deepEqual(fs.readFileSync(place), before, "the tree stays as it is");
    return [label, isImage ? valuesOf(path.join(stage, "image")) : "raw", ...sidecars].join(" ");
  });
}

const WHOLE = "transaction-consistent";
const TWO = ["one.db", "two.db"];
const variants: [string, Omit<HalfTransaction, "moment"> & { folders?: string[] }][] = [
  ["two databases", { names: TWO }],
  ["three databases", { names: ["one.db", "two.db", "three.db"] }],
  ["the super-journal in a subfolder", { names: ["deep/er/one.db", "two.db", "deep/three.db"] }],
  ["names with odd characters", { names: ["eins ä%?#'\".db", "zwei\n.db"] }],
  ["journal_mode=TRUNCATE", { names: TWO, mode: "truncate" }],
  ["journal_mode=PERSIST", { names: TWO, mode: "persist" }],
  ["different page sizes", { names: [...TWO, "three.db"], pageSize: (i) => [512, 4096, 65_536][i]! }],
];
for (const [what, half] of variants)
  test(`recoverCopy rolls a transaction back in all databases, or in none: ${what}`, (t) => {
    for (const moment of ["before", "after"] as const) {
      const tree = newFolder(t);
      // The path by which the program knew the folder leads nowhere by now.
      const seenAs = "/nowhere/workspace";
      makeHalfTransaction(tree, { ...half, seenAs, moment });
      const value = moment === "before" ? "0" : "1";
      const wanted = half.names.map(() => `${WHOLE} ${value}`);
      assert.deepEqual(recoveredOf(t, tree, half.names, [seenAs]), wanted, moment);
    }
  });

test("recoverCopy rolls back the transaction of a program that knows the folder by another path", (t) => {
  const tree = newFolder(t);
  const names = ["data/sub/one.db", "data/two.db"];
  makeHalfTransaction(path.join(tree, "data"), {
    names: ["sub/one.db", "two.db"],
    seenAs: "/inside",
    moment: "before",
  });
  assert.deepEqual(recoveredOf(t, tree, names, ["/srv/workspace"]), [`${WHOLE} 0`, `${WHOLE} 0`]);
});

test("recoverCopy rolls back a transaction whose super-journal is outside the folder, and names that reason", (t) => {
  const tree = newFolder(t);
  const outside = "/elsewhere/main.db-mj1A2B3C904";
  makeHalfTransaction(tree, { names: TWO, superJournal: outside, moment: "before" });
  // A file of the same name that does not list the journal proves nothing.
  fs.writeFileSync(path.join(tree, path.basename(outside)), "/elsewhere/main.db-journal\0");
  const stage = newFolder(t);
  const [own, folder] = [path.join(tree, "one.db"), Buffer.from("/srv/workspace")];
  const held = recoverCopy({ path: Buffer.from(own), tree: Buffer.from(tree), folders: [folder], stage });
  assert.deepEqual([held.label, held.isImage, valuesOf(path.join(stage, "image"))], ["crash-consistent", true, "0"]);
  assert.match(held.reason!, /outside the folder, and the point does not have \/elsewhere\/main\.db-mj1A2B3C904/);
});

test("recoverCopy treats an empty super-journal as removed, as SQLite does", async (t) => {
  const tree = newFolder(t);
  const superJournal = makeHalfTransaction(tree, { names: TWO, moment: "after" });
  fs.writeFileSync(superJournal, "");
  assert.deepEqual(
    recoveredOf(t, tree, TWO, [tree]),
    TWO.map(() => `${WHOLE} 1`),
  );
  assert.match((await whyNotInPlace(Buffer.from(path.join(tree, TWO[1]!))))!, /which does not exist/);
});

test("recoverCopy leaves the files unchanged if their journals name no super-journal", (t) => {
  const tree = newFolder(t);
  makeHalfTransaction(tree, { names: TWO, moment: "before" });
  for (const name of TWO) {
    const journal = path.join(tree, `${name}-journal`);
    const bytes = fs.readFileSync(journal);
    const length = trailer(Buffer.from(path.join(tree, "one.db-mj1A2B3C904"))).length;
    // One without a trailer, and one whose trailer is damaged.
    if (name === "two.db") bytes[bytes.length - 20]! ^= 1;
    fs.writeFileSync(journal, name === "two.db" ? bytes : bytes.subarray(0, bytes.length - length));
  }
  assert.deepEqual(recoveredOf(t, tree, TWO, [tree]), [`${WHOLE} raw -journal`, `${WHOLE} raw -journal`]);
  assert.deepEqual(
    TWO.map((name) => valuesOf(path.join(tree, name))),
    ["0", "0"],
  );
});

test("recoverCopy leaves a database unchanged if its journal has only an old trailer", (t) => {
  const tree = newFolder(t);
  makeHalfTransaction(tree, { names: TWO, moment: "after" });
  // What a program that keeps its journals leaves: a header of zeros, and the end of an older transaction.
  for (const name of TWO)
    fs.writeFileSync(
      path.join(tree, `${name}-journal`),
      Buffer.concat([Buffer.alloc(1024), trailer(Buffer.from(path.join(tree, "one.db-mj1A2B3C904")))]),
    );
  assert.deepEqual(recoveredOf(t, tree, TWO, [tree]), [`${WHOLE} raw -journal`, `${WHOLE} raw -journal`]);
});

test("recoverCopy labels a damaged database crash-consistent with any journal", (t) => {
  const tree = newFolder(t);
  makeHalfTransaction(tree, { names: TWO, moment: "after" });
  const place = path.join(tree, "one.db");
  const bytes = fs.readFileSync(place);
  bytes.fill(0x5a, 4096, 3 * 4096);
  fs.writeFileSync(place, bytes);
  assert.deepEqual(recoveredOf(t, tree, TWO, [tree]), ["crash-consistent raw -journal", `${WHOLE} 1`]);
});

test("recoverCopy labels a database crash-consistent if SQLite can open it and its check finds a problem", (t) => {
  const tree = newFolder(t);
  makeHalfTransaction(tree, { names: TWO, moment: "after" });
  const place = path.join(tree, "one.db");
  fs.rmSync(`${place}-journal`, { force: true });
  const bytes = fs.readFileSync(place);
  // The header names more free pages than there are.
  bytes.writeUInt32BE(5, 36);
  fs.writeFileSync(place, bytes);
  assert.deepEqual(recoveredOf(t, tree, ["one.db"], [tree]), ["crash-consistent raw"]);
});

test("hold copies a database in place without opening it if its super-journal does not exist here", async (t) => {
  const folder = newFolder(t);
  makeHalfTransaction(folder, { names: TWO, seenAs: "/inside", moment: "before" });
  const files = fs.readdirSync(folder);
  const before = files.map((name) => fs.readFileSync(path.join(folder, name)));
  const databases = new LiveDatabases();
  t.after(async () => databases.close());
  const held = await databases.hold(Buffer.from(path.join(folder, "two.db")), { how: "own", scratch: newFolder(t) });
  assert.deepEqual([held?.label, held?.sidecars], ["crash-consistent", ["-journal"]]);
  assert.match(held!.reason!, /names \/inside\/one\.db-mj1A2B3C904, which does not exist/);
  await held!.release();
  assert.deepEqual(fs.readdirSync(folder), files);
  assert.deepEqual(
    files.map((name) => fs.readFileSync(path.join(folder, name))),
    before,
  );
});
