import assert from "node:assert/strict";
import { test } from "node:test";
import { hex, latin1 } from "../../formats/bytes.ts";
import { decodeTree, type TreeNode, type TreeNodes } from "../../formats/restic/tree.ts";
import { type EditEntry, editTree, newTree } from "./edit-tree.ts";

const FACTS: Omit<TreeNode, "name" | "type"> = {
  mode: 0o644,
  mtimeSec: 0,
  mtimeNs: 0,
  uid: 0,
  gid: 0,
  user: "",
  group: "",
  inode: 0n,
  deviceId: 0n,
  links: 1,
  size: 0,
  xattrs: [],
  device: 0n,
};

function node(name: string, subtree?: Uint8Array): TreeNode {
  const own = { ...FACTS, name: Buffer.from(name) };
  return subtree === undefined
    ? { ...own, type: "file", content: new Uint8Array(0) }
    : { ...own, type: "dir", subtree };
}

function trees(): { add(...nodes: TreeNode[]): Uint8Array; list(id: Uint8Array): TreeNodes; read: string[] } {
  const known = new Map<string, Uint8Array>();
  const read: string[] = [];
  return {
    read,
    add(...nodes) {
      const { id, bytes } = newTree(nodes);
      known.set(hex(id), bytes);
      return id;
    },
    list(id) {
      read.push(hex(id));
      return decodeTree(known.get(hex(id))!);
    },
  };
}

test("editTree replaces, removes and adds entries, and reads only the trees that lead to them", async () => {
  const { add, list, read } = trees();
  const deep = add(node("old"), node("stays"));
  const other = add(node("unread"));
  const root = add(node("a", add(node("deep", deep), node("gone"))), node("b", other));
  const made = new Map<string, TreeNodes>();
  const edits = new Map<string, EditEntry>([
    ["a/deep/old", (old) => ({ ...old!, size: 7 })],
    ["a/deep/new", (old) => (old === undefined ? node("new") : null)],
    ["a/gone", () => null],
    ["missing/folder", () => assert.fail("a missing folder gets no entry")],
  ]);
  const onTree = (id: Uint8Array, bytes: Uint8Array, at: { path: string }): void => {
    assert.equal(hex(newTree([...decodeTree(bytes)]).id), hex(id));
    made.set(at.path, decodeTree(bytes));
  };
  await editTree(root, edits, { list, onTree });
  assert.deepEqual([...made.keys()], ["a/deep", "a", ""], "subtrees come first");
  const shown = (path: string): [string, number][] =>
    Array.from(made.get(path)!, (each) => [latin1(each.name), each.size]);
  assert.deepEqual(shown("a/deep"), [
    ["new", 0],
    ["old", 7],
    ["stays", 0],
  ]);
  assert.deepEqual(shown("a"), [["deep", 0]]);
  assert.equal(hex(made.get("")!.find(({ name }) => latin1(name) === "b")!.subtree!), hex(other));
  assert.ok(!read.includes(hex(other)), "the tree of an entry without edits is not read");
});

test("editTree without edits returns the same tree and reads nothing", async () => {
  const { add, list, read } = trees();
  const root = add(node("a"));
  assert.equal(hex(await editTree(root, new Map(), { list, onTree: () => assert.fail() })), hex(root));
  assert.deepEqual(read, []);
});
