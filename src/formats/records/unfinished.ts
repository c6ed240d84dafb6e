import { advice, CairnError, type Hint } from "../../errors.ts";
import type { SavePointId } from "../../ids.ts";
import { Fields, type JsonObject, parseJson } from "../fields.ts";
import { PROGRAM } from "../program.ts";
import type { OperationKind } from "./control.ts";
import { type CleanupFile, checkCleanup, checkRemovedPaths, type RemovedPathsFile } from "./cleanup.ts";
import { checkForkRemoval, checkPartial, type ForkRemoval, type PartialFile } from "./partial.ts";
import { checkExchange, checkRestore, type RestoreFile } from "./restore.ts";
import { checkVersion, encodeChecked, encodeRecord } from "./record.ts";

/**
 * Records of unfinished work: one format for everything that a kill can interrupt. `docs/formats/unfinished-work.md`
 * lists the kinds, and the leftovers of a kill.
 */

/** A folder that becomes a subvolume, or a plain folder again. */
export interface ConversionWork {
  /** Name beside the folder: of the copy, and after the exchange of the original. */
  name: string;
  /** UUID of the copy, 32 hex digits; {@link NOT_MADE} until it is made. If the folder has it, both were exchanged. */
  uuid: string;
  /** Decimal digits, ns since 1970, before the copy was begun: the copy has all earlier changes. */
  since: string;
  /** Decimal digits, ns since 1970 at which the copy was complete and compared; 0 until then. */
  made: string;
}

/** The record of a running restore by exchange. */
export interface ExchangeWork {
  target: SavePointId;
  undo_id: SavePointId;
  kind: OperationKind;
  /** Name of the copy's place in the control directory's temporary folder. */
  staging: string;
  /** UUID of the copy, 32 hex digits; zeros until it is made. If the folder has it, the exchange took place. */
  uuid: string;
}

/** A missing folder that a restore makes. */
export interface MissingFolderWork {
  /** Temporary name beside the final one. */
  aside: string;
  /** Device, inode and time of birth, with dots between; null until the folder is made. */
  made: string | null;
}

/** A change of a context store whose files are staged. */
export interface ContextChange {
  /** Places that are removed, with everything below, before new entries are placed; also from the index. */
  replaced: string[];
  /** Rows for the index are staged too. */
  has_records: boolean;
}

/** A machine that is restored to a saved state. */
export interface MachineRestore {
  /** Generation of the machine before: once its record has another one, the restore is done. */
  generation: string;
  /** The guest ran before. */
  ran: boolean;
}

/** Stands for a copy's UUID before the copy is made. */
export const NOT_MADE = "0".repeat(32);

/** The kinds of work, and the content of their records. A kind that is missing here cannot be begun. */
export interface UnfinishedWork {
  cleanup: CleanupFile;
  "removed-paths": RemovedPathsFile;
  "context-change": ContextChange;
  conversion: ConversionWork;
  /** Device, inode and time of birth, with dots between, of the directory that lies in the folder while a save reads it. */
  dumps: { made: string };
  exchange: ExchangeWork;
  "fork-removal": ForkRemoval;
  "machine-restore": MachineRestore;
  "missing-folder": MissingFolderWork;
  "new-folder": PartialFile;
  restore: RestoreFile;
  seal: { id: SavePointId };
}

export type WorkKind = keyof UnfinishedWork;

