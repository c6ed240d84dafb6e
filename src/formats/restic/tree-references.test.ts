import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { decodeTree, encodeTree, type TreeNode } from "./tree.ts";
import { TreeReferences } from "./tree-references.ts";

function hash(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** Files of up to 99 blobs, directories and links; `odd`: one of them with two names. */
function tree(count: number, odd: number): Uint8Array {
  const base = { uid: 0, gid: 5, user: "root", group: "tty", deviceId: 0n, xattrs: [], device: 0n };
  const nodes = Array.from({ length: count }, (_, i): TreeNode => {
    const name = Buffer.from(`entry-${String(i).padStart(5, "0")}`);
    const linked = i === odd ? { links: 2, inode: 77n } : { links: 1, inode: 0n };
    const common = { ...base, ...linked, name, mode: 0o644, mtimeSec: i, mtimeNs: 0, size: 0 };
    if (i % 4 === 0) return { ...common, type: "dir", links: 0, inode: 0n, subtree: hash(`tree ${i}`) };
    if (i % 4 === 1) return { ...common, type: "symlink", linktarget: Buffer.from("elsewhere") };
    const blobs = Array.from({ length: i % 100 }, (__, n) => hash(`blob ${i} ${n}`));
    return { ...common, type: "file", size: blobs.length, content: Buffer.concat(blobs) };
  });
  return encodeTree(nodes);
}

test("TreeReferences returns all subtree and blob ids of a tree, also with hard links", () => {
  const references = new TreeReferences();
  for (const [count, odd] of [
    [300, -1],
    [0, -1],
    [300, 299],
    [7, 2],
    [40, -1],
  ] as const) {
    const bytes = tree(count, odd);
    const nodes = decodeTree(bytes);
    references.read(bytes);
    const what = `${count} entries, odd ${odd}`;
    assert.deepEqual(
      Buffer.from(references.subtrees),
      Buffer.concat(Array.from(nodes, ({ subtree }) => subtree ?? new Uint8Array(0))),
      what,
    );
    assert.deepEqual(
      Buffer.from(references.blobs),
      Buffer.concat(Array.from(nodes, ({ content }) => content ?? new Uint8Array(0))),
      what,
    );
  }
});

test("TreeReferences throws damaged for a damaged tree, and can read the next tree", () => {
  const references = new TreeReferences();
  const bytes = tree(20, -1);
  for (const damaged of [bytes.subarray(0, bytes.length - 9), Buffer.from("{}]"), new Uint8Array(0)])
    assert.throws(() => references.read(damaged), { code: "damaged" });
  references.read(bytes);
  assert.equal(references.subtrees.length, 5 * 32);
});
