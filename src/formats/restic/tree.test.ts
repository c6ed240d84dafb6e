import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { CairnError } from "../../errors.ts";
import { ByteWriter, compareBytes } from "../bytes.ts";
import { MAX_SECONDS, MIN_SECONDS } from "../go-time.ts";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { decodeGeneralTree } from "./tree-general.ts";
import { NODE_TYPES } from "./tree-node.ts";
import {
  appendNode,
  beginTree,
  decodeTree as decodeNodes,
  decodeUsualTree as decodeUsualNodes,
  endTree,
  isEntryName,
  nodeNamed,
  nodeTypeOf,
  pairsByName,
  someNodes,
  type TreeNode,
} from "./tree.ts";

const GOLDEN = new URL("../../../test/vectors/restic/", import.meta.url);
const golden = readFileSync(new URL("odd.tree.json", GOLDEN));

interface GoldenEntry {
  name: string;
  type: TreeNode["type"];
  mode: number;
  mtime_ns: string;
  uid: number;
  gid: number;
  inode: string;
  device_id: string;
  links: number;
  size: number;
  target: string | null;
  rdev: string;
  xattrs: [string, string][];
}

function encode(nodes: readonly TreeNode[]): Uint8Array {
  const w = new ByteWriter(1);
  beginTree(w);
  for (const node of nodes) appendNode(w, node);
  endTree(w);
  return w.view();
}

const decodeTree = (bytes: Uint8Array): TreeNode[] => [...decodeNodes(bytes)];

function decodeUsualTree(bytes: Uint8Array): TreeNode[] | null {
  const nodes = decodeUsualNodes(bytes);
  return nodes === null ? null : [...nodes];
}

/** A node as plain values, so that views and buffers compare by content. */
function plain(node: TreeNode): Record<string, unknown> {
  const hex = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString("hex");
  const { foreign: _foreign, ...rest } = node;
  return {
    ...rest,
    name: hex(node.name),
    linktarget: hex(node.linktarget),
    content: hex(node.content),
    subtree: hex(node.subtree),
    xattrs: node.xattrs.map(({ name, value }) => [hex(name), hex(value)]),
  };
}

function node(more: Partial<TreeNode> = {}): TreeNode {
  const base = { name: Buffer.from("n"), type: "file" as const, mode: 0o644, mtimeSec: 0, mtimeNs: 0, uid: 0, gid: 0 };
  const rest = { user: "", group: "", inode: 0n, deviceId: 0n, links: 1, size: 0, xattrs: [], device: 0n };
  return { ...base, ...rest, ...more };
}

test("decodeTree returns restic's tree with the attributes that the operating system reported", () => {
  const all = JSON.parse(readFileSync(new URL("odd.entries.json", GOLDEN), "utf8")) as GoldenEntry[];
  // restic backs up no sockets.
  const entries = all.filter((entry) => entry.type !== "socket");
  const nodes = decodeTree(golden);
  assert.equal(nodes.length, entries.length);
  nodes.forEach((found, i) => {
    const entry = entries[i]!;
    const label = `${entry.type} ${Buffer.from(entry.name, "base64").toString("latin1")}`;
    assert.equal(Buffer.from(found.name).toString("base64"), entry.name, label);
    const { type, mode, uid, gid, size } = found;
    const expected = { type: entry.type, mode: entry.mode, uid: entry.uid, gid: entry.gid, size: entry.size };
    assert.deepEqual({ type, mode, uid, gid, size }, expected, label);
    assert.equal(BigInt(found.mtimeSec) * 1_000_000_000n + BigInt(found.mtimeNs), BigInt(entry.mtime_ns), label);
    assert.equal(String(found.inode), entry.inode, label);
    assert.equal(String(found.deviceId), entry.device_id, label);
    assert.equal(String(found.device), entry.rdev, label);
    const counted = !["dir", "fifo", "socket"].includes(type);
    assert.equal(found.links, counted ? entry.links : 0, label);
    const xattrs = found.xattrs.map(({ name, value }) => [
      Buffer.from(name).toString("base64"),
      Buffer.from(value).toString("base64"),
    ]);
    assert.deepEqual(new Map(xattrs as [string, string][]), new Map(entry.xattrs), label);
    // restic 0.14 keeps of a target only what is text.
    const target = found.linktarget === undefined ? null : Buffer.from(found.linktarget).toString("utf8");
    assert.equal(target, entry.target === null ? null : Buffer.from(entry.target, "base64").toString("utf8"), label);
  });
});

