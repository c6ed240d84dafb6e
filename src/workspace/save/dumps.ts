import fs from "node:fs";
import { join, relative } from "node:path";
import { DUMPS } from "../../archive/scan/task.ts";
import { CairnError } from "../../errors.ts";
import { failpoint } from "../../failpoint.ts";
import { fsyncDirectory, temporaryName } from "../../fs/durable.ts";
import { moveToFree } from "../../fs/linux/exchange-folders.ts";
import { makeOneFolder } from "../../fs/make-folder.ts";
import { joinRaw, listedNames, printablePath, quotedPath, shellPath } from "../../fs/paths/safe-path.ts";
import { removeAll } from "../../fs/remove-all.ts";
import { identityOf } from "../open/missing-folder.ts";
import { journaled } from "../open/unfinished-work.ts";
import type { Workspace, WorkspaceCall } from "../open/workspace.ts";

/**
 * Makes the directory in the workspace into which `before` commands write. Its name is that of an unfinished entry: saves
 * skip the directory, and after a kill the next command removes it. Throws `refused` if the folder is another user's, who
 * could lead the files elsewhere.
 */
export function makeDumps(root: Buffer): Buffer {
  const { uid } = fs.statSync(root);
  if (uid !== process.geteuid?.())
    throw new CairnError(
      "refused",
      `${printablePath(root)} belongs to the user ${uid}, so no command writes dumps into it`,
      { hint: "run the command as that user" },
    );
  const place = joinRaw(root, temporaryName());
  makeOneFolder(place, 0o700);
  return place;
}

/**
 * Runs `save` while the directory of dumps has the name `.cairn-dumps`. Throws `refused` if the folder has an entry of
 * that name. Warns of empty dumps. The caller holds the workspace's lock, and nothing is left to recover.
 */
export async function withDumps<T>(
  workspace: Workspace,
  place: Buffer,
  { onWarning }: WorkspaceCall,
  save: () => Promise<T>,
): Promise<T> {
  const dumps = fs.readdirSync(String(place), { recursive: true, withFileTypes: true });
  if (dumps.length === 0) return save();
  const empty = dumps.flatMap(({ parentPath, name }) => {
    const facts = fs.lstatSync(join(parentPath, name), { throwIfNoEntry: false });
    return facts?.isFile() === true && facts.size === 0 ? [relative(String(place), join(parentPath, name))] : [];
  });
  if (empty.length > 0)
    onWarning?.(`empty dumps, although the command that made them ended well: ${listedNames(empty.map(quotedPath))}`);
  const { root } = workspace;
  const named = joinRaw(root, DUMPS);
  if (identityOf(named) !== null)
    throw new CairnError(
      "refused",
      `${printablePath(named)} exists, for example after a restore; a save point with dumps needs that name for them`,
      { hint: `move it away: mv ${shellPath(named)} ${shellPath(joinRaw(root, "restored-dumps"))}` },
    );
  const made = identityOf(place)!;
  const record = workspace.unfinished("dumps");
  record.begin({ made });
  failpoint("dumps.recorded");
  try {
    moveToFree(place, named);
    failpoint("dumps.named");
    return await save();
  } finally {
    failpoint("dumps.saved");
    if (identityOf(named) === made) moveToFree(named, place);
    failpoint("dumps.renamed");
    fsyncDirectory(root);
    record.end();
  }
}

export const DUMPS_WORK = journaled({
  kind: "dumps",
  operation: "save",
  where: "`journal/dumps.json`",
  steps: [
    "the record identifies the directory with the dumps of `before` commands",
    "● the directory is `.cairn-dumps`, and the save reads it; the save has its own commit point",
    "the directory gets its former name; the record is removed, then the directory",
  ],
  before: "removes the directory",
  after: "removes `.cairn-dumps` if it is the recorded directory",
  changesFolder: true,
  unreadable: () => "dumps of a `before` command may lie in `.cairn-dumps` in the folder",
  async takeBack(workspace, { made }) {
    const named = joinRaw(workspace.root, DUMPS);
    if (identityOf(named) === made) removeAll(named);
    workspace.unfinished("dumps").end();
    return null;
  },
  isCommitted: () => false,
});
