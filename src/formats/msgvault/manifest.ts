import { CairnError } from "../../errors.ts";
import { Fields, type JsonObject, parseJson } from "../fields.ts";

/** The readers' version of the format that is known here; a higher one is refused. */
const READER_VERSION = 4;
/** The longest chain of deltas before a full page map. */
export const MOST_DELTAS = 30;
/** The most pages of a database: their hashes take 1 GiB. */
export const MOST_PAGES = 2 ** 26;
/** The most bytes of one blob. */
export const MOST_BLOB = 2 ** 32;
const MOST_AUXILIARY = 64;
const MOST_AUXILIARY_BYTES = 64 << 20;
const MOST_LISTS = 100_000;

export interface RepositoryConfig {
  repositoryId: string;
  formatVersion: number;
}

/** A blob that becomes a file, at its path in the restored folder. */
export interface SnapshotFile {
  path: string;
  /** The bytes of `path`; absent: it is UTF-8. */
  raw?: Buffer;
  blob: string;
  size: number;
  mode: number;
}

export interface Manifest {
  formatVersion: number;
  id: string;
  parentId: string | null;
  /** RFC 3339 */
  createdAt: string;
  /** Version of the program that wrote the snapshot. */
  program: string;
  /** Empty if the user gave none. */
  tag: string;
  /** The SQLite database, page by page; null if `metadata` has the state. */
  database: { pageSize: number; pages: number; pageMap: string; pageHashes: string; deltas: number } | null;
  /** A stream that only the program itself can make a database of. */
  metadata: { format: string; blob: string; size: number } | null;
  auxiliary: { name: string; format: string; blob: string; size: number }[];
  attachments: { rows: number; blobs: number; bytes: number; lists: string[] };
  /** Blob with the list of other files; null if there are none. */
  extras: string | null;
  /** Counts that the program made of its database. */
  statistics: JsonObject;
  /** Bytes that the snapshot added to the repository. */
  bytesAdded: number;
}

export function newer(what: string, field: string, versions: { actual: number; expected: number }): CairnError {
  const { actual, expected } = versions;
  return new CairnError("newer_version", `${what} is of version ${actual}; Cairn reads ${expected}`, {
    hint: "restore it with the program that wrote it, or use a later version of Cairn",
    details: { field, ...versions },
  });
}

function requireReadable(fields: Fields, what: string): number {
  const [field, expected] = ["min_reader_version", READER_VERSION];
  const actual = fields.integer(field);
  if (actual > expected) throw newer(what, field, { actual, expected });
  return actual;
}

/** Checks the members of `config.toml`. Throws `damaged` with the field, `newer_version`, `unsupported` if it is encrypted. */
export function checkConfig(members: unknown): RepositoryConfig {
  const fields = new Fields(members, "config.toml");
  requireReadable(fields, "the repository");
  const encryption = fields.text("encryption", 100);
  if (encryption !== "none")
    throw new CairnError("unsupported", `the repository is encrypted (${JSON.stringify(encryption)})`, {
      details: { field: "encryption" },
    });
  const repositoryId = fields.text("repo_id", 36);
  if (!/^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(repositoryId))
    throw fields.wrong("repo_id", "a UUID in lower-case hex digits");
  return { repositoryId, formatVersion: fields.integer("format_version") };
}

const SNAPSHOT_ID = /^\d{8}T\d{6}Z-[0-9a-f]{32}$/;

/** Returns the id that a manifest's file name has; null for any other name. */
export function idOfManifest(name: string): string | null {
  const id = name.endsWith(".mvmanifest") ? name.slice(0, -".mvmanifest".length) : "";
  return SNAPSHOT_ID.test(id) ? id : null;
}

/**
 * Reads a manifest and compares its content with its id, which is its time and its hash. Throws `damaged` with the field,
 * also for an unknown field, and `newer_version`.
 */
export function decodeManifest(bytes: Uint8Array, id: string, sha256: (bytes: Uint8Array) => Uint8Array): Manifest {
  const what = `the manifest of ${id}`;
  const fields = new Fields(parseJson(bytes, what), what);
  const needed = requireReadable(fields, `the snapshot ${id}`);
  const createdAt = fields.time("created_at");
  const [time, digest] = id.split("-");
  if (new Date(createdAt).toISOString().replaceAll(/[-:]|\.\d+/g, "") !== time)
    throw fields.wrong("created_at", `the time of the snapshot's id, ${time}`);
  if (!fields.isText("snapshot_id", id)) throw fields.wrong("snapshot_id", `the id of its file, ${id}`);
  const hash = Buffer.from(sha256(Buffer.from(withoutId(bytes, id)))).toString("hex");
  if (hash.slice(0, 32) !== digest) throw fields.wrong("snapshot_id", "the hash of the manifest: it was changed");
  const version = fields.integer("format_version");
  const requireVersion = (key: string, least: number): void => {
    if (Math.min(version, needed) < least)
      throw fields.wrong(key, `absent: such snapshots need the versions ${least} of format and reader`);
  };
  const database = databaseOf(fields.object("db"));
  const metadata = fields.has("metadata") ? metadataOf(fields.object("metadata")) : null;
  if (metadata !== null) requireVersion("metadata", 3);
  if ((database === null) === (metadata === null))
    throw fields.wrong("db", metadata === null ? "a database with pages" : "empty beside the field metadata");
  const auxiliary = fields.has("auxiliary") ? auxiliaryOf(fields) : [];
  if (auxiliary.length > 0) requireVersion("auxiliary", 4);
  const parent = fields.text("parent_id", 100);
  if (parent !== "" && !SNAPSHOT_ID.test(parent)) throw fields.wrong("parent_id", "a snapshot's id, or empty");
  const attachments = fields.object("attachments");
  const [options, extras] = [fields.object("options"), fields.object("extras")];
  const manifest = {
    formatVersion: version,
    id,
    parentId: parent === "" ? null : parent,
    createdAt,
    program: fields.text("msgvault_version", 1000),
    tag: options.text("tag", 10_000),
    database,
    metadata,
    auxiliary,
    attachments: attachmentsOf(attachments),
    extras: extras.isText("tree", "") ? null : extras.hex("tree", 64),
    statistics: fields.object("stats").rest(),
    bytesAdded: fields.integer("bytes_added"),
  };
  requireKnown(options, "include_config", "include_tokens", "zstd_level");
  requireKnown(extras);
  requireKnown(fields, "excluded", "new_packs", "new_index", "duration_seconds");
  return manifest;
}

