import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeSource } from "../engines/engine.ts";
import type { TreeNode } from "../formats/tree.ts";
import { diffTrees } from "./tree-diff.ts";

const EMPTY = Buffer.alloc(32);

function node(type: "dir" | "file", more: Partial<TreeNode>): TreeNode {
  const owner = { uid: 0, gid: 0, user: "", group: "" };
  const facts = { mode: 0o755, mtimeSec: 0, mtimeNs: 0, inode: 0n, deviceId: 0n, links: 1, size: 0, device: 0n };
  return { name: Buffer.from("a"), type, xattrs: [], ...owner, ...facts, ...more };
}

/** A file below so many directories. */
function chain(depth: number, size: number): TreeSource {
  const reference = (level: number): Buffer => {
    const id = Buffer.alloc(32);
    id.writeUInt32LE(level);
    id.writeUInt32LE(size, 4);
    return id;
  };
  return {
    root: reference(0),
    list(directory) {
      const level = Buffer.from(directory).readUInt32LE(0);
      return [level < depth ? node("dir", { subtree: reference(level + 1) }) : node("file", { size })];
    },
    content: () => [],
  };
}

test("what differs below very many directories is found when nothing above differs", () => {
  const depth = 20_000;
  const found = [...diffTrees(chain(depth, 1), chain(depth, 2))];
  assert.equal(found.length, 1);
  assert.deepEqual([found[0]!.path.length, found[0]!.aspects], [depth * 2 + 1, ["content"]]);
});

test("what is below a directory that is gone comes right after it, before its neighbours", () => {
  const nothing: TreeSource = { root: EMPTY, list: () => [], content: () => [] };
  const paths = [...diffTrees(chain(2, 1), nothing)].map(({ path }) => Buffer.from(path).toString());
  assert.deepEqual(paths, ["a", "a/a", "a/a/a"]);
});
