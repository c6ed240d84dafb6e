import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { after, test } from "node:test";
import { CairnError } from "../errors.ts";
import type { IndexRecord } from "../formats/ovpack/records.ts";
import { Bundle } from "./bundle.ts";
import { listOf } from "./testing-bundle.ts";
import { convertBundle } from "./convert.ts";
import { type BundleContent, type EntryToPack, writeBundle } from "./write.ts";

const SCRATCH = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-write-"));
after(() => fs.rmSync(SCRATCH, { recursive: true, force: true }));

let count = 0;
const fresh = (): string => path.join(SCRATCH, `${count++}.ovpack`);

async function* pieces(...parts: (string | Buffer)[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield Buffer.from(part);
}

function file(at: string, text: string | Buffer): EntryToPack {
  return { path: at, file: { size: Buffer.byteLength(text), read: () => pieces(text) } };
}

const RECORDS: IndexRecord[] = [
  {
    record_id: "r000001",
    path: "",
    kind: "directory",
    level: 0,
    text: "line\u2028separator\u0085",
    scalars: { abstract: "a" },
  },
  { record_id: "r000002", path: "deep/b.txt", kind: "file", level: 2, scalars: { name: "b", tags: "x" } },
];

function content(layout: BundleContent["layout"], more: Partial<BundleContent> = {}): BundleContent {
  return {
    layout,
    manifest: { root: { name: "docs", uri: "viking://resources/docs", scope: "resources" } as { name: string } },
    entries: [
      { path: "" },
      { path: "deep" },
      file("deep/b.txt", "ü text\n".repeat(400)),
      file(".abstract.md", "a"),
      file("empty", ""),
    ],
    records: () => RECORDS,
    vectors: null,
    ...more,
  };
}

const VECTORS = {
  count: 2,
  dimensions: 2,
  embedding: { provider: "p", model: "m" },
  read: () => pieces(Buffer.from(Float32Array.from([1, 0, 0, 1]).buffer)),
};
const withVectors = (): Partial<BundleContent> => ({
  vectors: VECTORS,
  records: () => RECORDS.map((each, i) => ({ ...each, vector: { dense: { offset: 2 * i, dimensions: 2 } } })),
});

async function recordsOf(at: string): Promise<IndexRecord[]> {
  await using bundle = await Bundle.open(at);
  return await listOf(bundle.records());
}

for (const layout of ["A", "B", "C"] as const)
  test(`a bundle written in layout ${layout} is read back with the same entries and records`, async () => {
    const to = fresh();
    const made = await writeBundle(to, content(layout));
    assert.deepEqual([made.files, made.records], [3, 2]);
    await using bundle = await Bundle.open(to);
    assert.equal(bundle.manifest.layout, layout);
    assert.deepEqual(
      bundle.manifest.files.map((each) => each.path),
      [".abstract.md", "deep/b.txt", "empty"],
    );
    assert.equal((await bundle.verify()).records, 2);
    const [first] = await recordsOf(to);
    assert.equal(first!.text, "line\u2028separator\u0085");
  });

test("writeBundle writes equal bytes for equal content in any order", async () => {
  const [one, other] = [fresh(), fresh()];
  await writeBundle(one, content("C", withVectors()));
  const turned = content("C", withVectors());
  await writeBundle(other, { ...turned, entries: turned.entries.toReversed() });
  assert.ok(fs.readFileSync(one).equals(fs.readFileSync(other)));
});

test("writeBundle writes the same bytes as earlier releases", async () => {
  const to = fresh();
  await writeBundle(to, content("C", withVectors()));
  // zlib's part of them may change with Node.
  assert.equal(
    createHash("sha256").update(fs.readFileSync(to)).digest("hex"),
    "5714db832c30ba33dfd8b5010249160469122ae7d81724a375fbf28a79875ab2",
  );
});

test("lines of records have no character that other programs take for a line break", async () => {
  const to = fresh();
  await writeBundle(to, content("C"));
  await using bundle = await Bundle.open(to);
  const python = spawnSync("python3", ["-c", COUNT_LINES, to], { encoding: "utf8" });
  if (python.error === undefined) assert.equal(python.stdout.trim(), "2");
  assert.equal(bundle.manifest.records?.count, 2);
});

const COUNT_LINES = `
import sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
print(len(archive.read("docs/_ovpack/index_records.jsonl").decode().splitlines()))
`;

test("writeBundle streams a file of several MiB, even if it is longer than announced", async () => {
  const to = fresh();
  const piece = Buffer.alloc(1 << 20, "some text that repeats ");
  const noise = Buffer.alloc(6 << 20).map(() => Math.floor(Math.random() * 256));
  const entries = [
    { path: "" },
    { path: "long", file: { size: 6 << 20, read: () => pieces(...Array.from({ length: 6 }, () => piece)) } },
    { path: "grown", file: { size: 10, read: () => pieces(...Array.from({ length: 5 }, () => piece)) } },
    file("noise", Buffer.from(noise)),
  ];
  const made = await writeBundle(to, content("C", { entries, records: () => [] }));
  assert.equal(made.bytes, (6 + 5 + 6) << 20);
  assert.ok(fs.statSync(to).size < 7 << 20);
});

test("a bundle may have more than 65,535 members", async () => {
  const to = fresh();
  const entries = [{ path: "" }, ...Array.from({ length: 66_000 }, (_, i) => file(`f${i}`, ""))];
  await writeBundle(to, content("C", { entries, records: () => [] }));
  await using bundle = await Bundle.open(to);
  assert.equal(bundle.manifest.files.length, 66_000);
});

test("writeBundle replaces no existing file, and leaves no file if it fails", async () => {
  const to = fresh();
  fs.writeFileSync(to, "mine");
  await assert.rejects(writeBundle(to, content("C")), { code: "already_exists" });
  assert.equal(fs.readFileSync(to, "utf8"), "mine");
  const broken = { path: "x", file: { size: 3, read: () => failing() } };
  await assert.rejects(writeBundle(fresh(), content("C", { entries: [{ path: "" }, broken] })), /cannot be read/);
  assert.deepEqual(
    fs.readdirSync(SCRATCH).filter((name) => name.startsWith(".cairn-tmp")),
    [],
  );
});

async function* failing(): AsyncGenerator<Buffer> {
  yield Buffer.from("a");
  throw new CairnError("io", "it cannot be read");
}

test("writeBundle names content that layout A cannot hold before it writes anything", async () => {
  const to = fresh();
  const refused = async (more: Partial<BundleContent>, details: object): Promise<void> => {
    await assert.rejects(writeBundle(to, content("A", more)), (error: CairnError) => {
      assert.equal(error.code, "unsupported");
      assert.deepEqual(error.details, details);
      return true;
    });
    assert.ok(!fs.existsSync(to));
  };
  await refused({ entries: [{ path: "" }, file("deep/_._x", "")] }, { path: "deep/_._x" });
  await refused({ entries: [{ path: "" }, file(".ovpack_manifest.json", "")] }, { path: ".ovpack_manifest.json" });
  await refused(withVectors(), { field: "index.dense" });
});

test("a bundle converted through every layout equals the original", async () => {
  const [c, b, a, again] = [fresh(), fresh(), fresh(), fresh()];
  await writeBundle(c, content("C"));
  const convert = async (from: string, to: string, layout: "A" | "B" | "C"): Promise<void> => {
    await using bundle = await Bundle.open(from);
    await convertBundle(bundle, { to, layout });
  };
  await convert(c, b, "B");
  await convert(b, a, "A");
  await convert(a, again, "C");
  assert.ok(fs.readFileSync(c).equals(fs.readFileSync(again)));
});

test("a converted bundle keeps unknown members and vectors, and can be written without vectors", async () => {
  const [from, b, a] = [fresh(), fresh(), fresh()];
  const more = withVectors();
  const { manifest, entries } = content("C");
  await writeBundle(from, {
    ...content("C", more),
    manifest: { ...manifest, later: { kept: true } },
    entries: entries.map((each) => ({ ...each, more: { user_id: "alice" } })),
  });
  await using bundle = await Bundle.open(from);
  await convertBundle(bundle, { to: b, layout: "B" });
  await using converted = await Bundle.open(b);
  assert.deepEqual(converted.manifest.dense?.count, 2);
  assert.deepEqual(converted.manifest.value["later"], { kept: true });
  assert.equal((converted.manifest.value["entries"] as { user_id: string }[])[0]!.user_id, "alice");
  await assert.rejects(convertBundle(bundle, { to: a, layout: "A" }), { code: "unsupported" });
  await convertBundle(bundle, { to: a, layout: "A", withoutVectors: true });
  assert.equal((await recordsOf(a)).length, 2);
});
