import type { Holder } from "../../contract/words.ts";
import { findHolders } from "../../fs/linux/holders.ts";
import { displayPath } from "../../fs/paths/safe-path.ts";
import { isFolderThere } from "../place/control-directory.ts";
import type { Workspace } from "./workspace.ts";

const HOLDERS_BUDGET_MS = 100;

/** Processes that have a file of the folder open for writing, as far as this user can see. */
export function holdersOf(workspace: Workspace): Holder[] {
  const root = workspace.root;
  if (!isFolderThere(root)) return [];
  return findHolders(root, { budgetMs: HOLDERS_BUDGET_MS })
    .holders.filter(({ kind }) => kind === "open-write" || kind === "mapping")
    .map(({ pid, command, path }) => ({
      pid,
      command,
      ...displayPath(path.subarray(0, root.length).equals(root) ? path.subarray(root.length + 1) : path),
    }));
}
