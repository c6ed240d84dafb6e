import fs from "node:fs";
import path from "node:path";
import { sha256 } from "../../crypto/hash.ts";
import { STAGING_NAME } from "../../archive/scan/task.ts";
import { advice, CairnError, call, either } from "../../errors.ts";
import {
  type CleanupFile,
  decodeCleanup,
  decodeRemovedPaths,
  type RemovedPathsFile,
} from "../../formats/records/cleanup.ts";
import { OPERATION_KINDS, type OperationKind } from "../../formats/records/control.ts";
import { decodeRestore, encodeRestore, type RestoreFile } from "../../formats/records/restore.ts";
import { durableRemove, durableWrite, TEMPORARY_PREFIX, temporaryName } from "../../fs/durable.ts";
import { printablePath, shellPath } from "../../fs/paths/safe-path.ts";
import { isSavePointId, type SavePointId } from "../../ids.ts";
import { ownerBesidesUs } from "../place/owners.ts";
import { readRecord } from "../place/control-directory.ts";
import type { LeftOutEntry } from "./left-out.ts";
import { decodeSteps, encodeSteps, type Steps, type StepsFile } from "./steps.ts";
import type { Workspace } from "../open/workspace.ts";

/**
 * Reads the journals of interrupted operations. Restores and cleanups write files. Other operations write a link with
 * the data in its target: the link becomes durable with the exchange after it, while a file would need a sync first.
 */

/** Names in the journal directory. */
export const RESTORE_JOURNAL = "restore.json";
const RESTORE_STEPS = "restore.steps";
export const CLEANUP_JOURNAL = "cleanup.json";
export const PATHS_JOURNAL = "paths.json";
export const EXCHANGE_JOURNAL = "exchange";
export const CONVERT_JOURNAL = "convert";
export const FOLDER_JOURNAL = "folder";
export const SEAL_JOURNAL = "sealing";

/** A kind of operation that may be under way in a workspace, as its journal directory says. */
export interface Journal {
  operation: "restore" | "cleanup" | "conversion" | "seal";
  /** File names in the journal directory. Removing the first one is the commit: without it the others are ignored. */
  files: readonly [string, ...string[]];
  /** Null if the journal is not there. Throws `damaged`, `newer_version`. */
  read: (directory: string) => unknown;
}

export const JOURNALS: readonly Journal[] = [
  {
    operation: "restore",
    files: [RESTORE_JOURNAL, RESTORE_STEPS],
    read: (directory) => new RestoreJournal(directory).read(),
  },
  { operation: "restore", files: [EXCHANGE_JOURNAL], read: readExchangeIntent },
  { operation: "conversion", files: [CONVERT_JOURNAL], read: readConvertIntent },
  { operation: "restore", files: [FOLDER_JOURNAL], read: readFolderIntent },
  { operation: "cleanup", files: [CLEANUP_JOURNAL], read: readCleanupJournal },
  { operation: "cleanup", files: [PATHS_JOURNAL], read: readPathsJournal },
  { operation: "seal", files: [SEAL_JOURNAL], read: readSealIntent },
];

/** True if a journal directory has a journal of an interrupted operation; cheap. */
export function isAnyJournalThere(directory: string): boolean {
  return JOURNALS.some(({ files: [first] }) => isIntentPending(directory, first));
}

/**
 * Throws `permission` if another user's restore or conversion was interrupted: only that user may finish it. Its
 * journal decides owners and modes of files, and root must not trust another user's journal.
 */
export function requireOwnJournals({ found }: Workspace): void {
  const directory = found.paths.journal;
  for (const { operation, files } of JOURNALS) {
    if (operation === "cleanup" || operation === "seal") continue;
    const owner = files.map((name) => ownerBesidesUs(path.join(directory, name))).find((uid) => uid !== null);
    if (owner === undefined) continue;
    throw new CairnError(
      "permission",
      `a ${operation} of the user ${owner} was interrupted, and only that user may finish it`,
      {
        hint: advice`run this to finish it as that user${either(`: sudo -u '#${owner}' cairn -C ${shellPath(found.folder)} status`, advice` (uid ${owner}): ${call("open", "open", printablePath(found.folder))}`)}`,
        details: { journal: path.join(directory, files[0]), uid: owner },
      },
    );
  }
}

/** The version in the first word of a link's target. */
const VERSION = 1;

/** Stands for a copy's UUID before the copy is made. */
export const NOT_MADE = "0".repeat(32);

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
const MAX_CLEANUP_BYTES = 256 << 20;
const HINT = advice`run ${call("doctor --repair", "doctor", { repair: true })}`;

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

/** Null if no removal is in progress. Throws `damaged`, `newer_version`. */
export function readCleanupJournal(journal: string): CleanupFile | null {
  return readRecord(path.join(journal, CLEANUP_JOURNAL), decodeCleanup, { maxBytes: MAX_CLEANUP_BYTES, hint: HINT });
}

/** Null if no removal of paths is in progress. Throws `damaged`, `newer_version`. */
export function readPathsJournal(journal: string): RemovedPathsFile | null {
  return readRecord(path.join(journal, PATHS_JOURNAL), decodeRemovedPaths, { maxBytes: MAX_CLEANUP_BYTES, hint: HINT });
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

/** A conversion in progress, as the target of a link. */
export interface ConvertIntent {
  /** Name beside the folder: of the copy, and after the exchange of the original. */
  name: string;
  /** UUID of the copy's subvolume, 32 hex digits: if the folder has it, the exchange took place. */
  uuid: string;
  /** Ns since 1970, before the copy was begun: the copy has all earlier changes. */
  since: bigint;
  /** Ns since 1970 at which the copy was complete and compared; 0 until then. */
  made: bigint;
}

const CONVERT_WORDS = /^cairn\.convert\.1:(\.cairn-original-[0-9a-f]{16}):([0-9a-f]{32}):(\d{1,20}):(\d{1,20})$/;

/** Null if no conversion is in progress. Throws `damaged`. */
export function readConvertIntent(journal: string): ConvertIntent | null {
  return readIntentLink(journal, CONVERT_JOURNAL, (target) => {
    const said = CONVERT_WORDS.exec(target);
    return said && { name: said[1]!, uuid: said[2]!, since: BigInt(said[3]!), made: BigInt(said[4]!) };
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

/** Returns the point that is being sealed, with id null if the link names none; null if no sealing is in progress. */
export function readSealIntent(journal: string): { id: SavePointId | null } | null {
  return readIntentLink(journal, SEAL_JOURNAL, (words) => ({ id: isSavePointId(words) ? words : null }));
}
