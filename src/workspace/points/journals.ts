import fs from "node:fs";
import path from "node:path";
import { sha256 } from "../../crypto/hash.ts";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import { advice, CairnError, call } from "../../errors.ts";
import { OPERATION_KINDS, type OperationKind } from "../../formats/records/control.ts";
import { type UnfinishedWork, type WorkKind, workOf } from "../../formats/records/unfinished.ts";
import { decodeRestore, encodeRestore, type RestoreFile } from "../../formats/records/restore.ts";
import { durableRemove, durableWrite, readRecord, TEMPORARY_PREFIX, temporaryName } from "../../fs/durable.ts";
import { DURABLE, ORDERED, Unfinished } from "../../fs/unfinished.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import type { LeftOutEntry } from "./left-out.ts";
import { decodeSteps, encodeSteps, type Steps, type StepsFile } from "./steps.ts";

/** Names of records in the journal directory. */
export const RESTORE_JOURNAL = "restore.json";
const RESTORE_STEPS = "restore.steps";
export const EXCHANGE_JOURNAL = "exchange";
export const FOLDER_JOURNAL = "folder";

const HINT = advice`run ${call("doctor --repair", "doctor", { repair: true })}`;

/** Kinds of work whose record need not be durable by itself, and names of the records of earlier releases. */
const ORDERED_KINDS: ReadonlySet<WorkKind> = new Set(["conversion", "seal"]);
const EARLIER: Partial<Record<WorkKind, string>> = {
  conversion: "convert",
  "removed-paths": "paths.json",
  seal: "sealing",
};

/** The record of work of one kind in a journal directory. */
export function unfinishedIn<K extends WorkKind>(journal: string, kind: K): Unfinished<UnfinishedWork[K]> {
  const earlier = EARLIER[kind];
  return new Unfinished(path.join(journal, `${kind}.json`), workOf(kind), {
    carrier: ORDERED_KINDS.has(kind) ? ORDERED : DURABLE,
    hint: HINT,
    ...(earlier === undefined ? {} : { earlier: path.join(journal, earlier) }),
  });
}

/** The version in the first word of a link's target. */
const VERSION = 1;

/** True if an operation with a journal of that name was interrupted; cheap. */
export function isIntentPending(journal: string, name: string): boolean {
  return fs.lstatSync(path.join(journal, name), { throwIfNoEntry: false }) !== undefined;
}

/** Writes a journal link. Replaces an earlier one. */
export function writeIntentLink(journal: string, name: string, words: readonly unknown[]): void {
  const temporary = path.join(journal, temporaryName());
  fs.symlinkSync(words.join(":"), temporary);
  fs.renameSync(temporary, path.join(journal, name));
}

export function removeIntentLink(journal: string, name: string): void {
  fs.rmSync(path.join(journal, name), { force: true });
}

/** Decodes the target of a journal link; null if there is no link. Throws `damaged` or `newer_version` if `decode` returns null. */
function readIntentLink<T>(journal: string, name: string, decode: (target: string) => T | null): T | null {
  if (!isIntentPending(journal, name)) return null;
  const place = path.join(journal, name);
  const words = fs.readlinkSync(place);
  const intent = decode(words);
  if (intent !== null) return intent;
  const version = Number(/^cairn\.[a-z]+\.(\d+):/.exec(words)?.[1]);
  if (version > VERSION)
    throw new CairnError("newer_version", `${place} has version ${version}; this program knows ${VERSION}`, {
      hint: "use a newer Cairn",
    });
  throw new CairnError("damaged", `${place} is not valid`, {
    hint: advice`run ${call("doctor --repair", "doctor", { repair: true })}`,
  });
}

/** Encodes `restore.json`. Its last member, `checksum`, is the SHA-256 of the JSON text without it. */
function encodeRestoreFile(intent: RestoreFile): Uint8Array {
  const text = Buffer.from(encodeRestore(intent)).toString("utf8").trimEnd();
  return Buffer.from(`${text.slice(0, -1)},"checksum":"${checksumOf(text)}"}\n`);
}

