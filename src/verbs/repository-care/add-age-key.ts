import { AgeKeyOptions, RepositoryKeys } from "../../contract/repositories.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const addAgeKey = repositoryVerb({
  about: "Adds a random password that exists only in a file encrypted for age recipients.",
  options: AgeKeyOptions,
  output: RepositoryKeys,
  errors: ["already_exists"],
  run: async (...given) => (await import("../../backup/age-password.ts")).addAgeKey(...given),
});
