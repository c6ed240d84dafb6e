import { readdirSync } from "node:fs";
import { join } from "node:path";
import type { Bundle, BundleCall } from "../bundle/bundle.ts";
import { unpack } from "../bundle/extract.ts";
import { CairnError } from "../errors.ts";
import { badBundle, isObject, type Manifest } from "../formats/ovpack/manifest.ts";
import type { IndexRecord } from "../formats/ovpack/records.ts";
import { embeddingFacts } from "./embedding.ts";
import { type StagedRow, stageRecords, stageVectors } from "./staged-records.ts";
import type { ContextStore } from "./store.ts";
import { factsAt, levelOf } from "./tree.ts";
import {
  isControlName,
  isSession,
  isWithin,
  joined,
  nameOf,
  parseUri,
  requireCompatible,
  SCOPES,
  toUri,
} from "./uri.ts";

export type OnConflict = "fail" | "overwrite" | "skip";
export type VectorMode = "auto" | "recompute" | "require";

export interface ImportOptions extends BundleCall {
  onConflict?: OnConflict | undefined;
  vectorMode?: VectorMode | undefined;
  /** Only these paths of the bundle, and what lies below them. */
  paths?: readonly string[] | undefined;
  /** Says what would be done, once all of it was checked. */
  dryRun?: boolean | undefined;
}

export interface Imported {
  uri: string;
  /** Something was there, and `skip` was asked for. */
  skipped: boolean;
  files: number;
  directories: number;
  bytes: number;
  /** Maker of its vectors. */
  vectors: "bundle" | "model" | "none";
  /** Places that were there, and are replaced or written into. */
  replaced: string[];
}

export const BACKUP_NAME = "openviking-backup";
export const BACKUP_TYPE = "backup";

/** Brings the subtree of a bundle below a place. All of the bundle is checked before anything is written. */
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

/** Brings back all scopes of a backup; what only the store has stays, unless `exact`. */
export async function restoreBackup(
  store: ContextStore,
  bundle: Bundle,
  { exact = false, ...options }: ImportOptions & { exact?: boolean | undefined },
): Promise<Imported> {
  const { manifest } = bundle;
  if (!isBackup(manifest))
    throw new CairnError("usage", `the bundle is of ${manifest.root.uri}, and no backup`, {
      hint: "bring it in with: cairn bundle import FILE PARENT",
      details: { root: manifest.root.name },
    });
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
    throw badBundle(`the manifest's root ${JSON.stringify(uri.slice(0, 200))} is no place of a context store`, {
      field: "root.uri",
      actual: uri,
    });
  }
}

/** Path of a bundle's root in the store: below the parent, by its own name. */
function importRoot(manifest: Manifest, parent: string): string {
  const { name, uri } = manifest.root;
  if (isBackup(manifest))
    throw new CairnError("usage", "the bundle is a backup of a whole store", {
      hint: "bring it back with: cairn bundle restore FILE",
      details: { root: name, parent: toUri(parent) },
    });
  const source = parseRoot(uri);
  if (source === "" || nameOf(source) !== name)
    throw badBundle(`the bundle's root is ${name}, and it is of ${uri}`, {
      field: "root.name",
      expected: nameOf(source),
      actual: name,
    });
  const isScope = SCOPES.includes(source as (typeof SCOPES)[number]);
  if (isScope !== (parent === ""))
    throw new CairnError(
      "usage",
      isScope
        ? `a bundle of the whole of ${uri} goes to viking://`
        : `${uri} goes below a place of its scope, not to viking://`,
      {
        hint: isScope
          ? "give viking:// as the parent"
          : `for example ${toUri(source.slice(0, source.lastIndexOf("/")))}`,
        details: { root: name, parent: toUri(parent) },
      },
    );
  const target = joined(parent, name);
  requireCompatible(source, target);
  return target;
}

