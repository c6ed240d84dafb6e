import { nothing, number, object } from "../../contract/schema.ts";
import { SealWhenIdleOptions, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const seal = workspaceVerb({
  about: "Seals the points that only clones hold.",
  options: WorkspaceCallOptions,
  output: object({ sealed: number("how many points were read and stored") }),
  command: "seal",
  looks: true,
  run: async ({ workspace }, options) => (await import("../../operations/verify.ts")).seal(workspace, options),
});

export const sealWhenIdle = workspaceVerb({
  about:
    "From now on seals the newest points whenever no call of this client is under way; the next call stops it, `close` ends it.",
  options: SealWhenIdleOptions,
  output: nothing(),
  how: "at once",
  unserved: "a daemon seals what is asked for alone",
});
