import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { ByteWriter } from "../formats/bytes.ts";
import { IndexWriter } from "../formats/index-file.ts";
import { encodeHeaderEntry } from "../formats/pack-header.ts";
import { indexText, packIndexText } from "./index-text.ts";

test("index text equals what the index writer of formats makes", () => {
  const writer = new IndexWriter();
  const texts: Uint8Array[] = [];
  for (const count of [1, 2, 300]) {
    const w = new ByteWriter();
    for (let i = 0; i < count; i++) {
      const length = i % 3 === 0 ? 33 + i : 9_999_999 + i * 100_000;
      encodeHeaderEntry(w, {
        id: randomBytes(32),
        type: i % 2 === 0 ? "data" : "tree",
        length,
        uncompressedLength: i % 5 === 0 ? 0 : 10 ** (i % 10),
      });
    }
    const header = w.view().slice();
    const id = randomBytes(32);
    writer.addPack(id, header);
    texts.push(packIndexText(id, header));
  }
  assert.equal(Buffer.from(indexText(texts)).toString(), Buffer.from(writer.finish()).toString());
});
