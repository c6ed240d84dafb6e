import { makeSubvolume } from "../fs/btrfs.ts";
import { makeOneFolder } from "../fs/make-folder.ts";
import { makePrivate } from "../fs/owner-writes.ts";
import type { Workspace } from "./workspace.ts";

/** Makes an absent folder, for its owner alone: what the engine holds at once, or a plain one where that cannot be made there. */
export async function makeHoldable({ engine }: Workspace, folder: Buffer): Promise<void> {
  if (engine.holder?.atomic === true) {
    try {
      await makeSubvolume(folder);
      makePrivate(folder);
      return;
    } catch {
      // A plain one will do; its points are then kept in the store.
    }
  }
  makeOneFolder(folder, 0o700);
}
