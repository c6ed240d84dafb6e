import { TagBackupsOptions, TagBackupsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const tag = repositoryVerb({
  about: "Changes the tags of snapshots. Each changed snapshot gets a new id.",
  options: TagBackupsOptions,
  output: TagBackupsResult,
  errors: ["usage", "not_found", "ambiguous", "busy"],
  command: "backup tag",
  run: async (...given) => (await import("../../backup/care/tag.ts")).tagBackups(...given),
});
