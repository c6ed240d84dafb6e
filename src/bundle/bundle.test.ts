import assert from "node:assert/strict";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { test, type TestContext } from "node:test";
import { LONG } from "../../test/fixtures/long.ts";
import { CairnError } from "../errors.ts";
import type { Layout } from "../formats/ovpack/manifest.ts";
import { randomFrom } from "../workspace/store/testing-edits.ts";
import { Bundle } from "./bundle.ts";
import { extractBundle } from "./extract.ts";
import { type Made, makeParts, type Parts, writeZip } from "./testing-bundle.ts";

const LAYOUTS: readonly Layout[] = ["A", "B", "C"];
const CONTENT: Parts["content"] = {
  ".abstract.md": "about all",
  guides: null,
  "guides/.overview.md": "what is in it",
  "guides/begin.md": "# Begin\n",
  "guides/deep": null,
  "guides/deep/\u{1f600}.md": "beyond U+FFFF",
  "guides/deep/\uff5e.md": "before it by code points, after it by UTF-16",
  tasks: null,
  "tasks/empty": "",
};
const BYTES = Object.values(CONTENT).reduce((sum, text) => sum + Buffer.byteLength(text ?? ""), 0);
const RECORDS = [
  {
    record_id: "1",
    path: "guides",
    kind: "directory",
    level: 0,
    text: "a\u2028b",
    scalars: { name: "guides" },
    vector: { dense: { offset: 3, dimensions: 3 } },
  },
  { record_id: "2", path: "guides/begin.md", kind: "file", level: 2, vector: { dense: { offset: 0, dimensions: 3 } } },
];
const PARTS: Parts = {
  name: "docs",
  content: CONTENT,
  records: RECORDS,
  vectors: [
    [1, 2, 3],
    [4, 5, 6],
  ],
};

function folder(t: TestContext): string {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-bundle-"));
  t.after(() => fs.rmSync(made, { recursive: true, force: true }));
  return made;
}

async function verify(file: string): Promise<{ files: number; bytes: number; records: number }> {
  await using bundle = await Bundle.open(file);
  return await bundle.verify();
}

for (const layout of LAYOUTS)
  test(`verify and extract return the content of a bundle of layout ${layout}`, async (t) => {
    const file = path.join(folder(t), "docs.ovpack");
    await writeZip(file, makeParts(layout, PARTS));
    await using bundle = await Bundle.open(file);
    assert.deepEqual([bundle.manifest.layout, bundle.manifest.root.name], [layout, "docs"]);
    assert.deepEqual(await bundle.verify(), { files: 6, bytes: BYTES, records: layout === "A" ? 0 : 2 });
    const to = path.join(folder(t), "out");
    await extractBundle(bundle, { to });
    const found = fs.readdirSync(to, { recursive: true, withFileTypes: true }).map((entry) => {
      const own = path.relative(to, path.join(entry.parentPath, entry.name));
      return [own, entry.isDirectory() ? null : fs.readFileSync(path.join(to, own), "utf8")] as const;
    });
    assert.deepEqual(Object.fromEntries(found), CONTENT);
    await assert.rejects(extractBundle(bundle, { to }), { code: "already_exists" });
    const part = path.join(folder(t), "part");
    await extractBundle(bundle, { to: part, paths: ["guides/deep"] });
    assert.deepEqual(fs.readdirSync(part), ["guides"]);
    assert.equal(fs.readdirSync(path.join(part, "guides/deep")).length, 2);
    await assert.rejects(extractBundle(bundle, { to: path.join(part, "x"), paths: ["nothing"] }), {
      code: "not_found",
    });
  });

