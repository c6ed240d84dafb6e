import type { ControlId, SavePointId, WorkspaceId } from "../../ids.ts";
import { Fields, type JsonObject } from "../fields.ts";
import { checkPath, decodeRecord, encodeChecked, encodeRecord, type RecordedPath } from "./record.ts";

/** The small files of a control directory. Unknown fields survive decode and encode at any depth. */

const VERSION = 1;

/** `cairn.json`: a directory with this file is a control directory. */
export interface ControlFile {
  id: ControlId;
  name: string;
  created_at: string;
  engine: string;
  /** True: the workspace `main` is beside this directory. */
  self_contained: boolean;
}

export interface WorkspaceFile extends RecordedPath {
  id: WorkspaceId;
  name: string;
  /** Decimal digits, because inode numbers may exceed 2⁵³. */
  root_inode: string;
  /** Decimal digits of st_dev. */
  device: string;
  filesystem_uuid?: string;
  /** When the folder was made, in ns since 1970; of a btrfs subvolume its UUID. Inode numbers are used again. */
  root_made?: string;
  registered_at: string;
  /** Point and workspace of which this workspace is a fork. */
  origin?: { save_point_id: SavePointId; workspace_id: WorkspaceId };
  /** The path before the workspace was relocated. */
  relocated_from?: RecordedPath;
  settings: JsonObject;
}

export const OPERATION_KINDS = ["restore", "rewind", "adopt", "undo", "redo"] as const;
export type OperationKind = (typeof OPERATION_KINDS)[number];

/** An operation that changed a workspace's folder. */
export interface Operation {
  kind: OperationKind;
  at: string;
  /** Point of the state before the operation; `restored_to` if the operation changed nothing. */
  undo_id: SavePointId;
  restored_to: SavePointId;
  /** Null if the whole workspace was restored. */
  paths: RecordedPath[] | null;
  /**
   * The entries that it changed, each without those below it; absent: all in which the two points differ. `left`: the
   * point of the state that an entry was left in; absent: `restored_to`.
   */
  changed?: (RecordedPath & { left?: SavePointId })[];
  /** True: entries that the target lacks were kept. */
  keep_present?: boolean;
  /** True: git's own state was left as it was. */
  keep_git?: boolean;
  /** Texts that the operation merged, and the pages of databases that it wrote through SQLite, which no point has. */
  merged?: (RecordedPath & { sha256: string })[];
  /** True: an undo or redo left entries that were changed since. One with `over` right after it goes on with it. */
  partly?: boolean;
  /** The head before an operation that moved only head. */
  head_before?: SavePointId;
}

/** The result of a recovery after a kill. */
export interface Recovery {
  operation: string;
  outcome: "completed" | "rolled_back";
  detail: string;
  /** Paths that the recovery did not change. */
  kept: RecordedPath[];
  /** The paths that are not as intended, and the reasons; absent if there are none. */
  incomplete?: { count: number; left_out: (RecordedPath & { reason: string; detail: string; aspects?: string[] })[] };
}

/** A recovery with its time. Further members depend on the operation. */
export interface RecoveredEntry {
  at: string;
  detail: string;
  [key: string]: unknown;
}

export interface WorkspaceState {
  head: SavePointId | null;
  /** Oldest first, at most {@link MOST_OPERATIONS}. */
  operations: Operation[];
  recovered: RecoveredEntry[];
}

export const MOST_OPERATIONS = 200;

/** True if an operation reverts the changes of an earlier one. */
export function isReverting(kind: OperationKind): boolean {
  return kind === "undo" || kind === "redo";
}

/** Returns the state with one more operation; the same state if the operation was recorded before a kill. */
export function withOperation(state: WorkspaceState, operation: Operation): WorkspaceState {
  const { operations } = state;
  const last = operations.at(-1);
  const isEmptyRevert = isReverting(operation.kind) && operation.undo_id === operation.restored_to;
  const isNew = isEmptyRevert || operation.head_before !== undefined;
  if (last?.undo_id === operation.undo_id && last.kind === operation.kind && !isNew) return state;
  return { ...state, operations: [...operations, operation].slice(-MOST_OPERATIONS) };
}

export interface PinFile {
  at: string;
  reason: string;
}

export interface TagsFile {
  tags: string[];
}

export interface VerificationProblem {
  kind: string;
  path?: string;
  path_b64?: string;
  detail: string;
}

export interface VerificationFile {
  at: string;
  ok: boolean;
  problems: VerificationProblem[];
}

interface RecordKind {
  format: string;
  /** Absent: {@link VERSION}. */
  version?: number;
  check: (fields: Fields) => void;
}

function decode<T>(bytes: Uint8Array, kind: RecordKind): T {
  const { value, fields } = decodeRecord(bytes, kind.format, kind.version ?? VERSION);
  kind.check(fields);
  return value as T;
}

function encode(record: object, kind: RecordKind): Uint8Array {
  return encodeChecked(
    record,
    (value) => encodeRecord(value, kind.format, kind.version ?? VERSION),
    (bytes) => decode<object>(bytes, kind),
  );
}

const CONTROL: RecordKind = {
  format: "cairn.control",
  check(fields) {
    fields.hex("id", 32);
    fields.text("name");
    fields.time("created_at");
    if (fields.text("engine") === "") throw fields.wrong("engine", "the name of an engine");
    fields.boolean("self_contained");
  },
};

