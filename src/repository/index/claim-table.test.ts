import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import { BlobTable, slotsFor } from "./blob-table.ts";
import { ClaimTable } from "./claim-table.ts";

function idOf(i: number): Uint8Array {
  return createHash("sha256").update(String(i)).digest();
}

test("ClaimTable.claim returns true once for each id and type", () => {
  const table = ClaimTable.make(1 << 18);
  for (let i = 0; i < 100_000; i++) assert.equal(table.claim(idOf(i), 0, 0), true);
  for (let i = 0; i < 100_000; i++) assert.equal(table.claim(idOf(i), 0, 0), false);
  assert.equal(table.claim(idOf(5), 0, 1), true);
  assert.equal(table.count, 100_001);
});

test("ClaimTable.claim returns true for every id that a full table has no room for", () => {
  const table = ClaimTable.make(10);
  for (let i = 0; i < 30; i++) assert.equal(table.claim(idOf(i), 0, 0), true);
  assert.equal(table.claim(idOf(3), 0, 0), false);
  assert.equal(table.claim(idOf(20), 0, 0), true);
});

test("ClaimTable.isWanted is true for entries that were claimed again, also through another view of the memory", () => {
  const table = ClaimTable.make(1 << 18, 3);
  for (let i = 0; i < 3; i++) assert.equal(table.claim(idOf(i), 0, 0), true);
  assert.equal(table.claim(idOf(0), 0, 0), false);
  table.forgetWanted();
  const other = ClaimTable.over(table.buffer);
  assert.equal(other.claim(idOf(2), 0, 0), false);
  for (let i = 3; i < 9; i++) assert.deepEqual([other.claim(idOf(i), 0, 0), other.claim(idOf(i), 0, 0)], [true, false]);
  assert.deepEqual(
    [0, 1, 2].map((entry) => table.isWanted(entry, entry + 1)),
    [false, false, true],
  );
});

test("ClaimTable.claim returns true to exactly one of several threads that claim the same id at once", async () => {
  const table = ClaimTable.make(1 << 20);
  const source = `
    import { parentPort, workerData } from "node:worker_threads";
    import { createHash } from "node:crypto";
    import { ClaimTable } from ${JSON.stringify(new URL("./claim-table.ts", import.meta.url).href)};
    const table = ClaimTable.over(workerData.buffer);
    const ids = Buffer.from(workerData.ids);
    const gate = new Int32Array(workerData.gate);
    Atomics.add(gate, 0, 1); while (Atomics.load(gate, 0) < 3) {}
    let won = 0;
    for (let i = 0; i < ids.length; i += 32) if (table.claim(ids, i, 0)) won++;
    parentPort.postMessage(won);`;
  const ids = new SharedArrayBuffer(32 * 60_000);
  const view = new Uint8Array(ids);
  for (let i = 0; i < 60_000; i++) view.set(idOf(i), i * 32);
  const gate = new SharedArrayBuffer(4);
  const wins = await Promise.all(
    [0, 1, 2].map(
      () =>
        new Promise<number>((resolve, reject) => {
          const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`), {
            workerData: { buffer: table.buffer, ids, gate },
          });
          worker.once("message", resolve);
          worker.once("error", reject);
        }),
    ),
  );
  assert.equal(
    wins.reduce((a, b) => a + b, 0),
    60_000,
  );
});

test("BlobTable stores data and trees with the same id as separate entries", () => {
  const table = BlobTable.make(slotsFor(0));
  const packA = table.addPack(idOf(-1));
  const packB = table.addPack(idOf(-2));
  const id = { bytes: idOf(1), offset: 0, type: 0 as const };
  const entry = table.add(id, { pack: packA, offset: 7, length: 9, uncompressedLength: 0 });
  assert.equal(table.lookup(idOf(1), 0), entry);
  assert.equal(table.lookup(idOf(1), 0, 1), -1);
  assert.equal(table.lookup(idOf(2), 0), -1);
  assert.equal(table.add(id, { pack: packB, offset: 1, length: 9, uncompressedLength: 3 }), entry);
  assert.equal(table.packOf[entry], packA);
  assert.equal(table.add(id, { pack: packB, offset: 1, length: 9, uncompressedLength: 3 }, true), entry);
  assert.equal(table.packOf[entry], packB);
  const tree = table.add({ ...id, type: 1 }, { pack: packB, offset: 50, length: 9, uncompressedLength: 3 });
  assert.notEqual(tree, entry);
  assert.equal(table.lookup(idOf(1), 0, 1), tree);
  assert.equal(table.lookup(idOf(1), 0, 0), entry);
});

test("BlobTable.compacted keeps all entries of a grown table and drops unused packs", () => {
  let table = BlobTable.make(slotsFor(0));
  table.addPack(idOf(-2));
  const pack = table.addPack(idOf(-1));
  for (let i = 0; i < 20_000; i++) {
    const place = { pack, offset: i, length: i + 1, uncompressedLength: 0 };
    if (table.add({ bytes: idOf(i), offset: 0, type: 0 }, place) < 0) {
      table = table.regrown(table.capacity + 1);
      assert.ok(table.add({ bytes: idOf(i), offset: 0, type: 0 }, place) >= 0);
    }
  }
  assert.deepEqual([table.count, table.packCount], [20_000, 2]);
  table = BlobTable.over(table.compacted().buffer);
  assert.deepEqual([table.count, table.packCount], [20_000, 1]);
  for (let i = 0; i < 20_000; i++) {
    const entry = table.lookup(idOf(i), 0);
    assert.equal(table.lengthOf[entry], i + 1);
    assert.deepEqual(Buffer.from(table.packId(table.packOf[entry]!)), Buffer.from(idOf(-1)));
  }
});