/** Changes that each make a bundle wrong, and what its error names. */
const SPOILED: Readonly<Record<string, { spoil: (made: Made) => void; layouts?: readonly Layout[]; named: RegExp }>> = {
  "a file that is missing": {
    spoil: ({ members }) => void members.delete([...members.keys()].find((each) => each.endsWith("begin.md"))!),
    named: /missing_files.*begin\.md/,
  },
  "a file that is not listed": {
    spoil: ({ members, manifest }) =>
      void members.set(`docs/${manifest["index"] ? "files/" : ""}more`, Buffer.from("x")),
    named: /unexpected_files.*more/,
  },
  "a directory that is missing": {
    spoil: ({ members }) => void members.delete([...members.keys()].find((each) => each.endsWith("tasks"))!),
    named: /missing_directories.*tasks/,
  },
  "a file of other content": {
    spoil: ({ members }) =>
      void members.set(
        [...members.keys()].find((each) => each.endsWith("begin.md"))!,
        Buffer.from("# Bogin\n"),
      ),
    named: /begin\.md.*sha256/,
  },
  "a file of another size": {
    spoil: ({ members }) =>
      void members.set(
        [...members.keys()].find((each) => each.endsWith("begin.md"))!,
        Buffer.from("# B\n"),
      ),
    named: /begin\.md.*size/,
  },
  "a wrong content_sha256": {
    spoil: ({ manifest }) => void (manifest["content_sha256"] = "0".repeat(64)),
    named: /content_sha256/,
  },
  "an unknown kind": { spoil: ({ manifest }) => void (manifest["kind"] = "other"), named: /kind/ },
  "a newer version": { spoil: ({ manifest }) => void (manifest["format_version"] = 9), named: /format_version/ },
  "a root of another name": {
    spoil: ({ manifest }) => void ((manifest["root"] as { name: string }).name = "other"),
    named: /root\.name/,
  },
  "a path outside the root": {
    spoil: ({ manifest }) => void ((manifest["entries"] as { path: string }[]).at(-1)!.path = "../x"),
    named: /\.\.\/x/,
  },
  "a path twice": {
    spoil: ({ manifest }) => void (manifest["entries"] as object[]).push((manifest["entries"] as object[]).at(-1)!),
    named: /twice/,
  },
  "no root entry": {
    spoil: ({ manifest }) => void (manifest["entries"] as object[]).shift(),
    named: /root is not listed/,
  },
  "a member outside the root": {
    spoil: ({ members }) => void members.set("other/x", Buffer.from("x")),
    named: /other\/x/,
  },
  "an unlisted file in _ovpack": {
    layouts: ["B", "C"],
    spoil: ({ members }) => void members.set("docs/_ovpack/x", Buffer.from("x")),
    named: /_ovpack\/x/,
  },
  "no index records": {
    layouts: ["B", "C"],
    spoil: ({ members }) => void members.delete("docs/_ovpack/index_records.jsonl"),
    named: /index_records/,
  },
  "truncated index records": {
    layouts: ["B", "C"],
    spoil: ({ members }) => void members.set("docs/_ovpack/index_records.jsonl", Buffer.from('{"record_id": "1"')),
    named: /index_records/,
  },
  "truncated vectors": {
    layouts: ["B", "C"],
    spoil: ({ members }) => void members.set("docs/_ovpack/dense.f32", Buffer.alloc(8)),
    named: /dense/,
  },
  "no vectors": {
    layouts: ["B", "C"],
    spoil: ({ members }) => void members.delete("docs/_ovpack/dense.f32"),
    named: /dense/,
  },
};

for (const [what, { spoil, layouts = LAYOUTS, named }] of Object.entries(SPOILED))
  test(`extract refuses a bundle with ${what}, and writes nothing`, async (t) => {
    const at = folder(t);
    for (const layout of layouts) {
      const made = makeParts(layout, PARTS);
      spoil(made);
      const file = path.join(at, `${layout}.ovpack`);
      await writeZip(file, made);
      const refused = async (): Promise<void> => {
        await using bundle = await Bundle.open(file);
        await extractBundle(bundle, { to: path.join(at, "out") });
      };
      await assert.rejects(refused(), (error: CairnError) => {
        assert.ok(["damaged", "newer_version"].includes(error.code), error.stack);
        assert.match(JSON.stringify([error.message, error.details]), named, layout);
        return true;
      });
      assert.deepEqual(
        fs.readdirSync(at).filter((name) => !name.endsWith(".ovpack")),
        [],
      );
    }
  });

test("a bundle with changed bytes is refused, or its content is intact", async (t) => {
  const at = folder(t);
  const file = path.join(at, "whole.ovpack");
  await writeZip(file, makeParts("C", PARTS));
  const whole = fs.readFileSync(file);
  const random = randomFrom(28);
  const spoiled = path.join(at, "spoiled.ovpack");
  let harmless = 0;
  for (let i = 0; i < (LONG ? 2000 : 400); i++) {
    let bytes = Buffer.from(whole);
    const [place, length] = [Math.floor(random() * whole.length), 1 + Math.floor(random() * 40)];
    const how = Math.floor(random() * 4);
    if (how === 0) bytes[place]! ^= 1 << Math.floor(random() * 8);
    else if (how === 1) bytes = bytes.subarray(0, place);
    else if (how === 2) bytes.fill(Math.floor(random() * 256), place, Math.min(place + length, bytes.length));
    else bytes = Buffer.concat([bytes.subarray(0, place), bytes.subarray(Math.max(0, place - length))]);
    if (bytes.equals(whole)) continue;
    fs.writeFileSync(spoiled, bytes);
    const to = path.join(at, "out");
    try {
      await using bundle = await Bundle.open(spoiled);
      await extractBundle(bundle, { to });
    } catch (error) {
      assert.ok(
        error instanceof CairnError && ["damaged", "newer_version", "unsupported"].includes(error.code),
        `${i}: ${(error as Error).stack}`,
      );
      assert.deepEqual(fs.readdirSync(at).toSorted(), ["spoiled.ovpack", "whole.ovpack"], `${i}: nothing is left`);
      continue;
    }
    // What says nothing of the content may differ: a time, an attribute, a comment.
    harmless++;
    for (const [name, text] of Object.entries(CONTENT))
      if (text !== null) assert.equal(fs.readFileSync(path.join(to, name), "utf8"), text, `${i}: ${name}`);
    fs.rmSync(to, { recursive: true });
  }
  t.diagnostic(`${harmless} had their content whole all the same`);
  assert.deepEqual(await verify(file), { files: 6, bytes: BYTES, records: 2 });
});
