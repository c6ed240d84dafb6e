import { FindNamesOptions, FindNamesResult } from "../../contract/looking.ts";
import { FindInBackupsResult } from "../../contract/repositories.ts";
import { object, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

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
