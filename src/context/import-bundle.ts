import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Bundle, BundleCall } from "../bundle/bundle.ts";
import { chosenEntries, unpack } from "../bundle/extract.ts";
import { advice, CairnError, damaged, line, option, word } from "../errors.ts";
import { isObject, type Manifest } from "../formats/ovpack/manifest.ts";
import type { IndexRecord } from "../formats/ovpack/records.ts";
import { FolderOutput } from "../output/folder.ts";
import { embeddingFacts } from "./embedding.ts";
import { modelMissing } from "./open-embedder.ts";
import { rowOf, type StagedRow, stageRecords, stageVectors } from "./staged-records.ts";
import type { ContextStore } from "./store.ts";
import { ABSTRACT, factsAt, levelKey, levelOf, OVERVIEW } from "./tree.ts";
import {
  contextTypeOf,
  isControlName,
  isScope,
  isSession,
  joined,
  nameOf,
  ownerOf,
  parseUri,
  requireCompatible,
  scopeOf,
  toUri,
} from "./uri.ts";

export type OnConflict = "fail" | "overwrite" | "skip";
export type VectorMode = "auto" | "recompute" | "require";

export interface ImportOptions extends BundleCall {
  onConflict?: OnConflict | undefined;
  vectorMode?: VectorMode | undefined;
  /** Only these paths of the bundle, with everything below them. */
  paths?: readonly string[] | undefined;
  /** Return the planned result after all checks, without a change. */
  dryRun?: boolean | undefined;
}

export interface Imported {
  uri: string;
  /** True if the place existed and `skip` was given. */
  skipped: boolean;
  files: number;
  directories: number;
  bytes: number;
  /** Source of the vectors. */
  vectors: "bundle" | "model" | "none";
  /** Existing places that are replaced or written into. */
  replaced: string[];
  is_merged: boolean;
}

export const BACKUP_NAME = "openviking-backup";
export const BACKUP_TYPE = "backup";

/** Imports the subtree of a bundle below a place. Checks the whole bundle before anything is written. */
export async function importBundle(
  store: ContextStore,
  bundle: Bundle,
  { parent, ...options }: ImportOptions & { parent: string },
): Promise<Imported> {
  const root = importRoot(bundle.manifest, parseUri(parent));
  requireImportable(bundle.manifest, (path) => joined(root, path));
  await bundle.verify(options);
  return await bring(store, bundle, { ...options, root, exact: true });
}

/** Restores all scopes of a backup; entries that only the store has stay, unless `exact`. */
export async function restoreBackup(
  store: ContextStore,
  bundle: Bundle,
  { exact = false, ...options }: ImportOptions & { exact?: boolean | undefined },
): Promise<Imported> {
  const { manifest } = bundle;
  if (!isBackup(manifest))
    throw new CairnError("usage", `the bundle is of ${manifest.root.uri}, and not a backup of a whole store`, {
      hint: advice`import it with: ${line("bundle import FILE PARENT", "importBundle", word("store"), word("file"))}`,
      details: { root: manifest.root.name },
    });
  requireOwn(manifest, "");
  requireScopes(manifest);
  requireImportable(manifest, (path) => path);
  await bundle.verify(options);
  return await bring(store, bundle, { ...options, root: "", exact });
}

export function isBackup({ root }: Manifest): boolean {
  return root.package_type === BACKUP_TYPE && parseRoot(root.uri) === "";
}

function parseRoot(uri: string): string {
  try {
    return parseUri(uri);
  } catch {
    throw damaged(`the manifest's root ${JSON.stringify(uri.slice(0, 200))} is not a path of a context store`, {
      field: "root.uri",
      actual: uri,
    });
  }
}

/** Path of a bundle's root in the store: below the parent, with its own name. */
function importRoot(manifest: Manifest, parent: string): string {
  const { name, uri } = manifest.root;
  if (isBackup(manifest))
    throw new CairnError("usage", "the bundle is a backup of a whole store", {
      hint: advice`restore it with: ${line("bundle restore FILE", "restoreContext", word("store"), word("file"))}`,
      details: { root: name, parent: toUri(parent) },
    });
  const source = parseRoot(uri);
  if (source === "" || nameOf(source) !== name)
    throw damaged(`the bundle's root is named ${name}, but its URI is ${uri}`, {
      field: "root.name",
      expected: nameOf(source),
      actual: name,
    });
  const isWholeScope = isScope(source);
  if (isWholeScope !== (parent === ""))
    throw new CairnError(
      "usage",
      isWholeScope
        ? `a bundle of all of ${uri} must be imported to viking://`
        : `${uri} must be imported below a path of its scope, not to viking://`,
      {
        hint: isWholeScope
          ? "give viking:// as the parent"
          : `for example ${toUri(source.slice(0, source.lastIndexOf("/")))}`,
        details: { root: name, parent: toUri(parent) },
      },
    );
  requireOwn(manifest, source);
  const target = joined(parent, name);
  requireCompatible(source, target);
  return target;
}

