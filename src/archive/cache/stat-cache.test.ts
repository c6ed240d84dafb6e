import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, test, type TestContext } from "node:test";
import { allocateTable, D, DIRECTORY_FLAG, DIRECTORY_WORDS, EXTRA, R, RECORD_WORDS, ScanTable } from "./scan-table.ts";
import { loadStatCache, type StatCache, statCacheOf, writeStatCache } from "./stat-cache.ts";

const KEY = { tree: Buffer.alloc(32, 7), epoch: Buffer.alloc(16, 9) };

function temporaryFile(t: TestContext): string {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-stat-cache-"));
  t.after(() => fs.rmSync(folder, { recursive: true, force: true }));
  return path.join(folder, "cache");
}

interface Entry {
  name: string;
  mode: number;
  /** number of the directory */
  sub?: number;
  extras?: { tag: number; value: Uint8Array }[];
}

/** A table as a scan leaves it; a number instead of entries: as the directory of this number in the previous table. */
function tableOf(
  directories: { path: string; entries: Entry[] | { old: number; first: number; count: number } }[],
): ScanTable {
  const table = new ScanTable(allocateTable(1000));
  for (const { path: at, entries } of directories) {
    const base = table.takeDirectory() * DIRECTORY_WORDS;
    table.directories[base + D.PATH] = table.takeNames(at.length);
    table.names.write(at, table.directories[base + D.PATH]!, "latin1");
    table.directories[base + D.PATH_LENGTH] = at.length;
    table.directories[base + D.TREE] = 1000 + base;
    table.directories[base + D.DONE] = 1;
    if (!Array.isArray(entries)) {
      table.directories[base + D.OLD] = entries.old + 1;
      table.directories[base + D.FIRST] = entries.first;
      table.directories[base + D.COUNT] = entries.count;
      table.addDirectoryFlag(
        base / DIRECTORY_WORDS,
        DIRECTORY_FLAG.SAME | DIRECTORY_FLAG.REUSED | DIRECTORY_FLAG.LINKED,
      );
      continue;
    }
    const first = table.takeRecords(entries.length);
    table.directories[base + D.FIRST] = first;
    table.directories[base + D.COUNT] = entries.length;
    table.addDirectoryFlag(base / DIRECTORY_WORDS, DIRECTORY_FLAG.DIFFERS);
    entries.forEach((entry, i) => fill(table, first + i, entry));
  }
  return table;
}

function fill(table: ScanTable, record: number, { name, mode, sub, extras }: Entry): void {
  const base = record * RECORD_WORDS;
  table.records[base] = table.takeNames(name.length + 1);
  table.names.write(name, table.records[base]!, "latin1");
  table.records[base + R.NAME_FLAGS] = name.length;
  table.records[base + R.MODE] = mode;
  table.records[base + R.SUB] = sub ?? 0;
  table.records.fill(record + 1, base + R.HASH, base + R.HASH + 8);
  table.setExtras(record, extras ?? []);
}

/** Directories as paths with what lies in them. */
function shape({ table, directories }: StatCache): object {
  const names = (d: number): object[] => {
    const base = d * DIRECTORY_WORDS;
    const first = table.directories[base + D.FIRST]!;
    return Array.from({ length: table.directories[base + D.COUNT]! }, (_, i) => {
      const at = (first + i) * RECORD_WORDS;
      const extras = table.extrasOf(first + i).map(({ tag, value }) => [tag, value.toString("latin1")]);
      const directory = table.records[at + R.MODE]! >>> 12 === 4;
      return [
        table.recordName(first + i).toString("latin1"),
        ...(directory
          ? [table.directoryPath(table.records[at + R.SUB]!).toString("latin1")]
          : [table.records[at + R.HASH]]),
        ...extras,
      ];
    });
  };
  return Object.fromEntries(
    Array.from({ length: directories }, (_, d) => [table.directoryPath(d).toString("latin1"), names(d)]),
  );
}

