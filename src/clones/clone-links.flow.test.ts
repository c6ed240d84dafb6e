import assert from "node:assert/strict";
import { test } from "node:test";
import { CloneLinks, newSharedLinks, type SharedLinks } from "./clone-links.ts";

function bytesOf({ slots, paths }: SharedLinks): number {
  return slots.byteLength + paths.byteLength;
}

test("newSharedLinks sizes its memory by the number of inodes, and takes at most 2 GiB", () => {
  assert.ok(bytesOf(newSharedLinks(1)) <= 32 * 2 ** 20);
  assert.ok(bytesOf(newSharedLinks(0)) <= 2 ** 30);
  assert.ok(bytesOf(newSharedLinks(2 ** 40)) <= 2 ** 31);
});

test("newSharedLinks takes less memory if the system refuses the full size", (t) => {
  const whole = globalThis.SharedArrayBuffer;
  t.after(() => (globalThis.SharedArrayBuffer = whole));
  let most = 2 ** 26;
  globalThis.SharedArrayBuffer = new Proxy(whole, {
    construct(target, [bytes]: [number]) {
      if (bytes > most) throw new RangeError("Array buffer allocation failed");
      return new target(bytes);
    },
  });
  const links = new CloneLinks(newSharedLinks(2 ** 22));
  for (let inode = 1; inode <= 1000; inode++) {
    const slot = links.slotOf({ device: 1, low: inode, high: 0, stamp: 0 });
    assert.ok(links.claim(slot, () => undefined));
    links.made(slot, Buffer.from(`path/${inode}`));
  }
  for (let inode = 1; inode <= 1000; inode++) {
    const slot = links.slotOf({ device: 1, low: inode, high: 0, stamp: 0 });
    assert.ok(!links.claim(slot, () => undefined));
    assert.equal(Buffer.from(links.first(slot)).toString(), `path/${inode}`);
  }
  most = 0;
  assert.throws(() => newSharedLinks(2 ** 22), RangeError);
});
