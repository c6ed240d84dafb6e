import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteWriter } from "../../formats/bytes.ts";
import { appendMetadataEntry, appendStateEntry } from "../../formats/digest.ts";
import { appendNode, beginTree } from "../../formats/restic/tree.ts";
import { allocateTable, FLAG, R, RECORD_WORDS, ScanTable } from "../cache/scan-table.ts";
import { groupName, userName } from "../../fs/users.ts";
import { type NodeWriters, PlainFiles } from "./plain-files.ts";

const S_IFREG = 0o100000;

interface File {
  name: Uint8Array;
  mode: number;
  size: bigint;
  mtimeSec: bigint;
  mtimeNs: number;
  uid: number;
  gid: number;
  id: Uint8Array;
  nlink: number;
  flags: number;
}

const plainName = fc.stringMatching(/^[a-zA-Z0-9._ -]{1,40}$/).map((text) => Buffer.from(text));
const plainFile = fc.record({
  name: plainName,
  mode: fc.oneof(fc.constantFrom(0o644, 0o755), fc.nat(0o7777)).map((mode) => S_IFREG | mode),
  size: fc.bigInt({ min: 1n, max: BigInt(Number.MAX_SAFE_INTEGER) }),
  mtimeSec: fc.bigInt({ min: 0n, max: 0xffffffffn }),
  mtimeNs: fc.oneof(fc.constantFrom(0, 1, 999_999_999, 120_000_000), fc.nat(999_999_999)),
  uid: fc.constantFrom(0, 1, 4_000_000_000),
  gid: fc.constantFrom(0, 12),
  id: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  nlink: fc.constant(1),
  flags: fc.constantFrom(0, FLAG.YOUNG, FLAG.TORN),
});

function tableOf(files: readonly File[]): ScanTable {
  const table = new ScanTable(allocateTable(3 * files.length + 1));
  for (const { name, mode, size, mtimeSec, mtimeNs, uid, gid, id, nlink, flags } of files) {
    const record = table.takeRecords(1);
    const base = record * RECORD_WORDS;
    const at = table.takeNames(name.length);
    table.names.set(name, at);
    const words = {
      [R.NAME]: at,
      [R.NAME_FLAGS]: name.length | (flags << 16),
      [R.MODE]: mode,
      [R.UID]: uid,
      [R.GID]: gid,
    };
    for (const [word, value] of Object.entries({ ...words, [R.NLINK]: nlink, [R.MTIME_NS]: mtimeNs }))
      table.records[base + Number(word)] = value;
    const bytes = new DataView(table.buffers.records);
    bytes.setBigUint64((base + R.SIZE) * 4, size, true);
    bytes.setBigInt64((base + R.MTIME) * 4, mtimeSec, true);
    table.recordBytes.set(id, (base + R.HASH) * 4);
  }
  return table;
}

function newWriters(): NodeWriters {
  const writers = { tree: new ByteWriter(1), state: new ByteWriter(1), metadata: new ByteWriter(1) };
  beginTree(writers.tree);
  return writers;
}

function bytesOf({ tree, state, metadata }: NodeWriters): Uint8Array[] {
  return [tree.copy(), state.copy(), metadata.copy()];
}

/** With the encoders that take any entry. */
function appendGeneral(writers: NodeWriters, file: File): void {
  const { name, uid, gid, id, mtimeNs } = file;
  const facts = {
    mode: file.mode & 0o7777,
    size: Number(file.size),
    mtimeSec: Number(file.mtimeSec),
    mtimeNs,
    uid,
    gid,
  };
  const owner = { user: userName(uid), group: groupName(gid) };
  const rest = { inode: 0n, deviceId: 0n, links: 1, xattrs: [], device: 0n };
  appendNode(writers.tree, { ...facts, ...owner, ...rest, name, type: "file", content: id });
  const entry = { ...facts, name, type: "f" as const, contentHash: id, major: 0, minor: 0, xattrs: [] };
  appendStateEntry(writers.state, entry);
  appendMetadataEntry(writers.metadata, entry);
}

