import type { Client } from "../../contract/index.ts";
import { RestoreOptions, type RestoreResult } from "../../contract/points.ts";
import { type AnySchema, count, type Entries, number, opt, text } from "../../contract/schema.ts";
import type { CallOptions, SavePoint } from "../../contract/words.ts";
import { plural } from "../../formats/sizes.ts";

/** Tools that MCP makes of verbs: the description for a model, and the answer in words. */

export type Given = Record<string, unknown>;

export interface Answer {
  data: Record<string, unknown>;
  /** The result for a model, in a few lines. */
  words: string;
}

export interface Tool {
  title: string;
  about: string;
  takes: Entries;
  output: AnySchema;
  /** True: the tool changes the folder or its points. False: it only looks. */
  changes: boolean;
  /** True: the tool makes a folder a workspace if it is not one yet. */
  makesWorkspace?: boolean;
  run(client: Client, given: Given, options: CallOptions): Promise<Answer>;
}

export const LISTED = 200;

export const RECENT = 20;

/** Returns lines for a model, and the number of further ones; `none` without lines. */
export function listed(lines: readonly string[], more: number, none: string): string {
  return lines.length === 0 ? none : `${lines.join("\n")}${more === 0 ? "" : `\n… and ${more} more`}`;
}

export const leftOut = (entries: readonly unknown[]): string =>
  entries.length === 0 ? "" : `; ${plural(entries.length, "entry")} left out, see left_out`;

/** Returns the members of a call that its options have, with the options of every call. */
export function optionsOf<T>(given: Given, names: readonly string[], options: CallOptions): T {
  return {
    ...options,
    ...Object.fromEntries(names.filter((name) => given[name] !== undefined).map((name) => [name, given[name]])),
  } as T;
}

export const shortId = (id: string | null): string => id?.slice(0, 8) ?? "none";

export const when = ({ save_point_id, created_at, message }: SavePoint): string =>
  `${shortId(save_point_id)} ${created_at} ${message ?? ""}`.trimEnd();

export const TARGET = text(
  "a save point: its id or a unique prefix of it, `latest`, `head`, `head~N`, or a time such as `2 hours ago`",
);

export const LIMIT = { limit: opt(count(`at most this many; default ${LISTED}`)) };

export const FEW = { limit: opt(count(`at most this many; default ${RECENT}`)) };

export const MORE = { more: number("number of entries that are not listed") };

export const PATHS = RestoreOptions.entries.paths;

export function limited<T>(all: readonly T[], { limit }: Given): { rows: readonly T[]; more: number } {
  const rows = all.slice(0, typeof limit === "number" && limit > 0 ? limit : LISTED);
  return { rows, more: all.length - rows.length };
}

export function restored({ restored_to, changes, undo_id, left_out }: RestoreResult): string {
  const counts =
    changes === null ? "" : `: created ${changes.created}, changed ${changes.updated}, removed ${changes.deleted}`;
  return `the folder is restored to ${shortId(restored_to)}${counts}${leftOut(left_out)}${undo_id === null ? "" : "; undo brings back the state before"}`;
}
