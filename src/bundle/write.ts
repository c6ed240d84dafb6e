import { createHash } from "node:crypto";
import { closeSync, fsyncSync, openSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { advice, CairnError, call, type Hint, option, throwIfAborted, toCairnError, word } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import type { JsonObject } from "../formats/fields.ts";
import {
  byCodePoint,
  DENSE,
  type FileEntry,
  KIND,
  type Layout,
  MANIFEST_A,
  MANIFEST_BC,
  OLD_SCOPES,
  RECORDS,
  VERSIONS,
} from "../formats/ovpack/manifest.ts";
import { checkMemberPath, toLayoutA } from "../formats/ovpack/member-path.ts";
import type { ZipNode } from "../formats/payloads/zip.ts";
import { encodeRecord, type IndexRecord, sorted } from "../formats/ovpack/records.ts";
import { fsyncDirectory, giveFreeName, writeAll } from "../fs/durable.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { unfinishedBeside } from "../fs/work-directory.ts";
import { pack, type Packed, ZipOutput } from "../output/zip.ts";
import { Bundle, type BundleCall, contentHash } from "./bundle.ts";

/** An entry that is to be packed. */
export interface EntryToPack {
  /** Empty: the root, which every bundle has. */
  path: string;
  /** Absent: a directory. */
  file?: { size: number; read: () => AsyncIterable<Buffer> };
  /** Unknown members of its entry. */
  more?: JsonObject;
}

export interface Vectors {
  count: number;
  dimensions: number;
  /** Provider, model and settings that made the vectors. */
  embedding: JsonObject;
  read: () => AsyncIterable<Buffer>;
}

export interface BundleContent {
  layout: Layout;
  /** `root`, `scopes`, and other fields of the manifest. */
  manifest: JsonObject & { root: { name: string; scope?: string } };
  entries: readonly EntryToPack[];
  records: () => AsyncIterable<IndexRecord> | Iterable<IndexRecord>;
  vectors: Vectors | null;
}

/** Files of at most this many bytes are packed whole, several at once. */
const WHOLE = 4 << 20;
const AHEAD = 8;

/**
 * Makes a bundle. Steps: written below a temporary name beside the target; opened again and fully checked; the rename
 * is the commit. Throws `already_exists`, `unsupported` for content that the layout cannot hold, `no_space`.
 */
export async function writeBundle(
  to: string,
  content: BundleContent,
  call: BundleCall = {},
): Promise<{ content_sha256: string; files: number; bytes: number; records: number }> {
  requireSayable(content);
  const staged = unfinishedBeside(to);
  try {
    await write(staged, content, call);
    failpoint("bundle-write.staged");
    await using made = await Bundle.open(staged);
    const facts = await made.verify({ signal: call.signal });
    failpoint("bundle-write.verified");
    giveFreeName(staged, to);
    fsyncDirectory(dirname(to));
    return { content_sha256: made.manifest.content_sha256, ...facts };
  } catch (error) {
    rmSync(staged, { force: true });
    if ((error as NodeJS.ErrnoException).code === "EEXIST")
      throw new CairnError("already_exists", `${printablePath(to)} already exists`, {
        hint: "name a file that does not exist",
      });
    throw toCairnError(error, `write ${printablePath(to)}`);
  }
}

/**
 * Refuses, before anything is written, content that a layout cannot hold: A has no vectors and not every name; C has
 * two scopes, and OpenViking rejects a whole bundle with any other scope.
 */
function requireSayable({ layout, manifest: { root }, entries, vectors }: BundleContent): void {
  for (const { path } of entries) if (path !== "") checkMemberPath(path);
  const cannot = (what: string, details: Record<string, unknown>, hint: Hint): never => {
    throw new CairnError("unsupported", `layout ${layout} cannot hold ${what}`, { hint, details });
  };
  if (layout === "C") {
    const scopes = root.scope === "root" ? entries.map(({ path }) => path.split("/", 1)[0]!) : [root.scope ?? ""];
    const roots = [...new Set(scopes.filter((scope) => OLD_SCOPES.has(scope)))];
    if (roots.length > 0)
      cannot(
        `viking://${roots.join(", viking://")}: OpenViking 0.4 and 0.5 refuse these scopes`,
        { roots },
        advice`write layout B, for Cairn and OpenViking 0.3; for 0.4 and 0.5: ${call("bundle convert --layout C", "convertBundle", word("path"), word("to"), { layout: "C" })} with ${option("sessionsTo", "--sessions-to USER")} or ${option("leaveOut", "--exclude PATH")}`,
      );
  }
  if (layout !== "A") return;
  if (vectors !== null)
    cannot(
      "vectors",
      { field: "index.dense" },
      advice`leave them out (${option("withoutVectors")}), or write layout B or C`,
    );
  for (const { path } of entries) {
    if (path.split("/").some((name) => name.startsWith("_._")))
      cannot(`a name that begins with _._: ${path}`, { path }, "write layout B or C");
    if (toLayoutA(path) === MANIFEST_A)
      cannot(`a file with the name of its own manifest: ${path}`, { path }, "write layout B or C");
  }
}

async function write(staged: string, content: BundleContent, call: BundleCall): Promise<void> {
  const fd = openSync(staged, "wx", 0o644);
  try {
    const patch = (bytes: Uint8Array, at: number): void => writeAll(fd, bytes, at);
    await writeZip(new ZipOutput({ write: (bytes) => writeAll(fd, bytes), patch }), content, call);
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** All members have the same time and owner, so that equal content gives equal bytes. */
const FOLDER: ZipNode = { type: "dir", mode: 0o755, mtimeSec: 0, size: 0 };
const FILE: ZipNode = { type: "file", mode: 0o644, mtimeSec: 0, size: 0 };

async function addFolder(zip: ZipOutput, path: string): Promise<void> {
  await zip.next(Buffer.from(path), FOLDER)!.write();
}

async function writeZip(zip: ZipOutput, content: BundleContent, call: BundleCall): Promise<void> {
  const { layout, manifest: base, vectors } = content;
  const entries = content.entries.toSorted((a, b) => byCodePoint(a.path, b.path));
  const root = base.root.name;
  await addFolder(zip, root);
  const place = (path: string): string => (layout === "A" ? `${root}/${toLayoutA(path)}` : `${root}/files/${path}`);
  if (layout !== "A") {
    await addFolder(zip, `${root}/_ovpack`);
    await addFolder(zip, `${root}/files`);
  }
  const listed = await writeEntries(zip, { entries, place }, call);
  const manifest: JsonObject = {
    ...base,
    kind: KIND,
    format_version: VERSIONS[layout],
    entries: listed,
    content_sha256: contentHash(listed.filter((each): each is FileEntry => each.kind === "file")),
  };
  if (layout === "A") manifest["vectors"] = await inlined(content.records());
  else manifest["index"] = await writeIndex(zip, { root, content, vectors });
  const where = `${root}/${layout === "A" ? MANIFEST_A : MANIFEST_BC}`;
  await zip.addPacked(Buffer.from(where), FILE, await pack(Buffer.from(JSON.stringify(sorted(manifest), null, 2))));
  await zip.end();
}

type Listed = FileEntry | { kind: "directory"; path: string; size?: 0 };

async function writeEntries(
  zip: ZipOutput,
  { entries, place }: { entries: readonly EntryToPack[]; place: (path: string) => string },
  { signal, onBytes }: BundleCall,
): Promise<Listed[]> {
  const listed: Listed[] = [];
  const ready: (Promise<{ bytes: Buffer; packed: Packed } | null> | null)[] = [];
  const prepare = (at: number): void => {
    const file = entries[at]?.file;
    const whole = file === undefined || file.size > WHOLE ? null : readWhole(file.read());
    // The loop handles the failure when it awaits this file.
    whole?.catch(() => undefined);
    ready[at] = whole;
  };
  for (let at = 0; at < AHEAD; at++) prepare(at);
  let done = 0;
  for (const [at, { path, file, more = {} }] of entries.entries()) {
    throwIfAborted(signal);
    const whole = await ready[at];
    ready[at] = null;
    prepare(at + AHEAD);
    if (file === undefined) {
      if (path !== "") await addFolder(zip, place(path));
      listed.push({ ...more, kind: "directory", path, ...(path === "" ? {} : { size: 0 }) });
      continue;
    }
    const { size, sha256 } =
      whole === null || whole === undefined
        ? await addLong(zip, place(path), file)
        : await addWhole(zip, place(path), whole);
    listed.push({ ...more, kind: "file", path, size, sha256 });
    done += size;
    onBytes?.(done);
  }
  return listed;
}

/** Null if the content exceeds the limit. */
async function readWhole(pieces: AsyncIterable<Buffer>): Promise<{ bytes: Buffer; packed: Packed } | null> {
  const read: Buffer[] = [];
  let length = 0;
  for await (const piece of pieces) {
    read.push(piece);
    length += piece.length;
    if (length > WHOLE) return null;
  }
  const bytes = read.length === 1 ? read[0]! : Buffer.concat(read);
  return { bytes, packed: await pack(bytes) };
}

async function addWhole(
  zip: ZipOutput,
  place: string,
  { bytes, packed }: { bytes: Buffer; packed: Packed },
): Promise<{ size: number; sha256: string }> {
  await zip.addPacked(Buffer.from(place), FILE, packed);
  return { size: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
}

async function addLong(
  zip: ZipOutput,
  place: string,
  { size: expected, read }: NonNullable<EntryToPack["file"]>,
): Promise<{ size: number; sha256: string }> {
  const hash = createHash("sha256");
  let size = 0;
  const hashed = (async function* () {
    for await (const piece of read()) {
      hash.update(piece);
      size += piece.length;
      yield piece;
    }
  })();
  await zip.addPieces(Buffer.from(place), { ...FILE, size: expected }, hashed);
  return { size, sha256: hash.digest("hex") };
}

async function inlined(records: AsyncIterable<IndexRecord> | Iterable<IndexRecord>): Promise<JsonObject> {
  const byPath = new Map<string, object[]>();
  for await (const { record_id: _, kind: __, path, ...rest } of records)
    byPath.set(path, [...(byPath.get(path) ?? []), rest]);
  return Object.fromEntries(byPath);
}

async function writeIndex(
  zip: ZipOutput,
  { root, content, vectors }: { root: string; content: BundleContent; vectors: Vectors | null },
): Promise<JsonObject> {
  const index: JsonObject = {};
  if (vectors !== null) {
    const { count, dimensions, embedding } = vectors;
    const { sha256 } = await addLong(zip, `${root}/${DENSE}`, { size: count * dimensions * 4, read: vectors.read });
    index["dense"] = { path: DENSE, count, dtype: "float32", byte_order: "little", dimensions, sha256, embedding };
  }
  let count = 0;
  const lines = (async function* () {
    let batch: string[] = [];
    for await (const record of content.records()) {
      count++;
      batch.push(encodeRecord(record));
      if (batch.length < 1000) continue;
      yield Buffer.from(batch.join(""));
      batch = [];
    }
    if (batch.length > 0) yield Buffer.from(batch.join(""));
  })();
  const { sha256 } = await addLong(zip, `${root}/${RECORDS}`, { size: 0, read: () => lines });
  index["records"] = { path: RECORDS, count, sha256 };
  return index;
}
