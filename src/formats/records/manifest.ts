import type { ByteWriter } from "../bytes.ts";
import type { ConsistencyLabel, EntryCounts } from "./descriptor.ts";
import { Fields, type JsonObject } from "../fields.ts";
import { checkPath, checkVersion, decodeRecord } from "./record.ts";

/** Name of the file in a snapshot's `/.cairn` with its probes and the queries of its rows. */
export const CHECKS_NAME = "checks.json";

/**
 * `/.cairn/manifest.json` of a snapshot: facts for which restic's trees have no field. The manifest has no time and no
 * id, so that equal states have equal manifests. Lists are in raw pre-order of their paths.
 */

const FORMAT = "cairn.manifest";
const VERSION = 1;
const MINIMUM_READER = 1;

/** Holes of a file: offset and length in bytes, ascending, with data between them. */
export interface HoleMap {
  path: Uint8Array;
  holes: readonly (readonly [number, number])[];
}

/** SHA-256 of the whole content of a file that was cut into several blobs. */
export interface FileHash {
  path: Uint8Array;
  sha256: Uint8Array;
  size: number;
}

/** The reason of an omitted entry that was saved, but later removed from the snapshot. */
export const TAKEN_OUT = "taken out of the snapshot after it was made";

export interface ManifestOmission {
  path: Uint8Array;
  reason: string;
}

/**
 * A field that nodes cannot hold. `linktarget`: the raw target. `xattr_name`: the raw name of the attribute at `index`
 * in the node. `hard_link`: the path of the group's first member. `mtime`: `seconds.nanoseconds` in ASCII.
 */
export interface LosslessField {
  path: Uint8Array;
  field: "linktarget" | "xattr_name" | "hard_link" | "mtime" | (string & {});
  index?: number;
  value: Uint8Array;
}

/** Treatment of file systems that were mounted inside the folder. */
export interface ManifestMounts {
  /** True if the save entered these file systems. */
  entered: boolean;
  /** Paths of skipped mounts. The entries below a mount point are hidden and unknown. */
  leftOut: Uint8Array[];
}

export interface ManifestInput {
  stateDigest: string | null;
  metadataDigest: string | null;
  complete: boolean;
  entries: EntryCounts;
  labels: Iterable<ConsistencyLabel>;
  holeMaps: Iterable<HoleMap>;
  fileHashes: Iterable<FileHash>;
  omitted: Iterable<ManifestOmission>;
  lossless: Iterable<LosslessField>;
  /** Absent if nothing was mounted inside. */
  mounts?: ManifestMounts | undefined;
  /** Members of a later version, written unchanged. */
  extra?: JsonObject;
}

export interface Manifest {
  stateDigest: string | null;
  metadataDigest: string | null;
  complete: boolean;
  entries: EntryCounts;
  labels: ConsistencyLabel[];
  holeMaps: HoleMap[];
  fileHashes: FileHash[];
  omitted: ManifestOmission[];
  lossless: LosslessField[];
  /** Absent if nothing was mounted inside. */
  mounts?: ManifestMounts | undefined;
  /** Members of a later version. */
  extra: JsonObject;
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}

/** Returns `"path":"…"`, or `"path_b64":"…"` if the path is not UTF-8. */
function pathMember(path: Uint8Array): string {
  const raw = Buffer.from(path.buffer, path.byteOffset, path.byteLength);
  const text = raw.toString("utf8");
  return Buffer.from(text, "utf8").equals(raw) ? `"path":${JSON.stringify(text)}` : `"path_b64":"${base64(raw)}"`;
}

function appendList<T>(w: ByteWriter, key: string, items: Iterable<T>, text: (item: T) => string): void {
  w.ascii(`,"${key}":[`);
  let separator = "";
  for (const item of items) {
    w.text(separator + text(item));
    separator = ",";
  }
  w.u8(0x5d);
}

function labelText(label: ConsistencyLabel): string {
  const keys = Object.keys(label).toSorted();
  return JSON.stringify(Object.fromEntries(keys.map((key) => [key, label[key]])));
}

function holeMapText(map: HoleMap): string {
  return `{${pathMember(map.path)},"holes":[${map.holes.map(([offset, length]) => `[${offset},${length}]`).join(",")}]}`;
}

function fileHashText(file: FileHash): string {
  return `{${pathMember(file.path)},"sha256":"${Buffer.from(file.sha256).toString("hex")}","size":${file.size}}`;
}

function omissionText(entry: ManifestOmission): string {
  return `{${pathMember(entry.path)},"reason":${JSON.stringify(entry.reason)}}`;
}

function losslessText(entry: LosslessField): string {
  const index = entry.index === undefined ? "" : `,"index":${entry.index}`;
  const field = JSON.stringify(entry.field);
  return `{${pathMember(entry.path)},"field":${field}${index},"value_b64":"${base64(entry.value)}"}`;
}

