import type { HistoryOptions } from "cairnstate/client";
import { tellOutcome } from "./outcome.tsx";
import { problemOf } from "./resource.ts";
import { client } from "./session.ts";

/** Calls of the API from views, with the names and types of the contract. */

type Client = ReturnType<typeof client>;

/** Makes a call with one answer. */
export const call: Client["call"] = (...given) => client().call(...given);

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
