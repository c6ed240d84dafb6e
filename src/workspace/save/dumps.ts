import fs from "node:fs";
import { DUMPS } from "../../archive/scan/task.ts";
import { CairnError, reworded, toCairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { moveToFree } from "../../fs/linux/exchange-folders.ts";
import { makeOneFolder } from "../../fs/make-folder.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { journaled } from "../open/unfinished-work.ts";
import type { Workspace } from "../open/workspace.ts";

/**
 * The directory in the workspace into which a `before` command writes. It has an unfinished entry's name, which no save
 * reads and the next command removes after a kill. It is `.cairn-dumps` only while its own save reads the folder.
 */
export class Dumps {
  readonly place: Buffer;
  readonly #root: Buffer;

  private constructor(root: Buffer) {
    this.#root = root;
    this.place = joinRaw(root, temporaryName());
    makeOneFolder(this.place, 0o700);
  }

  /** Throws `refused` if the folder is another user's, who could lead the command's files elsewhere. */
  static make(root: Buffer): Dumps {
    const { uid } = fs.statSync(root);
    if (uid === process.geteuid?.()) return new Dumps(root);
    throw new CairnError(
      "refused",
      `${printablePath(root)} belongs to the user ${uid}, so no command writes dumps into it`,
      {
        hint: "run the command as that user",
      },
    );
  }

  /**
   * Runs `save` while the files are in the folder as `.cairn-dumps`. Intent: the record. Stage: the directory gets that
   * name. Commit: that of `save`. Then it gets its former name back, and the record goes. The caller holds the lock.
   */
  async during<T>(workspace: Workspace, save: () => Promise<T>): Promise<T> {
    if (fs.readdirSync(this.place).length === 0) return save();
    const record = workspace.unfinished("dumps");
    const named = joinRaw(this.#root, DUMPS);
    const made = identityOf(this.place)!;
    record.begin({ made });
    failpoint("dumps.recorded");
    try {
      moveToFree(this.place, named);
    } catch (error) {
      record.end();
      const failed = toCairnError(error);
      if (failed.code !== "already_exists") throw error;
      throw reworded(failed, {
        message: `${printablePath(named)} is already there, and the files of the command before the save would get this name`,
        hint: "remove or rename it; save points that have it keep it",
      });
    }
    failpoint("dumps.named");
    try {
      return await save();
    } finally {
      failpoint("dumps.saved");
      if (identityOf(named) === made) moveToFree(named, this.place);
      failpoint("dumps.renamed");
      fsyncDirectory(this.#root);
      record.end();
    }
  }

  remove(): void {
    removeAll(this.place);
  }
}

export const DUMPS_WORK = journaled({
  kind: "dumps",
  operation: "save",
  where: "`journal/dumps.json`",
  steps: [
    "the record identifies the directory with the files of a `before` command",
    "● the directory is `.cairn-dumps` in the folder, and the save reads it; that save has its own commit point",
    "the directory gets its former name; the record is removed, then the directory",
  ],
  before: "removes the record; the directory is an unfinished entry and is removed, too",
  after: "removes `.cairn-dumps` from the folder if it is the recorded directory",
  changesFolder: true,
  unreadable: () => "files of a `before` command may lie in `.cairn-dumps` in the folder",
  async takeBack(workspace, { made }) {
    const named = joinRaw(workspace.root, DUMPS);
    if (identityOf(named) === made) removeAll(named);
    failpoint("dumps.taken-back");
    fsyncDirectory(workspace.root);
    workspace.unfinished("dumps").end();
    return null;
  },
  isCommitted: () => false,
});

function identityOf(place: Buffer): string | null {
  const facts = fs.lstatSync(place, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? null : [facts.dev, facts.ino, facts.birthtimeNs].join(".");
}