/** Throws `damaged`, `newer_version`. */
export function decodeRestoreFile(bytes: Uint8Array): RestoreFile {
  const { checksum, ...intent } = decodeRestore(bytes) as RestoreFile & { checksum?: unknown };
  if (checksum !== checksumOf(JSON.stringify(intent)))
    throw new CairnError("damaged", "its checksum does not match its content");
  return intent;
}

function checksumOf(text: string): string {
  return Buffer.from(sha256(Buffer.from(text))).toString("hex");
}

const MAX_INTENT_BYTES = 64 << 20;
const MAX_STEPS_BYTES = 4 * 2 ** 30 - 1;

/**
 * The journal of a restore in place: `restore.json` has the plan, `restore.steps` the steps. After a kill without steps
 * nothing in the workspace was touched. With steps the restore is finished.
 */
export class RestoreJournal {
  readonly #intent: string;
  readonly #steps: string;

  constructor(directory: string) {
    this.#intent = path.join(directory, RESTORE_JOURNAL);
    this.#steps = path.join(directory, RESTORE_STEPS);
  }

  begin(intent: RestoreFile): void {
    durableRemove(this.#steps);
    durableWrite(this.#intent, encodeRestoreFile(intent), { mode: 0o600 });
  }

  /** The commit point: from here on each recovery finishes the restore. */
  commit(steps: StepsFile): void {
    durableWrite(this.#steps, encodeSteps(steps), { mode: 0o600 });
  }

  intent(): RestoreFile | null {
    return readRecord(this.#intent, decodeRestoreFile, { maxBytes: MAX_INTENT_BYTES, hint: HINT });
  }

  /** Throws `damaged`, `newer_version`. */
  read(): { intent: RestoreFile; steps: Steps | null; leftOut: LeftOutEntry[] } | null {
    const intent = this.intent();
    if (intent === null) return null;
    const found = readRecord(this.#steps, decodeSteps, { maxBytes: MAX_STEPS_BYTES, hint: HINT });
    return { intent, ...(found ?? { steps: null, leftOut: [] }) };
  }

  /** Removes the plan first: a plan alone would mean that nothing was touched. The next restore removes steps without a plan. */
  end(): void {
    durableRemove(this.#intent);
    // Becomes durable with the next intent at the latest.
    fs.rmSync(this.#steps, { force: true });
  }
}

/** A restore by exchange in progress. */
export interface ExchangeIntent {
  target: SavePointId;
  undoId: SavePointId;
  kind: OperationKind;
  /** name of the copy's place in the control directory's temporary folder */
  staging: string;
  /** UUID of the copy, hex: if the folder has it, the exchange took place */
  uuid: string;
}

/** Null if no exchange is in progress. Throws `damaged`. */
export function readExchangeIntent(journal: string): ExchangeIntent | null {
  return readIntentLink(journal, EXCHANGE_JOURNAL, (words) => {
    const [format, target = "", undoId = "", word, staging = "", uuid = ""] = words.split(":");
    const kind = OPERATION_KINDS.find((each) => each === word);
    const isSound =
      format === "cairn.exchange.1" &&
      isSavePointId(target) &&
      isSavePointId(undoId) &&
      kind !== undefined &&
      STAGING_NAME.test(staging) &&
      /^[0-9a-f]{32}$/.test(uuid);
    return isSound ? { target, undoId, kind, staging, uuid } : null;
  });
}

const FOLDER_WORDS = new RegExp(`^cairn\\.folder\\.1:(\\${TEMPORARY_PREFIX}[0-9a-z-]+):(-|[0-9.]+)$`);

/** A folder that a restore makes, for the recovery after a kill. */
export interface FolderIntent {
  /** temporary name beside the final one */
  aside: string;
  /** the folder's `identityOf`; null until the folder is made */
  made: string | null;
}

/** Null if no restore makes a folder. Throws `damaged`. */
export function readFolderIntent(journal: string): FolderIntent | null {
  return readIntentLink(journal, FOLDER_JOURNAL, (words) => {
    const [, aside, made] = FOLDER_WORDS.exec(words) ?? [];
    return aside === undefined || made === undefined ? null : { aside, made: made === "-" ? null : made };
  });
}
