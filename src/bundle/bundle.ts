import { createHash, type Hash } from "node:crypto";
import { buffer } from "node:stream/consumers";
import { damaged, throwIfAborted } from "../errors.ts";
import { newPacer } from "../pacer.ts";
import {
  byCodePoint,
  decodeManifest,
  DENSE,
  type FileEntry,
  type Manifest,
  MANIFEST_A,
  MANIFEST_BC,
  MAX_MANIFEST_BYTES,
  RECORDS,
} from "../formats/ovpack/manifest.ts";
import { fromLayoutA } from "../formats/ovpack/member-path.ts";
import { checkRecord, decodeRecord, type IndexRecord, inlineRecords } from "../formats/ovpack/records.ts";
import { type Member, ZipFile } from "./zip-file.ts";

/** Options of a check; `onBytes` gets the content bytes read so far. */
export interface BundleCall {
  signal?: AbortSignal | undefined;
  onBytes?: ((done: number) => void) | undefined;
}

/** Most paths of each kind that an error lists. */
const MOST_LISTED = 100;
const MAX_LINE = 16 << 20;
/** Bytes that a manifest may have for each member; in layout A it also has the records. */
const MANIFEST_BYTES = { A: 64 << 10, BC: 16 << 10 } as const;
const LEVELS = 3;

/** An open bundle. Its manifest was read and compared with the members of the zip; no content was read. */
export class Bundle implements AsyncDisposable {
  readonly manifest: Manifest;
  readonly #zip: ZipFile;
  /** Members of the content by their entries' paths. */
  readonly #content: ReadonlyMap<string, Member>;
  readonly #index: ReadonlyMap<string, Member>;

  private constructor(zip: ZipFile, manifest: Manifest, parts: Pick<Parts, "content" | "index">) {
    this.#zip = zip;
    this.manifest = manifest;
    this.#content = parts.content;
    this.#index = parts.index;
  }