test("decoding restic's tree with either decoder and encoding it again gives the same bytes", () => {
  // The target that is not text: restic writes the escape of the replacement character, which reads as that character.
  const expected = golden.toString("utf8").replaceAll("\\ufffd", "\ufffd");
  assert.notEqual(decodeUsualTree(golden), null);
  assert.equal(Buffer.from(encode(decodeUsualTree(golden)!)).toString("utf8"), expected);
  assert.equal(Buffer.from(encode([...decodeGeneralTree(golden)])).toString("utf8"), expected);
});

test("encodeTree writes the pinned bytes for a file, a link and a directory", () => {
  const ids = Uint8Array.from({ length: 64 }, (_, i) => i);
  const owner = { uid: 1, gid: 2, user: "u", group: "g<" };
  const times = { mtimeSec: 1_700_000_000, mtimeNs: 120_000_000 };
  const file = node({ ...owner, ...times, inode: 1n << 63n, deviceId: 1n, links: 2, size: 2 ** 53 - 1, content: ids });
  const link = node({
    name: Buffer.from("o"),
    type: "symlink",
    mode: 0o777,
    linktarget: Buffer.from("a\xff", "latin1"),
  });
  const directory = node({ name: Buffer.from("p"), type: "dir", mode: 0o1755, links: 5, subtree: ids.subarray(32) });
  const first = Buffer.from(ids.subarray(0, 32)).toString("hex");
  const second = Buffer.from(ids.subarray(32)).toString("hex");
  const t = "2023-11-14T22:13:20.12Z";
  const z = "1970-01-01T00:00:00Z";
  assert.equal(
    Buffer.from(encode([file, link, directory])).toString("utf8"),
    `{"nodes":[{"name":"n","type":"file","mode":420,"mtime":"${t}","atime":"${t}","ctime":"${t}","uid":1,"gid":2,` +
      `"user":"u","group":"g\\u003c","inode":9223372036854775808,"device_id":1,"size":9007199254740991,"links":2,` +
      `"content":["${first}","${second}"]},` +
      `{"name":"o","type":"symlink","mode":134218239,"mtime":"${z}","atime":"${z}","ctime":"${z}","uid":0,"gid":0,` +
      `"links":1,"linktarget":"a\\ufffd","linktarget_raw":"Yf8=","content":null},` +
      `{"name":"p","type":"dir","mode":2148532717,"mtime":"${z}","atime":"${z}","ctime":"${z}","uid":0,"gid":0,` +
      `"content":null,"subtree":"${second}"}]}\n`,
  );
  assert.equal(Buffer.from(encode([])).toString(), '{"nodes":[]}\n');
});

const bytes = (maxLength: number) => fc.uint8Array({ minLength: 1, maxLength });
const text = fc.string({ unit: "grapheme", maxLength: 8 });

const anyNode: fc.Arbitrary<TreeNode> = fc
  .record({
    name: bytes(30).filter(isEntryName),
    type: fc.constantFrom(...NODE_TYPES),
    mode: fc.integer({ min: 0, max: 0o7777 }),
    mtimeSec: fc.integer({ min: MIN_SECONDS, max: MAX_SECONDS }),
    mtimeNs: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999_999_999 })),
    uid: fc.integer({ min: 0, max: 0xffffffff }),
    gid: fc.integer({ min: 0, max: 0xffffffff }),
    user: text,
    group: text,
    inode: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    deviceId: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    links: fc.nat(),
    size: fc.nat({ max: 999_999_999_999_999 }),
    linktarget: bytes(20),
    xattrs: fc.array(fc.record({ name: text.map((s) => Buffer.from(`user.${s}`)), value: fc.uint8Array() }), {
      maxLength: 3,
    }),
    device: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
    ids: fc.uint8Array({ minLength: 32 * 4, maxLength: 32 * 4 }),
    blobs: fc.integer({ min: 0, max: 4 }),
  })
  .map(({ ids, blobs, linktarget, ...rest }) => {
    const counted = !["dir", "fifo", "socket"].includes(rest.type);
    const made: TreeNode = { ...rest, links: counted ? rest.links : 0 };
    if (rest.type === "symlink") made.linktarget = linktarget;
    if (rest.type === "file") made.content = ids.subarray(0, blobs * 32);
    if (rest.type === "dir") made.subtree = ids.subarray(0, 32);
    return made;
  });

