import path from "node:path";
import { CairnError } from "../errors.ts";
import { shellPath } from "../fs/safe-path.ts";
import { JOURNALS } from "./journals.ts";
import { ownerBesidesUs } from "./not-the-owner.ts";
import type { Workspace } from "./workspace.ts";

/**
 * Journals of a restore or a conversion say what is moved where, and which owners and modes it gets. A command that only comes
 * by does that for this user and root, and never with root's rights because another user's file says so.
 */

/** Throws `permission` where another user has left something that only they may finish. */
export function requireOwnJournals({ found }: Workspace): void {
  const directory = found.paths.journal;
  for (const { operation, files } of JOURNALS) {
    if (operation === "cleanup" || operation === "seal") continue;
    const owner = files.map((name) => ownerBesidesUs(path.join(directory, name))).find((uid) => uid !== null);
    if (owner === undefined) continue;
    throw new CairnError(
      "permission",
      `a ${operation} that the user ${owner} began is unfinished, and theirs to finish`,
      {
        hint: `as that user: sudo -u '#${owner}' cairn -C ${shellPath(found.folder)} status`,
        details: { journal: path.join(directory, files[0]), uid: owner },
      },
    );
  }
}
