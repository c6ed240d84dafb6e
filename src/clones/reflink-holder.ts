import { CairnError } from "../errors.ts";
import { warmThreads } from "../threads/threads.ts";
import { CLONE } from "./clone-work.ts";
import { cloneSettled, type ClonedTree, whyMoved, whyNotWhole } from "./clone-settled.ts";
import type { HolderCall, TreeHolder } from "./holder.ts";
import { removeTree } from "./remove-held.ts";

interface ReflinkHolder extends TreeHolder {
  readonly type: "reflink-copy";
  capture(root: Uint8Array, place: string, call: HolderCall): Promise<ClonedTree>;
  materialise(place: string, target: Uint8Array, call: HolderCall): Promise<ClonedTree>;
}

/**
 * Trees of cloned files, made one after the other: each file is of one moment, the tree is not. Works within one XFS or
 * btrfs. Permissions of the held tree do not prevent writing; only its place keeps people away.
 */
export function reflinkHolder(): ReflinkHolder {
  return {
    type: "reflink-copy",
    atomic: false,
    prepare: () => warmThreads(CLONE),
    capture: async (root, place, call) => {
      const [to, began] = [Buffer.from(place), Date.now()];
      const captured = await cloneSettled(root, to, { ...call, origins: true });
      const { result } = captured;
      const reason = whyNotWhole(result) ?? (await whyMoved(root, to, { ...call, result, began }));
      if (reason === null) return captured;
      await removeTree(to);
      throw new CairnError("unsupported", reason);
    },
    materialise: async (place, target, call) => cloneSettled(Buffer.from(place), target, call),
    remove: async (place) => removeTree(Buffer.from(place)),
  };
}
