import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { RECORD_WORDS } from "../archive/cache/scan-table.ts";
import { testFolder } from "../keep/testing-folder.ts";

/** What may not be given back at both ends of a buffer: part of a page of any size. */
const EDGE = 64 * 1024;
const FILES = 4000;
/** Of what a scan compares with, and of what it fills: the records of the files and of their folder. */
const RECORDS = [FILES + 1, (FILES + 1) * 2 + 4096].map((entries) => entries * RECORD_WORDS * 4);

/** The records that scans of this thread take memory for from here on. */
function takenRecords(t: TestContext): SharedArrayBuffer[] {
  const taken: SharedArrayBuffer[] = [];
  const whole = globalThis.SharedArrayBuffer;
  t.after(() => (globalThis.SharedArrayBuffer = whole));
  globalThis.SharedArrayBuffer = new Proxy(whole, {
    construct(of, given: [number], as) {
      const made = Reflect.construct(of, given, as) as SharedArrayBuffer;
      if (RECORDS.includes(made.byteLength)) taken.push(made);
      return made;
    },
  });
  return taken;
}

test("save, status and restore clear the memory of their scans at the end", async (t) => {
  if (process.platform !== "linux") return t.skip("Linux's way");
  const { client, folder, write } = await testFolder(t);
  mkdirSync(join(folder, "many"));
  for (let i = 0; i < FILES; i++) writeFileSync(join(folder, "many", `file ${i}`), `${i}`);
  await client.save();
  const taken = takenRecords(t);
  write("many/file 1", "another");
  const saved = await client.save();
  write("many/file 2", "another");
  const { changes } = await client.status();
  const restored = await client.restore({ target: "head" });
  assert.deepEqual([saved.changes, changes, restored.changes?.updated], [modified(1), modified(1), 1]);
  // Three caches; the second and the third scan fill the first one's table again.
  assert.equal(taken.length, 4);
  for (const buffer of taken) {
    const inside = Buffer.from(buffer as unknown as ArrayBuffer, EDGE, buffer.byteLength - 2 * EDGE);
    assert.ok(inside.equals(Buffer.alloc(inside.length)), `${buffer.byteLength} bytes`);
  }
});

function modified(count: number): object {
  return { added: 0, modified: count, removed: 0 };
}
