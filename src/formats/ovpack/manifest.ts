import { CairnError, damaged } from "../../errors.ts";
import { type JsonObject, parseJson } from "../fields.ts";
import { checkMemberPath, isSha256 } from "./member-path.ts";

/** The manifest of a bundle in its three layouts: docs/formats/ovpack.md. */

/** The place of the manifest tells A from B and C, the version B from C. */
export type Layout = "A" | "B" | "C";

export const KIND = "openviking.ovpack";
/** Path of the manifest below the bundle's root, by layout. */
export const MANIFEST_A = "_._ovpack_manifest.json";
export const MANIFEST_BC = "_ovpack/manifest.json";
export const RECORDS = "_ovpack/index_records.jsonl";
export const DENSE = "_ovpack/dense.f32";
export const VERSIONS: Readonly<Record<Layout, number>> = { A: 2, B: 2, C: 3 };
/** Scopes that OpenViking dropped with 0.4, which reads only layout C. */
export const OLD_SCOPES: ReadonlySet<string> = new Set(["agent", "session"]);
export const MAX_MANIFEST_BYTES = 256 << 20;

export interface FileEntry {
  kind: "file";
  path: string;
  size: number;
  sha256: string;
}

export interface DirectoryEntry {
  kind: "directory";
  /** Empty: the root. */
  path: string;
}

/** A file inside a bundle that is not content. */
export interface IndexFile {
  count: number;
  sha256: string;
}

export interface Manifest {
  layout: Layout;
  root: { name: string; uri: string; scope: string; package_type?: string; user_id?: string };
  /** Scopes of a backup; empty for other bundles. */
  scopes: string[];
  files: FileEntry[];
  directories: DirectoryEntry[];
  content_sha256: string;
  /** Layouts B and C. */
  records: IndexFile | null;
  dense: (IndexFile & { dimensions: number }) | null;
  /** The parsed file, including members that this program does not know. */
  value: JsonObject;
}

/**
 * Decodes a manifest from the place of layout A, or of B and C. Throws `damaged` with the field, `newer_version`, or
 * `unsupported` for version 1.
 */
export function decodeManifest(bytes: Uint8Array, where: "A" | "BC"): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw damaged("the manifest is too large", { actual: bytes.length });
  const value = parseJson(bytes, "the manifest");
  if (!isObject(value)) throw damaged("the manifest is not an object");
  if (value["kind"] !== KIND) throw wrong("kind", KIND, value["kind"]);
  const layout = layoutOf(value["format_version"], where);
  const root = rootOf(value["root"]);
  const { files, directories } = entriesOf(value["entries"]);
  const content = value["content_sha256"];
  if (!isSha256(content)) throw wrong("content_sha256", "64 hex digits", content);
  const index = isObject(value["index"]) ? value["index"] : null;
  if (layout !== "A" && index === null) throw wrong("index", "an object", value["index"]);
  const scopes = value["scopes"] ?? [];
  if (!Array.isArray(scopes) || scopes.some((each) => typeof each !== "string"))
    throw wrong("scopes", "a list of texts", scopes);
  return {
    layout,
    root,
    scopes: scopes as string[],
    files,
    directories,
    content_sha256: content.toLowerCase(),
    records: layout === "A" ? null : indexFile(index!["records"], "index.records", RECORDS),
    dense: layout === "A" || (index!["dense"] ?? null) === null ? null : denseOf(index!["dense"]),
    value,
  };
}

function layoutOf(version: unknown, where: "A" | "BC"): Layout {
  if (!Number.isInteger(version) || (version as number) < 1) throw wrong("format_version", "a whole number", version);
  if (version === 1)
    throw new CairnError("unsupported", "the bundle has format version 1, which cannot be verified", {
      hint: "export it again with a newer program, on a machine that you trust",
      details: { field: "format_version", actual: 1 },
    });
  if (where === "A" && version === VERSIONS.A) return "A";
  if (where === "BC" && version === VERSIONS.B) return "B";
  if (where === "BC" && version === VERSIONS.C) return "C";
  throw new CairnError(
    "newer_version",
    `the bundle has format version ${String(version)}; this program knows 2 and 3`,
    {
      hint: "a newer program wrote the bundle: read it with a Cairn that knows its version, or write it again in version 3",
      details: { field: "format_version", actual: version },
    },
  );
}

