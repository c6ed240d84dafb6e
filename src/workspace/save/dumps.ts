import { randomBytes } from "node:crypto";
import fs from "node:fs";
import { DUMPS, STAGING_PREFIX } from "../../archive/scan/task.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import type { DumpsWork } from "../../formats/records/unfinished.ts";
import { fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { moveToFree } from "../../fs/linux/exchange-folders.ts";
import { makeOneFolder } from "../../fs/make-folder.ts";
import { joinRaw, printablePath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { journaled } from "../open/unfinished-work.ts";
import type { Workspace } from "../open/workspace.ts";
import { isFolderThere } from "../place/control-directory.ts";
import { isOnDisk, whyUnmounted } from "../place/mounted.ts";

/**
 * The directory in the workspace into which a `before` command writes. Its name is an unfinished entry's: saves skip such
 * entries, and after a kill the next command removes them. While its own save reads the folder, the name is
 * `.cairn-dumps`.
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
   * Runs `save` while the files are in the folder as `.cairn-dumps`; an entry of that name, which a restore brought, is
   * aside meanwhile. Then all names are as before. The caller holds the workspace's lock.
   */
  async during<T>(workspace: Workspace, save: () => Promise<T>): Promise<T> {
    if (fs.readdirSync(this.place).length === 0) return save();
    const named = joinRaw(this.#root, DUMPS);
    const made = identityOf(this.place)!;
    const aside = `${STAGING_PREFIX}${randomBytes(8).toString("hex")}`;
    workspace.unfinished("dumps").begin({ made, aside });
    failpoint("dumps.recorded");
    try {
      if (identityOf(named) !== null) moveToFree(named, joinRaw(this.#root, aside));
      failpoint("dumps.aside");
      moveToFree(this.place, named);
      failpoint("dumps.named");
      return await save();
    } finally {
      failpoint("dumps.saved");
      if (identityOf(named) === made) moveToFree(named, this.place);
      failpoint("dumps.renamed");
      settle(workspace, { made, aside });
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
    "the record identifies the directory with the files of a `before` command; an entry `.cairn-dumps` in the folder is renamed",
    "● the directory is `.cairn-dumps`, and the save reads it; the save has its own commit point",
    "both get their former names; the record is removed, then the directory",
  ],
  before: "gives the renamed entry its name back; the directory is an unfinished entry and is removed, too",
  after: "removes `.cairn-dumps` if it is the recorded directory, and gives the renamed entry its name back",
  changesFolder: true,
  unreadable: () => "files of a `before` command may lie in `.cairn-dumps` in the folder",
  async takeBack(workspace, work) {
    const { found, root } = workspace;
    // The names on an unmounted disk are settled when the disk is back.
    if (isFolderThere(root)) {
      if (whyUnmounted(found) === null) settle(workspace, work);
    } else if (isOnDisk(root, found.workspace)) workspace.unfinished("dumps").end();
    return null;
  },
  isCommitted: () => false,
});

/** Removes the directory if it still has the name, and gives the entry that was aside its name back. Ends the record. */
function settle(workspace: Workspace, { made, aside }: DumpsWork): void {
  const named = joinRaw(workspace.root, DUMPS);
  if (identityOf(named) === made) removeAll(named);
  failpoint("dumps.removed");
  const kept = joinRaw(workspace.root, aside);
  if (identityOf(kept) !== null && identityOf(named) === null) moveToFree(kept, named);
  fsyncDirectory(workspace.root);
  failpoint("dumps.settled");
  workspace.unfinished("dumps").end();
}

function identityOf(place: Buffer): string | null {
  const facts = fs.lstatSync(place, { bigint: true, throwIfNoEntry: false });
  return facts === undefined ? null : [facts.dev, facts.ino, facts.birthtimeNs].join(".");
}
