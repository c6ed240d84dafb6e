import { VerifyOptions, VerifyResult } from "../../contract/looking.ts";
import { VerifyBackupResult } from "../../contract/repositories.ts";
import { object } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const verify = workspaceVerb({
  about:
    "Reads the complete content of a save point, also of another workspace, again and checks it against its hashes.",
  takes: [arg("target", target())],
  options: object({ ...VerifyOptions.entries, ...WorkspaceCallOptions.entries }),
  output: VerifyResult,
  command: { verify: VerifyResult, "verify backup:SNAPSHOT": VerifyBackupResult },
  by: "writers",
  looks: true,
  withoutFolder: true,
  stores: true,
  agents: ["deep", "throwOnDamage"],
  seals: true,
  run: async ({ workspace, unsealed }, point, options) =>
    (await import("../../look/verify.ts")).verify(workspace, point, { ...options, unsealed }),
});
