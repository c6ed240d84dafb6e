import assert from "node:assert/strict";
import { test } from "node:test";
import { inOrder, PackedList } from "./packed-list.ts";

interface Item {
  path: Uint8Array;
  group: bigint;
  old: { inode: string } | null;
}

function itemAt(i: number): Item {
  // As names of a scan are: a view into shared memory.
  const shared = new Uint8Array(new SharedArrayBuffer(8));
  shared.set(Buffer.from(String(i).padStart(8, "0")));
  return { path: shared.subarray(), group: BigInt(i) << 40n, old: i % 3 === 0 ? null : { inode: String(i) } };
}

function textsOf(list: Iterable<Item>): string[] {
  return Array.from(list, ({ path, group, old }) => `${Buffer.from(path).toString()} ${group} ${old?.inode}`);
}

test("a packed list yields all pushed items in order, any number of times", () => {
  for (const count of [0, 1, 511, 512, 513, 2000]) {
    const items = Array.from({ length: count }, (_, i) => itemAt(i));
    const list = new PackedList<Item>();
    for (const item of items) list.push(item);
    assert.equal(list.length, count);
    for (let round = 0; round < 2; round++) assert.deepEqual(textsOf(list), textsOf(items));
  }
});

test("a packed list yields an appended list's items after its own", () => {
  for (const [own, others] of [
    [3, 4],
    [700, 5],
    [5, 700],
    [700, 1300],
  ] as const) {
    const [list, other] = [new PackedList<Item>(), new PackedList<Item>()];
    for (let i = 0; i < own; i++) list.push(itemAt(i));
    for (let i = own; i < own + others; i++) other.push(itemAt(i));
    list.append(other);
    list.push(itemAt(own + others));
    assert.equal(list.length, own + others + 1);
    assert.deepEqual(textsOf(list), textsOf(Array.from({ length: own + others + 1 }, (_, i) => itemAt(i))));
  }
});

test("inOrder finds items in list order, starts again at the end, and returns undefined for no match", () => {
  const find = inOrder([1, 2, 3, 4]);
  const found = [2, 4, 1, 3, 3, 9, 2].map((wanted) => find((each) => each === wanted));
  assert.deepEqual(found, [2, 4, 1, 3, 3, undefined, 2]);
});

test("a list that owns its items keeps them when the memory of a giver is used again", () => {
  const list = new PackedList<{ name: Uint8Array }>();
  const shared = new Uint8Array(new SharedArrayBuffer(4)).fill(7);
  for (let i = 0; i < 1025; i++) list.push({ name: shared });
  list.own();
  shared.fill(0);
  assert.ok([...list].every(({ name }) => name.length === 4 && name.every((byte) => byte === 7)));
});
