import assert from "node:assert/strict";
import { describe, test } from "node:test";
import fc from "fast-check";
import { ByteWriter } from "../bytes.ts";
import { TreeCursor } from "./tree-cursor.ts";
import { decodeGeneralTree } from "./tree-general.ts";
import { appendNode, beginTree, endTree, isEntryName, type TreeNode } from "./tree.ts";

function encode(nodes: readonly TreeNode[]): Uint8Array {
  const w = new ByteWriter(1);
  beginTree(w);
  for (const node of nodes) appendNode(w, node);
  endTree(w);
  return w.copy();
}

/** What the cursor sees, as nodes; null when the tree is not written as restic does. */
function readUsual(bytes: Uint8Array, cursor = new TreeCursor()): Partial<TreeNode>[] | null {
  const nodes: Partial<TreeNode>[] = [];
  cursor.open(bytes);
  while (cursor.next()) {
    const { type, mode, mtimeSec, mtimeNs, uid, gid, size, names, targets } = cursor;
    const ids = Buffer.from(cursor.ids.subarray(0, cursor.idCount * 32));
    const name = Buffer.from(names.subarray(cursor.nameStart, cursor.nameEnd));
    const node: Partial<TreeNode> = { name, type, mode, mtimeSec, mtimeNs, uid, gid, size };
    if (type === "file") node.content = ids;
    if (type === "dir") node.subtree = ids;
    if (cursor.targetEnd > 0) node.linktarget = Buffer.from(targets.subarray(cursor.targetStart, cursor.targetEnd));
    nodes.push(node);
  }
  return cursor.usual ? nodes : null;
}

function wanted(bytes: Uint8Array): Partial<TreeNode>[] {
  return Array.from(decodeGeneralTree(bytes), reduced);
}

function reduced(node: TreeNode): Partial<TreeNode> {
  const { name, type, mode, mtimeSec, mtimeNs, uid, gid, size, content, subtree, linktarget } = node;
  const result: Partial<TreeNode> = { name: Buffer.from(name), type, mode, mtimeSec, mtimeNs, uid, gid, size };
  if (content !== undefined) result.content = Buffer.from(content);
  if (subtree !== undefined) result.subtree = Buffer.from(subtree);
  if (linktarget !== undefined) result.linktarget = Buffer.from(linktarget);
  return result;
}

const ascii = (length: number): fc.Arbitrary<string> =>
  fc.string({
    unit: fc.integer({ min: 0x20, max: 0x7e }).map((c) => String.fromCharCode(c)),
    minLength: 1,
    maxLength: length,
  });
const owners = [
  { uid: 0, gid: 0, user: "root", group: "root" },
  { uid: 0, gid: 0, user: "", group: "" },
  { uid: 1000, gid: 100, user: "me", group: "users" },
  { uid: 1000, gid: 1, user: "me", group: "" },
];

/** Nodes of all kinds, nearly all of them plain. */
function anyNode(names: fc.Arbitrary<string>): fc.Arbitrary<TreeNode> {
  return fc
    .record({
      name: names,
      type: fc.constantFrom("file" as const, "file" as const, "dir" as const, "symlink" as const),
      mode: fc.integer({ min: 0, max: 0o7777 }),
      mtimeSec: fc.integer({ min: -62167219200, max: 253402300799 }),
      mtimeNs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999999999 })),
      owner: fc.constantFrom(...owners),
      size: fc.maxSafeNat().map((size) => size % 1e14),
      ids: fc.uint8Array({ minLength: 64, maxLength: 64 }),
      blobs: fc.integer({ min: 0, max: 2 }),
      target: ascii(20),
    })
    .map(({ name, type, ids, blobs, target, owner, size, ...rest }) => ({
      ...rest,
      ...owner,
      name: Buffer.from(name),
      type,
      inode: 0n,
      deviceId: 0n,
      links: type === "dir" ? 0 : 1,
      size: type === "file" ? size : 0,
      xattrs: [],
      device: 0n,
      ...(type === "file" ? { content: ids.subarray(0, blobs * 32) } : {}),
      ...(type === "dir" ? { subtree: ids.subarray(0, 32) } : {}),
      ...(type === "symlink" ? { linktarget: Buffer.from(target) } : {}),
    }));
}

