import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import { ByteWriter } from "../../formats/bytes.ts";
import { IndexWriter } from "../../formats/restic/index-file.ts";
import { encodeHeaderEntry } from "../../formats/restic/pack-header.ts";
import { IndexText } from "./index-text.ts";

function packOf(count: number): { id: Uint8Array; header: Uint8Array } {
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
  return { id: randomBytes(32), header: w.view().slice() };
}

function written(packs: readonly { id: Uint8Array; header: Uint8Array }[]): string {
  const writer = new IndexWriter();
  for (const { id, header } of packs) writer.addPack(id, header);
  return Buffer.from(writer.finish()).toString();
}

test("IndexText writes the same bytes as IndexWriter", () => {
  const packs = [1, 2, 300].map(packOf);
  const text = new IndexText(1 << 20, packs);
  for (const { id, header } of packs) assert.ok(text.add(id, header));
  assert.equal(Buffer.from(text.finish()).toString(), written(packs));
  assert.equal(text.finish().length, 0);
});

test("IndexText refuses a pack that would exceed the size limit of the file, instead of splitting the pack", () => {
  const packs = [40, 40, 500, 1, 40].map(packOf);
  const limit = written(packs.slice(0, 2)).length;
  const text = new IndexText(limit, packs);
  const files: string[] = [];
  const close = (): unknown => files.push(Buffer.from(text.finish()).toString());
  for (const { id, header } of packs) {
    if (text.add(id, header)) continue;
    close();
    assert.ok(text.add(id, header));
  }
  close();
  assert.deepEqual(files, [packs.slice(0, 2), packs.slice(2, 3), packs.slice(3)].map(written));
});
