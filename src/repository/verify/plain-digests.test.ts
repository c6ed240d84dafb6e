import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { ByteWriter } from "../../formats/bytes.ts";
import { TreeCursor } from "../../formats/restic/tree-cursor.ts";
import { appendNode, beginTree, endTree, type TreeNode } from "../../formats/restic/tree.ts";
import { NodeDigester } from "./node-digests.ts";
import { isPlain, NOTHING, PlainDigester } from "./plain-digests.ts";

function hash(text: string): Uint8Array {
  return createHash("sha256").update(text).digest();
}

/** A directory of many entries: files of no, one and three blobs, links, directories. */
function nodes(count: number): TreeNode[] {
  const base = { uid: 0, gid: 5, user: "root", group: "tty", inode: 0n, deviceId: 0n, xattrs: [], device: 0n };
  return Array.from({ length: count }, (_, i): TreeNode => {
    const name = Buffer.from(`entry-${String(i).padStart(6, "0")}${"x".repeat(i % 90)}`);
    const times = { mtimeSec: i % 3 === 0 ? -i * 1000 : i * 500_000_000, mtimeNs: (i * 1001) % 1e9 };
    const common = { ...base, ...times, name, mode: (i * 37) & 0o7777, links: 1, size: 0 };
    if (i % 5 === 0) return { ...common, type: "dir", links: 0, subtree: hash(`tree ${i}`) };
    if (i % 5 === 1) return { ...common, type: "symlink", linktarget: Buffer.from(`../target/${i}`) };
    const blobs = [0, 1, 3][i % 3]!;
    const content = Buffer.concat(Array.from({ length: blobs }, (__, n) => hash(`blob ${i} ${n}`)));
    return { ...common, type: "file", size: blobs * 3_000_000_000, content };
  });
}

test("PlainDigester and NodeDigester return equal digests for plain entries", () => {
  const plain = new PlainDigester();
  const general = new NodeDigester();
  const cursor = new TreeCursor();
  // The last ones are hashed as they come.
  for (const [count, isFlat] of [[0], [1], [2, true], [7], [300], [2, true], [500, true]] as const) {
    const entries = nodes(count).filter((node) => isFlat !== true || node.type !== "dir");
    const writer = new ByteWriter();
    beginTree(writer);
    for (const node of entries) appendNode(writer, node);
    endTree(writer);
    const child = (n: number): Uint8Array => Buffer.concat([hash(`state ${n}`), hash(`meta ${n}`)]);
    const whole = (ids: Uint8Array): Uint8Array => createHash("sha256").update(ids).digest();
    plain.begin(isFlat === true ? entries.length : 0);
    cursor.open(writer.copy());
    while (cursor.next()) {
      assert.ok(isPlain(cursor));
      const ids = cursor.ids.subarray(0, cursor.idCount * 32);
      plain.add(
        cursor,
        cursor.type !== "file" || cursor.idCount === 1 ? ids : cursor.idCount === 0 ? NOTHING : whole(ids),
      );
    }
    assert.ok(cursor.usual);
    const { node, subtrees } = plain.end();
    assert.deepEqual(Buffer.from(subtrees), Buffer.concat(entries.flatMap((entry) => entry.subtree ?? [])));
    const facts = {
      child,
      fileHash: (entry: TreeNode) => whole(entry.content!),
      linkedTo: () => undefined,
      lossless: () => undefined,
    };
    assert.deepEqual(
      Buffer.from(plain.digest(node, child)),
      Buffer.from(general.digest(entries, facts)!),
      `${count} entries`,
    );
  }
});