/** The scopes that a backup says it has, and those that it has, are the same. */
function requireScopes({ scopes, files, directories }: Manifest): void {
  const first = new Set(
    [...files, ...directories].flatMap(({ path }) => (path === "" ? [] : [path.split("/", 1)[0]!])),
  );
  const unknown = [...first].filter((name) => !SCOPES.includes(name as (typeof SCOPES)[number]));
  if (unknown.length > 0)
    throw badBundle(`the backup has roots that are no scopes: ${unknown.join(", ")}`, { roots: unknown });
  const had = [...first].filter((name) => directories.some(({ path }) => path === name));
  const isSame = scopes.length === had.length && new Set(scopes).size === scopes.length && had.length === first.size;
  if (!isSame || had.some((name) => !scopes.includes(name)))
    throw badBundle("the backup does not have the scopes that it says", {
      field: "scopes",
      expected: scopes,
      actual: [...first],
    });
}

/** Control files are made by a store for itself. */
function requireImportable({ files, directories }: Manifest, target: (path: string) => string): void {
  for (const { path } of [...files, ...directories]) {
    const place = target(path);
    if (place === "") continue;
    if (isControlName(place)) throw badBundle(`${path} is a control file, which no bundle brings`, { path });
    // A path within bounds in the bundle may be beyond them below its parent.
    parseUri(toUri(place));
  }
}

interface Bring extends ImportOptions {
  /** Path of the store that the bundle's root becomes. */
  root: string;
  /** True: a place that is there goes whole; false: what comes is written into it. */
  exact: boolean;
}

async function bring(store: ContextStore, bundle: Bundle, options: Bring): Promise<Imported> {
  const { root, paths, onConflict = "fail", dryRun = false } = options;
  const { files, directories } = chosen(bundle, paths);
  const vectors = vectorsOf(store, bundle, options);
  const bytes = files.reduce((sum, { size }) => sum + size, 0);
  const facts = { uri: toUri(root), files: files.length, directories: directories.length, bytes, vectors };
  const run = async (write: (roots: string[]) => Promise<void>): Promise<Imported> => {
    const there = rootsOf(bundle, options).filter((path) => isTaken(store, path));
    const replaced = there.map(toUri);
    if (there.length > 0 && onConflict === "skip")
      return { ...facts, files: 0, directories: 0, bytes: 0, skipped: true, replaced: [] };
    if (there.length > 0 && onConflict === "fail")
      throw new CairnError("already_exists", `${replaced[0]!} is there`, {
        hint: "to put the bundle in its place: --on-conflict overwrite",
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
        const place = (path: string): string => changes.staged(joined(root, path));
        await unpack(bundle, {
          files,
          directories,
          place,
          ...(options.signal === undefined ? {} : { signal: options.signal }),
        });
        if (vectors === "bundle") await stageVectors(changes, bundle.dense());
        stageRecords(changes, await rowsOf(bundle, { root, files, directories, isCarried: vectors === "bundle" }));
      } catch (error) {
        changes.discard();
        throw error;
      }
      const isReplaced = options.exact || paths !== undefined;
      const replaced = isReplaced ? there : clashing(store, { root, files, directories });
      await store.commit(changes, { replaced, hasRecords: true });
    });
  }, options);
}

/** Places at which something may be in the way. */
function rootsOf(bundle: Bundle, { root, paths }: Bring): string[] {
  if (paths !== undefined) return paths.map((path) => joined(root, path));
  return root === "" ? bundle.manifest.scopes : [root];
}

/** Places that are a file where a directory comes, or the other way round. */
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
  return places.flatMap(({ path, isDirectory }) => (path !== "" && isOther(path, isDirectory) ? [path] : []));
}

/** An empty directory is in nobody's way. Throws `conflict` for a parent that is a file. */
function isTaken(store: ContextStore, path: string): boolean {
  const place = store.placeOf(path);
  const facts = factsAt(place);
  return facts !== undefined && (!facts.isDirectory() || readdirSync(place).length > 0);
}

/** Entries at or below some paths, and the directories that they lie in; all without any. Throws `not_found`. */
function chosen({ manifest }: Bundle, paths: readonly string[] | undefined): Pick<Manifest, "files" | "directories"> {
  const { files, directories } = manifest;
  if (paths === undefined) return { files, directories };
  for (const path of paths)
    if (![...files, ...directories].some((each) => each.path === path))
      throw new CairnError("not_found", `there is no ${path} in the bundle`, {
        hint: "`cairn bundle inspect` lists what is in it",
        details: { path },
      });
  const isIn = (path: string): boolean => paths.some((each) => isWithin(path, each));
  const isAbove = (path: string): boolean => paths.some((each) => isWithin(each, path));
  return {
    files: files.filter(({ path }) => isIn(path)),
    directories: directories.filter(({ path }) => isIn(path) || isAbove(path)),
  };
}

