import { CairnError } from "../../errors.ts";
import { printablePath } from "../../fs/safe-path.ts";
import { warmThreads } from "../threads.ts";
import { cloneSettled, type ClonedTree, whyNotWhole } from "./clone-settled.ts";
import type { Captured, HolderCall, TreeHolder } from "./holder.ts";
import { removeTree } from "./remove-tree.ts";

export interface ReflinkHolder extends TreeHolder {
  readonly type: "reflink-copy";
  capture(root: Uint8Array, place: string, call: HolderCall): Promise<ClonedTree>;
  materialise(place: string, target: Uint8Array, call: HolderCall): Promise<ClonedTree>;
}

/**
 * Trees whose files are clones of the folder's, made one after the other: each file is of one moment, the tree is not.
 * Works within one XFS or btrfs. What is held can be written to by whoever may; only its place keeps people away.
 */
export function reflinkHolder(): ReflinkHolder {
  return {
    type: "reflink-copy",
    atomic: false,
    prepare: () => warmThreads("clone"),
    capture: async (root, place, call) => {
      const captured = await cloneSettled(root, Buffer.from(place), { ...call, origins: true });
      const reason = whyNotWhole(captured.result);
      if (reason === null) return captured;
      await removeTree(Buffer.from(place));
      throw new CairnError("unsupported", reason);
    },
    materialise: async (place, target, call) => {
      const copied = await cloneSettled(Buffer.from(place), target, call);
      // Who names a moment wants the tree as it was then, or none.
      const reason = call.until === undefined ? null : (whyNotWhole(copied.result) ?? whyTorn(copied));
      if (reason === null) return copied;
      await removeTree(target);
      throw new CairnError("unsupported", reason);
    },
    remove: async (place) => removeTree(Buffer.from(place)),
  };
}

function whyTorn({ torn }: Captured): string | null {
  return torn[0] === undefined ? null : `${printablePath(torn[0])} was changed while it was cloned`;
}
