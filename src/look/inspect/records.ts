import { CairnError, toCairnError } from "../../errors.ts";
import { decodeBackups } from "../../formats/records/backups-file.ts";
import { decodeUnfreed } from "../../formats/records/cleanup.ts";
import {
  decodeControl,
  decodePin,
  decodeState,
  decodeTags,
  decodeVerification,
  decodeWorkspace,
} from "../../formats/records/control.ts";
import { type JsonObject, parseJson } from "../../formats/fields.ts";
import { decodeHooks, decodeKeptRepository } from "../../formats/records/kept-repository.ts";
import { decodeManifest } from "../../formats/records/manifest.ts";
import { decodeDaemonState } from "../../formats/records/daemon-state.ts";
import { decodePolicy } from "../../formats/records/policy.ts";
import { BREAK, TEXTS_HEAD } from "../../workspace/points/point-texts.ts";
import { decodeReceipt } from "../../formats/records/receipt.ts";
import { decodeRegistration } from "../../formats/records/registration.ts";
import { decodeWork, UNFINISHED, WORK_KINDS } from "../../formats/records/unfinished.ts";
import { decodeChecked } from "../../fs/unfinished.ts";
import { decodeView } from "../../formats/records/view.ts";
import { parseOwner } from "../../fs/lock-owner.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { decodeDescriptorFile, decodeSealFile } from "../../workspace/points/point-files.ts";
import { decodeSteps } from "../../workspace/points/steps.ts";
import type { Inspected } from "./inspected.ts";

/** Cairn's own small files. Each is recognised by its content; a damaged one by its name. */

interface RecordFormat {
  /** The format's name in the output of `inspect`. */
  name: string;
  /** Pattern of the file's usual name. */
  file: RegExp | null;
  /** Throws `damaged` or `newer_version`. Absent if only the writer knows the layout. */
  check?: (bytes: Uint8Array) => unknown;
}

const FORMATS: Record<string, RecordFormat> = {
  "cairn.control": { name: "control-directory", file: /^cairn\.json$/, check: decodeControl },
  "cairn.workspace": { name: "workspace", file: /^workspace\.json$/, check: decodeWorkspace },
  "cairn.state": { name: "workspace-state", file: /^state\.json$/, check: decodeState },
  "cairn.descriptor": { name: "save-point-descriptor", file: /^descriptor\.json$/, check: decodeDescriptorFile },
  "cairn.pin": { name: "save-point-pin", file: /^pin\.json$/, check: decodePin },
  "cairn.tags": { name: "save-point-tags", file: /^tags\.json$/, check: decodeTags },
  "cairn.verification": {
    name: "save-point-verification",
    file: /^(?:tree-)?verification\.json$/,
    check: decodeVerification,
  },
  "cairn.change-times": { name: "change-times", file: /^times\.json$/ },
  "cairn.backups": { name: "backup-notes", file: /^backups\.json$/, check: decodeBackups },
  "cairn.hooks": { name: "hooks", file: /^[0-9a-f]{32}-[0-9a-f]{16}\.json$/, check: decodeHooks },
  "cairn.kept-repository": { name: "kept-repository", file: /^repository\.json$/, check: decodeKeptRepository },
  "cairn.daemon-state": { name: "daemon-state", file: /^state(?:\.previous)?\.json$/, check: decodeDaemonState },
  "cairn.schedule": { name: "schedule", file: null },
  "cairn.tokens": { name: "daemon-tokens", file: /^tokens\.json$/ },
  "cairn.policy": { name: "policy", file: /^policy\.json$/, check: decodePolicy },
  "cairn.registration": { name: "registration", file: /^[0-9a-f]{64}\.json$/, check: decodeRegistration },
  "cairn.manifest": { name: "save-point-manifest", file: /^manifest\.json$/, check: decodeManifest },
  "cairn.cache-basis": { name: "stat-cache-basis", file: null },
  "cairn.store-size": { name: "store-size", file: null },
  "cairn.seal": { name: "save-point-seal", file: /^seal\.json$/, check: decodeSealFile },
  "cairn.engines": { name: "engine-probe", file: /^engines\.json$/ },
  [UNFINISHED]: {
    name: "unfinished-work",
    file: new RegExp(`^(?:${WORK_KINDS.join("|")})\\.json$`),
    check: (bytes) => decodeChecked({ decode: (record) => decodeWork(record) }, bytes),
  },
  "cairn.unfreed": { name: "unfreed-content", file: null, check: decodeUnfreed },
  "cairn.view": { name: "view", file: null, check: decodeView },
};

/** Decodes a JSON record of Cairn; null for any other file. Throws `damaged` for an unreadable record, `newer_version`. */
export function inspectRecord(name: string, bytes: Uint8Array): Inspected | null {
  const value = jsonObject(bytes);
  const format = value?.["format"];
  if (value !== null && typeof format === "string" && /^cairn\.[a-z-]+$/.test(format)) {
    const known = FORMATS[format];
    known?.check?.(bytes);
    const version = typeof value["version"] === "number" ? value["version"] : null;
    return { format: known?.name ?? format, version, content: withoutHead(value) };
  }
  // The record's own decoder gives the best error.
  if (value === null && !isText(bytes)) return null;
  for (const { file, check } of Object.values(FORMATS)) if (value === null && file?.test(name) === true) check?.(bytes);
  return null;
}

