import { CairnError } from "../../errors.ts";
import { Fields, parseJson } from "../fields.ts";
import { plural } from "../sizes.ts";
import { decodeRecord, encodeChecked, encodeRecord } from "./record.ts";

/**
 * A receipt states that a snapshot was restored, read back and found equal to the saved state. The file is `{body_b64,
 * public_key, signature}`. The signature covers the exact bytes of the body, which is a record.
 */

const FORMAT = "cairn.receipt";
const VERSION = 1;

export interface ReceiptBody {
  /** `2026-11-20T09:15:19.123Z` */
  made_at: string;
  repository_id: string;
  snapshot_id: string;
  save_point_id: string | null;
  /** State digest of the restored content, equal to the recorded one. 64 hex digits. */
  state_digest: string;
  /** Metadata digest; null if not all metadata could be set. */
  metadata_digest: string | null;
  metadata_equal: boolean;
  /**
   * `disk`: read past the page cache. `memory`: may come from the page cache. Absent in older receipts, which always
   * read from disk.
   */
  read_from?: "disk" | "memory";
  /** Entries whose owner, mode or attributes could not be set. Their content is complete. */
  left_out: number;
  /**
   * The restored SQLite databases, with the result of SQLite's check. Absent in older receipts, which did not check.
   */
  databases?: ReceiptDatabase[];
  /** Counts of files that rows of databases name. Absent if no query was given. */
  rows?: ReceiptRows[];
  /** Commands of the backup, and whether the restored copy gave the same answers. Absent if there are none. */
  probes?: ReceiptProbe[];
  host: string;
  /** The folder into which the snapshot was restored. */
  target: string;
  program: string;
  /** SHA-256 of the previous receipt file of the same key; null for the first. */
  previous: string | null;
}

export interface ReceiptRows {
  /** The database. */
  path: string;
  path_b64?: string;
  folder: string;
  /** Rows that name a file, and rows whose file is missing or different. */
  named: number;
  wrong: number;
}

export interface ReceiptProbe {
  command: string;
  /** SHA-256 of the answer that the snapshot keeps. */
  output_sha256: string;
  /** Null if the command was not run. */
  equal: boolean | null;
}

export interface ReceiptDatabase {
  path: string;
  path_b64?: string;
  pages: number | null;
  sha256: string;
  check: string | null;
  /** Number of problems in the database, which were the same when the database was saved. */
  problems: number;
  /**
   * SHA-256 of the statements that create the schema, and the number of rows of all tables; null if the database was
   * not opened.
   */
  schema_sha256: string | null;
  rows: number | null;
  /** The rows of each table. Absent in older receipts, and for very many tables. */
  tables?: { name: string; rows: number | null }[];
  label: string | null;
  duration_ms: number;
}

/** A backup or a restored copy, with its probes and the files that its rows name. */
interface Asked {
  rows?: readonly Pick<ReceiptRows, "path" | "wrong">[] | undefined;
  probes?: readonly (Pick<ReceiptProbe, "command"> & { equal?: boolean | null; failure?: string | null })[] | undefined;
}

/** Says which probes failed, were not run or answer otherwise, and which rows name missing files. Empty: none. */
export function unprovenBy({ rows = [], probes = [] }: Asked): string[] {
  const notEqual = (equal: boolean | null): string =>
    equal === null ? "was not run on the restored copy" : "answers otherwise";
  return [
    ...rows.flatMap(({ path, wrong }) =>
      wrong === 0
        ? []
        : [
            `${plural(wrong, "row")} of ${path} ${wrong === 1 ? "names a missing or different file" : "name missing or different files"}`,
          ],
    ),
    ...probes.flatMap(({ command, equal = true, failure = null }) =>
      equal === true && failure === null ? [] : [`the probe ${command} ${failure ?? notEqual(equal)}`],
    ),
  ];
}

export interface SignedReceipt {
  readonly body: ReceiptBody;
  /** The signed bytes. */
  readonly bodyBytes: Uint8Array;
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 64 bytes. */
  readonly signature: Uint8Array;
}

/** Returns the body's bytes. Throws `internal` if a field has an impossible value. */
export function encodeReceiptBody(body: ReceiptBody): Uint8Array {
  return encodeChecked(body, (value) => encodeRecord(value, FORMAT, VERSION), decodeReceiptBody);
}

/** Throws `damaged`, naming the field, or `newer_version`. */
export function decodeReceiptBody(bytes: Uint8Array): ReceiptBody {
  const { value, fields } = decodeRecord(bytes, FORMAT, VERSION);
  fields.time("made_at");
  fields.hex("repository_id", 64);
  fields.hex("snapshot_id", 64);
  fields.hexOrNull("save_point_id", 32);
  fields.hex("state_digest", 64);
  fields.hexOrNull("metadata_digest", 64);
  fields.boolean("metadata_equal");
  const from = fields.optionalText("read_from") ?? "disk";
  if (from !== "disk" && from !== "memory") throw fields.wrong("read_from", "disk or memory");
  fields.integer("left_out");
  if (fields.has("databases"))
    fields.list("databases", (element, label) => {
      const each = new Fields(element, label);
      each.text("path");
      each.hex("sha256", 64);
      each.integer("problems");
      if (each.has("tables"))
        each.list("tables", (table, name) => {
          const one = new Fields(table, name);
          one.text("name");
          if (!one.isNull("rows")) one.integer("rows");
        });
    });
  if (fields.has("rows"))
    fields.list("rows", (element, label) => {
      const each = new Fields(element, label);
      for (const key of ["path", "folder"]) each.text(key);
      for (const key of ["named", "wrong"]) each.integer(key);
    });
  if (fields.has("probes"))
    fields.list("probes", (element, label) => {
      const each = new Fields(element, label);
      each.text("command");
      each.hex("output_sha256", 64);
      if (!each.isNull("equal")) each.boolean("equal");
    });
  fields.text("host");
  fields.text("target");
  fields.text("program");
  fields.hexOrNull("previous", 64);
  return value as unknown as ReceiptBody;
}

export function encodeReceipt(bodyBytes: Uint8Array, publicKey: Uint8Array, signature: Uint8Array): Uint8Array {
  const members = { body_b64: base64(bodyBytes), public_key: base64(publicKey), signature: base64(signature) };
  return Buffer.from(`${JSON.stringify(members)}\n`, "utf8");
}

/** Returns the parts of a receipt's file; does not check the signature. Throws `damaged`, `newer_version`. */
export function decodeReceipt(bytes: Uint8Array): SignedReceipt {
  const fields = new Fields(parseJson(bytes, "receipt"), "receipt");
  const bodyBytes = fields.base64("body_b64");
  const publicKey = fields.base64("public_key");
  const signature = fields.base64("signature");
  if (publicKey.length !== 32) throw new CairnError("damaged", "receipt: public_key does not have 32 bytes");
  if (signature.length !== 64) throw new CairnError("damaged", "receipt: signature does not have 64 bytes");
  return { body: decodeReceiptBody(bodyBytes), bodyBytes, publicKey, signature };
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");
}
