import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "../../crypto/hash.ts";
import { CairnError } from "../../errors.ts";
import {
  decodeMap,
  decodePagesManifest,
  encodeMap,
  encodePagesManifest,
  type PageRun,
  type PagesManifest,
} from "./sqlite-pages.ts";

const FILES = [
  { name: "base", pages: 300_000, hashes: "ab".repeat(32) },
  { name: "delta-0001", pages: 7, hashes: "cd".repeat(32) },
];
const RUNS: PageRun[] = [
  { count: 262_142, file: 1, at: 0 },
  { count: 2, file: 2, at: 5 },
  // The page that SQLite locks.
  { count: 1, file: 0, at: 0 },
  { count: 3, file: 2, at: 1 },
  { count: 690, file: 1, at: 262_148 },
];
const PAGES = 262_838;
const MANIFEST: PagesManifest = {
  path: Buffer.from("a/caf\xe9.db", "latin1"),
  pageSize: 4096,
  pages: PAGES,
  sha256: "01".repeat(32),
  map: "02".repeat(32),
  files: FILES,
  node: {
    name: Buffer.from("caf\xe9.db", "latin1"),
    type: "file",
    mode: 0o640,
    mtimeSec: 1_700_000_000,
    mtimeNs: 123_456_789,
    uid: 1000,
    gid: 100,
    user: "u",
    group: "g",
    inode: 2n ** 60n + 1n,
    deviceId: 5n,
    links: 1,
    size: PAGES * 4096,
    xattrs: [],
    device: 0n,
    content: new Uint8Array(0),
  },
};

const OF = { pages: PAGES, pageSize: 4096, files: FILES };
const isDamage = (error: unknown): boolean => error instanceof CairnError && error.code === "damaged";

test("decodeMap returns the encoded runs, which take less than 5 bytes each", () => {
  const bytes = encodeMap(RUNS);
  assert.deepEqual(decodeMap(bytes, OF), RUNS);
  assert.ok(bytes.length < RUNS.length * 5);
});

test("decodeMap throws damaged if a run is outside its file or the number of pages is wrong", () => {
  const bytes = encodeMap(RUNS);
  for (let end = 0; end < bytes.length; end++) assert.throws(() => decodeMap(bytes.subarray(0, end), OF), isDamage);
  for (const wrong of [
    { count: 300_001, file: 1, at: 0 },
    { count: 1, file: 1, at: 300_000 },
    { count: 1, file: 3, at: 0 },
    { count: 0, file: 1, at: 0 },
    { count: 1, file: 0, at: 0 },
  ])
    assert.throws(() => decodeMap(encodeMap([wrong]), { ...OF, pages: Math.max(1, wrong.count) }), isDamage);
  assert.throws(() => decodeMap(Buffer.concat([bytes, bytes]), OF), isDamage);
  assert.throws(() => decodeMap(Buffer.alloc(20, 0xff), OF), isDamage);
});

test("decodePagesManifest returns the encoded manifest, and throws damaged if any byte is changed or missing", () => {
  const bytes = Buffer.from(encodePagesManifest(MANIFEST, sha256));
  const read = decodePagesManifest(bytes, sha256);
  assert.ok(Buffer.from(read.path).equals(MANIFEST.path));
  assert.deepEqual({ ...read, path: 0, node: 0 }, { ...MANIFEST, path: 0, node: 0 });
  assert.deepEqual([read.node.mtimeNs, read.node.mode, read.node.inode], [123_456_789, 0o640, 2n ** 60n + 1n]);
  for (let at = 0; at < bytes.length; at++) {
    const flipped = Buffer.from(bytes);
    flipped[at]! ^= 1;
    assert.throws(() => decodePagesManifest(flipped, sha256), isDamage, String(at));
    assert.throws(() => decodePagesManifest(bytes.subarray(0, at), sha256), isDamage, String(at));
  }
});

test("a manifest with a file of pages without hashes has version 2", () => {
  const files = [{ ...MANIFEST.files[0]!, hashes: "" }, ...MANIFEST.files.slice(1)];
  const bytes = encodePagesManifest({ ...MANIFEST, files }, sha256);
  assert.match(Buffer.from(bytes).toString("latin1"), /"version":2,"minimum_reader":2,/);
  assert.deepEqual(decodePagesManifest(bytes, sha256).files, files);
});

test("decodePagesManifest throws newer_version if minimum_reader is newer", () => {
  const [line] = Buffer.from(encodePagesManifest(MANIFEST, sha256)).toString("latin1").split("\n");
  const newer = Buffer.from(`${line!.replace('"minimum_reader":1', '"minimum_reader":3')}\n`, "latin1");
  const bytes = Buffer.concat([newer, Buffer.from(`${Buffer.from(sha256(newer)).toString("hex")}\n`)]);
  assert.throws(
    () => decodePagesManifest(bytes, sha256),
    (error) => error instanceof CairnError && error.code === "newer_version",
  );
});
