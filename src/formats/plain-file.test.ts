import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteWriter } from "./bytes.ts";
import { appendMetadataEntry, appendStateEntry } from "./digest.ts";
import { appendPlainFile } from "./plain-file.ts";
import { appendNode, beginTree } from "./tree.ts";

const name = fc.oneof(
  fc.stringMatching(/^[a-zA-Z0-9._ -]{1,40}$/).map((text) => Buffer.from(text)),
  fc.uint8Array({ minLength: 1, maxLength: 255 }).map((bytes) => Buffer.from(bytes)),
);
const file = fc.record({
  name,
  lead: fc.nat(9),
  mode: fc.nat(0o7777),
  size: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
  mtimeSec: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  mtimeNs: fc.nat(999_999_999),
  uid: fc.nat(),
  gid: fc.nat(),
  user: fc.constantFrom("", "root", 'o"dd'),
  group: fc.constantFrom("", "staff"),
  id: fc.uint8Array({ minLength: 32, maxLength: 32 }),
});

test("plain files are encoded with the bytes of the general encoders when they follow one another in a directory", () => {
  let written = 0;
  fc.assert(
    fc.property(fc.array(file, { maxLength: 5 }), (files) => {
      const [tree, state, metadata, wantedTree, wantedState, wantedMetadata] = Array.from(
        { length: 6 },
        () => new ByteWriter(1),
      ) as [ByteWriter, ByteWriter, ByteWriter, ByteWriter, ByteWriter, ByteWriter];
      beginTree(tree);
      beginTree(wantedTree);
      for (const { name, lead, id, ...facts } of files) {
        const names = Buffer.concat([Buffer.alloc(lead, 0x78), name]);
        const ids = Buffer.concat([Buffer.alloc(lead), id]);
        const place = { names, nameAt: lead, nameLength: name.length, ids, idAt: lead };
        if (!appendPlainFile(tree, state, metadata, { ...facts, ...place })) continue;
        written++;
        const rest = { inode: 0n, deviceId: 0n, links: 1, xattrs: [], device: 0n };
        appendNode(wantedTree, { ...facts, ...rest, name, type: "file", content: id });
        const entry = { ...facts, name, type: "f" as const, contentHash: id, major: 0, minor: 0, xattrs: [] };
        appendStateEntry(wantedState, entry);
        appendMetadataEntry(wantedMetadata, entry);
      }
      assert.deepEqual(tree.copy(), wantedTree.copy());
      assert.deepEqual(state.copy(), wantedState.copy());
      assert.deepEqual(metadata.copy(), wantedMetadata.copy());
    }),
  );
  assert.ok(written > 50);
});

test("a plain file writes nothing when its name needs escapes", () => {
  for (const text of ['a"b', "a\\b", "a<b", "a\nb", "ä"]) {
    const writers = [new ByteWriter(), new ByteWriter(), new ByteWriter()] as const;
    const names = Buffer.from(text);
    const place = { names, nameAt: 0, nameLength: names.length, ids: new Uint8Array(32), idAt: 0 };
    const facts = { mode: 0, size: 1, mtimeSec: 0, mtimeNs: 0, uid: 0, gid: 0, user: "", group: "" };
    assert.equal(appendPlainFile(...writers, { ...place, ...facts }), false);
    assert.deepEqual(
      writers.map(({ length }) => length),
      [0, 0, 0],
    );
  }
});
