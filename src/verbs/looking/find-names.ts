import { FindInBackupsResult } from "../../contract/repositories.ts";
import { about, count, flag, number, object, type Of, opt, rows, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { EntryKind, NamedPath, pointId, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const FindNamesOptions = object({
  ...WorkspaceCallOptions.entries,
  ignoreCase: opt(flag("do not distinguish upper and lower case"), "-i, --ignore-case"),
  limit: opt(count("list at most this many names; default 1000"), "-n, --limit <count>"),
  all: opt(flag("search undo points and the other workspaces of the control directory, too")),
});
export type FindNamesOptions = Of<typeof FindNamesOptions>;
export const FindNamesResult = object({
  found: rows(
    object({
      ...NamedPath.entries,
      workspace_name: text(),
      kind: about(EntryKind, "in the newest point that has the path"),
      newest: pointId("the newest point that has the path"),
      oldest: pointId("the oldest point that has the path"),
      points: number("number of points that have the path"),
      versions: number("number of different contents in these points"),
      in_latest: flag("true: the latest point of that workspace has the path"),
    }),
    "by workspace, this one first; then sorted by the bytes of their paths",
  ),
  truncated: flag("true if the limit left names out"),
});
export type FindNamesResult = Of<typeof FindNamesResult>;

export const findNames = workspaceVerb({
  about: "Searches the names of all save points: for a part of a name, or for a pattern with `*`, `?` or `[`.",
  takes: [arg("pattern", text("part of a name; or a pattern with *, ?, [abc] or, for a path, a slash and **"))],
  options: FindNamesOptions,
  output: FindNamesResult,
  command: {
    find: FindNamesResult,
    "find --in backups": FindInBackupsResult,
    "find --in all": object({ ...FindNamesResult.entries, backups: FindInBackupsResult }),
  },
  by: "writers",
  looks: true,
  withoutFolder: true,
  agents: ["ignoreCase", "limit", "all"],
  run: async ({ workspace }, pattern, options) =>
    (await import("./find-names.run.ts")).findNames(workspace, pattern, options),
});