/** Vectors of a bundle are used where they were made as this store makes its own. Throws `usage` where they are required and do not fit. */
function vectorsOf(
  store: ContextStore,
  { manifest }: Bundle,
  { root, vectorMode = "auto" }: Bring,
): Imported["vectors"] {
  if (store.embedding.provider === "none" && vectorMode !== "require") return "none";
  if (root !== "" && isSession(root)) return "none";
  if (vectorMode === "recompute") return "model";
  const why = whyNotCarried(store, manifest);
  // OpenViking 0.3 leaves some out; they are made anew, unless all are required.
  const isWhole = manifest.dense?.count === manifest.records?.count;
  if (why === null && (isWhole || vectorMode === "auto")) return "bundle";
  if (vectorMode === "auto") return "model";
  throw new CairnError("usage", `the vectors of the bundle cannot be used: ${why ?? "some are missing"}`, {
    hint: "to have them made anew: --vector-mode auto",
    details: { field: "vector_mode", reason: why ?? "some are missing" },
  });
}

function whyNotCarried({ embedding }: ContextStore, { dense, value }: Manifest): string | null {
  if (dense === null) return "it has none";
  if (embedding.provider === "none") return "the store has no vectors";
  const index = value["index"] as { dense?: { embedding?: unknown } };
  const made = index.dense?.embedding;
  if (!isObject(made)) return "it does not say what made them";
  const own: Record<string, unknown> = embeddingFacts(embedding);
  const fields = ["provider", "model", "input", "query_param", "document_param", "dimensions"];
  const other = fields.find((field) => (made[field] ?? null) !== (own[field] ?? null));
  return other === undefined ? null : `another ${other} made them`;
}

/** Rows of the index for entries of a bundle: what its records tell, and a row for each file that has none. */
async function rowsOf(
  bundle: Bundle,
  {
    root,
    files,
    directories,
    isCarried,
  }: Pick<Manifest, "files" | "directories"> & { root: string; isCarried: boolean },
): Promise<StagedRow[]> {
  const wanted = new Set([...files, ...directories].map(({ path }) => path));
  const rows = new Map<string, StagedRow>();
  for (const { path } of files) {
    const level = levelOf(joined(root, path));
    if (level !== null) rows.set(`${level.level} ${level.path}`, rowOf(level));
  }
  for await (const record of bundle.records()) {
    const path = joined(root, record.path);
    if (!wanted.has(record.path) || path === "" || isSession(path) || !path.includes("/")) continue;
    const key = `${record.level} ${path}`;
    const isDirectory = record.kind === "directory";
    // A file has its content alone, and a hidden one is not indexed.
    if (isDirectory ? record.level > 1 : !rows.has(key)) continue;
    rows.set(key, {
      ...toldBy(record, path),
      ...(isCarried && record.vector ? { vectorAt: record.vector.dense } : {}),
    });
  }
  return [...rows.values()];
}

function rowOf({ path, level, isDirectory, contextType, name }: NonNullable<ReturnType<typeof levelOf>>): StagedRow {
  return { path, level, isDirectory, contextType, name };
}

function toldBy({ level, kind, text, scalars }: IndexRecord, path: string): StagedRow {
  const told = (name: string): { [key: string]: string } => {
    const value = scalars?.[name];
    return typeof value === "string" && value !== "" ? { [name]: value } : {};
  };
  const own = levelOf(kind === "directory" ? joined(path, level === 0 ? ".abstract.md" : ".overview.md") : path)!;
  return {
    ...rowOf({ ...own, level }),
    ...told("name"),
    ...told("type"),
    ...told("description"),
    ...told("tags"),
    ...told("abstract"),
    ...(typeof text === "string" && text !== "" ? { text } : {}),
  };
}