/** Requires that scope and users in the manifest match the paths. */
function requireOwn({ root, value }: Manifest, source: string): void {
  const scope = source === "" ? "root" : scopeOf(source);
  if (root.scope !== scope)
    throw damaged(`the bundle of ${root.uri} names another scope, ${root.scope}`, {
      field: "root.scope",
      expected: scope,
      actual: root.scope,
    });
  const require = (user: unknown, path: string, isDirectory: boolean, field: string): void => {
    const owner = ownerOf(joined(source, path), isDirectory);
    if (user !== undefined && user !== null && user !== owner)
      throw damaged(`${field} is not the user that owns the path`, { path, field, expected: owner, actual: user });
  };
  require(root.user_id, "", true, "root.user_id");
  for (const [index, { path, kind, user_id: user }] of (value["entries"] as Record<string, unknown>[]).entries())
    require(user, path as string, kind === "directory", `entries[${index}].user_id`);
}

/** Requires that a backup's list of scopes matches its entries. */
function requireScopes({ scopes, files, directories }: Manifest): void {
  const first = new Set([...files, ...directories].flatMap(({ path }) => (path === "" ? [] : [scopeOf(path)])));
  const unknown = [...first].filter((name) => !isScope(name));
  if (unknown.length > 0)
    throw damaged(`the backup has roots that are not scopes: ${unknown.join(", ")}`, { roots: unknown });
  const had = [...first].filter((name) => directories.some(({ path }) => path === name));
  const isSame = scopes.length === had.length && new Set(scopes).size === scopes.length && had.length === first.size;
  if (!isSame || had.some((name) => !scopes.includes(name)))
    throw damaged("the backup's scopes differ from the scopes that its manifest lists", {
      field: "scopes",
      expected: scopes,
      actual: [...first],
    });
}

/** Refuses control files, which a store makes for itself. */
function requireImportable({ files, directories }: Manifest, target: (path: string) => string): void {
  for (const { path, kind } of [...files, ...directories]) {
    const place = target(path);
    if (place === "") continue;
    if (kind === "directory" && (nameOf(path) === ABSTRACT || nameOf(path) === OVERVIEW))
      throw damaged(`${path} is a directory, but its name is reserved for a file`, { path });
    if (isControlName(place)) throw damaged(`${path} is a control file, which a bundle must not contain`, { path });
    // A valid path of the bundle may be too long or deep below its parent.
    parseUri(toUri(place));
  }
}

interface Bring extends ImportOptions {
  /** Path in the store for the bundle's root. */
  root: string;
  /** True: an existing place is replaced as a whole; false: the bundle's entries are written into it. */
  exact: boolean;
}

async function bring(store: ContextStore, bundle: Bundle, options: Bring): Promise<Imported> {
  const { root, exact, onConflict = "fail", dryRun = false } = options;
  const { files, directories, paths } = chosenEntries(bundle, options.paths);
  const chosen = paths?.map((path) => joined(root, path));
  // Places whose existing entries may conflict.
  const roots = chosen ?? (root === "" ? bundle.manifest.scopes : [root]);
  const isReplacing = exact || chosen !== undefined;
  const vectors = vectorsOf(store, bundle, options);
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  const facts = {
    uri: toUri(chosen?.length === 1 ? chosen[0]! : root),
    files: files.length,
    directories: directories.length,
    bytes,
    vectors,
    is_merged: !isReplacing,
  };
  const run = async (write: (roots: string[]) => Promise<void>): Promise<Imported> => {
    const there = roots.filter((path) => isTaken(store, path));
    const replaced = there.map(toUri);
    if (there.length > 0 && onConflict === "skip")
      return { ...facts, files: 0, directories: 0, bytes: 0, skipped: true, replaced: [] };
    if (there.length > 0 && onConflict === "fail")
      throw new CairnError("already_exists", `${replaced[0]!} already exists`, {
        hint: advice`to replace it with the bundle: ${option({ onConflict: "overwrite" })}`,
        details: { resource: replaced[0]!, resources: replaced },
      });
    await write(there);
    return { ...facts, skipped: false, replaced };
  };
  if (dryRun) return await run(async () => undefined);
  return await store.writing(async (changes) => {
    return await run(async (there) => {
      changes.begin();
      try {
        await unpack(bundle, {
          files,
          directories,
          output: new FolderOutput(changes.staged(root), 0o777),
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        });
        if (vectors === "bundle") await stageVectors(changes, bundle.dense());
        await stageRecords(changes, rowsOf(bundle, { root, files, directories, isCarried: vectors === "bundle" }));
      } catch (error) {
        changes.discard();
        throw error;
      }
      const clashes = clashing(store, { root, files, directories });
      const replaced = isReplacing ? [...new Set([...there, ...clashes])] : clashes;
      await store.commit({ replaced, has_records: true });
    });
  }, options);
}

