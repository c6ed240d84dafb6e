import { InitRepositoryOptions, RepositoryOptions, repository } from "../../contract/repositories.ts";
import { RepositoryInfo } from "../../contract/snapshots.ts";
import { libraryVerb } from "../kinds/define.ts";

export const initRepository = libraryVerb({
  about: "Creates an empty repository in restic's format.",
  options: InitRepositoryOptions,
  output: repository("the new repository"),
  errors: ["already_exists", "permission"],
  command: { "backup init": RepositoryInfo },
  unserved: "it gives something that is open in its caller's own process",
  run: async (hand, options) => (await import("../../keep/opened-repository.ts")).initRepository(hand, options),
});

export const openRepository = libraryVerb({
  about: "Opens a repository.",
  options: RepositoryOptions,
  output: repository("the open repository"),
  errors: ["not_found", "wrong_password", "usage"],
  unserved: "it gives something that is open in its caller's own process",
  run: async (hand, options) => (await import("../../keep/opened-repository.ts")).openRepository(hand, options),
});
