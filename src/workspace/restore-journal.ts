import fs from "node:fs";
import path from "node:path";
import { sha256 } from "../crypto/hash.ts";
import { CairnError } from "../errors.ts";
import type { RecordedPath } from "../formats/record.ts";
import { durableRemove, durableWrite, readSmallFile } from "../fs/durable.ts";
import type { SavePointId } from "../ids.ts";
import { decodeSteps, encodeSteps, type Step } from "./restore-steps.ts";
import type { DirectoryFacts, PlaceApart } from "./staging-places.ts";

/**
 * The journal of a restore in place, in the workspace's journal directory: `restore.json` says what is under way,
 * `restore.steps` how. Without steps nothing in the workspace has been touched; with them the restore is finished.
 */
export interface RestoreIntent {
  format: "cairn.restore";
  /** 2 where there are places apart, which older readers do not know */
  version: 1 | 2;
  target: SavePointId;
  undo_id: SavePointId;
  kind: "restore" | "undo";
  paths: RecordedPath[] | null;
  /** absolute */
  staging: string;
  /** places that have a staging directory of their own, of the same name */
  apart?: PlaceApart[];
  root: DirectoryFacts | null;
  at: string;
}

export function apartOf(intent: RestoreIntent | null): readonly PlaceApart[] {
  return intent?.apart ?? [];
}

function checksumOf(intent: object): string {
  return Buffer.from(sha256(Buffer.from(JSON.stringify(intent)))).toString("hex");
}

const INTENT = "restore.json";
const MAX_STEPS_BYTES = 4 * 2 ** 30 - 1;

/** True when a restore was interrupted; cheap. */
export function isRestorePending(directory: string): boolean {
  return fs.existsSync(path.join(directory, INTENT));
}

export class RestoreJournal {
  readonly #intent: string;
  readonly #steps: string;

  constructor(directory: string) {
    this.#intent = path.join(directory, INTENT);
    this.#steps = path.join(directory, "restore.steps");
  }

  begin(intent: RestoreIntent): void {
    durableRemove(this.#steps);
    const record = { ...intent, checksum: checksumOf(intent) };
    durableWrite(this.#intent, Buffer.from(`${JSON.stringify(record)}\n`), { mode: 0o600 });
  }

  /** The commit point: from here on the restore is finished, whoever does it. */
  commit(steps: readonly Step[]): void {
    durableWrite(this.#steps, encodeSteps(steps), { mode: 0o600 });
  }

  intent(): RestoreIntent | null {
    const bytes = readSmallFile(this.#intent, 64 << 20);
    return bytes === null ? null : this.#decode(bytes);
  }

  read(): { intent: RestoreIntent; steps: Step[] | null } | null {
    const intent = this.intent();
    if (intent === null) return null;
    const steps = fs.existsSync(this.#steps) ? readSmallFile(this.#steps, MAX_STEPS_BYTES) : null;
    return { intent, steps: steps === null ? null : this.#decodeSteps(steps) };
  }

  #decode(bytes: Buffer): RestoreIntent {
    let record: RestoreIntent & { checksum?: unknown };
    try {
      record = JSON.parse(bytes.toString("utf8")) as typeof record;
      if (record.format !== "cairn.restore") throw new Error("not a restore's journal");
    } catch (error) {
      throw this.#damaged(this.#intent, (error as Error).message);
    }
    if (Number.isInteger(record.version) && record.version !== 1 && record.version !== 2)
      throw new CairnError("newer_version", `${this.#intent} has version ${String(record.version)}`, {
        hint: "use the newer cairn that wrote it",
      });
    const { checksum, ...intent } = record;
    if (checksum !== checksumOf(intent)) throw this.#damaged(this.#intent, "it is not what was written");
    return intent;
  }

  #decodeSteps(bytes: Buffer): Step[] {
    try {
      return decodeSteps(bytes);
    } catch (error) {
      throw this.#damaged(this.#steps, (error as Error).message);
    }
  }

  #damaged(file: string, why: string): CairnError {
    return new CairnError("damaged", `${file} cannot be read: ${why}`, { hint: "run `cairn doctor --repair`" });
  }

  /** Steps first: an intent without steps means that nothing was touched, which is true again only once it is forgotten whole. */
  end(): void {
    durableRemove(this.#intent);
    durableRemove(this.#steps);
  }
}
