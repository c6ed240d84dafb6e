import { RewriteBackupsOptions, RewriteBackupsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const rewrite = repositoryVerb({
  about: "Removes paths that match patterns from snapshots.",
  options: RewriteBackupsOptions,
  output: RewriteBackupsResult,
  errors: ["usage", "refused", "busy"],
  command: "backup rewrite",
  run: async (...given) => (await import("../../backup/care/rewrite.ts")).rewriteBackups(...given),
});
