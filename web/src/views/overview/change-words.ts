import type { InstalledAgent } from "cairnstate/client";
import { plural } from "../../parts/numbers.ts";

/** The words for the files that an installation or a removal of hooks changes. */

type Changed = InstalledAgent["files"][number];
export type Work = "install" | "remove";

/** Tells how a file changes, for example `is edited: 7 hooks and the MCP server cairn go`. */
export function changeWords(work: Work, { changed, how, entries = [] }: Changed): string {
  if (!changed || how === "unchanged") return "stays as it is";
  if (how === "deleted") return "is deleted: only Cairn's entries are in it";
  const hooks = entries.filter((each) => each.startsWith("hooks.")).length;
  const others = entries.filter((each) => !each.startsWith("hooks.") && each !== "the whole file");
  const servers = others.filter((each) => /^mcp/i.test(each));
  const rest = others.filter((each) => !servers.includes(each));
  const named = [
    ...(hooks === 0 ? [] : [plural(hooks, "hook")]),
    ...servers.map((each) => `the MCP server ${each.split(".").at(-1)}`),
    ...rest,
  ];
  const one = named.length === 1 && hooks < 2;
  const verb = work === "install" ? (one ? "comes" : "come") : one ? "goes" : "go";
  const words = how === "created" ? "is made" : "is edited";
  return named.length === 0 ? words : `${words}: ${named.join(", ")} ${verb}`;
}

/** Tells the outcome of an installation or a removal. After a removal, `problem` may tell that other hooks save the folder. */
export function doneWords(work: Work, { files, problem }: Pick<InstalledAgent, "files" | "problem">): string {
  const changed = files.filter((each) => each.changed).length;
  if (work === "install") return `Hooks installed: ${plural(changed, "file")} changed.`;
  if (changed > 0) return `Hooks removed: ${plural(changed, "file")} changed. The save points stay.`;
  const outcome = problem === null ? "Hooks do not save this folder any more." : "This folder's own entry is removed.";
  return `${outcome} No file changed.`;
}
