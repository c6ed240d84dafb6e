import assert from "node:assert/strict";
import { test } from "node:test";
import type { TreeNode } from "../restic/tree.ts";
import { tarHeader, TarLinks, tarPadding } from "./tar.ts";

const FILE: TreeNode = {
  name: Buffer.from("f"),
  type: "file",
  mode: 0o644,
  mtimeSec: 1_600_000_000,
  mtimeNs: 0,
  uid: 1,
  gid: 1,
  user: "u",
  group: "g",
  inode: 0n,
  deviceId: 0n,
  links: 1,
  size: 3,
  xattrs: [],
  device: 0n,
};

/** The records of a pax header, each with the length that it says; [] where there is none. */
function paxOf(node: Partial<TreeNode>, path = "f"): string[] {
  const header = Buffer.from(tarHeader(Buffer.from(path), { ...FILE, ...node }, null)!);
  if (String.fromCharCode(header[156]!) !== "x") return [];
  const size = Number.parseInt(header.toString("latin1", 124, 135), 8);
  const records: string[] = [];
  for (let at = 512; at < 512 + size;) {
    const length = Number.parseInt(header.toString("latin1", at, at + 8), 10);
    assert.equal(header[at + length - 1], 0x0a);
    records.push(header.toString("utf8", at + String(length).length + 1, at + length - 1));
    at += length;
  }
  return records;
}

test("tarHeader writes a pax header only for values that do not fit into the old tar fields", () => {
  assert.deepEqual(paxOf({}), []);
  assert.deepEqual(paxOf({ size: 9 * 2 ** 30, uid: 3_000_000 }), ["size=9663676416", "uid=3000000"]);
  assert.deepEqual(paxOf({ user: "ü".repeat(20) }), [`uname=${"ü".repeat(20)}`]);
  assert.deepEqual(paxOf({}, "n".repeat(100)), []);
  const times: [number, number, string][] = [
    [1, 500_000_000, "1.5"],
    [0, 1, "0.000000001"],
    [-2, 0, "-2"],
    [-1, 500_000_000, "-0.5"],
    [-2, 750_000_000, "-1.25"],
  ];
  for (const [mtimeSec, mtimeNs, text] of times) assert.deepEqual(paxOf({ mtimeSec, mtimeNs }), [`mtime=${text}`]);
  const xattrs = [{ name: Buffer.from("user.a=b%"), value: Buffer.from("x\ny") }];
  assert.deepEqual(paxOf({ xattrs }), ["SCHILY.xattr.user.a%3Db%25=x\ny"]);
});

test("the length of a pax record includes its own digits, also if they grow from 2 to 3 or from 3 to 4", () => {
  for (let length = 101; length < 1100; length++)
    assert.deepEqual(paxOf({}, "n".repeat(length)), [`path=${"n".repeat(length)}`]);
});

test("tarHeader computes the checksum with spaces in place of the checksum field", () => {
  const header = Buffer.from(tarHeader(Buffer.from("f"), FILE, null)!);
  const told = Number.parseInt(header.toString("latin1", 148, 154), 8);
  header.fill(" ", 148, 156);
  assert.equal(
    told,
    header.reduce((sum, byte) => sum + byte, 0),
  );
  assert.deepEqual(
    [0, 1, 512, 513].map((size) => tarPadding(size).length),
    [0, 511, 0, 511],
  );
});

test("TarLinks returns an earlier path only for another name of the same file", () => {
  const links = new TarLinks();
  const linked = { ...FILE, links: 2, inode: 7n, content: new Uint8Array(32) };
  assert.equal(links.before(Buffer.from("a"), linked), null);
  assert.deepEqual(links.before(Buffer.from("b"), linked), Buffer.from("a"));
  assert.equal(links.before(Buffer.from("c"), { ...linked, size: 4 }), null);
  assert.equal(tarHeader(Buffer.from("s"), { ...FILE, type: "socket" }, null), null);
});
