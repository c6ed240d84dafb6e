import { VerifyBundleFileResult, bundle, bundleErrors } from "../../contract/bundles.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const verifyBundle = libraryVerb({
  about: "Reads every file in a bundle and compares it with the manifest.",
  takes: [bundle()],
  options: CallOptions,
  output: VerifyBundleFileResult,
  errors: bundleErrors,
  command: "bundle verify",
  run: async (_hand, path, options) => (await import("../../look/inspect/bundles.ts")).verifyBundle(path, options),
});
