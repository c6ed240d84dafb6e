import { VerifyOptions, VerifyResult } from "../../contract/looking.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const verifyAll = workspaceVerb({
  about: "Verifies every point of every workspace in the control directory, and the store itself.",
  options: VerifyOptions,
  output: VerifyResult,
  looks: true,
  stores: true,
  run: async ({ workspace, parts }, options) => {
    const { orThrown, verifyAll: all } = await import("../../look/verify.ts");
    return orThrown(await all(workspace, parts, options), options);
  },
});