const CHECKS: { readonly [K in WorkKind]: (fields: Fields) => void } = {
  cleanup: checkCleanup,
  "removed-paths": checkRemovedPaths,
  "context-change"(fields) {
    fields.texts("replaced");
    fields.boolean("has_records");
  },
  conversion(fields) {
    requireMatch(fields, "name", /^\.cairn-original-[0-9a-f]{16}$/);
    fields.hex("uuid", 32);
    for (const key of ["since", "made"]) requireMatch(fields, key, /^\d{1,20}$/);
  },
  dumps: (fields) => requireMatch(fields, "made", /^[0-9.]+$/),
  exchange: checkExchange,
  "fork-removal": checkForkRemoval,
  "machine-restore"(fields) {
    fields.text("generation", 36);
    fields.boolean("ran");
  },
  "missing-folder"(fields) {
    requireMatch(fields, "aside", /^\.cairn-tmp-[0-9a-z-]+$/);
    if (!fields.isNull("made")) requireMatch(fields, "made", /^[0-9.]+$/);
  },
  "new-folder": checkPartial,
  restore: checkRestore,
  seal: (fields) => void fields.hex("id", 32),
};

export const WORK_KINDS = Object.keys(CHECKS) as readonly WorkKind[];

export const UNFINISHED = "cairn.unfinished";
/** Formats of such records in earlier releases. */
export const EARLIER_FORMATS: readonly string[] = [
  "cairn.cleanup",
  "cairn.partial",
  "cairn.removed-paths",
  "cairn.restore",
];
const VERSION = 1;
const MOVE_ASIDE = "move the record aside";

function requireMatch(fields: Fields, key: string, pattern: RegExp): void {
  if (!pattern.test(fields.text(key))) throw fields.wrong(key, `a text like ${pattern.source}`);
}

/** Encodes and decodes the records of a kind, for `Unfinished` of `src/fs/unfinished.ts`. */
interface Work<K extends WorkKind> {
  readonly otherwise: Hint;
  encode(work: UnfinishedWork[K]): Uint8Array;
  decode(bytes: Uint8Array): UnfinishedWork[K];
  earlier(record: string): CairnError;
}

/** `otherwise`: the way out if the record is damaged, or if an earlier build wrote it and is gone. */
export function workOf<K extends WorkKind>(kind: K, otherwise: Hint = MOVE_ASIDE): Work<K> {
  const decode = (bytes: Uint8Array): UnfinishedWork[K] =>
    decodeWork(bytes, kind, otherwise) as unknown as UnfinishedWork[K];
  return {
    otherwise,
    decode,
    encode: (work) =>
      encodeChecked(work, () => encodeRecord({ work: kind, by: PROGRAM, ...work }, UNFINISHED, VERSION), decode),
    earlier: (record) => earlierWork(record, otherwise),
  };
}

/** Decodes a record of `kind`; null: of any kind. Throws `damaged`, `newer_version`, and `refused` for an old format. */
export function decodeWork(bytes: Uint8Array, kind: WorkKind | null = null, otherwise: Hint = MOVE_ASIDE): JsonObject {
  const value = parseJson(bytes, UNFINISHED);
  const fields = new Fields(value, UNFINISHED);
  const format = fields.text("format", 200);
  if (EARLIER_FORMATS.includes(format)) throw earlierWork(`${format} ${fields.integer("version")}`, otherwise);
  if (format !== UNFINISHED) throw fields.wrong("format", JSON.stringify(UNFINISHED));
  checkVersion(fields, "version", VERSION);
  const own = WORK_KINDS.find((each) => fields.isText("work", each));
  if (own === undefined || (kind !== null && kind !== own)) throw fields.wrong("work", kind ?? WORK_KINDS.join(", "));
  fields.text("by", 100);
  CHECKS[own](fields);
  const {
    format: _format,
    version: _version,
    work: _work,
    by: _by,
    checksum: _checksum,
    ...content
  } = value as JsonObject;
  return content;
}

/**
 * The error for work that an earlier build began, whose records are not read. `record`: the path or format.
 * `otherwise`: the way out without that build.
 */
export function earlierWork(record: string, otherwise: Hint): CairnError {
  const message = `an earlier build of Cairn began this work (${record}), and only that build can finish it`;
  return new CairnError("refused", message, {
    hint: advice`run the build that began it, which finishes the work with its next command here; without that build: ${otherwise}`,
  });
}
