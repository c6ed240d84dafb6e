import { closeSync, fstatSync, readSync } from "node:fs";
import { join, resolve } from "node:path";
import type { BundleCall } from "../bundle/bundle.ts";
import { type BundleContent, type EntryToPack, type Vectors, writeBundle } from "../bundle/write.ts";
import { advice, CairnError, line, toCairnError, word } from "../errors.ts";
import type { JsonObject } from "../formats/fields.ts";
import { type Layout, OLD_SCOPES } from "../formats/ovpack/manifest.ts";
import { type IndexRecord, recordId } from "../formats/ovpack/records.ts";
import { openRegular, readRegular } from "../fs/regular-file.ts";
import { isAtOrBelow, printablePath } from "../fs/paths/safe-path.ts";
import { checkConsistency, type Consistency } from "./consistency.ts";
import { embeddingFacts } from "./embedding.ts";
import { BACKUP_NAME, BACKUP_TYPE } from "./import-bundle.ts";
import type { IndexRow } from "./index-database.ts";
import { modelMissing } from "./open-embedder.ts";
import type { ContextStore } from "./store.ts";
import { childrenOf, entryAt, fileOf, treeOf } from "./tree.ts";
import { isControlName, isSession, nameOf, noSuch, ownerOf, parseUri, scopeOf, SCOPES, toUri } from "./uri.ts";

export interface ExportOptions extends BundleCall {
  to: string;
  layout?: Layout | undefined;
  includeVectors?: boolean | undefined;
}

type Written = Awaited<ReturnType<typeof writeBundle>>;

/** Writes a subtree, or a whole scope, as a new bundle. Throws `not_found`, `usage`, `already_exists`. */
export async function exportBundle(
  store: ContextStore,
  { uri, ...options }: ExportOptions & { uri: string },
): Promise<Written> {
  const root = parseUri(uri);
  if (root === "")
    throw new CairnError("usage", "viking:// is the whole store; `bundle export` writes one part of it", {
      hint: advice`to export the whole store: ${line("bundle backup FILE", "backupContext", word("store"), word("file"))}`,
      details: { uri },
    });
  if (isControlName(root)) throw new CairnError("usage", `${toUri(root)} is a control file`, { details: { uri } });
  store.placeOf(root);
  const entry = entryAt(store.folder, root);
  if (entry === null) throw noSuch(root);
  if (!entry.isDirectory)
    throw new CairnError("usage", `${toUri(root)} is a file`, {
      hint: "export the directory that it lies in",
      details: { uri },
    });
  const manifest = {
    root: { name: nameOf(root), uri: toUri(root), scope: scopeOf(root), ...owner(root, true) },
  };
  return await pack(store, { root, of: [root], manifest }, options);
}

/** Writes all scopes as a bundle that only a restore accepts. */
export async function backupStore(store: ContextStore, options: ExportOptions): Promise<Written> {
  const layout = options.layout ?? layoutFor(store, SCOPES);
  // All scopes that OpenViking creates in a layout, and others if they have entries.
  const scopes = SCOPES.filter((scope) => layout !== "C" || !OLD_SCOPES.has(scope) || hasContent(store, scope));
  const manifest = {
    root: { name: BACKUP_NAME, uri: toUri(""), scope: "root", package_type: BACKUP_TYPE },
    scopes,
  };
  return await pack(store, { root: "", of: scopes, manifest }, { ...options, layout });
}

function hasContent({ folder }: ContextStore, path: string): boolean {
  return [...childrenOf(folder, path)].length > 1;
}

/** The newest layout that can hold all of the subtrees. */
function layoutFor(store: ContextStore, of: readonly string[]): Layout {
  return of.some((path) => OLD_SCOPES.has(scopeOf(path)) && hasContent(store, path)) ? "B" : "C";
}

/** Layout C records the user who owns an entry. */
function owner(path: string, isDirectory: boolean): { user_id?: string } {
  const user = ownerOf(path, isDirectory);
  return user === "" ? {} : { user_id: user };
}

interface ToPack {
  root: string;
  /** Subtrees to pack. */
  of: readonly string[];
  manifest: BundleContent["manifest"];
}

async function pack(store: ContextStore, { root, of, manifest }: ToPack, options: ExportOptions): Promise<Written> {
  if (SCOPES.some((scope) => isAtOrBelow(resolve(options.to), join(store.folder, scope))))
    throw new CairnError("usage", `${printablePath(options.to)} would lie among the files that are packed`, {
      hint: "name a place outside of the store",
    });
  if (options.includeVectors === true) {
    if (store.embedding.provider === "none")
      throw new CairnError("usage", "the store has no vectors", {
        hint: "pack it without vectors: the store is searched by words only",
        details: { field: "include_vectors" },
      });
    await store.fill({ signal: options.signal });
  }
  return await store.reading(async () => packHeld(store, { root, of, manifest }, options), options);
}

