import assert from "node:assert/strict";
import { hash } from "node:crypto";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { ByteWriter } from "../bytes.ts";
import { appendGoName, appendGoString, appendGoText, unquoteGoName } from "./go-json.ts";
import { isPrintable } from "./go-printable.ts";
import { formatTime, MAX_SECONDS, MIN_SECONDS, parseTime } from "../go-time.ts";

interface Vectors {
  printable_sha256: string;
  unicode: string;
  texts: { raw_b64: string; name_b64: string; string_b64: string }[];
  times: { seconds: number; nanoseconds: number; text: string }[];
}

const vectors = JSON.parse(
  readFileSync(new URL("../../../test/vectors/go/vectors.json", import.meta.url), "utf8"),
) as Vectors;

function written(write: (w: ByteWriter) => void): string {
  const w = new ByteWriter(1);
  write(w);
  return Buffer.from(w.view()).toString("base64");
}

function nameText(name: Uint8Array): string {
  const w = new ByteWriter(1);
  appendGoName(w, name);
  return Buffer.from(w.view()).toString("utf8");
}

test("isPrintable equals Go's strconv.IsPrint for every code point", () => {
  const all = new Uint8Array(0x110000);
  for (let c = 0; c < all.length; c++) all[c] = isPrintable(c) ? 1 : 0;
  assert.equal(vectors.unicode, "15.0.0");
  assert.equal(hash("sha256", all), vectors.printable_sha256);
});

test("appendGoName and appendGoString write the same bytes as Go for every vector", () => {
  for (const { raw_b64, name_b64, string_b64 } of vectors.texts) {
    const raw = Buffer.from(raw_b64, "base64");
    assert.equal(
      written((w) => appendGoName(w, raw)),
      name_b64,
      `name ${raw_b64}`,
    );
    assert.equal(
      written((w) => appendGoString(w, raw)),
      string_b64,
      `string ${raw_b64}`,
    );
  }
});

test("unquoteGoName returns any bytes that appendGoName wrote", () => {
  const name = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.string({ unit: "binary" }).map((s) => Buffer.from(s)),
  );
  fc.assert(
    fc.property(name, (bytes) => {
      const text = JSON.parse(`"${nameText(bytes)}"`) as string;
      assert.deepEqual(Buffer.from(unquoteGoName(text)!), Buffer.from(bytes));
    }),
    { numRuns: 1000 },
  );
});

test("unquoteGoName reads octal escapes and refuses the same texts as Go", () => {
  assert.deepEqual(Buffer.from(unquoteGoName("\\101\\x41\\u0041\\U00000041")!).toString(), "AAAA");
  const bad = [
    "\\",
    "\\q",
    "\\x4",
    "\\xzz",
    "\\u12",
    "\\ud800",
    "\\U00110000",
    "\\18",
    "\\400",
    '"',
    "\\x\u00114",
    "a\nb",
  ];
  for (const text of bad) assert.equal(unquoteGoName(text), null, JSON.stringify(text));
});

test("appendGoText writes a JSON string that JSON.parse reads as the same text", () => {
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      const w = new ByteWriter(1);
      appendGoText(w, text);
      assert.equal(JSON.parse(`"${Buffer.from(w.view()).toString("utf8")}"`), text);
    }),
  );
});

test("formatTime and parseTime agree with Go for every vector", () => {
  for (const { seconds, nanoseconds, text } of vectors.times) {
    assert.equal(formatTime(seconds, nanoseconds), text);
    assert.deepEqual(parseTime(text), { seconds, nanoseconds });
  }
});

test("formatTime clamps times outside the years 0 to 9999", () => {
  assert.equal(formatTime(MAX_SECONDS + 1, 5), "9999-12-31T23:59:59.999999999Z");
  assert.equal(formatTime(2 ** 52, 0), "9999-12-31T23:59:59.999999999Z");
  assert.equal(formatTime(MIN_SECONDS - 1, 999), "0000-01-01T00:00:00Z");
});

test("parseTime reads time zones and refuses invalid times", () => {
  assert.deepEqual(parseTime("2024-02-29T12:00:00.5+01:30"), { seconds: 1709202600, nanoseconds: 500000000 });
  assert.deepEqual(parseTime("1969-12-31T23:59:59-00:01"), { seconds: 59, nanoseconds: 0 });
  const bad = [
    "",
    "2024",
    "2023-02-29T00:00:00Z",
    "2024-13-01T00:00:00Z",
    "2024-01-00T00:00:00Z",
    "2024-01-01 00:00:00Z",
  ];
  bad.push("2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00.Z");
  bad.push("2024-01-01T00:00:00+0100", "2024-01-01T00:00:00Zx", "2024-01-01T00:00:00+24:00", "99999-01-01T00:00:00Z");
  for (const text of bad) assert.equal(parseTime(text), null, text);
});
