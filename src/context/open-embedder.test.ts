import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import { after, test } from "node:test";
import { pathToFileURL } from "node:url";
import { checkConsistency, reindex } from "./consistency.ts";
import { exportBundle } from "./export-bundle.ts";
import { addFiles } from "./files.ts";
import { findModel } from "./open-embedder.ts";
import { find } from "./search.ts";
import { ContextStore } from "./store.ts";
import { hideModel, importFile, Scratch, stateOf } from "./testing-store.ts";

const scratch = new Scratch();
after(() => scratch[Symbol.dispose]());

const TABLE = "static-minilm-256.zst";
const BREAD = { "resources/bread.md": "The sourdough starter is fed with flour and water.\n" };
const LEAVEN = "leaven for baking";

const vectorsOf = (store: ContextStore): (Float32Array | null)[] =>
  [...store.index.rows("")].map(({ id }) => store.index.vector(id));

/** An installed package with a file. */
function install(modules: string, name: string, file: string): string {
  const place = path.join(modules, name, file);
  fs.mkdirSync(path.dirname(place), { recursive: true });
  fs.writeFileSync(path.join(modules, name, "package.json"), JSON.stringify({ name, version: "0.1.0" }));
  fs.writeFileSync(place, "");
  return place;
}

test("findModel finds the model in this repository, in a project and in a global installation", () => {
  const own = path.resolve(import.meta.dirname, "../../packages/model", TABLE);
  assert.equal(findModel(), own);
  for (const folder of ["project/node_modules", "prefix/lib/node_modules"]) {
    const modules = path.join(scratch.place(), folder);
    const from = pathToFileURL(install(modules, "cairnstate", "dist/cli.js")).href;
    assert.equal(findModel(from), null, "not installed");
    const table = install(modules, "cairnstate-model", "another-table.zst");
    assert.equal(findModel(from), null, "a package with the table of another version");
    fs.renameSync(table, path.join(path.dirname(table), TABLE));
    assert.equal(findModel(from), path.join(path.dirname(table), TABLE));
  }
});

test("a store without the model's package searches by words, and by meaning after it is installed", async () => {
  let folder: string;
  {
    using _hidden = hideModel();
    await using store = await scratch.store(BREAD);
    folder = store.folder;
    assert.equal(store.lacksModel, true);
    assert.equal((await find(store, "flour")).length, 1);
    assert.equal((await find(store, "flour", { mode: "both" })).length, 1);
    assert.deepEqual(await find(store, LEAVEN), []);
    await assert.rejects(find(store, LEAVEN, { mode: "semantic" }), {
      code: "unsupported",
      hint: /npm install -g cairnstate-model/,
    });
    assert.equal(checkConsistency(store, "").ok, true);
    assert.deepEqual(reindex(store, "", { all: true }), { added: 0, removed: 0, changed: 0 });
    assert.deepEqual(await store.fill(), { indexed: 1, vectors: 0 });
    assert.deepEqual(await store.fill(), { indexed: 0, vectors: 0 }, "no file is read twice");
    const to = scratch.place("out.ovpack");
    const wanted = { uri: "viking://resources", to, includeVectors: true };
    await assert.rejects(exportBundle(store, wanted), { code: "unsupported" });
  }
  await using store = await ContextStore.open(folder);
  assert.equal(store.lacksModel, false);
  await store.fillLeft();
  assert.equal((await find(store, LEAVEN, { mode: "semantic" })).length, 1);
});

test("existing vectors stay unchanged while the model's package is missing", async () => {
  let folder: string;
  {
    await using store = await scratch.store(BREAD);
    folder = store.folder;
  }
  const file = path.join(folder, "resources/bread.md");
  using hidden = hideModel();
  await using store = await ContextStore.open(folder);
  const before = [stateOf(store), vectorsOf(store)];
  await store.fillLeft();
  assert.deepEqual(await find(store, LEAVEN), []);
  assert.throws(() => reindex(store, "", { all: true }), { code: "unsupported", hint: /cairnstate-model/ });
  assert.deepEqual([stateOf(store), vectorsOf(store)], before);
  fs.writeFileSync(file, "Butter is churned of cream.\n");
  assert.throws(() => reindex(store, "", {}), { code: "unsupported" });
  assert.deepEqual(vectorsOf(store), before[1]);
  await addFiles(store, "viking://resources/tea.md", { from: Buffer.from("Green tea is steeped for a minute.") });
  await store.fill();
  assert.deepEqual(vectorsOf(store), [...(before[1] as Float32Array[]), null]);
  hidden[Symbol.dispose]();
  await using again = await ContextStore.open(folder);
  reindex(again, "", {});
  assert.deepEqual(await again.fill(), { indexed: 2, vectors: 2 });
});

test("a bundle's vectors are imported if the model's package is missing", async () => {
  const bundle = scratch.place("vectors.ovpack");
  await using source = await scratch.store({ "resources/docs/bread.md": BREAD["resources/bread.md"] });
  await exportBundle(source, { uri: "viking://resources/docs", to: bundle, includeVectors: true });
  const plain = scratch.place("plain.ovpack");
  await exportBundle(source, { uri: "viking://resources/docs", to: plain });
  using _hidden = hideModel();
  await using store = await scratch.store();
  const parent = "viking://resources";
  await assert.rejects(importFile(store, bundle, { parent, vectorMode: "recompute" }), { code: "unsupported" });
  assert.equal((await importFile(store, bundle, { parent })).vectors, "bundle");
  assert.deepEqual(vectorsOf(store), vectorsOf(source));
  assert.equal((await importFile(store, plain, { parent, onConflict: "overwrite" })).vectors, "none");
});
