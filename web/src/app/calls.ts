import type { AgentsIn, FolderList, HistoryOptions, InstalledAgent, KeptByPage } from "cairnstate/client";
import { tellOutcome } from "./outcome.tsx";
import { problemOf } from "./resource.ts";
import { client } from "./session.ts";

/** Calls of the API from views, with the names and types of the contract. */

type Client = ReturnType<typeof client>;

/** Makes a call with one answer. */
export const call: Client["call"] = (...given) => client().call(...given);

/** Lists the folders in a folder of the machine, for a person who chooses one. */
export const foldersIn = (path: string): Promise<FolderList> => client().folders(path);

export const agentsIn = (workspace?: string): Promise<AgentsIn[]> => client().agents(workspace);
export const installAgent = (asked: Parameters<Client["installAgent"]>[0]): Promise<InstalledAgent> =>
  client().installAgent(asked);
export const keepRepository = (asked: Parameters<Client["keepRepository"]>[0]): Promise<KeptByPage> =>
  client().keepRepository(asked);

/** Downloads content by a link that works once. Shows the server's error if it refuses. */
export async function download(asked: Parameters<Client["ticket"]>[0]): Promise<void> {
  const found = await client()
    .ticket(asked)
    .catch((error: unknown) => tellOutcome({ text: "", problem: problemOf(error) }));
  if (found === undefined) return;
  const link = document.createElement("a");
  link.href = found.url;
  link.download = "";
  link.click();
}

/**
 * Translates a filter's text to options of `history`: `tag:`, `path:`, `since:`, `until:`; the rest is searched as
 * text.
 */
export function historyOptions(text: string): Pick<HistoryOptions, "grep" | "tag" | "path" | "since" | "until"> {
  const options: Record<string, string> = {};
  const rest = text.replaceAll(/(\w+):("[^"]*"|\S+)/g, (whole, name: string, value: string) => {
    if (!["tag", "path", "since", "until", "cause"].includes(name)) return whole;
    options[name === "cause" ? "grep" : name] = value.replaceAll('"', "");
    return "";
  });
  const grep = rest.trim().replaceAll(/\s+/g, " ");
  return grep === "" ? options : { ...options, grep };
}
