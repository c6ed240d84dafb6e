import { RepositoryKeys, password } from "../../contract/repositories.ts";
import { text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { repositoryVerb } from "../kinds/define.ts";

export const keys = repositoryVerb({
  about: "Lists the repository's keys.",
  options: CallOptions,
  output: RepositoryKeys,
  command: "backup key",
  run: async (access) => (await import("../../backup/keys.ts")).listKeys(access),
});

export const addKey = repositoryVerb({
  about: "Adds a password that opens the repository.",
  takes: [arg("password", password("the new password"))],
  options: CallOptions,
  output: RepositoryKeys,
  run: async (...given) => (await import("../../backup/keys.ts")).addKey(...given),
});

export const removeKey = repositoryVerb({
  about: "Removes a key, except the key in use.",
  takes: [arg("key", text())],
  options: CallOptions,
  output: RepositoryKeys,
  errors: ["refused", "not_found", "ambiguous"],
  run: async (...given) => (await import("../../backup/keys.ts")).removeKey(...given),
});

export const changePassword = repositoryVerb({
  about: "Replaces the password that opened the repository. The new key is written before the old key is removed.",
  takes: [arg("password", password("the new password"))],
  options: CallOptions,
  output: RepositoryKeys,
  run: async (...given) => (await import("../../backup/keys.ts")).changePassword(...given),
});
