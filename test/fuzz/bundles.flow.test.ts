import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { Bundle } from "../../src/bundle/bundle.ts";
import { type Made, writeZip } from "../../src/bundle/testing-bundle.ts";
import { writeBundle } from "../../src/bundle/write.ts";
import { foreignParts, importFile, Scratch, stateOf } from "../../src/context/testing-store.ts";
import { CairnError } from "../../src/errors.ts";
import type { Layout } from "../../src/formats/ovpack/manifest.ts";
import { randomFrom } from "../../src/workspace/store/testing-edits.ts";
import { LONG } from "../fixtures/long.ts";

/**
 * Bundles with something changed: bytes of the file, members of the zip, values of the manifest and of records. An
 * import takes what it finds whole, and refuses all else with the place, the store being as it was.
 */

const SEED = Number(process.env["CAIRN_TEST_SEED"] ?? Math.floor(Math.random() * 2 ** 31));
const random = randomFrom(SEED);
const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)]!;
const ROUNDS = LONG ? 20_000 : 2000;

const CONTENT = { d: null, "d/one.md": "one\n".repeat(50), "d/two.md": "two", ".abstract.md": "about", empty: "" };
const RECORDS = [
  { record_id: "r1", path: "", kind: "directory", level: 0, text: "about", scalars: { abstract: "about" } },
  { record_id: "r2", path: "d/one.md", kind: "file", level: 2, scalars: { abstract: "one" } },
];
const VECTORS = [
  [1, 0, 0],
  [0, 1, 0],
];
const placed = RECORDS.map((each, i) => ({ ...each, vector: { dense: { offset: 3 * i, dimensions: 3 } } }));

function parts(layout: Layout): Made {
  if (layout === "A") {
    const made = foreignParts({ layout, content: CONTENT });
    made.manifest["vectors"] = { "d/one.md": [{ level: 2, scalars: { abstract: "one" } }] };
    return made;
  }
  return foreignParts({ layout, content: CONTENT, records: placed, vectors: VECTORS });
}

const ODD = [
  null,
  true,
  -1,
  1.5,
  2 ** 53,
  "",
  "..",
  "../x",
  "/x",
  "a\\b",
  "C:x",
  "\u0000",
  "d",
  "d/one.md",
  [],
  {},
  "0".repeat(64),
  "viking://user/x",
  "é".normalize("NFD"),
];

/** Changes one value somewhere in an object. */
function changeValue(value: Record<string, unknown> | unknown[]): void {
  const keys = Object.keys(value);
  if (keys.length === 0) return;
  const key = pick(keys) as never;
  const inner = value[key] as unknown;
  if (typeof inner === "object" && inner !== null && random() < 0.8) return changeValue(inner as unknown[]);
  const how = random();
  if (how < 0.25) {
    if (Array.isArray(value)) value.splice(Number(key), 1);
    else delete value[key];
  } else if (how < 0.35 && Array.isArray(value)) value.push(inner);
  else (value as Record<string, unknown>)[key] = pick(ODD);
}

const MUTATIONS: Record<string, (made: Made) => void> = {
  value: ({ manifest }) => changeValue(manifest),
  "a member gone": ({ members }) => void members.delete(pick([...members.keys()])),
  "a member more": ({ members }) =>
    void members.set(
      `docs/${pick(["files/x", "files/d/", "_ovpack/x", "x", "files/d/one.md/x", "files/.relations.json"])}`,
      Buffer.from("x"),
    ),
  "a member of another kind": ({ members }) => {
    const name = pick([...members.keys()]);
    members.set(name, members.get(name) === null ? Buffer.from("x") : null);
  },
  "content changed": ({ members }) => {
    const files = [...members].filter((each): each is [string, Buffer] => (each[1]?.length ?? 0) > 0);
    const [name, bytes] = pick(files);
    const changed = Buffer.from(bytes);
    changed[Math.floor(random() * changed.length)]! ^= 1 << Math.floor(random() * 8);
    members.set(name, changed);
  },
  "records changed, their hash too": ({ members, manifest }) => {
    const lines = members.get("docs/_ovpack/index_records.jsonl");
    if (lines === null || lines === undefined) return;
    const records = lines
      .toString()
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    changeValue(records);
    const bytes = Buffer.from(records.map((each) => `${JSON.stringify(each) ?? "null"}\n`).join(""));
    members.set("docs/_ovpack/index_records.jsonl", bytes);
    const index = manifest["index"] as { records: { count: number; sha256: string } };
    index.records = {
      ...index.records,
      count: records.length,
      sha256: createHash("sha256").update(bytes).digest("hex"),
    };
  },
};

