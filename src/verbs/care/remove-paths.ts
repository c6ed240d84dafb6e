import { POINT_FACTS } from "../../contract/looking.ts";
import { flag, list, number, object, type Of, opt, rows, text } from "../../contract/schema.ts";
import { CallOptions, NamedPath, pointId, shownPlan } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const RemovePathsOptions = object({
  ...CallOptions.entries,
  paths: opt(
    list(
      text(),
      "remove paths that match from all points, with everything below them: a name, the end of a path, or a whole path; also from undo points, pinned points and forks. Rows inside SQLite databases are out of reach. Prompts and commands of agents that name such a path are removed too",
    ),
    "--path <pattern>",
  ),
  text: opt(
    list(
      text(),
      "remove the prompts and commands of agents that contain this text from the record of their events, and this text from causes, messages, tags and own ids of points; an id or name that has it becomes another one, the same in each record; a part of a secret is enough",
    ),
    "--text <pattern>",
  ),
  dryRun: opt(flag("only report which points and events have such a path or text")),
  plan: shownPlan(),
});
export type RemovePathsOptions = Of<typeof RemovePathsOptions>;
export const RemovePathsResult = object({
  dry_run: flag(),
  plan_id: text("`plan` of the same call without `dryRun`: changes exactly these points and events, or nothing"),
  points: rows(
    object({
      ...POINT_FACTS,
      paths: rows(NamedPath, "the removed paths, at most 20"),
      path_count: number(),
    }),
    "at most 1000, of all workspaces of the control directory; ids and sequence numbers stay",
  ),
  point_count: number(),
  event_count: number(
    "events of agents whose prompt, command, ids or names have such a text, or whose prompt or command has such a path",
  ),
  cause_count: number("points that have it in their cause, message, tags or own id"),
  bytes_freed: number("bytes freed in the store; only the file system knows the size of removed clones"),
  complete: flag(
    "false: some of the content remains in the store, or the text in a record that Cairn does not change; a warning says which",
  ),
  repositories: rows(
    object({
      location: text(),
      save_point_ids: rows(pointId(), "points with such a path that were backed up there, at most 100"),
      command: text("removes the paths there"),
    }),
  ),
  same_content: rows(
    NamedPath,
    "other paths in the points that have content of the removed files, at most 20, for example of a copy or a hard link",
  ),
  in_folders: rows(
    object({ ...NamedPath.entries, workspace_name: text() }),
    "paths that are still in a workspace's folder: the next save stores them again",
  ),
  databases: rows(text(), "SQLite databases in the points, at most 20: rows inside a database are out of reach"),
});
export type RemovePathsResult = Of<typeof RemovePathsResult>;

export const removePaths = workspaceVerb({
  about:
    "Removes paths that match patterns from all points of all workspaces in the control directory, and texts from the records of agents' events.",
  options: RemovePathsOptions,
  output: RemovePathsResult,
  errors: ["usage", "refused", "permission", "busy", "stale_plan"],
  command: "cleanup purge",
  changesPoints: true,
  // No point is removed.
  event: ({ dry_run: isPlan, point_count: count, bytes_freed }) =>
    isPlan || count === 0 ? null : { type: "cleanup", data: { points: 0, bytes_freed } },
  run: async ({ workspace }, options) => (await import("./remove-paths.run.ts")).removePaths(workspace, options),
});
