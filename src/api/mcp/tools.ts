import { isAbsolute } from "node:path";
import { count, type Entries, flag, number, object, opt, pick, text } from "../../contract/schema.ts";
import { jsonSchemaOf, jsonSchemaOfMembers, type JsonSchema } from "../../contract/json-schema.ts";
import { CairnError } from "../../errors.ts";
import type { Client } from "../../contract/index.ts";
import * as looking from "../../contract/looking.ts";
import * as points from "../../contract/points.ts";
import type { CallOptions, SavePoint } from "../../contract/words.ts";
import { plural } from "../../formats/sizes.ts";

/** Verbs as an agent's tools: what a model is told of each, and what it is answered in words. */

type Given = Record<string, unknown>;
export interface Answer {
  /** The typed result. */
  data: Record<string, unknown>;
  /** The result for a model, in a few lines. */
  words: string;
}

export interface Tool {
  title: string;
  about: string;
  /** Members of the call. */
  takes: Entries;
  output: Parameters<typeof jsonSchemaOf>[0];
  /** It changes the folder or its points; false: it only looks. */
  changes: boolean;
  /** It adopts a folder that is no workspace yet. */
  adopts?: boolean;
  run(client: Client, given: Given, options: CallOptions): Promise<Answer>;
}

const LISTED = 200;
const RECENT = 20;
const CONTENT_BYTES = 256 << 10;

/** Lines for a model, and how many more there are; `none` in their place where there is nothing. */
function listed(lines: readonly string[], more: number, none: string): string {
  return lines.length === 0 ? none : `${lines.join("\n")}${more === 0 ? "" : `\n… and ${more} more`}`;
}

const leftOut = (entries: readonly unknown[]): string =>
  entries.length === 0 ? "" : `; ${plural(entries.length, "entry")} left out, see left_out`;

/** A call's members that its options know, with the options of every call. */
function optionsOf<T>(given: Given, names: readonly string[], options: CallOptions): T {
  return {
    ...options,
    ...Object.fromEntries(names.filter((name) => given[name] !== undefined).map((name) => [name, given[name]])),
  } as T;
}

const shortId = (id: string | null): string => id?.slice(0, 8) ?? "none";
const when = ({ save_point_id, created_at, message }: SavePoint): string =>
  `${shortId(save_point_id)} ${created_at} ${message ?? ""}`.trimEnd();

const TARGET = text(
  "a save point: its id or a unique prefix of it, `latest`, `head`, `head~N`, or a time such as `2 hours ago`",
);
const LIMIT = { limit: opt(count(`at most this many; default ${LISTED}`)) };
const FEW = { limit: opt(count(`at most this many; default ${RECENT}`)) };
const MORE = { more: number("number of entries that are not listed") };
const PATHS = points.RestoreOptions.entries.paths;

function limited<T>(all: readonly T[], { limit }: Given): { rows: readonly T[]; more: number } {
  const rows = all.slice(0, typeof limit === "number" && limit > 0 ? limit : LISTED);
  return { rows, more: all.length - rows.length };
}