function rootOf(value: unknown): Manifest["root"] {
  if (!isObject(value)) throw wrong("root", "an object", value);
  for (const field of ["name", "uri", "scope"] as const)
    if (typeof value[field] !== "string" || (field !== "scope" && value[field] === ""))
      throw wrong(`root.${field}`, "a text", value[field]);
  const { name } = value as { name: string };
  if (name.includes("/")) throw wrong("root.name", "one name", name);
  return value as unknown as Manifest["root"];
}

function entriesOf(value: unknown): Pick<Manifest, "files" | "directories"> {
  if (!Array.isArray(value)) throw wrong("entries", "a list", value);
  const files: FileEntry[] = [];
  const directories: DirectoryEntry[] = [];
  const seen = new Set<string>();
  for (const [index, entry] of (value as unknown[]).entries()) {
    const at = { index, field: `entries[${index}]` };
    if (!isObject(entry)) throw damaged(`entries[${index}] is not an object`, at);
    const { path, kind, size, sha256 } = entry;
    if (typeof path !== "string") throw damaged(`entries[${index}] has no path`, at);
    if (path !== "") checkMemberPath(path, { ...at, path });
    if (seen.has(path)) throw damaged(`${path} is listed twice`, { ...at, path });
    seen.add(path);
    if (kind === "directory") directories.push({ kind, path });
    else if (kind !== "file" || path === "")
      throw damaged(`entries[${index}] is neither a file nor a directory`, { ...at, path });
    else if (!Number.isSafeInteger(size) || (size as number) < 0) throw damaged(`${path} has no size`, { ...at, path });
    else if (!isSha256(sha256)) throw damaged(`${path} has no hash`, { ...at, path });
    else files.push({ kind, path, size: size as number, sha256: sha256.toLowerCase() });
  }
  if (!seen.has("")) throw damaged("the root is not listed", { field: "entries" });
  const listed = new Set(directories.map(({ path }) => path));
  for (const { path } of [...files, ...directories]) {
    const above = path.slice(0, Math.max(path.lastIndexOf("/"), 0));
    if (!listed.has(above))
      throw damaged(`${path} is listed, but its directory ${above} is not`, { path, field: "entries" });
  }
  return { files, directories };
}

function indexFile(value: unknown, field: string, place: string): IndexFile {
  if (!isObject(value)) throw wrong(field, "an object", value);
  const { path, count, sha256 } = value;
  if (path !== place) throw wrong(`${field}.path`, place, path);
  if (!Number.isSafeInteger(count) || (count as number) < 0) throw wrong(`${field}.count`, "a whole number", count);
  if (!isSha256(sha256)) throw wrong(`${field}.sha256`, "64 hex digits", sha256);
  return { count: count as number, sha256: sha256.toLowerCase() };
}

function denseOf(value: unknown): IndexFile & { dimensions: number } {
  const file = indexFile(value, "index.dense", DENSE);
  const { dimensions, dtype, byte_order: order } = value as JsonObject;
  if (!Number.isSafeInteger(dimensions) || (dimensions as number) < 1 || (dimensions as number) > 1 << 20)
    throw wrong("index.dense.dimensions", "a whole number", dimensions);
  if (dtype !== "float32") throw wrong("index.dense.dtype", "float32", dtype);
  if (order !== "little") throw wrong("index.dense.byte_order", "little", order);
  return { ...file, dimensions: dimensions as number };
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wrong(field: string, expected: string, actual: unknown): CairnError {
  return damaged(`the manifest's ${field} must be ${expected}`, { field, expected, actual: actual ?? null });
}

/** Orders paths by code points, like UTF-8; UTF-16 orders characters beyond U+FFFF differently. */
export function byCodePoint(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