const anyTree = fc
  .uniqueArray(anyNode, { maxLength: 6, selector: (n) => Buffer.from(n.name).toString("hex") })
  .map((nodes) => nodes.toSorted((a, b) => compareBytes(a.name, b.name)));

test("both decoders return the encoded nodes of any canonical tree", () => {
  fc.assert(
    fc.property(anyTree, (nodes) => {
      const encoded = Uint8Array.from(encode(nodes));
      const usual = decodeUsualTree(encoded);
      assert.notEqual(usual, null);
      const wanted = nodes.map(plain);
      assert.deepEqual(usual!.map(plain), wanted);
      assert.deepEqual([...decodeGeneralTree(encoded)].map(plain), wanted);
      assert.deepEqual(Buffer.from(encode(usual!)), Buffer.from(encoded));
    }),
    { numRuns: 300 },
  );
});

test("someNodes returns the wanted nodes of a tree, and all nodes of a tree in another encoding", () => {
  const named = (nodes: Iterable<TreeNode>): string[] =>
    [...nodes].map(({ name }) => Buffer.from(name).toString("hex"));
  const all = [...decodeNodes(golden)];
  const folders = all.filter(({ type }) => type === "dir");
  assert.ok(folders.length > 0 && folders.length < all.length);
  assert.deepEqual(named(someNodes(golden, ({ type }) => type === "dir")), named(folders));
  const spaced = Buffer.from(golden.toString().replace('{"nodes":', '{ "nodes":'));
  assert.deepEqual(named(someNodes(spaced, ({ type }) => type === "dir")), named(all));
});

test("decodeTree keeps the times, modes and unknown keys that other programs wrote", () => {
  assert.equal(decodeTree(encode([node()]))[0]!.foreign, undefined);
  const text =
    `{"nodes":[{"name":"a","type":"file","mode":134218148,"mtime":"2024-01-01T01:00:00+01:00","atime":"2020-01-01T00:00:00Z",` +
    `"ctime":"2020-01-01T00:00:00Z","uid":0,"gid":0,"generic_attributes":{"windows.x":12345678901234567890},` +
    `"content":[],"error":"<no>","new":[1, {"a":2}]}]}\n`;
  const nodes = decodeTree(Buffer.from(text));
  assert.equal(nodes[0]!.mtimeSec, 1_704_067_200);
  assert.equal(Buffer.from(encode(nodes)).toString("utf8"), text);
});

test("decodeTree reads rustic's node without times as 1970, and encodeTree writes Go's zero time", () => {
  const node = '{"name":"tmp","type":"dir","mode":493,"content":null,"subtree":"' + "ab".repeat(32) + '"}';
  const zero = "0001-01-01T00:00:00Z";
  const times = `"mode":493,"mtime":"${zero}","atime":"${zero}","ctime":"${zero}","uid":0,"gid":0,`;
  const written = Buffer.from(`{"nodes":[${node.replace('"mode":493,', times)}]}\n`);
  const [bare] = decodeTree(Buffer.from(`{"nodes":[${node}]}\n`));
  assert.deepEqual([bare?.mtimeSec, bare?.mtimeNs, bare?.mode], [0, 0, 0o755]);
  assert.deepEqual(Buffer.from(encode([bare!])), written);
});

