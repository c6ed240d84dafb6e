import { RewriteBackupsOptions, RewriteBackupsResult } from "../../contract/snapshots.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const rewrite = repositoryVerb({
  about: "Takes paths out of snapshots by patterns.",
  options: RewriteBackupsOptions,
  output: RewriteBackupsResult,
  errors: ["usage", "refused", "busy"],
  command: "backup rewrite",
  run: async (...given) => (await import("../../backup/care/rewrite.ts")).rewriteBackups(...given),
});