/** Throws `damaged` for a field that was neither read nor is one of `others`: a newer writer would have raised the version. */
function requireKnown(fields: Fields, ...others: string[]): void {
  const unknown = Object.keys(fields.rest()).find((key) => !others.includes(key));
  if (unknown !== undefined) throw fields.wrong(unknown, "a field of this version");
}

function databaseOf(fields: Fields): Manifest["database"] {
  const pageSize = fields.integer("page_size", 65_536);
  const found = {
    pageSize,
    pages: fields.integer("page_count", MOST_PAGES),
    deltas: fields.integer("map_chain_depth", MOST_DELTAS),
  };
  const isNone = fields.isText("engine", "") && pageSize === 0 && found.pages === 0;
  if (!isNone && !fields.isText("engine", "sqlite")) throw fields.wrong("engine", '"sqlite"');
  const [pageMap, pageHashes] = ["page_map", "page_hash_map"].map((key) =>
    isNone && fields.isText(key, "") ? "" : fields.hex(key, 64),
  ) as [string, string];
  requireKnown(fields);
  if (isNone && `${pageMap}${pageHashes}` === "" && found.deltas === 0) return null;
  if (pageSize < 512 || (pageSize & (pageSize - 1)) !== 0) throw fields.wrong("page_size", "a power of two from 512");
  return { ...found, pageMap, pageHashes };
}

function formatOf(fields: Fields): string {
  const format = fields.text("format", 128);
  // oxlint-disable-next-line no-control-regex -- the pattern finds control characters
  if (format === "" || /[\u0000-\u001f\u007f-\u009f]/.test(format)) throw fields.wrong("format", "a name");
  return format;
}

function metadataOf(fields: Fields): Manifest["metadata"] {
  const found = { format: formatOf(fields), blob: fields.hex("blob", 64), size: fields.integer("bytes", MOST_BLOB) };
  requireKnown(fields);
  return found;
}

function auxiliaryOf(fields: Fields): Manifest["auxiliary"] {
  let [total, before] = [0, ""];
  const read = (element: unknown, label: string): Manifest["auxiliary"][number] => {
    const own = new Fields(element, label);
    const name = own.text("name", 128);
    if (!/^[a-z0-9][a-z0-9._-]{0,127}$/.test(name)) throw own.wrong("name", "a lower-case file name");
    if (name <= before) throw own.wrong("name", `after ${JSON.stringify(before)}: names are sorted and unique`);
    before = name;
    const size = own.integer("bytes", MOST_AUXILIARY_BYTES - total);
    total += size;
    const blob = own.hex("blob", 64);
    if (!own.isText("sha256", blob)) throw own.wrong("sha256", "the id of its blob");
    const found = { name, format: formatOf(own), blob, size };
    requireKnown(own);
    return found;
  };
  return fields.list("auxiliary", read, MOST_AUXILIARY);
}

function attachmentsOf(fields: Fields): Manifest["attachments"] {
  const lists = fields.textsOrNone("lists");
  if (lists.length > MOST_LISTS || lists.some((each) => !/^[0-9a-f]{64}$/.test(each)))
    throw fields.wrong("lists", `at most ${MOST_LISTS} ids of blobs`);
  const [rows, blobs, bytes] = ["rows", "blobs", "blob_bytes"].map((key) => fields.integer(key));
  requireKnown(fields, "layout", "recipes");
  return { rows: rows!, blobs: blobs!, bytes: bytes!, lists };
}

/**
 * The bytes that the id hashes: the manifest without its id, and without the white space between its parts. Writers keep
 * the order of the fields and the escapes, so nothing is encoded anew.
 */
function withoutId(bytes: Uint8Array, id: string): string {
  const compact = Buffer.from(bytes)
    .toString("utf8")
    .replaceAll(/("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+/g, (_, text: string | undefined) => text ?? "");
  return compact.replace(`"snapshot_id":"${id}"`, '"snapshot_id":""');
}

/** Reads the list of other files. Their paths are not checked here. Throws `damaged`. */
export function decodeExtras(bytes: Uint8Array): SnapshotFile[] {
  const fields = new Fields(parseJson(bytes, "list of other files"), "list of other files");
  if (fields.isNull("entries")) return [];
  return fields.list("entries", (element, label) => {
    const own = new Fields(element, label);
    const [path, blob, size] = [own.text("path", 10_000), own.hex("blob", 64), own.integer("size", MOST_BLOB)];
    return { path, blob, size, mode: own.integer("mode", 0xffff_ffff) & 0o777 || 0o600 };
  });
}