test("PlainFiles encodes a run of plain files to the same bytes as the general encoders", () => {
  const plain = new PlainFiles();
  fc.assert(
    fc.property(fc.array(plainFile, { maxLength: 8 }), (files) => {
      const [found, wanted] = [newWriters(), newWriters()];
      for (const file of files) appendGeneral(wanted, file);
      assert.equal(plain.append(tableOf(files), { first: 0, end: files.length }, found), files.length);
      assert.deepEqual(bytesOf(found), bytesOf(wanted));
    }),
    { numRuns: 500 },
  );
});

test("PlainFiles stops before an entry that is not a plain file and writes nothing of it", () => {
  const plain = new PlainFiles();
  const odd = fc.constantFrom<Partial<File>>(
    ...['a"b', "a\\b", "a<b", "a\nb", "ä"].map((name) => ({ name: Buffer.from(name) })),
    { mode: 0 },
    { mode: 0o040755 },
    { mode: 0o120777 },
    { nlink: 2 },
    { size: 0n },
    { size: 1n << 60n },
    { mtimeSec: -1n },
    { mtimeSec: 1n << 32n },
    ...[FLAG.EXTRAS, FLAG.OMITTED, FLAG.CHUNKED].map((flags) => ({ flags })),
  );
  fc.assert(
    fc.property(
      fc.array(plainFile, { maxLength: 3 }),
      plainFile,
      odd,
      fc.array(plainFile, { maxLength: 3 }),
      (head, file, facts, tail) => {
        const table = tableOf([...head, { ...file, ...facts }, ...tail]);
        const [found, wanted] = [newWriters(), newWriters()];
        for (const each of [...head, ...tail]) appendGeneral(wanted, each);
        const end = head.length + 1 + tail.length;
        assert.equal(plain.append(table, { first: 0, end }, found), head.length);
        assert.equal(plain.append(table, { first: head.length + 1, end }, found), end);
        assert.deepEqual(bytesOf(found), bytesOf(wanted));
      },
    ),
  );
});

test("PlainFiles encodes more files and modes than its kernel holds at once", () => {
  const files = Array.from({ length: 5000 }, (_, i): File => {
    const name = Buffer.from(`${"n".repeat(i % 250)}${i}`);
    const id = Buffer.alloc(32, i);
    return {
      name,
      id,
      mode: S_IFREG | (i % 0o10000),
      size: BigInt(i + 1),
      mtimeSec: BigInt(i) * 86_000n,
      mtimeNs: i * 1000,
      uid: 0,
      gid: 0,
      nlink: 1,
      flags: 0,
    };
  });
  const [found, wanted] = [newWriters(), newWriters()];
  for (const file of files) appendGeneral(wanted, file);
  assert.equal(new PlainFiles().append(tableOf(files), { first: 0, end: files.length }, found), files.length);
  assert.deepEqual(bytesOf(found), bytesOf(wanted));
});

test("PlainFiles leaves names that lie too far apart in memory to the general encoder", () => {
  const file: File = {
    name: Buffer.from("a"),
    id: Buffer.alloc(32),
    mode: S_IFREG,
    size: 1n,
    mtimeSec: 0n,
    mtimeNs: 0,
    uid: 0,
    gid: 0,
    nlink: 1,
    flags: 0,
  };
  const table = tableOf([file, file, ...Array.from({ length: 9000 }, () => file)]);
  table.names.set(Buffer.from("b"), 800_000);
  table.records[RECORD_WORDS + R.NAME] = 800_000;
  const writers = newWriters();
  assert.equal(new PlainFiles().append(table, { first: 0, end: 2 }, writers), 0);
  assert.deepEqual(bytesOf(writers), bytesOf(newWriters()));
});