function mountsText({ entered, leftOut }: ManifestMounts): string {
  return `{"entered":${entered},"left_out":[${leftOut.map((path) => `{${pathMember(path)}}`).join(",")}]}`;
}

/** Appends the manifest's bytes. Equal input gives equal bytes. Reads the lists once, in order. */
export function encodeManifest(w: ByteWriter, manifest: ManifestInput): void {
  const { files, directories, links, other } = manifest.entries;
  const head = {
    format: FORMAT,
    version: VERSION,
    minimum_reader: MINIMUM_READER,
    state_digest: manifest.stateDigest,
    metadata_digest: manifest.metadataDigest,
    complete: manifest.complete,
    entries: { files, directories, links, other },
  };
  w.text(JSON.stringify(head).slice(0, -1));
  appendList(w, "labels", manifest.labels, labelText);
  appendList(w, "hole_maps", manifest.holeMaps, holeMapText);
  appendList(w, "file_hashes", manifest.fileHashes, fileHashText);
  appendList(w, "omitted", manifest.omitted, omissionText);
  appendList(w, "lossless", manifest.lossless, losslessText);
  if (manifest.mounts !== undefined) w.text(`,"mounts":${mountsText(manifest.mounts)}`);
  for (const [key, value] of Object.entries(manifest.extra ?? {}))
    w.text(`,${JSON.stringify(key)}:${JSON.stringify(value)}`);
  w.ascii("}\n");
}

function readPath(fields: Fields): Uint8Array {
  return fields.has("path_b64") ? fields.base64("path_b64") : Buffer.from(fields.text("path"), "utf8");
}

function readLabel(element: unknown, label: string): ConsistencyLabel {
  const fields = new Fields(element, label);
  checkPath(fields);
  fields.text("label");
  return element as ConsistencyLabel;
}

function readHoles(fields: Fields): [number, number][] {
  let end = -1;
  return fields.list("holes", (element) => {
    const [offset, length] = Array.isArray(element) && element.length === 2 ? (element as unknown[]) : [];
    const next = Number(offset) + Number(length);
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || !Number.isSafeInteger(next)) {
      throw fields.wrong("holes", "a list of [offset, length]");
    }
    if (Number(offset) <= end || Number(length) <= 0) throw fields.wrong("holes", "rising and apart");
    end = next;
    return [offset as number, length as number];
  });
}

function readHoleMap(element: unknown, label: string): HoleMap {
  const fields = new Fields(element, label);
  return { path: readPath(fields), holes: readHoles(fields) };
}

function readFileHash(element: unknown, label: string): FileHash {
  const fields = new Fields(element, label);
  const sha256 = Buffer.from(fields.hex("sha256", 64), "hex");
  return { path: readPath(fields), sha256, size: fields.integer("size") };
}

function readOmission(element: unknown, label: string): ManifestOmission {
  const fields = new Fields(element, label);
  return { path: readPath(fields), reason: fields.text("reason") };
}

function readLossless(element: unknown, label: string): LosslessField {
  const fields = new Fields(element, label);
  const entry: LosslessField = {
    path: readPath(fields),
    field: fields.text("field", 100),
    value: fields.base64("value_b64"),
  };
  if (fields.has("index")) entry.index = fields.integer("index", 0xffffffff);
  return entry;
}

function readMounts(fields: Fields): ManifestMounts {
  return {
    entered: fields.boolean("entered"),
    leftOut: fields.list("left_out", (element, label) => readPath(new Fields(element, label))),
  };
}

/**
 * Decodes a manifest. Throws `damaged`, naming the field, or `newer_version` if `minimum_reader` is above this
 * program's version.
 */
export function decodeManifest(bytes: Uint8Array): Manifest {
  const { fields } = decodeRecord(bytes, FORMAT, Number.MAX_SAFE_INTEGER);
  checkVersion(fields, "minimum_reader", VERSION);
  const counts = fields.object("entries");
  const manifest = {
    stateDigest: fields.hexOrNull("state_digest", 64),
    metadataDigest: fields.hexOrNull("metadata_digest", 64),
    complete: fields.boolean("complete"),
    entries: {
      files: counts.integer("files"),
      directories: counts.integer("directories"),
      links: counts.integer("links"),
      other: counts.integer("other"),
    },
    labels: fields.list("labels", readLabel),
    holeMaps: fields.list("hole_maps", readHoleMap),
    fileHashes: fields.list("file_hashes", readFileHash),
    omitted: fields.list("omitted", readOmission),
    lossless: fields.list("lossless", readLossless),
    ...(fields.has("mounts") ? { mounts: readMounts(fields.object("mounts")) } : {}),
  };
  return { ...manifest, extra: fields.rest() };
}
