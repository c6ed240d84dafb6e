import assert from "node:assert/strict";
import fs from "node:fs";
import { after, test } from "node:test";
import { zstdCompressSync } from "node:zlib";
import { openModel } from "./embedded-model.ts";
import { EMBEDDED_DIMENSIONS } from "./embedding.ts";
import { Scratch } from "./testing-store.ts";

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

const NAMES = ["un", "##happy", "##hap", "##p", "##y", "happy", "h", "#", "é", "##é", "日", "e", "##", "##x"];

/** A table in which the vector of a part has 1 at the part's own place, so that a text's vector counts the text's parts. */
function table(): string {
  const header = Buffer.from(['{"dims":256}', ...NAMES].join("\n"));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(header.length);
  const numbers = Buffer.alloc(NAMES.length * EMBEDDED_DIMENSIONS);
  for (const place of NAMES.keys()) numbers[place * EMBEDDED_DIMENSIONS + place] = 1;
  const file = scratch.place("table.zst");
  fs.writeFileSync(file, zstdCompressSync(Buffer.concat([length, header, numbers])));
  return file;
}

test("the embedded model splits a word into the longest known parts, and ignores a word with an unknown part", async () => {
  const model = openModel(table());
  for (const [text, ...parts] of [
    ["happy", "happy"],
    ["unhappy", "un", "##happy"],
    ["unhapp", "un", "##hap", "##p"],
    ["UNHAPPY happy", "un", "##happy", "happy"],
    ["hx h#", "h", "##x", "h", "#"],
    ["日日", "日", "日"],
    ["unknown happy", "happy"],
    ["x y happy", "happy"],
    ["# ##", "#", "#", "#"],
    ["\ud800 happy", "happy"],
  ] as const) {
    const [vector] = await model.embed([text]);
    const counts = NAMES.map((name) => parts.filter((part) => part === name).length);
    const size = Math.hypot(...counts);
    const expected = Float32Array.from({ length: EMBEDDED_DIMENSIONS }, (_, i) => (counts[i] ?? 0) / size);
    assert.deepEqual(
      [...vector!].map((each) => each.toFixed(5)),
      [...expected].map((each) => each.toFixed(5)),
      text,
    );
  }
});