function changeBytes(bytes: Buffer): Buffer {
  const at = Math.floor(random() * bytes.length);
  const how = random();
  if (how < 0.6) {
    const flipped = Buffer.from(bytes);
    flipped[at]! ^= 1 << Math.floor(random() * 8);
    return flipped;
  }
  const to = at + Math.floor(random() * 200);
  if (how < 0.75) return bytes.subarray(0, at);
  return how < 0.9
    ? Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)])
    : Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)]);
}

/** What an import of it brings: each file with its content. */
async function contentOf(file: string): Promise<Record<string, string>> {
  await using bundle = await Bundle.open(file);
  const content: Record<string, string> = {};
  for (const each of bundle.manifest.files) {
    const pieces: Buffer[] = [];
    for await (const piece of bundle.read(each)) pieces.push(piece);
    content[each.path] = Buffer.concat(pieces).toString("base64");
  }
  return content;
}

test(`import refuses each of ${ROUNDS} changed bundles or reads its original content, and changes nothing in the store`, async (t) => {
  using scratch = new Scratch();
  await using store = await scratch.store(
    { "resources/docs/mine.md": "mine" },
    { provider: "none", model: "", dimensions: 0 },
  );
  const before = stateOf(store);
  const wholes = new Map<Layout, Buffer>();
  for (const layout of ["A", "B", "C"] as const) {
    const to = scratch.place();
    await writeZip(to, parts(layout));
    wholes.set(layout, fs.readFileSync(to));
  }
  // One that this program made: its bytes lie otherwise.
  const own = scratch.place();
  const read = async function* (): AsyncGenerator<Buffer> {
    yield Buffer.from("content ".repeat(100));
  };
  await writeBundle(own, {
    layout: "C",
    manifest: { root: { name: "docs", uri: "viking://resources/docs", scope: "resources" } as { name: string } },
    entries: [{ path: "" }, { path: "a.md", file: { size: 800, read } }],
    records: () => [],
    vectors: null,
  });
  const file = scratch.place("mutated.ovpack");
  const counts = { refused: 0, taken: 0 };
  for (let round = 0; round < ROUNDS; round++) {
    const layout = pick(["A", "B", "C"] as const);
    let what = "bytes";
    const isOwn = random() < 0.1;
    const whole = isOwn ? fs.readFileSync(own) : wholes.get(layout)!;
    if (isOwn || random() < 0.5) fs.writeFileSync(file, changeBytes(whole));
    else {
      what = pick(Object.keys(MUTATIONS));
      const made = structuredClone(parts(layout));
      for (const [name, bytes] of made.members) if (bytes !== null) made.members.set(name, Buffer.from(bytes));
      MUTATIONS[what]!(made);
      try {
        await writeZip(file, made);
      } catch {
        // The writer of zips refuses some names by itself.
        continue;
      }
    }
    const said = `seed ${SEED}, round ${round}, layout ${layout}, ${what}`;
    try {
      await importFile(store, file, { parent: "viking://resources", onConflict: "overwrite", dryRun: true });
    } catch (error) {
      assert.ok(error instanceof CairnError, `${said}: ${(error as Error).stack}`);
      assert.ok(
        ["damaged", "newer_version", "unsupported", "usage"].includes(error.code),
        `${said}: ${error.code} ${error.message}`,
      );
      assert.ok(Object.keys(error.details ?? {}).length > 0, `${said}: ${error.message} names nothing`);
      counts.refused++;
      if (round % 20 === 0) {
        await assert.rejects(importFile(store, file, { parent: "viking://resources", onConflict: "overwrite" }));
        assert.deepEqual(stateOf(store), before, said);
      }
      continue;
    }
    // What is taken has the content that its manifest proves, which no change can be part of.
    const plain = path.join(scratch.root, "plain");
    fs.writeFileSync(plain, whole);
    assert.deepEqual(await contentOf(file), await contentOf(plain), said);
    counts.taken++;
  }
  assert.deepEqual(stateOf(store), before, `seed ${SEED}`);
  t.diagnostic(JSON.stringify(counts));
});
