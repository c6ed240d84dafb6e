import { CopyBackupsOptions, CopyBackupsResult, repository } from "../../contract/repositories.ts";
import { arg } from "../../contract/verb.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const copyTo = repositoryVerb({
  about: "Copies snapshots into another repository. Snapshots with missing data are `not_copied`.",
  takes: [arg("target", repository("the repository to copy into"))],
  options: CopyBackupsOptions,
  output: CopyBackupsResult,
  errors: ["damaged"],
  command: "backup copy",
  run: async (access, target, options) => {
    const { accessOf } = await import("../../keep/opened-repository.ts");
    const { copyBackups } = await import("../../backup/care/copy.ts");
    return accessOf("copyTo", target).during(options, async (into) => copyBackups(access, into, options));
  },
});