function trees(names: fc.Arbitrary<string>): fc.Arbitrary<TreeNode[]> {
  return fc
    .uniqueArray(
      anyNode(names).filter((node) => isEntryName(node.name)),
      { maxLength: 12, selector: (node) => Buffer.from(node.name).toString("latin1") },
    )
    .map((nodes) => nodes.toSorted((a, b) => Buffer.compare(a.name, b.name)));
}

const plainNames = ascii(12).map((name) => name.replaceAll(/["\\/<>&]/g, "_"));

void describe("TreeCursor", () => {
  test("TreeCursor reads the nodes that were encoded", () => {
    const cursor = new TreeCursor();
    fc.assert(
      fc.property(trees(plainNames), (nodes) => {
        for (const node of nodes) if (node.linktarget !== undefined) node.linktarget = Buffer.from("../some/where");
        assert.deepEqual(readUsual(encode(nodes), cursor), nodes.map(reduced));
      }),
      { numRuns: 300 },
    );
  });

  test("TreeCursor reads the new tree if another tree was written to the same memory", () => {
    const memory = Buffer.alloc(1000);
    const cursor = new TreeCursor();
    const [node] = fc.sample(anyNode(fc.constant("n")), { numRuns: 1, seed: 1 });
    const { linktarget: _target, subtree: _subtree, ...file } = { ...node!, type: "file" as const, links: 1, size: 0 };
    const said = ["root", "they"].map((user, i) => {
      const tree = encode([{ ...file, content: new Uint8Array(0), mtimeSec: 86_400 * (i + 1), user, uid: i }]);
      memory.set(tree);
      const [read] = readUsual(memory.subarray(0, tree.length), cursor) ?? [];
      return [read?.mtimeSec, read?.uid];
    });
    assert.deepEqual(said, [
      [86_400, 0],
      [2 * 86_400, 1],
    ]);
  });

  test("TreeCursor returns the same nodes as the general decoder for any names", () => {
    fc.assert(
      fc.property(trees(fc.oneof(ascii(8), fc.string({ minLength: 1, maxLength: 5 }))), (nodes) => {
        const bytes = encode(nodes);
        assert.deepEqual(readUsual(bytes), wanted(bytes));
      }),
      { numRuns: 300 },
    );
  });

  test("TreeCursor recognizes hard links, and refuses names that are not in ascending order", () => {
    const base = fc.sample(anyNode(fc.constant("n")), { numRuns: 1, seed: 1 })[0]!;
    const file = { ...base, type: "file" as const, content: new Uint8Array(0), links: 1, size: 0 };
    const isLinked = (node: TreeNode): boolean => {
      const cursor = new TreeCursor();
      cursor.open(encode([node]));
      assert.ok(cursor.next());
      return cursor.hasOtherNames;
    };
    assert.equal(isLinked({ ...file, links: 2, inode: 5n, deviceId: 1n }), true);
    assert.equal(isLinked({ ...file, links: 12 }), false);
    assert.equal(isLinked({ ...file, inode: 5n }), false);
    assert.equal(readUsual(encode([file, file])), null, "a name that occurs twice");
    const other = { ...file, name: Buffer.from("b") };
    assert.equal(readUsual(encode([other, { ...file, name: Buffer.from("a") }])), null, "names that do not rise");
  });

  test("TreeCursor returns the same nodes as decodeTree if it accepts changed bytes", () => {
    const nodes = fc.sample(trees(plainNames), { numRuns: 20, seed: 7 }).find((tree) => tree.length > 3)!;
    const bytes = encode(nodes);
    for (let cut = 0; cut < bytes.length; cut++) assert.equal(readUsual(bytes.slice(0, cut)), null, `cut at ${cut}`);
    for (let at = 0; at < bytes.length; at++) {
      for (const bit of [1, 4, 32, 128]) {
        const flipped = bytes.slice();
        flipped[at]! ^= bit;
        const seen = readUsual(flipped);
        if (seen !== null) assert.deepEqual(seen, wanted(flipped), `bit ${bit} of byte ${at}`);
      }
    }
  });
});