  /** Throws `damaged` with the facts of the mismatch, `newer_version`, `unsupported`, `not_found`. */
  static async open(path: string): Promise<Bundle> {
    const zip = await ZipFile.open(path);
    try {
      const { where, root, member } = manifestOf(zip.members);
      const limit = Math.min(MAX_MANIFEST_BYTES, (1 << 20) + zip.members.length * MANIFEST_BYTES[where]);
      if (member.size > limit)
        throw damaged("the manifest is too large for so few members", { field: "manifest", actual: member.size });
      const manifest = decodeManifest(await buffer(zip.read(member)), where);
      if (manifest.root.name !== root)
        throw damaged(`the manifest names the root ${manifest.root.name}, but lies in ${root}`, {
          field: "root.name",
          expected: root,
          actual: manifest.root.name,
        });
      const parts = partsOf(zip.members, root, manifest);
      compare(manifest, parts);
      return new Bundle(zip, manifest, parts);
    } catch (error) {
      await zip[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The content of a file. Checks its length; the caller checks its hash. */
  read({ path }: FileEntry): AsyncIterable<Buffer> {
    return this.#zip.read(this.#content.get(path)!);
  }

  /** Index records in their order, each checked against the entries. Throws `damaged` with the line. */
  async *records(hash?: Hash): AsyncGenerator<IndexRecord> {
    const { layout, files, directories, value } = this.manifest;
    const kinds = new Map([...files, ...directories].map(({ path, kind }) => [path, kind]));
    if (layout === "A") return yield* inlineRecords(value["vectors"], kinds);
    let index = 0;
    for await (const line of linesOf(this.#zip.read(this.#index.get(RECORDS)!), hash)) {
      const at = { path: RECORDS, index, line: ++index };
      yield checkRecord(decodeRecord(line, at), { kinds, at });
    }
  }

  /** The bytes of all vectors, in the file's order; empty if there are no vectors. */
  dense(): AsyncIterable<Buffer> {
    const member = this.#index.get(DENSE);
    return member === undefined ? none() : this.#zip.read(member);
  }

  /** Reads the whole bundle and compares it with its manifest. Throws `damaged` at the first difference. */
  async verify({ signal, onBytes }: BundleCall = {}): Promise<{ files: number; bytes: number; records: number }> {
    const { files, content_sha256: expected, dense } = this.manifest;
    const actual = contentHash(files);
    if (actual !== expected)
      throw damaged("the hash over all files does not match", { field: "content_sha256", expected, actual });
    let bytes = 0;
    const pace = newPacer(signal);
    for (const file of files) {
      await pace();
      const found = await hashOf(this.read(file), signal);
      bytes += file.size;
      onBytes?.(bytes);
      if (found !== file.sha256)
        throw damaged(`${file.path} does not match its checksum`, {
          path: file.path,
          field: "sha256",
          expected: file.sha256,
          actual: found,
        });
    }
    const { count, vectors } = await this.#checkRecords(signal);
    if (dense !== null) await this.#checkDense(vectors, signal);
    return { files: files.length, bytes, records: count };
  }

  /** Number of records, and the offsets of their vectors, in floats. */
  async #checkRecords(
    signal: AbortSignal | undefined,
  ): Promise<{ count: number; vectors: { offset: number; dimensions: number }[] }> {
    const { records, dense } = this.manifest;
    const hash = createHash("sha256");
    const vectors: { offset: number; dimensions: number }[] = [];
    const ids = new Set<string>();
    const levels = new Set<string>();
    const { files, directories } = this.manifest;
    const most = (files.length + directories.length) * LEVELS;
    if (records !== null && records.count > most)
      throw damaged("there are more index records than the entries can have", {
        path: RECORDS,
        field: "index.records.count",
        actual: records.count,
      });
    for await (const { record_id: id, path, level, vector } of this.records(hash)) {
      throwIfAborted(signal);
      const at = { path: RECORDS, index: ids.size };
      if (levels.size >= most) throw damaged("there are more index records than the entries can have", at);
      if (levels.has(`${level} ${path}`)) throw damaged(`two index records are for level ${level} of ${path}`, at);
      levels.add(`${level} ${path}`);
      if (ids.has(id)) throw damaged(`two index records have the id ${id}`, { ...at, field: "record_id" });
      ids.add(id);
      if (vector !== undefined && vector !== null) vectors.push(vector.dense);
    }
    const count = ids.size;
    if (records !== null) {
      if (count !== records.count)
        throw damaged("there are not as many index records as the manifest says", {
          path: RECORDS,
          expected: records.count,
          actual: count,
        });
      const actual = hash.digest("hex");
      if (actual !== records.sha256)
        throw damaged("the index records do not match their checksum", {
          path: RECORDS,
          field: "sha256",
          expected: records.sha256,
          actual,
        });
    }
    if (vectors.length > 0 && dense === null)
      throw damaged("records name vectors, but the bundle has none", { field: "index.dense" });
    return { count, vectors };
  }

  async #checkDense(
    vectors: readonly { offset: number; dimensions: number }[],
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { count, dimensions, sha256 } = this.manifest.dense!;
    if (vectors.length !== count)
      throw damaged("there are not as many vectors as the manifest says", {
        path: DENSE,
        expected: count,
        actual: vectors.length,
      });
    const offsets = vectors.map(({ offset }) => offset).toSorted((a, b) => a - b);
    const wrong = vectors.find((each) => each.dimensions !== dimensions);
    if (wrong !== undefined)
      throw damaged("a vector has the wrong number of dimensions", {
        path: DENSE,
        field: "dimensions",
        expected: dimensions,
        actual: wrong.dimensions,
      });
    for (const [i, offset] of offsets.entries())
      if (offset !== i * dimensions)
        throw damaged("the vectors are not stored one after the other, or one is used twice", {
          path: DENSE,
          index: i,
          expected: i * dimensions,
          actual: offset,
        });
    const member = this.#index.get(DENSE)!;
    if (member.size !== count * dimensions * 4)
      throw damaged("the vectors have the wrong size", {
        path: DENSE,
        expected: count * dimensions * 4,
        actual: member.size,
      });
    const actual = await hashOf(this.#zip.read(member), signal);
    if (actual !== sha256)
      throw damaged("the vectors do not match their checksum", {
        path: DENSE,
        field: "sha256",
        expected: sha256,
        actual,
      });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#zip[Symbol.asyncDispose]();
  }
}

interface FoundManifest {
  where: "A" | "BC";
  root: string;
  member: Member;
}

/** Finds the one manifest and the layout, which the manifest's path shows. */
function manifestOf(members: readonly Member[]): FoundManifest {
  const found = members.flatMap((member): FoundManifest[] => {
    const slash = member.path.indexOf("/");
    const [root, below] = [member.path.slice(0, Math.max(slash, 0)), member.path.slice(slash + 1)];
    if (member.isDirectory || slash < 0) return [];
    if (below === MANIFEST_A) return [{ where: "A", root, member }];
    return below === MANIFEST_BC ? [{ where: "BC", root, member }] : [];
  });
  const [only, ...more] = found;
  if (only === undefined)
    throw damaged("there is no manifest: the file is not a bundle, or it is a bundle of format version 1", {
      field: "manifest",
    });
  if (more.length > 0) throw damaged("there is more than one manifest", { path: more[0]!.member.path });
  return only;
}

interface Parts {
  content: Map<string, Member>;
  directories: Set<string>;
  index: Map<string, Member>;
}

/** Sorts the members by kind. Throws `damaged` for a member outside of the root or the layout. */
function partsOf(members: readonly Member[], root: string, { layout }: Manifest): Parts {
  const parts: Parts = { content: new Map(), directories: new Set([""]), index: new Map() };
  for (const member of members) {
    const { path, isDirectory } = member;
    if (path !== root && !path.startsWith(`${root}/`)) throw damaged(`${path} lies beside the root ${root}`, { path });
    const below = path.slice(root.length + 1);
    if (below === "") {
      if (!isDirectory) throw damaged(`the root ${root} is a file`, { path });
      continue;
    }
    if (layout === "A") {
      if (below === MANIFEST_A) continue;
      add(parts, fromLayoutA(below), member);
    } else if (below === "_ovpack" || below.startsWith("_ovpack/")) {
      if (!isDirectory && ![MANIFEST_BC, RECORDS, DENSE].includes(below))
        throw damaged(`${path} does not belong in a bundle`, { path });
      if (!isDirectory) parts.index.set(below, member);
    } else if (below === "files" && isDirectory) continue;
    else if (below.startsWith("files/")) add(parts, below.slice("files/".length), member);
    else throw damaged(`${path} lies outside of the bundle's files`, { path });
  }
  return parts;
}

function add(parts: Parts, path: string, member: Member): void {
  if (parts.content.has(path) || parts.directories.has(path))
    throw damaged(`two members have the path ${path}`, { path });
  if (member.isDirectory) parts.directories.add(path);
  else parts.content.set(path, member);
}

/** Compares the manifest's entries with the members, both ways. */
function compare(manifest: Manifest, { content, directories, index }: Parts): void {
  const files = new Map(manifest.files.map((each) => [each.path, each]));
  const listed = new Set(manifest.directories.map(({ path }) => path));
  const lists = {
    missing_files: [...files.keys()].filter((path) => !content.has(path)),
    unexpected_files: [...content.keys()].filter((path) => !files.has(path)),
    missing_directories: [...listed].filter((path) => !directories.has(path)),
    unexpected_directories: [...directories].filter((path) => !listed.has(path)),
  };
  const differing = Object.entries(lists).filter(([, paths]) => paths.length > 0);
  if (differing.length > 0) {
    const details = Object.fromEntries(
      differing.map(([name, paths]) => [name, paths.toSorted().slice(0, MOST_LISTED)]),
    );
    throw damaged(
      `the manifest and the content of the zip differ: ${differing.map(([name, paths]) => `${name.replace("_", " ")} ${paths.length}`).join(", ")}`,
      details,
    );
  }
  for (const [path, { size }] of files) {
    const { size: actual } = content.get(path)!;
    if (actual !== size)
      throw damaged(`${path} has ${actual} bytes, but the manifest says ${size}`, {
        path,
        field: "size",
        expected: size,
        actual,
      });
  }
  for (const [place, wanted] of [
    [RECORDS, manifest.records],
    [DENSE, manifest.dense],
  ] as const) {
    if (wanted !== null && !index.has(place)) throw damaged(`${place} is missing`, { path: place });
    if (wanted === null && index.has(place))
      throw damaged(`${place} exists, but the manifest does not list it`, { path: place });
  }
}

async function hashOf(pieces: AsyncIterable<Buffer>, signal: AbortSignal | undefined): Promise<string> {
  const hash = createHash("sha256");
  for await (const piece of pieces) {
    throwIfAborted(signal);
    hash.update(piece);
  }
  return hash.digest("hex");
}

async function* none(): AsyncGenerator<Buffer> {}

/** Lines separated by line feeds only: other line separators belong to a record. */
async function* linesOf(pieces: AsyncIterable<Buffer>, hash: Hash | undefined): AsyncGenerator<Buffer> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const piece of pieces) {
    hash?.update(piece);
    rest = rest.length === 0 ? piece : Buffer.concat([rest, piece]);
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      yield rest.subarray(0, end);
      rest = rest.subarray(end + 1);
    }
    if (rest.length > MAX_LINE) throw damaged("an index record is too long", { path: RECORDS, actual: rest.length });
  }
  if (rest.length > 0) yield rest;
}

/** Hash of all content: of the sorted files' paths, hashes and sizes as compact JSON. */
export function contentHash(files: readonly FileEntry[]): string {
  const hash = createHash("sha256");
  const sorted = files.toSorted((a, b) => byCodePoint(a.path, b.path));
  hash.update("[");
  for (const [i, { path, sha256, size }] of sorted.entries())
    hash.update(`${i === 0 ? "" : ","}${JSON.stringify({ path, sha256, size })}`);
  return hash.update("]").digest("hex");
}
