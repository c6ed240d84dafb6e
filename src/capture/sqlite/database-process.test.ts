import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { DatabaseProcess } from "./database-process.ts";

function scene(t: TestContext) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-check-"));
  const checker = new DatabaseProcess();
  t.after(async () => {
    await checker.close();
    fs.rmSync(folder, { recursive: true });
  });
  const at = (name: string): string => path.join(folder, name);
  const checked = async (name: string, signal?: AbortSignal): Promise<string[]> =>
    (await checker.prove({ path: Buffer.from(at(name)), own: true }, signal)).problems;
  return { checked, at };
}

/** Its check takes minutes, in a few pages: each row is held against a condition that takes a tenth of a second. */
function makeSlow(file: string): void {
  const database = new DatabaseSync(file);
  database.exec("PRAGMA ignore_check_constraints = ON");
  database.exec("CREATE TABLE t (a INTEGER CHECK (length(hex(zeroblob(50000000 + a))) > 0))");
  for (let i = 0; i < 1000; i++) database.exec(`INSERT INTO t VALUES (${i})`);
  database.close();
}

test("an aborted check ends at once, and the next check works", async (t) => {
  const { checked, at } = scene(t);
  makeSlow(at("slow"));
  new DatabaseSync(at("sound")).close();
  const stopper = new AbortController();
  let abortedAt = 0;
  stopper.signal.addEventListener("abort", () => (abortedAt = performance.now()));
  const check = checked("slow", stopper.signal);
  setTimeout(() => stopper.abort(), 500);
  const stopped = check.then(
    () => assert.fail("it was checked"),
    (error: { code?: string }) => ({ code: error.code, at: performance.now() }),
  );
  const { code, at: endedAt } = await stopped;
  assert.equal(code, "interrupted");
  assert.ok(endedAt - abortedAt < 20_000, `${endedAt - abortedAt} ms`);
  assert.deepEqual(await checked("sound"), []);
});

test("many databases are checked one after the other, and each problem is reported", async (t) => {
  const { checked, at } = scene(t);
  new DatabaseSync(at("sound")).close();
  fs.writeFileSync(at("broken"), Buffer.concat([Buffer.from("SQLite format 3\0"), Buffer.alloc(4096)]));
  const warned: Error[] = [];
  const heard = (warning: Error): unknown => warned.push(warning);
  process.on("warning", heard);
  t.after(() => process.off("warning", heard));
  for (let i = 0; i < 12; i++) {
    assert.deepEqual(await checked("sound"), []);
    assert.match((await checked("broken")).join(), /not a database/);
  }
  assert.deepEqual(warned, []);
});