test("decodeTree accepts keys and nodes in any order, white space and null", () => {
  const id = "ab".repeat(32);
  const text = `\n{ "other": {"nodes": 1}, "nodes": [
    {"content": null, "uid": 1, "gid": 2, "type": "dir", "subtree": "${id}", "name": "b", "mtime": "2024-01-01T00:00:00Z"},
    {"gid": 0, "uid": 0, "type": "file", "name": "\\u0061\\\\xff", "size": 18, "inode": 18446744073709551615,
     "mtime": "2024-01-01T00:00:00Z", "content": ["${id}" , "${id}"], "extended_attributes": null, "user": null }
  ]}`;
  const [first, second] = decodeTree(Buffer.from(text));
  assert.deepEqual(Buffer.from(first!.name), Buffer.from([0x61, 0xff]));
  assert.equal(first!.inode, 18446744073709551615n);
  assert.equal(first!.content!.length, 64);
  assert.equal(Buffer.from(second!.subtree!).toString("hex"), id);
  assert.deepEqual(decodeTree(Buffer.from('{"nodes":null}')), []);
});

test("decodeTree refuses invalid file names and duplicate names", () => {
  const id = "ab".repeat(32);
  for (const name of ["", ".", "..", "a/b", "/", "\\u0000", "\\\\x00", "a\\\\x2fb", "\\\\x2e."]) {
    const text = Buffer.from(encode([node()]))
      .toString()
      .replace('"name":"n"', `"name":"${name}"`);
    assert.throws(() => decodeTree(Buffer.from(text)), { code: "damaged" }, name);
  }
  const twice = `{"nodes":[{"name":"a","type":"symlink","linktarget":"/etc","mtime":"2024-01-01T00:00:00Z","uid":0,"gid":0},
    {"name":"\\\\x61","type":"dir","subtree":"${id}","mtime":"2024-01-01T00:00:00Z","uid":0,"gid":0}]}`;
  assert.throws(() => decodeTree(Buffer.from(twice)), { code: "damaged" });
});

test("decodeTree names the node with an invalid value", () => {
  const valid = Buffer.from(encode([node({ size: 5, content: new Uint8Array(32) })])).toString();
  const wrong: [string, string][] = [
    ['"size":5', '"size":-5'],
    ['"size":5', '"size":9007199254740993'],
    ['"size":5', '"size":1e3'],
    ['"uid":0', '"uid":4294967296'],
    ['"mode":420', '"mode":4294967296'],
    ['"mode":420', '"mode":"420"'],
    ['"type":"file"', '"type":"door"'],
    ['"type":"file"', '"type":"dir"'],
    ['"mtime":"1970', '"mtime":"x970'],
    ['"ctime":"1970', '"ctime":"x970'],
    ["0000000000", "000000000g"],
    ["0000000000", "000000000"],
    ['"content":[', '"content":1,"x":['],
  ];
  for (const [from, to] of wrong) {
    const text = valid.replace(from, to);
    assert.throws(
      () => decodeTree(Buffer.from(text)),
      (error) => error instanceof CairnError && error.code === "damaged" && error.message.includes("node 0"),
      to,
    );
  }
});

test("decodeTree throws no error other than damaged or newer_version for changed bytes", () => {
  const target = Buffer.from([0xff]);
  const xattrs = [{ name: Buffer.from("user.x"), value: Buffer.from("v") }];
  const sample = [
    node({ content: new Uint8Array(32), size: 9, xattrs, user: "root", inode: 5n, deviceId: 1n, links: 2, mtimeNs: 5 }),
    node({ name: Buffer.from("o\n\xff", "latin1"), type: "symlink", linktarget: target }),
    node({ name: Buffer.from("p"), type: "dir", subtree: new Uint8Array(32) }),
    node({ name: Buffer.from("q"), type: "chardev", device: 259n }),
  ];
  const encoded = Uint8Array.from(encode(sample));
  everyCutIsDamage(decodeTree, encoded, { optionalTail: 1 });
  everyFlipIsDamageOrDecodes(decodeTree, encoded);
  nonsenseIsDamage(decodeTree);
});

