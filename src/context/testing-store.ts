import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import { registerHooks } from "node:module";
import os from "node:os";
import path from "node:path";
import { Bundle, contentHash } from "../bundle/bundle.ts";
import { type Made, makeParts, type Parts, writeZip } from "../bundle/testing-bundle.ts";
import type { CairnError } from "../errors.ts";
import type { FileEntry, Layout } from "../formats/ovpack/manifest.ts";
import type { EmbeddingConfig } from "./embedding.ts";
import { addFiles } from "./files.ts";
import { importBundle, type ImportOptions, restoreBackup } from "./import-bundle.ts";
import { ContextStore, EMBEDDED } from "./store.ts";

/** Stores and bundles for tests. Test only. */

export class Scratch implements Disposable {
  readonly root = fs.mkdtempSync(path.join(os.tmpdir(), "cairn-context-"));
  #count = 0;

  [Symbol.dispose](): void {
    fs.rmSync(this.root, { recursive: true, force: true });
  }

  place(name = "x"): string {
    return path.join(this.root, `${this.#count++}-${name}`);
  }

  /** A store with files by their URI without `viking://`. */
  async store(files: Record<string, string> = {}, embedding: EmbeddingConfig = EMBEDDED): Promise<ContextStore> {
    const store = await ContextStore.init(this.place("store"), embedding);
    for (const [at, text] of Object.entries(files))
      await addFiles(store, `viking://${at}`, { from: Buffer.from(text) });
    await store.fill();
    return store;
  }

  /** A bundle that another program may have made, changed by `spoil`. */
  async bundle(parts: ForeignParts, spoil: (made: Made) => unknown = () => undefined): Promise<string> {
    const to = this.place("made.ovpack");
    const made = foreignParts(parts);
    spoil(made);
    await writeZip(to, made);
    return to;
  }
}

/** Until disposed, this process finds no package with the embedded model. */
export function hideModel(): Disposable {
  const hooks = registerHooks({
    resolve(specifier, context, next) {
      if (!specifier.startsWith("cairnstate-model/")) return next(specifier, context);
      throw Object.assign(new Error(`Cannot find module '${specifier}'`), { code: "MODULE_NOT_FOUND" });
    },
  });
  return { [Symbol.dispose]: () => hooks.deregister() };
}

export interface ForeignParts extends Partial<Parts> {
  layout?: Layout;
  uri?: string;
  scope?: string;
  scopes?: readonly string[];
  packageType?: string;
  embedding?: object;
}

export function foreignParts(parts: ForeignParts): Made {
  const { layout = "C", uri = "viking://resources/docs", scopes, packageType, embedding } = parts;
  const name = parts.name ?? uri.slice(uri.lastIndexOf("/") + 1);
  const made = makeParts(layout, { content: { "a.md": "alpha" }, ...parts, name });
  const scope = parts.scope ?? uri.slice("viking://".length).split("/", 1)[0]!;
  made.manifest["root"] = { name, uri, scope, ...(packageType === undefined ? {} : { package_type: packageType }) };
  if (scopes !== undefined) made.manifest["scopes"] = scopes;
  if (embedding !== undefined) (made.manifest["index"] as { dense: { embedding: object } }).dense.embedding = embedding;
  return made;
}

/** A backup of some scopes, each with a file. */
export function backupParts(files: Record<string, string>, more: ForeignParts = {}): ForeignParts {
  const content: Record<string, string | null> = {};
  for (const [at, text] of Object.entries(files)) {
    for (let end = at.indexOf("/"); end > 0; end = at.indexOf("/", end + 1)) content[at.slice(0, end)] = null;
    content[at] = text;
  }
  const scopes = [...new Set(Object.keys(files).map((at) => at.split("/", 1)[0]!))];
  return {
    name: "openviking-backup",
    uri: "viking://",
    scope: "root",
    packageType: "backup",
    scopes,
    content,
    ...more,
  };
}

/** Sets the content hash that fits entries changed by a test. */
export function mendHash(manifest: Record<string, unknown>): void {
  const files = (manifest["entries"] as FileEntry[]).filter(({ kind }) => kind === "file");
  manifest["content_sha256"] = contentHash(files);
}

export async function importFile(
  store: ContextStore,
  file: string,
  options: ImportOptions & { parent: string },
): Promise<Awaited<ReturnType<typeof importBundle>>> {
  await using bundle = await Bundle.open(file);
  return await importBundle(store, bundle, options);
}

export async function restoreFile(
  store: ContextStore,
  file: string,
  options: ImportOptions & { exact?: boolean } = {},
): Promise<Awaited<ReturnType<typeof restoreBackup>>> {
  await using bundle = await Bundle.open(file);
  return await restoreBackup(store, bundle, options);
}

/** Asserts that `act` fails with `code` and `details`, and that the store is as it was. */
export async function assertRefused(
  store: ContextStore,
  act: () => Promise<unknown>,
  { code, details = {} }: { code: string; details?: Record<string, unknown> },
): Promise<void> {
  const before = stateOf(store);
  await assert.rejects(act(), (error: CairnError) => {
    assert.equal(error.code, code, error.message);
    for (const [name, value] of Object.entries(details))
      assert.deepEqual(error.details?.[name], value, JSON.stringify(error.details));
    return true;
  });
  assert.deepEqual(stateOf(store), before);
}

/** The whole state of a store, which a failed change must not alter: files with their content, and the index's rows. */
export function stateOf(store: ContextStore): Record<string, string> {
  const state: Record<string, string> = {};
  for (const name of fs.readdirSync(store.folder, { recursive: true, encoding: "utf8" })) {
    if (name.startsWith(".context")) continue;
    const at = path.join(store.folder, name);
    const isFile = fs.lstatSync(at).isFile();
    state[name] = isFile ? createHash("sha256").update(fs.readFileSync(at)).digest("hex") : "directory";
  }
  for (const { id: _, ...row } of store.index.rows("")) state[`row ${row.level} ${row.path}`] = JSON.stringify(row);
  const change = path.join(store.folder, ".context/change");
  if (fs.existsSync(change)) state["change"] = "is there";
  return state;
}
