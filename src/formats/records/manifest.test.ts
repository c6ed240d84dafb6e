import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ByteWriter } from "../bytes.ts";
import { everyCutIsDamage, everyFlipIsDamageOrDecodes, nonsenseIsDamage } from "../hostile.contract.ts";
import { decodeManifest, encodeManifest, type ManifestInput } from "./manifest.ts";

const sample: ManifestInput = {
  stateDigest: "1".repeat(64),
  metadataDigest: null,
  complete: false,
  entries: { files: 4, directories: 3, links: 2, other: 1 },
  labels: [{ path: "db", label: "captured" }],
  holeMaps: [
    {
      path: Buffer.from("sparse"),
      holes: [
        [0, 4096],
        [8192, 2 ** 40],
      ],
    },
  ],
  fileHashes: [{ path: Buffer.from([0x61, 0xff]), sha256: Buffer.alloc(32, 7), size: 600_000 }],
  omitted: [{ path: Buffer.from("secret"), reason: "permission" }],
  lossless: [
    { path: Buffer.from("l"), field: "linktarget", value: Buffer.from([0xff]) },
    { path: Buffer.from("x"), field: "xattr_name", index: 2, value: Buffer.from("user.\xff", "latin1") },
  ],
};

function encode(manifest: ManifestInput): Uint8Array {
  const w = new ByteWriter(1);
  encodeManifest(w, manifest);
  return w.copy();
}

/** Buffers and views compare by content. */
function plain(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_key, v: unknown) => (v instanceof Uint8Array ? [...v] : v)),
    (_key, v: unknown) =>
      typeof v === "object" && v !== null && (v as { type?: string }).type === "Buffer"
        ? (v as { data: number[] }).data
        : v,
  );
}

test("encodeManifest writes the pinned bytes", () => {
  assert.equal(
    Buffer.from(encode(sample)).toString(),
    `{"format":"cairn.manifest","version":1,"minimum_reader":1,"state_digest":"${"1".repeat(64)}",` +
      `"metadata_digest":null,"complete":false,"entries":{"files":4,"directories":3,"links":2,"other":1},` +
      `"labels":[{"label":"captured","path":"db"}],` +
      `"hole_maps":[{"path":"sparse","holes":[[0,4096],[8192,1099511627776]]}],` +
      `"file_hashes":[{"path_b64":"Yf8=","sha256":"${"07".repeat(32)}","size":600000}],` +
      `"omitted":[{"path":"secret","reason":"permission"}],` +
      `"lossless":[{"path":"l","field":"linktarget","value_b64":"/w=="},` +
      `{"path":"x","field":"xattr_name","index":2,"value_b64":"dXNlci7/"}]}\n`,
  );
});

test("decodeManifest returns the encoded manifest for any paths", () => {
  const path = fc.uint8Array({ minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(path, fc.array(path), fc.uint8Array(), fc.string({ unit: "binary" }), (one, paths, value, reason) => {
      const made: ManifestInput = {
        ...sample,
        holeMaps: [{ path: one, holes: [] }],
        fileHashes: paths.map((p, i) => ({ path: p, sha256: new Uint8Array(32).fill(i), size: i })),
        omitted: [{ path: one, reason }],
        lossless: [{ path: one, field: "mtime", value }],
        mounts: { entered: paths.length > 1, leftOut: [...paths] },
      };
      assert.deepEqual(plain(decodeManifest(encode(made))), plain({ ...made, extra: {} }));
    }),
  );
});

test("encodeManifest accepts generators in place of lists", () => {
  function* hashes() {
    for (let i = 0; i < 3; i++) yield { path: Buffer.from(String(i)), sha256: new Uint8Array(32), size: i };
  }
  assert.equal(decodeManifest(encode({ ...sample, fileHashes: hashes() })).fileHashes.length, 3);
});

test("encodeManifest writes the same bytes for any order of a label's keys", () => {
  const one = encode({ ...sample, labels: [{ path: "p", label: "torn", a: 1 }] });
  const other = encode({ ...sample, labels: [{ a: 1, label: "torn", path: "p" }] });
  assert.deepEqual(one, other);
});

test("decodeManifest reads a newer manifest if minimum_reader allows it, and keeps unknown members in extra", () => {
  const value = JSON.parse(Buffer.from(encode(sample)).toString()) as Record<string, unknown>;
  const text = (more: object) => Buffer.from(JSON.stringify({ ...value, ...more }));
  assert.deepEqual(decodeManifest(text({ version: 9, later: [1] })).extra, { later: [1] });
  assert.throws(() => decodeManifest(text({ minimum_reader: 2 })), { code: "newer_version" });
  assert.throws(() => decodeManifest(text({ format: "cairn.pin" })), { code: "damaged" });
});

test("decodeManifest refuses holes that overlap, touch, are out of order or are not numbers", () => {
  for (const holes of [
    "[[0,1],[1,1]]",
    "[[5,1],[0,1]]",
    "[[0,0]]",
    "[[-1,2]]",
    "[[0]]",
    "[[0,1,2]]",
    '[["0",1]]',
    "[[9007199254740991,1]]",
    "1",
  ]) {
    const text = Buffer.from(encode(sample))
      .toString()
      .replace(/"holes":\[\[.*?\]\]/, `"holes":${holes}`);
    assert.throws(() => decodeManifest(Buffer.from(text)), /"holes"/, holes);
  }
});

test("decoding a truncated or changed manifest throws no error other than damaged or newer_version", () => {
  const bytes = encode(sample);
  everyCutIsDamage(decodeManifest, bytes, { optionalTail: 1 });
  everyFlipIsDamageOrDecodes(decodeManifest, bytes);
  nonsenseIsDamage(decodeManifest);
});