test("the fast decoder returns the same nodes as the general decoder if it accepts changed bytes", () => {
  const encoded = Uint8Array.from(
    encode([node({ content: new Uint8Array(32), mtimeNs: 10 }), node({ name: Buffer.from("o") })]),
  );
  for (let i = 0; i < encoded.length; i++) {
    for (const value of [0x22, 0x30, 0x31, 0x39, 0x5a, 0x5c, 0x2e, 0xe9]) {
      const changed = Uint8Array.from(encoded);
      changed[i] = value;
      const usual = decodeUsualTree(changed);
      if (usual !== null)
        assert.deepEqual(usual.map(plain), [...decodeGeneralTree(changed)].map(plain), `byte ${i} = ${value}`);
    }
  }
});

/** Of all kinds, with more bytes than are decoded at once. */
function largeTree(count: number): TreeNode[] {
  return Array.from({ length: count }, (_, i) => {
    const name = Buffer.from(`${i % 7 === 0 ? "ä" : "e"}-${String(i).padStart(6, "0")}`);
    const common = node({ name, inode: BigInt(i), deviceId: 1n, mtimeSec: i, user: `u${i % 3}`, links: 1 });
    if (i % 5 === 0) return { ...common, type: "dir" as const, links: 0, subtree: new Uint8Array(32).fill(i) };
    if (i % 5 === 1)
      return { ...common, type: "symlink" as const, linktarget: Buffer.from(i % 2 ? "t" : "\xff", "latin1") };
    const xattrs = i % 4 === 0 ? [{ name: Buffer.from("user.a"), value: Buffer.from("v") }] : [];
    return { ...common, xattrs, content: new Uint8Array(32 * (i % 3)).fill(i) };
  }).toSorted((a, b) => compareBytes(a.name, b.name));
}

test("decodeNodes creates a node of a large tree on each access, with its own copy of the bytes", () => {
  const wanted = largeTree(3000);
  const bytes = Uint8Array.from(encode(wanted));
  const nodes = decodeNodes(bytes);
  assert.ok(!Array.isArray(nodes));
  assert.deepEqual(Array.from(nodes, plain), wanted.map(plain));
  assert.deepEqual(
    [nodes.at(2999), nodes.at(0)].map((each) => plain(each!)),
    [wanted[2999]!, wanted[0]!].map(plain),
  );
  assert.equal(nodes.at(3000), undefined);
  assert.notEqual(nodes.at(5), nodes.at(5));
  const kept = nodes.at(7)!;
  bytes.fill(0);
  assert.deepEqual(plain(kept), plain(wanted[7]!));
});

test("nodeNamed and pairsByName find the nodes of large trees by name", () => {
  const all = largeTree(3000);
  const [before, after] = [all.filter((_, i) => i % 3 > 0), all.filter((_, i) => i % 3 < 2)].map((nodes) =>
    decodeNodes(Uint8Array.from(encode(nodes))),
  );
  for (const [i, { name }] of all.entries())
    assert.deepEqual(nodeNamed(before!, name)?.name, i % 3 > 0 ? Uint8Array.from(name) : undefined);
  assert.equal(nodeNamed(before!, Buffer.from("zz")), undefined);
  const pairs = Array.from(pairsByName(before!, after!), (pair) => [pair.before?.mtimeSec, pair.after?.mtimeSec]);
  const sides = ({ mtimeSec }: TreeNode, i: number): (number | undefined)[] => [
    i % 3 > 0 ? mtimeSec : undefined,
    i % 3 < 2 ? mtimeSec : undefined,
  ];
  assert.deepEqual(pairs, all.map(sides));
});

test("decodeNodes refuses a large tree whose last node is damaged before it returns a node", () => {
  const bytes = Buffer.from(encode(largeTree(3000)));
  bytes.write("x", bytes.lastIndexOf('"type"'));
  assert.throws(() => decodeNodes(bytes), { code: "damaged" });
});

test("nodeTypeOf returns the node type for each Unix file mode", () => {
  const modes = [0o100644, 0o040755, 0o120777, 0o060660, 0o020600, 0o010600, 0o140755, 0];
  assert.deepEqual(modes.map(nodeTypeOf), NODE_TYPES);
});
