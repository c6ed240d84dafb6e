import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Worker } from "node:worker_threads";
import {
  allocateTable,
  C,
  D,
  DIRECTORY_FLAG,
  DIRECTORY_WORDS,
  EXTRA,
  FLAG,
  R,
  RECORD_WORDS,
  ScanTable,
  isTableFull,
} from "./scan-table.ts";

function named(table: ScanTable, name: string): number {
  const record = table.takeRecords(1);
  const at = table.takeNames(name.length);
  table.names.write(name, at, "latin1");
  table.records[record * RECORD_WORDS] = at;
  table.records[record * RECORD_WORDS + R.NAME_FLAGS] = name.length;
  return record;
}

void describe("the scan table", () => {
  test("a record's flags and the length of its name do not overwrite each other", () => {
    const table = new ScanTable(allocateTable(10));
    const record = named(table, "n".repeat(255));
    table.setRecordFlags(record, FLAG.YOUNG | FLAG.TORN | FLAG.CHUNKED);
    assert.equal(table.recordFlags(record), FLAG.YOUNG | FLAG.TORN | FLAG.CHUNKED);
    assert.equal(table.recordName(record).toString(), "n".repeat(255));
    table.setRecordFlags(record, 0);
    assert.equal(table.recordName(record).length, 255);
  });

  test("extrasOf returns several extras of one tag in the order in which they were set", () => {
    const table = new ScanTable(allocateTable(10));
    const record = named(table, "x");
    assert.deepEqual(table.extrasOf(record), []);
    const items = [
      { tag: EXTRA.XATTR, value: Buffer.from("user.a\0") },
      { tag: EXTRA.XATTR, value: Buffer.alloc(0) },
      { tag: EXTRA.CHUNKS, value: Buffer.alloc(64, 3) },
    ];
    table.setExtras(record, items);
    assert.deepEqual(
      table.extrasOf(record).map(({ tag, value }) => ({ tag, value: Buffer.from(value) })),
      items,
    );
    assert.equal(table.extra(record, EXTRA.CHUNKS)?.length, 64);
    assert.equal(table.extra(record, EXTRA.HOLES), null);
    assert.equal(table.recordFlags(record), FLAG.EXTRAS);
  });

  test("copyRecords copies the same bytes as copyRecord for each record", () => {
    const rows = ["a", "bb", "", "n".repeat(255), "e"];
    for (const layout of ["side by side", "apart", "out of order", "with extras"]) {
      const from = new ScanTable(allocateTable(20));
      for (const [i, row] of rows.entries()) {
        const record = from.takeRecords(1);
        const at = layout === "out of order" ? 1500 - 300 * i : from.takeNames(row.length + 1);
        if (layout === "apart" && i === 2) from.takeNames(7);
        from.names.write(`${row}\0`, at, "latin1");
        from.records.fill(1000 + i, record * RECORD_WORDS, (record + 1) * RECORD_WORDS);
        from.records[record * RECORD_WORDS] = at;
        from.records[record * RECORD_WORDS + R.NAME_FLAGS] = row.length | ((i === 1 ? FLAG.YOUNG : 0) << 16);
        if (layout === "with extras" && i === 3)
          from.setExtras(record, [{ tag: EXTRA.LINK_TARGET, value: Buffer.from("there") }]);
      }
      const [together, apart] = [new ScanTable(allocateTable(20)), new ScanTable(allocateTable(20))];
      for (const to of [together, apart]) {
        to.takeNames(11);
        to.takeRecords(2);
      }
      together.copyRecords(from, 1, together.takeRecords(4), 4);
      for (let i = 1; i < 5; i++) apart.copyRecord(from, i, apart.takeRecords(1));
      assert.deepEqual(together.records, apart.records, layout);
      assert.deepEqual(together.names, apart.names, layout);
      assert.deepEqual(together.extras, apart.extras, layout);
      assert.deepEqual(together.control, apart.control, layout);
    }
  });

  test("copyRecord copies a record's name and extras into another table", () => {
    const from = new ScanTable(allocateTable(10));
    const to = new ScanTable(allocateTable(10));
    to.takeNames(5);
    const source = named(from, "some name");
    from.records[source * RECORD_WORDS + R.SIZE] = 77;
    from.setExtras(source, [{ tag: EXTRA.LINK_TARGET, value: Buffer.from("target") }]);
    to.takeExtras(3);
    const target = to.takeRecords(1);
    to.copyRecord(from, source, target);
    assert.equal(to.recordName(target).toString(), "some name");
    assert.equal(to.records[target * RECORD_WORDS + R.SIZE], 77);
    assert.equal(to.extra(target, EXTRA.LINK_TARGET)?.toString(), "target");
  });

  test("taking more records, directories, names or extras than there is room for throws a table-full error", () => {
    const table = new ScanTable(allocateTable(4));
    assert.throws(() => table.takeRecords(5), isTableFull);
    for (let i = 0; i < 4; i++) table.takeDirectory();
    assert.throws(() => table.takeDirectory(), isTableFull);
    assert.throws(() => table.takeNames(4 * 96 + 1), isTableFull);
    assert.throws(() => table.takeExtras(4 * 256 + 1), isTableFull);
  });

  test("threads take distinct records and set flags of one directory at the same time", async () => {
    const table = new ScanTable(allocateTable(40_000));
    table.takeDirectory();
    const script = `
      const { workerData, parentPort } = require("node:worker_threads");
      import(workerData.module).then(({ ScanTable, R, RECORD_WORDS }) => {
        const table = new ScanTable(workerData.buffers);
        for (let i = 0; i < 10000; i++) table.records[table.takeRecords(1) * RECORD_WORDS + R.UID] += 1;
        table.addDirectoryFlag(0, workerData.flag);
        parentPort.postMessage("done");
      });`;
    const flags = [DIRECTORY_FLAG.SAME, DIRECTORY_FLAG.LINKED, DIRECTORY_FLAG.OMITTED];
    await Promise.all(
      flags.map(async (flag) => {
        const workerData = { module: new URL("./scan-table.ts", import.meta.url).href, buffers: table.buffers, flag };
        const worker = new Worker(script, { eval: true, workerData });
        await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
        await worker.terminate();
      }),
    );
    assert.equal(table.control[C.RECORDS], 30_000);
    for (let i = 0; i < 30_000; i++) assert.equal(table.records[i * RECORD_WORDS + R.UID], 1);
    assert.equal(
      table.directories[D.FLAGS],
      flags.reduce((all, flag) => all | flag, 0),
    );
    assert.equal(table.directories.length, 40_000 * DIRECTORY_WORDS);
  });
});