export const TOOLS: Readonly<Record<string, Tool>> = {
  save: {
    title: "Save the folder",
    about:
      "Saves the folder's current state as a save point. Call it before a risky change and after each piece of work: `restore` can bring the state back.",
    takes: pick(points.SaveOptions, "message", "tags", "cause"),
    output: points.SaveResult,
    changes: true,
    adopts: true,
    async run(client, given, options) {
      const call = optionsOf<points.SaveOptions>(given, ["message", "tags", "cause"], options);
      // By its kind a tag is known for an agent's.
      if (call.cause !== undefined && call.cause.kind !== "tool_call")
        throw new CairnError("usage", "the cause of an agent's save must be of the kind tool_call", {
          hint: 'describe the tool call, for example {"kind":"tool_call","tool":"bash"}',
        });
      const data = await client.save({ cause: { kind: "tool_call", tool: "mcp" }, ...call, skipUnchanged: true });
      return {
        data,
        words: data.made
          ? `saved as ${shortId(data.save_point_id)}${leftOut(data.left_out)}`
          : `nothing had changed since ${shortId(data.save_point_id)}`,
      };
    },
  },
  history: {
    title: "List the save points",
    about: "Lists the save points, newest first.",
    takes: {
      ...pick(looking.HistoryOptions, "grep", "tag", "since", "until", "path", "all"),
      ...FEW,
    },
    output: looking.HistoryResult,
    changes: false,
    async run(client, given, options) {
      const { limit = RECENT } = given;
      const names = ["grep", "tag", "since", "until", "path", "all"];
      const data = await client.history(undefined, limit as number, optionsOf(given, names, options));
      const lines = data.save_points.map(
        (point) =>
          `${when(point)}${point.save_point_id === data.head ? "  <- head: the folder is based on this point" : ""}`,
      );
      return {
        data,
        words: lines.length === 0 ? "there are no save points" : `${lines.join("\n")}${data.truncated ? "\n…" : ""}`,
      };
    },
  },
  status: {
    title: "What changed since the last save",
    about: "Counts what changed in the folder since head, the save point that the folder is based on.",
    takes: {},
    output: looking.StatusResult,
    changes: false,
    async run(client, _given, options) {
      const data = await client.status(options);
      const { added, modified, removed } = data.changes;
      const words = data.clean ? "nothing has changed" : `added ${added}, changed ${modified}, removed ${removed}`;
      return {
        data,
        words: `${words} since ${shortId(data.head)}${data.detached ? "; there are newer save points" : ""}`,
      };
    },
  },
  diff: {
    title: "Compare save points",
    about:
      "Lists the differences between two save points, or between a save point and the current folder (without `b`).",
    takes: { a: TARGET, b: opt(TARGET), paths: PATHS, ...LIMIT },
    output: object({ ...looking.DiffResult.entries, ...MORE }),
    changes: false,
    async run(client, given, options) {
      const { entries, ...rest } = await client.diff(
        given["a"] as string,
        (given["b"] as string | undefined) ?? null,
        optionsOf(given, ["paths"], options),
      );
      const { rows, more } = limited(entries, given);
      const lines = rows.map(
        ({ change, path, from_path }) => `${change} ${from_path === undefined ? "" : `${from_path} -> `}${path}`,
      );
      return { data: { ...rest, entries: rows, more }, words: listed(lines, more, "no differences") };
    },
  },
  show: {
    title: "Look into a save point",
    about: "Lists a folder of a save point, or returns the text of one of its files.",
    takes: {
      target: TARGET,
      path: opt(text("path of a folder or file, from the workspace's root; default: the root")),
      ...LIMIT,
    },
    output: object({
      ...looking.ShowResult.entries,
      ...MORE,
      content: opt(text(`content of a text file, at most ${CONTENT_BYTES >> 10} KiB`)),
      content_truncated: opt(flag()),
    }),
    changes: false,
    async run(client, given, options) {
      const [target, path] = [given["target"] as string, (given["path"] as string | undefined) ?? ""];
      const { entries, ...rest } = await client.show(target, path, options);
      const { rows, more } = limited(entries, given);
      const shown = { ...rest, entries: rows, more };
      if (rest.kind !== "file") {
        const lines = rows.map((each) => `${each.kind} ${each.path}`);
        return { data: shown, words: listed(lines, more, "") };
      }
      const content = await textOf(client, rest.save_point.save_point_id, path, options);
      if (content === null) return { data: shown, words: `${path} is not a text file; restore it to read it` };
      return { data: { ...shown, ...content }, words: content.content };
    },
  },
  why: {
    title: "What changed a path",
    about: "Lists the save points that changed a path, newest first, with their causes.",
    takes: { path: text("path from the workspace's root"), ...FEW },
    output: looking.WhyResult,
    changes: false,
    async run(client, given, options) {
      const data = await client.why(given["path"] as string, {
        limit: RECENT,
        ...optionsOf<looking.WhyOptions>(given, ["limit"], options),
      });
      const lines = data.changes.map(({ change, save_point }) => `${change} in ${when(save_point)}`);
      return { data, words: listed(lines, 0, "no save point changed the path") };
    },
  },
  restore: {
    title: "Go back to a save point",
    about:
      "Makes the folder, or some paths, equal to a save point. The current state is saved first: `undo` brings it back.",
    takes: { target: TARGET, paths: PATHS, ...pick(points.RestoreOptions, "keepPresent") },
    output: points.RestoreResult,
    changes: true,
    async run(client, given, options) {
      const names = ["target", "paths", "keepPresent"];
      const data = await client.restore(optionsOf<points.RestoreOptions>(given, names, options));
      return { data, words: restored(data) };
    },
  },
  undo: {
    title: "Undo the last restore",
    about: "Brings back the state before the last restore or undo.",
    takes: {},
    output: points.RestoreResult,
    changes: true,
    async run(client, _given, options) {
      const data = await client.undo(options);
      return { data, words: restored(data) };
    },
  },
  fork: {
    title: "Start a second folder from a save point",
    about:
      "Writes a save point into a new folder, which becomes an independent workspace. Use it to try something without touching the first folder.",
    takes: { target: TARGET, path: text("the new folder, absolute; absent or empty") },
    output: points.ForkResult,
    changes: true,
    async run(client, given, options) {
      if (!isAbsolute(String(given["path"])))
        throw new CairnError("usage", "path must be absolute", {
          hint: "give an absolute path: the server's current folder may differ from yours",
        });
      const data = await client.fork(given["target"] as string, given["path"] as string, options);
      return { data, words: `forked ${shortId(data.started_from)} into ${data.workspace.path}` };
    },
  },
};

function restored({ restored_to, changes, undo_id, left_out }: points.RestoreResult): string {
  const counts =
    changes === null ? "" : `: created ${changes.created}, changed ${changes.updated}, removed ${changes.deleted}`;
  return `the folder is restored to ${shortId(restored_to)}${counts}${leftOut(left_out)}${undo_id === null ? "" : "; undo brings back the state before"}`;
}

async function textOf(
  client: Client,
  id: string,
  path: string,
  options: CallOptions,
): Promise<{ content: string; content_truncated: boolean } | null> {
  const pieces: Uint8Array[] = [];
  let bytes = 0;
  for await (const piece of client.read(id, path, options)) {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes > CONTENT_BYTES) break;
  }
  const all = Buffer.concat(pieces).subarray(0, CONTENT_BYTES);
  if (all.includes(0)) return null;
  return { content: all.toString("utf8"), content_truncated: bytes > CONTENT_BYTES };
}

/** A tool as the protocol lists it. */
export function describeTool(name: string, { title, about, takes, output, changes }: Tool): Record<string, unknown> {
  return {
    name,
    title,
    description: about,
    inputSchema: jsonSchemaOfMembers(takes) as JsonSchema & { type: "object" },
    outputSchema: jsonSchemaOf(output),
    annotations: {
      title,
      readOnlyHint: !changes,
      destructiveHint: false,
      idempotentHint: !changes,
      openWorldHint: false,
    },
  };
}
