import { ReleaseOptions, ReleaseResult } from "../../contract/care.ts";
import { folder } from "../../contract/daemon.ts";
import { orNull } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

export const release = daemonCall({
  about: "Stops serving a folder, and ends its workspace. Null: the folder was no workspace any more.",
  takes: [folder()],
  options: ReleaseOptions,
  output: orNull(ReleaseResult),
  errors: ["not_a_workspace", "permission"],
});
