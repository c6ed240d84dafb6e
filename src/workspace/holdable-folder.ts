import fs from "node:fs";
import { makeSubvolume } from "../fs/btrfs.ts";
import type { Workspace } from "./workspace.ts";

/** Makes an absent folder, for its owner alone: what the engine holds at once, or a plain one where that cannot be made there. */
export async function makeHoldable({ engine }: Workspace, folder: Buffer): Promise<void> {
  if (engine.holder?.atomic === true) {
    try {
      await makeSubvolume(folder);
      fs.chmodSync(folder, 0o700);
      return;
    } catch {
      // A plain one will do; its points are then kept in the store.
    }
  }
  fs.mkdirSync(folder, { mode: 0o700 });
}
