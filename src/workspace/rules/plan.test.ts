import assert from "node:assert/strict";
import { test } from "node:test";
import type { ScanResult } from "../../archive/scan/scan.ts";
import type { TreeNode } from "../../formats/restic/tree.ts";
import { MadeContents } from "./made-contents.ts";
import { type Plan, type PlannedEntry, planId } from "./plan.ts";

const NODE: TreeNode = {
  name: Buffer.from("f"),
  type: "file",
  mode: 0o644,
  mtimeSec: 1,
  mtimeNs: 0,
  uid: 0,
  gid: 0,
  user: "root",
  group: "root",
  inode: 0n,
  deviceId: 0n,
  links: 1,
  size: 3,
  xattrs: [],
  device: 0n,
  content: Buffer.alloc(32, 1),
};

function idOf(more: Partial<TreeNode>, entry: Partial<PlannedEntry> = {}): string {
  const after = { ...NODE, ...more };
  const planned: PlannedEntry = {
    path: after.name,
    before: null,
    after,
    aspects: [],
    action: "create",
    old: null,
    ...entry,
  };
  const scan = { table: { numbersByOld: () => new Map() }, notes: { omitted: [] } } as unknown as ScanResult;
  return planId([], { plan: [planned] as unknown as Plan, scan, made: new MadeContents() });
}

test("the id of a restore's plan changes with each thing that the restore would do, and with no time or inode", () => {
  const same = idOf({});
  assert.equal(idOf({ mtimeSec: 9, mtimeNs: 9, inode: 7n }), same);
  const others = [
    idOf({ mode: 0o600 }),
    idOf({ uid: 1 }),
    idOf({ gid: 1 }),
    idOf({ content: Buffer.alloc(32, 2) }),
    idOf({ xattrs: [{ name: Buffer.from("user.a"), value: Buffer.from("b") }] }),
    idOf({ type: "symlink", linktarget: Buffer.from("there") }),
    idOf({}, { path: Buffer.from("other") }),
    idOf({}, { action: "keep", reason: "changed_since" }),
  ];
  assert.equal(new Set([same, ...others]).size, others.length + 1);
});
