import type { InstalledAgent } from "cairnstate/client";
import { plural } from "../../parts/numbers.ts";

/** The words for the files that an installation or a removal of hooks changes. */

type Changed = InstalledAgent["files"][number];

/** Tells how a file changes, for example `is edited: 7 hooks and the MCP server cairn go`. */
export function changeWords(work: "install" | "remove", { changed, how, entries = [] }: Changed): string {
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

/** Tells the outcome of an installation (`isInstalled`) or a removal. */
export function doneWords(isInstalled: boolean, { files }: Pick<InstalledAgent, "files">): string {
  const changed = files.filter((each) => each.changed).length;
  if (isInstalled) return `Hooks installed: ${plural(changed, "file")} changed.`;
  if (changed === 0) return "Hooks do not save this folder any more. No file changed.";
  return `Hooks removed: ${plural(changed, "file")} changed. The save points stay.`;
}
