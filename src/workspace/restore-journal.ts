import fs from "node:fs";
import path from "node:path";
import { CairnError } from "../errors.ts";
import type { RecordedPath } from "../formats/record.ts";
import { durableRemove, durableWrite, readSmallFile } from "../fs/durable.ts";
import type { SavePointId } from "../ids.ts";
import { decodeSteps, encodeSteps, type Step } from "./restore-steps.ts";

/**
 * The journal of a restore in place, in the workspace's journal directory: `restore.json` says what is under way,
 * `restore.steps` how. Without steps nothing in the workspace has been touched; with them the restore is finished.
 */
export interface RestoreIntent {
  format: "cairn.restore";
  version: 1;
  target: SavePointId;
  undo_id: SavePointId;
  kind: "restore" | "undo";
  paths: RecordedPath[] | null;
  /** absolute */
  staging: string;
  root: { mode: number; uid: number; gid: number; mtime_sec: number; mtime_ns: number } | null;
  at: string;
}

const MAX_STEPS_BYTES = 4 * 2 ** 30 - 1;

export class RestoreJournal {
  readonly #intent: string;
  readonly #steps: string;

  constructor(directory: string) {
    this.#intent = path.join(directory, "restore.json");
    this.#steps = path.join(directory, "restore.steps");
  }

  begin(intent: RestoreIntent): void {
    durableRemove(this.#steps);
    durableWrite(this.#intent, Buffer.from(`${JSON.stringify(intent)}\n`), { mode: 0o600 });
  }

  /** The commit point: from here on the restore is finished, whoever does it. */
  commit(steps: readonly Step[]): void {
    durableWrite(this.#steps, encodeSteps(steps), { mode: 0o600 });
  }

  read(): { intent: RestoreIntent; steps: Step[] | null } | null {
    const bytes = readSmallFile(this.#intent, 64 << 20);
    if (bytes === null) return null;
    let intent: RestoreIntent;
    try {
      intent = JSON.parse(bytes.toString("utf8")) as RestoreIntent;
      if (intent.format !== "cairn.restore" || typeof intent.staging !== "string")
        throw new Error("not a restore's journal");
    } catch (error) {
      throw new CairnError("damaged", `${this.#intent} cannot be read: ${(error as Error).message}`, {
        hint: "run `cairn doctor`",
      });
    }
    if (intent.version !== 1)
      throw new CairnError("newer_version", `${this.#intent} has version ${String(intent.version)}`, {
        hint: "use the newer cairn that wrote it",
      });
    const steps = fs.existsSync(this.#steps) ? readSmallFile(this.#steps, MAX_STEPS_BYTES) : null;
    return { intent, steps: steps === null ? null : decodeSteps(steps) };
  }

  /** Steps first: an intent without steps means that nothing was touched, which is true again only once it is forgotten whole. */
  end(): void {
    durableRemove(this.#intent);
    durableRemove(this.#steps);
  }
}