/** Places with a file instead of a directory, or the reverse. */
function clashing(
  store: ContextStore,
  { root, files, directories }: Pick<Manifest, "files" | "directories"> & { root: string },
): string[] {
  const isOther = (path: string, isDirectory: boolean): boolean => {
    const there = factsAt(join(store.folder, path));
    return there !== undefined && (isDirectory ? !there.isDirectory() : !there.isFile());
  };
  const places = [
    ...files.map(({ path }) => ({ path: joined(root, path), isDirectory: false })),
    ...directories.map(({ path }) => ({ path: joined(root, path), isDirectory: true })),
  ];
  // A place below such a file does not exist, so it is not listed.
  return places.flatMap(({ path, isDirectory }) => (path !== "" && isOther(path, isDirectory) ? [path] : []));
}

/** An empty directory is no conflict. Throws `conflict` if a parent is a file. */
function isTaken(store: ContextStore, path: string): boolean {
  const place = store.placeOf(path);
  const facts = factsAt(place);
  return facts !== undefined && (!facts.isDirectory() || readdirSync(place).length > 0);
}

/**
 * Uses a bundle's vectors if they were made with this store's settings. Throws `usage` if they are required and do not
 * fit, `unsupported` if they must be made anew and the store lacks its model.
 */
function vectorsOf(
  store: ContextStore,
  { manifest }: Bundle,
  { root, vectorMode = "auto" }: Bring,
): Imported["vectors"] {
  if (store.embedding.provider === "none" && vectorMode !== "require") return "none";
  if (root !== "" && isSession(root)) return "none";
  if (vectorMode === "recompute" && store.lacksModel) throw modelMissing("making the vectors of the bundle anew");
  if (vectorMode === "recompute") return "model";
  const why = whyNotCarried(store, manifest);
  // OpenViking 0.3 leaves some vectors out; these are made anew, unless all are required.
  const isWhole = manifest.dense?.count === manifest.records?.count;
  if (why === null && (isWhole || vectorMode === "auto")) return "bundle";
  if (vectorMode === "auto") return store.lacksModel ? "none" : "model";
  throw new CairnError("usage", `the vectors of the bundle cannot be used: ${why ?? "some are missing"}`, {
    hint: advice`to make new vectors: ${option({ vectorMode: "auto" })}`,
    details: { field: "vector_mode", reason: why ?? "some are missing" },
  });
}

function whyNotCarried({ embedding }: ContextStore, { dense, value }: Manifest): string | null {
  if (dense === null) return "the bundle has none";
  if (embedding.provider === "none") return "the store has no vectors";
  if (dense.dimensions !== embedding.dimensions) return "they have another number of dimensions";
  const index = value["index"] as { dense?: { embedding?: unknown } };
  const made = index.dense?.embedding;
  if (!isObject(made)) return "the bundle does not say which model made them";
  const own: Record<string, unknown> = embeddingFacts(embedding);
  // Vectors of texts do not depend on whether a model also accepts images (`input`).
  const fields = ["provider", "model", "query_param", "document_param", "dimensions"];
  const other = fields.find((field) => (made[field] ?? null) !== (own[field] ?? null));
  return other === undefined ? null : `they were made with another ${other}`;
}

/** Rows of the index for entries of a bundle: first from its records, then a row for each file without a record. */
async function* rowsOf(
  bundle: Bundle,
  {
    root,
    files,
    directories,
    isCarried,
  }: Pick<Manifest, "files" | "directories"> & { root: string; isCarried: boolean },
): AsyncGenerator<StagedRow> {
  const levels = new Map(
    files.flatMap(({ path }) => {
      const level = levelOf(joined(root, path));
      return level === null ? [] : [[levelKey(level), level] as const];
    }),
  );
  const wanted = new Set(directories.map(({ path }) => path));
  for await (const record of bundle.records()) {
    const path = joined(root, record.path);
    const key = levelKey({ path, level: record.level });
    const hasFile = levels.has(key);
    const isOfDirectory = record.kind === "directory" && record.level < 2 && wanted.has(record.path);
    if (path === "" || isSession(path) || !(hasFile || isOfDirectory)) continue;
    levels.delete(key);
    // The file of a level has the text itself.
    const text = hasFile || typeof record.text !== "string" || record.text === "" ? {} : { text: record.text };
    yield {
      ...toldBy(record, path),
      ...text,
      ...(isCarried && record.vector ? { vectorAt: record.vector.dense } : {}),
    };
  }
  for (const level of levels.values()) yield rowOf(level);
}

function toldBy({ level, kind, scalars }: IndexRecord, path: string): StagedRow {
  const told = (name: string): { [key: string]: string } => {
    const value = scalars?.[name];
    return typeof value === "string" && value !== "" ? { [name]: value } : {};
  };
  return {
    path,
    level,
    isDirectory: kind === "directory",
    contextType: contextTypeOf(path),
    name: nameOf(path),
    ...told("name"),
    ...told("type"),
    ...told("description"),
    ...told("tags"),
    ...told("abstract"),
  };
}
