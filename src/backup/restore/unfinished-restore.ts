import { createHash } from "node:crypto";
import { takenBytes } from "../../clones/walk-entries.ts";
import { type CairnError, cannotBeWritten, toCairnError } from "../../errors.ts";
import { rawPath } from "../../formats/records/record.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { controlPaths } from "../../workspace/place/control-layout.ts";
import { unlessOthersWrote } from "../../workspace/place/owners.ts";
import {
  canTakeOver,
  type DeadPartial,
  deadPartials,
  isMountRoot,
  NewFolder,
  settlePartial,
} from "../../workspace/new-folder/new-folder.ts";
import { userStateDirectory } from "../../workspace/place/registry.ts";

/** Clears away what restores have left that were killed, but for unfinished folders beside the same target, which are returned. */
export function settleEarlier(target: Buffer, onWarning: ((message: string) => void) | undefined): DeadPartial[] {
  const dead = deadPartials(records()).filter(({ record }) => record.purpose === "restore");
  const isOfTarget = ({ record, committed }: DeadPartial): boolean =>
    !committed && record.content !== undefined && target.equals(rawPath(record.target));
  for (const each of dead) if (!isOfTarget(each)) settle(each, onWarning);
  return dead.filter(isOfTarget);
}

function settle(dead: DeadPartial, onWarning: ((message: string) => void) | undefined): void {
  const left = settlePartial(dead);
  if (left !== null) onWarning?.(left);
}

/** Restores of repositories belong to no workspace: they are recorded with the user's own state. */
function records(): ReturnType<typeof controlPaths> {
  return controlPaths(userStateDirectory());
}

/**
 * Returns a word that names what a restore writes; `paths` null: everything, `folder` absent: of the whole snapshot.
 */
export function restoredContent(
  repository: string,
  snapshot: string,
  { paths, folder }: { paths: readonly Uint8Array[] | null; folder: Uint8Array | undefined },
): string {
  const base64 = (path: Uint8Array): string => Buffer.from(path).toString("base64");
  const words = [repository, snapshot, (paths ?? []).map(base64), ...(folder === undefined ? [] : [base64(folder)])];
  return createHash("sha256").update(JSON.stringify(words)).digest("hex");
}

/** The folder beside a target that a restore fills: one that a restore of the same was filling that was killed, else a new one. */
export class RestoreFolder {
  readonly #target: Buffer;
  readonly #content: string;
  /** The unfinished restore that this one goes on with. */
  readonly #left: DeadPartial | null;

  /** Takes away what others have left beside the target, so that it is in nobody's way. */
  constructor(
    target: Buffer,
    { content, left }: { content: string; left: readonly DeadPartial[] },
    onWarning: ((message: string) => void) | undefined,
  ) {
    this.#target = target;
    this.#content = content;
    this.#left = left.find((dead) => dead.record.content === content && canTakeOver(dead)) ?? null;
    for (const dead of left) if (dead !== this.#left) settle(dead, onWarning);
  }

  /** Bytes that what is there already takes of the disk: it stays, or gives its room to what is written in its place. */
  async bytesThere(signal: AbortSignal | undefined): Promise<number> {
    return this.#left === null ? 0 : takenBytes(rawPath(this.#left.record.staging), signal);
  }

  /**
   * Records the restore, and goes on where nothing can be recorded; that is a warning only where what is written has to
   * be moved into a mount's root, which somebody else could then not finish.
   */
  begin(onWarning: ((message: string) => void) | undefined): { partial: NewFolder; resumes: boolean } {
    if (this.#left !== null) {
      const partial = takenOver(this.#left);
      if (partial !== null) return { partial, resumes: true };
      settle(this.#left, onWarning);
    }
    const unrecorded = (why: CairnError): void => onWarning?.(notRecorded(this.#target, why));
    const partial = NewFolder.begin(records(), "restore", this.#target, {
      content: this.#content,
      ...(isMountRoot(this.#target) ? {} : { unrecorded }),
    });
    partial.noteMade();
    return { partial, resumes: false };
  }
}

/** Null too where the new owner cannot be recorded. */
function takenOver(left: DeadPartial): NewFolder | null {
  try {
    return NewFolder.takeOver(records(), left);
  } catch (error) {
    if (!cannotBeWritten(toCairnError(error))) throw error;
    return null;
  }
}

function notRecorded(target: Buffer, why: CairnError): string {
  const { message, hint } = toCairnError(unlessOthersWrote([userStateDirectory()], why));
  return `this restore is not recorded, so that no later one would go on with it if it were killed, nor remove its folder beside ${printablePath(target)}: ${message}${hint === undefined ? "" : `; ${hint}`}`;
}