void describe("the stat cache file", () => {
  test("loadStatCache reads the table that writeStatCache wrote, with directories reused from the previous table", (t) => {
    const file = temporaryFile(t);
    const old = tableOf([
      { path: "", entries: [{ name: "b", mode: 0o40755, sub: 1 }] },
      {
        path: "b",
        entries: [
          { name: "c", mode: 0o40755, sub: 2 },
          { name: "file", mode: 0o100644, extras: [{ tag: EXTRA.XATTR, value: Buffer.from("user.a\0v") }] },
        ],
      },
      { path: "b/c", entries: [] },
    ]);
    writeStatCache(file, old, null, KEY);
    const first = loadStatCache(file)!;
    assert.deepEqual(
      [first.tree, first.epoch].map((bytes) => Buffer.from(bytes)),
      [KEY.tree, KEY.epoch],
    );
    assert.deepEqual(shape(first), {
      "": [["b", "b"]],
      b: [
        ["c", "b/c"],
        ["file", 3, [2, "user.a\0v"]],
      ],
      "b/c": [],
    });

    // A new directory sorts first, so the old ones get other numbers.
    const target = [{ tag: EXTRA.LINK_TARGET, value: Buffer.from("x") }];
    const next = tableOf([
      {
        path: "",
        entries: [
          { name: "a", mode: 0o40755, sub: 1 },
          { name: "b", mode: 0o40755, sub: 3 },
        ],
      },
      { path: "a", entries: [{ name: "link", mode: 0o120777, extras: target }] },
      { path: "b/c", entries: { old: 2, first: 3, count: 0 } },
      { path: "b", entries: { old: 1, first: 1, count: 2 } },
    ]);
    writeStatCache(file, next, first.table, KEY);
    const second = loadStatCache(file)!;
    assert.deepEqual(shape(second), {
      "": [
        ["a", "a"],
        ["b", "b"],
      ],
      a: [["link", 3, [1, "x"]]],
      "b/c": [],
      b: [
        ["c", "b/c"],
        ["file", 3, [2, "user.a\0v"]],
      ],
    });
    for (let d = 0; d < 4; d++) {
      const words = second.table.directories.subarray(d * DIRECTORY_WORDS, (d + 1) * DIRECTORY_WORDS);
      assert.deepEqual([words[D.OLD], words[D.DONE], words[D.TREE]], [0, 0, 1000 + d * DIRECTORY_WORDS]);
      assert.equal(words[D.FLAGS]! & ~DIRECTORY_FLAG.LINKED, 0, "nothing of the scan is left");
    }
    for (const [table, previous, read] of [
      [old, null, first],
      [next, first.table, second],
    ] as const) {
      const made = statCacheOf({ table, old: previous }, KEY);
      assert.deepEqual([made.directories, made.records], [read.directories, read.records]);
      for (const part of ["directories", "records", "names", "extras"] as const)
        assert.deepEqual(Buffer.from(made.table.buffers[part]), Buffer.from(read.table.buffers[part]), part);
    }
    assert.deepEqual(fs.readdirSync(path.dirname(file)), ["cache"]);
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
  });

  test("loadStatCache ignores a file in which any byte is wrong", (t) => {
    const file = temporaryFile(t);
    assert.equal(loadStatCache(file), null);
    writeStatCache(file, tableOf([{ path: "", entries: [{ name: "x", mode: 0o100600 }] }]), null, KEY);
    const whole = fs.readFileSync(file);
    assert.equal(whole.length, 256 + DIRECTORY_WORDS * 4 + RECORD_WORDS * 4 + 2);
    for (let size = 0; size < whole.length; size += 7) {
      fs.writeFileSync(file, whole.subarray(0, size));
      assert.equal(loadStatCache(file), null, `${size} bytes`);
    }
    for (let at = 0; at < whole.length; at++) {
      // Reserved bytes before the tree are the only ones that nothing depends on.
      if ((at >= 24 && at < 32) || (at >= 36 && at < 64)) continue;
      const flipped = Buffer.from(whole);
      flipped[at]! ^= 0x40;
      fs.writeFileSync(file, flipped);
      assert.equal(loadStatCache(file), null, `byte ${at}`);
    }
    const huge = Buffer.from(whole);
    huge.writeUInt32LE(0xffffffff, 8);
    fs.writeFileSync(file, huge);
    assert.equal(loadStatCache(file), null, "counts beyond the file");
    fs.rmSync(file);
    fs.mkdirSync(file);
    assert.equal(loadStatCache(file), null, "a directory");
  });

  test("loadStatCache ignores a cache without extended attributes if attributes can be read", (t) => {
    const file = temporaryFile(t);
    writeStatCache(file, tableOf([{ path: "", entries: [] }]), null, KEY);
    const bytes = fs.readFileSync(file);
    assert.equal(bytes.readUInt32LE(112), 1);
    bytes.writeUInt32LE(0, 112);
    fs.writeFileSync(file, bytes);
    assert.equal(loadStatCache(file), null);
  });
});
