import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeSource } from "../../repository/trees/tree-source.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { diffTrees, exactDifferences, NodeFinder } from "./tree-diff.ts";

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

test("diffTrees finds a difference below 20,000 nested directories", () => {
  const depth = 20_000;
  const found = [...diffTrees(chain(depth, 1), chain(depth, 2))];
  assert.equal(found.length, 1);
  assert.deepEqual([found[0]!.path.length, found[0]!.aspects], [depth * 2 + 1, ["content"]]);
});

test("diffTrees lists a removed directory before the entries below it", () => {
  const nothing: TreeSource = { root: EMPTY, list: () => [], content: () => [] };
  const paths = [...diffTrees(chain(2, 1), nothing)].map(({ path }) => Buffer.from(path).toString());
  assert.deepEqual(paths, ["a", "a/a", "a/a/a"]);
});

/** One directory with so many pipes, and how often it was listed. */
function wide(count: number): TreeSource & { lists: number } {
  const entries = Array.from({ length: count }, (_, i) =>
    node("file", { name: Buffer.from(`f${String(i).padStart(4, "0")}`) }),
  );
  const source = {
    root: EMPTY,
    lists: 0,
    list: () => {
      source.lists++;
      return entries;
    },
    content: () => [],
  };
  return source;
}

test("exactDifferences lists a directory only a few times for thousands of its entries with manifest fields", () => {
  const [before, after] = [wide(3000), wide(3000)];
  const fields = (value: string) =>
    Array.from(before.list(EMPTY), ({ name }) => ({
      path: name,
      field: "hard_link" as const,
      value: Buffer.from(value),
    }));
  const found = [...exactDifferences(before, after, { before: fields("a"), after: fields("b") })];
  assert.equal(found.length, 3000);
  assert.ok(before.lists + after.lists < 10, `${before.lists + after.lists}`);
  const same = wide(3000);
  assert.deepEqual([...exactDifferences(same, same, { before: fields("a"), after: fields("a") })], []);
  assert.ok(same.lists < 3, "of what both say the same nobody asks the nodes");
});

test("NodeFinder finds no entry at a path below a file", () => {
  const finder = new NodeFinder(chain(2, 1));
  assert.deepEqual(
    ["a", "a/a", "a/a/a", "a/a/a/a", "b"].map((path) => finder.at(Buffer.from(path))?.type ?? null),
    ["dir", "dir", "file", null, null],
  );
});
