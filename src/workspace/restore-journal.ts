import fs from "node:fs";
import path from "node:path";
import { sha256 } from "../crypto/hash.ts";
import { CairnError } from "../errors.ts";
import { decodeRestore, encodeRestore, type RestoreFile } from "../formats/restore.ts";
import { durableRemove, durableWrite } from "../fs/durable.ts";
import { readRecord } from "./records.ts";
import type { LeftOutEntry } from "./record-point.ts";
import { decodeSteps, encodeSteps, type Step, type StepsFile } from "./restore-steps.ts";

/**
 * The journal of a restore in place, in the workspace's journal directory: `restore.json` says what is under way,
 * `restore.steps` how. Without steps nothing in the workspace has been touched; with them the restore is finished.
 */

/** `restore.json` with its last member, `checksum`: the SHA-256 of the JSON text without it. */
function encodeRestoreFile(intent: RestoreFile): Uint8Array {
  const text = Buffer.from(encodeRestore(intent)).toString("utf8").trimEnd();
  return Buffer.from(`${text.slice(0, -1)},"checksum":"${checksumOf(text)}"}\n`);
}

/** Throws `damaged`, `newer_version`. */
export function decodeRestoreFile(bytes: Uint8Array): RestoreFile {
  const { checksum, ...intent } = decodeRestore(bytes) as RestoreFile & { checksum?: unknown };
  if (checksum !== checksumOf(JSON.stringify(intent)))
    throw new CairnError("damaged", "its checksum is not that of its text");
  return intent;
}

function checksumOf(text: string): string {
  return Buffer.from(sha256(Buffer.from(text))).toString("hex");
}

/** Their names in the journal directory. */
export const RESTORE_JOURNAL = "restore.json";
export const RESTORE_STEPS = "restore.steps";
const MAX_INTENT_BYTES = 64 << 20;
const MAX_STEPS_BYTES = 4 * 2 ** 30 - 1;
const HINT = "run `cairn doctor --repair`";

/** True when a restore was interrupted; cheap. */
export function isRestorePending(directory: string): boolean {
  return fs.existsSync(path.join(directory, RESTORE_JOURNAL));
}

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

  /** The commit point: from here on the restore is finished, whoever does it. */
  commit(steps: StepsFile): void {
    durableWrite(this.#steps, encodeSteps(steps), { mode: 0o600 });
  }

  intent(): RestoreFile | null {
    return readRecord(this.#intent, decodeRestoreFile, { maxBytes: MAX_INTENT_BYTES, hint: HINT });
  }

  /** Throws `damaged`, `newer_version`. */
  read(): { intent: RestoreFile; steps: Step[] | null; leftOut: LeftOutEntry[] } | null {
    const intent = this.intent();
    if (intent === null) return null;
    const found = readRecord(this.#steps, decodeSteps, { maxBytes: MAX_STEPS_BYTES, hint: HINT });
    return { intent, ...(found ?? { steps: null, leftOut: [] }) };
  }

  /** The intent first: alone it would say that nothing was touched. Steps alone say nothing, and the next restore removes them. */
  end(): void {
    durableRemove(this.#intent);
    durableRemove(this.#steps);
  }
}
