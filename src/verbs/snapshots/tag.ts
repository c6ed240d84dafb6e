import { TagBackupsOptions, TagBackupsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const tag = repositoryVerb({
  about: "Gives snapshots other tags; each gets another id.",
  options: TagBackupsOptions,
  output: TagBackupsResult,
  errors: ["usage", "not_found", "ambiguous", "busy"],
  command: "backup tag",
  run: async (...given) => (await import("../../backup/care/tag.ts")).tagBackups(...given),
});