/** Requires that no process changes the store meanwhile. */
async function packHeld(store: ContextStore, { root, of, manifest }: ToPack, options: ExportOptions): Promise<Written> {
  const { to, layout = layoutFor(store, of), includeVectors = false, ...call } = options;
  if (includeVectors) requireWhole(store, of);
  const isC = layout === "C";
  const below = (path: string): string => (root === "" ? path : path.slice(root.length + 1));
  const entries: EntryToPack[] = root === "" ? [{ path: "" }] : [];
  const packed = new Map<string, boolean>();
  for (const path of of) {
    if (root === "" && entryAt(store.folder, path) === null) entries.push({ path });
    for (const entry of treeOf(store.folder, path)) {
      if (isControlName(entry.path)) continue;
      packed.set(entry.path, entry.isDirectory);
      const more: JsonObject = isC ? owner(entry.path, entry.isDirectory) : {};
      const place = store.placeOf(entry.path);
      const file = entry.isDirectory ? {} : { file: { size: entry.size, read: () => piecesOf(place) } };
      entries.push({ path: below(entry.path), more, ...file });
    }
  }
  const rows = function* (): Generator<IndexRow> {
    for (const path of of)
      for (const row of store.index.rows(path))
        if (packed.get(row.path) === row.isDirectory && !isSession(row.path)) yield row;
  };
  const { dimensions } = store.index;
  const records = (): Iterable<IndexRecord> =>
    recordsOf(store, rows(), { below, vectors: includeVectors ? dimensions : null, isC });
  const base = isC ? manifest : { ...manifest, root: { ...manifest.root, user_id: undefined } };
  const vectors = includeVectors ? vectorsOf(store, rows) : null;
  return await writeBundle(to, { layout, manifest: base, entries, records, vectors }, call);
}

/** A snapshot of vectors must be complete. Throws `usage` with the missing entries. */
function requireWhole(store: ContextStore, of: readonly string[]): void {
  if (store.lacksModel && store.index.pending(1).length > 0)
    throw modelMissing("packing vectors, some of which are not made yet,");
  for (const path of of) {
    const report = checkConsistency(store, path);
    if (!report.ok)
      throw new CairnError("usage", "the index is incomplete, so its vectors are not packed", {
        hint: advice`complete it first: ${line("context reindex", "reindexContext", word("store"))}`,
        details: { expected: report.expected, indexed: report.indexed, ...firstOf(report) },
      });
  }
}

const MOST_NAMED = 20;

function firstOf({ missing_records, missing_files, stale, missing_vectors }: Consistency): object {
  const all = { missing_records, missing_files, stale, missing_vectors };
  return Object.fromEntries(Object.entries(all).map(([name, each]) => [name, each.slice(0, MOST_NAMED)]));
}

function* recordsOf(
  { folder }: ContextStore,
  rows: Iterable<IndexRow>,
  { below, vectors, isC }: { below: (path: string) => string; vectors: number | null; isC: boolean },
): Generator<IndexRecord> {
  let count = 0;
  for (const row of rows) {
    const { path, level, isDirectory, type, contextType, name, description, tags, abstract } = row;
    const text = isDirectory ? textOf(folder, row) : "";
    yield {
      record_id: recordId(count),
      path: below(path),
      kind: isDirectory ? "directory" : "file",
      level,
      ...(text === "" ? {} : { text }),
      scalars: {
        ...(type === null ? {} : { type }),
        context_type: contextType,
        level,
        name,
        ...(description === null ? {} : { description }),
        ...(tags === null ? {} : { tags }),
        abstract,
      },
      ...(isC ? owner(path, isDirectory) : {}),
      ...(vectors === null ? {} : { vector: { dense: { offset: count * vectors, dimensions: vectors } } }),
    };
    count++;
  }
}

/** The whole text of a directory's abstract or overview. */
function textOf(folder: string, { path, level, text }: IndexRow): string {
  try {
    return readRegular(`${folder}/${fileOf(path, level)}`, { limit: 1 << 20 }).toString("utf8");
  } catch {
    return text ?? "";
  }
}

function vectorsOf(store: ContextStore, rows: () => Iterable<IndexRow>): Vectors | null {
  let count = 0;
  for (const _ of rows()) count++;
  if (count === 0) return null;
  const read = async function* (): AsyncGenerator<Buffer> {
    let batch: Float32Array[] = [];
    const bytes = (): Buffer => Buffer.concat(batch.map((each) => Buffer.from(each.buffer)));
    for (const { id } of rows()) {
      batch.push(store.index.vector(id)!);
      if (batch.length < 1000) continue;
      yield bytes();
      batch = [];
    }
    yield bytes();
  };
  return { count, dimensions: store.embedding.dimensions, embedding: embeddingFacts(store.embedding), read };
}

const PIECE = 1 << 20;

/** The bytes of a file up to its present end. */
async function* piecesOf(place: string): AsyncGenerator<Buffer> {
  let fd: number;
  try {
    fd = openRegular(place);
  } catch (error) {
    throw toCairnError(error, `read ${printablePath(place)}`);
  }
  try {
    let left = fstatSync(fd).size;
    for (;;) {
      // One more byte than expected shows that the file has grown.
      const piece = Buffer.allocUnsafe(Math.min(PIECE, Math.max(left, 0) + 1));
      const length = readSync(fd, piece, 0, piece.length, null);
      if (length > 0) yield piece.subarray(0, length);
      if (length < piece.length) return;
      left -= length;
    }
  } finally {
    closeSync(fd);
  }
}