function withoutHead({ format: _format, version: _version, ...content }: JsonObject): JsonObject {
  return content;
}

function isText(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7b || bytes.length === 0 || !bytes.subarray(0, 4096).includes(0);
}

function jsonObject(bytes: Uint8Array): JsonObject | null {
  if (bytes[0] !== 0x7b) return null;
  try {
    const value = parseJson(bytes, "record");
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : null;
  } catch {
    return null;
  }
}

/** Decodes files with a layout of their own: locks, claims, marks, journals, catalogs. Null for any other file. */
export function inspectPlain(name: string, bytes: Uint8Array): Inspected | null {
  const owner = parseOwner(bytes);
  if (owner !== null) return { format: "lock", version: null, content: owner };
  if (/^(?:(?:adopt\.)?lock|receipts\.lock)$/.test(name) && bytes.every((byte) => byte === 0)) {
    return { format: "lock", version: null, content: { holder: null } };
  }
  if (name === "intent" && /^[0-9a-f]{32}$/.test(ascii(bytes, 64))) {
    return { format: "save-point-claim", version: 1, content: { save_point_id: ascii(bytes, 64) } };
  }
  if (name === "holds-trees" && bytes.length === 0) return { format: "held-trees-mark", version: null, content: {} };
  if (name === "spare") return { format: "spare-room", version: null, content: { bytes: bytes.length } };
  if (name === "CACHEDIR.TAG")
    return { format: "cachedir-tag", version: null, content: { note: "the files beside it are a cache" } };
  if (name === "damaged-packs")
    return {
      format: "damaged-packs",
      version: null,
      content: { packs: ascii(bytes, bytes.length).trim().split("\n") },
    };
  if (name === "seen-snapshots") return { format: "seen-snapshots", version: 1, content: jsonObject(bytes) ?? {} };
  if (name === "known-trees.json") return { format: "known-trees", version: null, content: jsonObject(bytes) ?? {} };
  const receipt = receiptOf(bytes);
  if (receipt !== null) return receipt;
  if (name === "restore.steps") return { format: "restore-steps", version: 1, content: stepsOf(bytes) };
  return textsOf(bytes) ?? catalogOf(bytes);
}

/** Shows a receipt's content; `receipt verify` checks its signature. */
function receiptOf(bytes: Uint8Array): Inspected | null {
  if (jsonObject(bytes)?.["body_b64"] === undefined) return null;
  const { body, publicKey } = decodeReceipt(bytes);
  const content = { ...body, public_key: Buffer.from(publicKey).toString("base64") };
  return { format: "receipt", version: 1, content };
}

function stepsOf(bytes: Uint8Array): JsonObject {
  try {
    const { steps, leftOut } = decodeSteps(bytes);
    return { left_out: leftOut.map(shown), steps: Array.from(steps, shown) };
  } catch (error) {
    const { code, message, hint } = toCairnError(error);
    throw new CairnError(
      code === "newer_version" ? code : "damaged",
      `the steps of a restore cannot be read: ${message}`,
      { hint, cause: error },
    );
  }
}

function shown<T extends { path: Uint8Array }>({ path, ...rest }: T): object {
  return { ...displayPath(path), ...rest };
}

const CATALOG_LINE = /^(\d{10}) ([0-9a-f]{32}) ([sux])$/;
const KINDS: Record<string, string> = { s: "save", u: "undo", x: "removed" };

function catalogOf(bytes: Uint8Array): Inspected | null {
  if (!CATALOG_LINE.test(ascii(bytes, 45))) return null;
  const points: unknown[] = [];
  let wrongLines = 0;
  for (const line of Buffer.from(bytes).toString("latin1").split("\n")) {
    const match = CATALOG_LINE.exec(line);
    if (match === null) wrongLines += line === "" ? 0 : 1;
    else points.push({ sequence: Number(match[1]), save_point_id: match[2], kind: KINDS[match[3]!] });
  }
  return { format: "point-catalog", version: 1, content: { points, wrong_lines: wrongLines } };
}

function textsOf(bytes: Uint8Array): Inspected | null {
  if (!ascii(bytes, TEXTS_HEAD.length).startsWith(TEXTS_HEAD)) return null;
  const points = Buffer.from(bytes)
    .toString("utf8")
    .split("\n")
    .flatMap((line) => {
      const [, sequence, id, time, text] = /^(\d{10})(?: ([0-9a-f]{32}) (\d{15}) (.*))?$/.exec(line) ?? [];
      if (sequence === undefined) return [];
      const shown = { save_point_id: id, at: new Date(Number(time)), text: text?.split(BREAK) };
      return [{ sequence: Number(sequence), ...(id === undefined ? { withdrawn: true } : shown) }];
    });
  return { format: "point-texts", version: 1, content: { points } };
}

function ascii(bytes: Uint8Array, length: number): string {
  return Buffer.from(bytes.subarray(0, length)).toString("latin1");
}
