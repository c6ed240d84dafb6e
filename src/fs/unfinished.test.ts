import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { CairnError } from "../errors.ts";
import { DURABLE, ORDERED, Unfinished, type WorkCodec } from "./unfinished.ts";

const codec: WorkCodec<{ name: string }> = {
  otherwise: "do this",
  encode: (work) => Buffer.from(`${JSON.stringify(work)}\n`),
  decode(bytes) {
    const { name } = JSON.parse(Buffer.from(bytes).toString("utf8")) as { name: string };
    return { name };
  },
  earlier: (record) => new CairnError("refused", `${record} is old`),
};

function newFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "cairn-unfinished-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

for (const [name, carrier] of Object.entries({ durable: DURABLE, ordered: ORDERED }))
  test(`a ${name} record is read as it was written until its work ends`, (t) => {
    const folder = newFolder(t);
    const record = new Unfinished(join(folder, "work.json"), codec, { carrier });
    assert.deepEqual([record.isBegun, record.isLeft, record.read(), record.files], [false, false, null, []]);
    record.begin({ name: "a" });
    record.begin({ name: "b" });
    assert.deepEqual([record.isBegun, record.isLeft, record.read()], [true, true, { name: "b" }]);
    assert.deepEqual(record.files, [record.path]);
    record.end();
    assert.deepEqual([record.isBegun, record.read(), readdirSync(folder)], [false, null, []]);
  });

test("steps decide work only beside its record, and new work begins without the steps of earlier work", (t) => {
  const folder = newFolder(t);
  const decode = (bytes: Uint8Array): string => Buffer.from(bytes).toString("latin1");
  const record = new Unfinished(join(folder, "work.json"), codec, { decodeSteps: decode });
  record.begin({ name: "a" });
  assert.equal(record.hasSteps, false);
  record.commit([Buffer.from("one "), Buffer.from("two")]);
  assert.deepEqual([record.hasSteps, record.readSteps(decode)], [true, "one two"]);
  rmSync(record.path);
  assert.equal(record.isLeft, false);
  record.begin({ name: "b" });
  assert.deepEqual(readdirSync(folder), ["work.json"]);
});

test("a record with any flipped bit is damaged, and the error has the path and the hint", (t) => {
  const folder = newFolder(t);
  const record = new Unfinished(join(folder, "work.json"), codec);
  record.begin({ name: "some name" });
  const bytes = readFileSync(record.path);
  for (let at = bytes.indexOf("some"); at < bytes.length; at++) {
    const changed = Buffer.from(bytes);
    changed[at]! ^= 1;
    writeFileSync(record.path, changed);
    assert.throws(
      () => record.check(),
      (error) => error instanceof Error && error.message.includes(record.path),
      `${at}`,
    );
  }
  writeFileSync(record.path, Buffer.from(bytes.toString("latin1").replace("some", "same"), "latin1"));
  assert.throws(() => record.read(), { code: "damaged", hint: "do this" });
});

test("a record of an earlier release is refused by name, and is none of this release's work", (t) => {
  const earlier = join(newFolder(t), "old");
  symlinkSync("words", earlier);
  const record = new Unfinished(join(earlier, "../work.json"), codec, { earlier });
  assert.deepEqual([record.isBegun, record.isLeft, record.files], [false, true, [earlier]]);
  assert.throws(() => record.read(), { code: "refused", message: `${earlier} is old` });
});
