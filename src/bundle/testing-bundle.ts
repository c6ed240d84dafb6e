import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";
import yazl from "yazl";
import {
  byCodePoint,
  DENSE,
  type FileEntry,
  KIND,
  type Layout,
  MANIFEST_A,
  MANIFEST_BC,
  RECORDS,
  VERSIONS,
} from "../formats/ovpack/manifest.ts";
import { contentHash } from "./bundle.ts";
import { toLayoutA } from "../formats/ovpack/member-path.ts";

/** Bundles as other programs write them; a test may spoil any part. Test only. */

export interface Parts {
  name: string;
  /** Content by path; null: a directory. */
  content: Record<string, string | null>;
  records?: object[];
  vectors?: number[][];
}

export interface Made {
  /** Members of the zip in their order, with their content. */
  members: Map<string, Buffer | null>;
  manifest: Record<string, unknown>;
  manifestPath: string;
}

const sha256 = (bytes: Buffer | string): string => createHash("sha256").update(bytes).digest("hex");
const TIME = new Date("2026-01-01T00:00:00Z");

/** The parts of a bundle, before they are a zip. */
export function makeParts(layout: Layout, { name, content, records = [], vectors = [] }: Parts): Made {
  const members = new Map<string, Buffer | null>([[name, null]]);
  const isA = layout === "A";
  if (!isA) members.set(`${name}/files`, null).set(`${name}/_ovpack`, null);
  const files: FileEntry[] = [];
  const directories: { kind: "directory"; path: string; size?: number }[] = [{ kind: "directory", path: "" }];
  for (const [path, text] of Object.entries(content).toSorted(([a], [b]) => byCodePoint(a, b))) {
    members.set(isA ? `${name}/${toLayoutA(path)}` : `${name}/files/${path}`, text === null ? null : Buffer.from(text));
    if (text === null) directories.push({ kind: "directory", path, size: 0 });
    else files.push({ kind: "file", path, size: Buffer.byteLength(text), sha256: sha256(text) });
  }
  const manifest: Record<string, unknown> = {
    kind: KIND,
    format_version: VERSIONS[layout],
    root: { name, uri: `viking://resources/${name}`, scope: "resources" },
    entries: [...directories, ...files],
    content_sha256: contentHash(files),
  };
  if (!isA) {
    const lines = Buffer.from(records.map((each) => `${JSON.stringify(each)}\n`).join(""));
    const dense = Buffer.from(new Float32Array(vectors.flat()).buffer);
    members.set(`${name}/${RECORDS}`, lines);
    const index: Record<string, unknown> = { records: { path: RECORDS, count: records.length, sha256: sha256(lines) } };
    if (vectors.length > 0) {
      members.set(`${name}/${DENSE}`, dense);
      index["dense"] = {
        path: DENSE,
        count: vectors.length,
        dtype: "float32",
        byte_order: "little",
        dimensions: vectors[0]!.length,
        sha256: sha256(dense),
        embedding: {},
      };
    }
    manifest["index"] = index;
  }
  return { members, manifest, manifestPath: `${name}/${isA ? MANIFEST_A : MANIFEST_BC}` };
}

export async function writeZip(file: string, { members, manifest, manifestPath }: Made): Promise<void> {
  const zip = new yazl.ZipFile();
  for (const [path, bytes] of members)
    if (bytes === null) zip.addEmptyDirectory(path, { mtime: TIME });
    else zip.addBuffer(bytes, path, { mtime: TIME });
  zip.addBuffer(Buffer.from(JSON.stringify(manifest, null, 2)), manifestPath, { mtime: TIME });
  zip.end();
  await pipeline(zip.outputStream, createWriteStream(file));
}

/** All items as a list. */
export async function listOf<T>(all: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const each of all) list.push(each);
  return list;
}
