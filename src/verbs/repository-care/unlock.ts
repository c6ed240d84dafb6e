import { UnlockOptions, UnlockResult } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const unlock = repositoryVerb({
  about: "Removes stale locks: their process is gone, or they are 30 minutes old.",
  options: UnlockOptions,
  output: UnlockResult,
  command: "backup unlock",
  run: async (...given) => (await import("../../backup/keys.ts")).unlock(...given),
});
