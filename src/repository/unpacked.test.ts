import assert from "node:assert/strict";
import { test } from "node:test";
import { createZstdCompress, zstdCompressSync } from "node:zlib";
import { packPlain, unpackPlain } from "./unpacked.ts";

const text = Buffer.from(`{"text":"${"index file, snapshot or lock; ".repeat(10_000)}"}`);

function withMark(frame: Uint8Array): Uint8Array {
  return Buffer.concat([Buffer.of(2), frame]);
}

/** A frame whose header does not state the length of the plaintext, as a program writes that compresses a stream. */
async function streamed(plain: Buffer): Promise<Buffer> {
  const stream = createZstdCompress();
  stream.write(plain.subarray(0, 1000));
  stream.end(plain.subarray(1000));
  return Buffer.concat(await stream.toArray());
}

test("unpackPlain returns the bytes of frames with and without a stated length, and of files that are not compressed", async () => {
  assert.deepEqual(Buffer.from(unpackPlain(await packPlain(text))), text);
  assert.deepEqual(Buffer.from(unpackPlain(withMark(await streamed(text)))), text);
  assert.deepEqual(unpackPlain(text), text);
});

test("unpackPlain opens a file of more than 64 MiB", () => {
  const large = Buffer.alloc(65 << 20, text);
  assert.equal(Buffer.compare(unpackPlain(withMark(zstdCompressSync(large))), large), 0);
});

test("unpackPlain throws damaged for cut and changed frames, and for unknown formats", async () => {
  const packed = await packPlain(text);
  for (const bytes of [packed.subarray(0, -1), packed.subarray(0, 1), Uint8Array.of(3, 1), new Uint8Array(0)])
    assert.throws(() => unpackPlain(bytes), { code: "damaged" });
  const changed = Uint8Array.from(packed);
  changed[1]! ^= 1;
  assert.throws(() => unpackPlain(changed), { code: "damaged" });
});