const WORKSPACE: RecordKind = {
  format: "cairn.workspace",
  check(fields) {
    fields.hex("id", 32);
    fields.text("name");
    checkPath(fields);
    for (const key of ["root_inode", "device"]) {
      if (!/^\d{1,20}$/.test(fields.text(key))) throw fields.wrong(key, "decimal digits");
    }
    fields.optionalText("filesystem_uuid");
    if (fields.has("root_made") && !/^([0-9a-f]{32}|\d{1,20})$/.test(fields.text("root_made")))
      throw fields.wrong("root_made", "decimal digits or 32 hex digits");
    if (fields.has("mount_point")) checkPath(fields.object("mount_point"));
    if (fields.has("mounts_inside"))
      fields.list("mounts_inside", (element, label) => checkPath(new Fields(element, label)));
    fields.time("registered_at");
    if (fields.has("origin")) {
      const origin = fields.object("origin");
      origin.hex("save_point_id", 32);
      origin.hex("workspace_id", 32);
    }
    if (fields.has("relocated_from")) checkPath(fields.object("relocated_from"));
    fields.object("settings");
  },
};

const STATE: RecordKind = {
  format: "cairn.state",
  version: 2,
  check(fields) {
    fields.hexOrNull("head", 32);
    fields.list("operations", (element, label) => {
      const operation = new Fields(element, label);
      if (!OPERATION_KINDS.some((kind) => operation.isText("kind", kind)))
        throw operation.wrong("kind", OPERATION_KINDS.join(", "));
      checkOperation(operation);
    });
    fields.list("recovered", (element, label) => {
      const entry = new Fields(element, label);
      entry.time("at");
      entry.text("detail");
    });
  },
};

/** Checks the lists of entries of an operation. */
export function checkEntries(record: Fields): void {
  const check = (name: string, rest: (entry: Fields) => void): void => {
    if (!record.has(name)) return;
    record.list(name, (element, label) => {
      const entry = new Fields(element, label);
      checkPath(entry);
      rest(entry);
    });
  };
  check("paths", () => undefined);
  check("changed", (entry) => entry.has("left") && entry.hex("left", 32));
  check("merged", (entry) => entry.hex("sha256", 64));
}

function checkOperation(operation: Fields): void {
  operation.hex("undo_id", 32);
  operation.hex("restored_to", 32);
  checkEntries(operation);
  if (operation.has("head_before")) operation.hex("head_before", 32);
  operation.time("at");
}

const PIN: RecordKind = {
  format: "cairn.pin",
  check(fields) {
    fields.time("at");
    fields.text("reason");
  },
};

const TAGS: RecordKind = {
  format: "cairn.tags",
  check(fields) {
    fields.texts("tags");
  },
};

const VERIFICATION: RecordKind = {
  format: "cairn.verification",
  check(fields) {
    fields.time("at");
    fields.boolean("ok");
    fields.list("problems", (element, label) => {
      const problem = new Fields(element, label);
      problem.text("kind");
      if (problem.has("path")) checkPath(problem);
      problem.text("detail");
    });
  },
};

/** All decoders throw `damaged`, naming the field, or `newer_version`; all encoders throw `internal`. */
export function encodeControl(record: ControlFile): Uint8Array {
  return encode(record, CONTROL);
}

export function decodeControl(bytes: Uint8Array): ControlFile {
  return decode(bytes, CONTROL);
}

export function encodeWorkspace(record: WorkspaceFile): Uint8Array {
  return encode(record, WORKSPACE);
}

export function decodeWorkspace(bytes: Uint8Array): WorkspaceFile {
  return decode(bytes, WORKSPACE);
}

export function encodeState(record: WorkspaceState): Uint8Array {
  return encode(record, STATE);
}

/** Also reads version 1, which had only the last restore. */
export function decodeState(bytes: Uint8Array): WorkspaceState {
  const { value, fields } = decodeRecord(bytes, STATE.format, STATE.version!);
  if (fields.integer("version", 2, 1) === 1) {
    const { last_restore: last, ...others } = value;
    const restore = fields.objectOrNull("last_restore");
    if (restore !== null) checkOperation(restore);
    const { then_unchanged: later, ...restored } = (last ?? {}) as { then_unchanged?: Partial<Operation> };
    const operations: object[] = restore === null ? [] : [{ kind: "restore", ...restored }];
    if (later !== undefined) operations.push({ kind: "restore", undo_id: later.restored_to, paths: null, ...later });
    return decodeState(encodeRecord({ ...others, operations }, STATE.format, STATE.version!));
  }
  STATE.check(fields);
  return value as unknown as WorkspaceState;
}

export function encodePin(record: PinFile): Uint8Array {
  return encode(record, PIN);
}

export function decodePin(bytes: Uint8Array): PinFile {
  return decode(bytes, PIN);
}

export function encodeTags(record: TagsFile): Uint8Array {
  return encode(record, TAGS);
}

export function decodeTags(bytes: Uint8Array): TagsFile {
  return decode(bytes, TAGS);
}

export function encodeVerification(record: VerificationFile): Uint8Array {
  return encode(record, VERIFICATION);
}

export function decodeVerification(bytes: Uint8Array): VerificationFile {
  return decode(bytes, VERIFICATION);
}
