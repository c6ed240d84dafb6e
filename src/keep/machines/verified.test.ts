import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Verified } from "./verified.ts";

const DIGEST = "ab".repeat(32);

/** Makes a file, and tells a list that it has a digest. `seconds`: the file's time of modification. */
function noted(t: TestContext, seconds: number): { file: string; list: string; isKnown(digest?: string): boolean } {
  const root = mkdtempSync(join(tmpdir(), "cairn-verified-"));
  t.after(() => rmSync(root, { recursive: true }));
  const [file, list] = [join(root, "file"), join(root, "list")];
  writeFileSync(file, "content");
  utimesSync(file, seconds, seconds);
  const known = new Verified(list);
  assert.equal(known.has(file, DIGEST), false);
  known.isRight(file);
  known.keep();
  return { file, list, isKnown: (digest = DIGEST) => new Verified(list).has(file, digest) };
}

test("a file that was read is known by its digest until it changes, also if its time is set back", (t) => {
  const { file, isKnown } = noted(t, 0);
  assert.equal(isKnown(), true);
  assert.equal(isKnown("cd".repeat(32)), false);
  writeFileSync(file, "CONTENT");
  assert.equal(isKnown(), false);
  utimesSync(file, 0, 0);
  assert.equal(isKnown(), false, "the inode's own time of change cannot be set");
});

test("a file that another one replaced at its path is not known", (t) => {
  const { file, isKnown } = noted(t, 0);
  rmSync(file);
  writeFileSync(file, "content");
  utimesSync(file, 0, 0);
  assert.equal(isKnown(), false);
});

test("a file that was written just before it was read is not known, as it may change within the same tick", (t) => {
  const { isKnown } = noted(t, Date.now() / 1000);
  assert.equal(isKnown(), false);
});

test("a file that changes while others are copied is damage", (t) => {
  const { file, list } = noted(t, 0);
  const known = new Verified(list);
  known.has(file, DIGEST);
  known.requireUnchanged();
  writeFileSync(file, "CONTENT");
  assert.throws(() => known.requireUnchanged(), { code: "damaged", message: /file.* changed while/ });
});

test("a copy of a known file is not read, and a copy of a file that changes meanwhile is", async (t) => {
  const { file, list } = noted(t, 0);
  const known = new Verified(list);
  let reads = 0;
  const copied = async (copy = async (): Promise<void> => undefined): Promise<boolean> =>
    known.copies(file, DIGEST, { copy, isEqual: async () => ++reads > 0 });
  assert.deepEqual([await copied(), reads], [true, 0]);
  assert.deepEqual([await copied(async () => writeFileSync(file, "CONTENT")), reads], [true, 1]);
  utimesSync(file, 0, 0);
  assert.deepEqual([await copied(), reads], [true, 2]);
  known.keep();
  assert.equal(new Verified(list).has(file, DIGEST), true, "it was read");
});

test("a damaged list knows nothing, and the next call replaces it", (t) => {
  const { file, list, isKnown } = noted(t, 0);
  const bytes = readFileSync(list);
  for (let at = 0; at < bytes.length; at += 7) {
    writeFileSync(list, bytes.with(at, bytes[at]! ^ 1));
    assert.equal(isKnown(), false, String(at));
  }
  const known = new Verified(list);
  known.has(file, DIGEST);
  known.isRight(file);
  known.keep();
  assert.equal(isKnown(), true);
});

test("an answer about content is kept, and a list has an end", (t) => {
  const { list } = noted(t, 0);
  const known = new Verified(list);
  known.learn("is it so", false);
  known.keep();
  for (let round = 0; round < 5; round++) {
    const more = new Verified(list);
    assert.equal(more.answer("is it so"), false);
    for (let n = 0; n < 400; n++) more.learn(`${round} ${n}`, { n });
    more.keep();
  }
  assert.deepEqual(new Verified(list).answer("4 7"), { n: 7 });
  assert.equal(new Verified(list).answer("0 7"), undefined);
  assert.ok(statSync(list).size < 100_000);
});
