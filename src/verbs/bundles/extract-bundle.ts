import { ExtractBundleOptions, ExtractBundleResult, bundle, bundleErrors } from "../../contract/bundles.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const extractBundle = libraryVerb({
  about: "Checks a bundle and extracts it into an absent or empty folder: completely or not at all.",
  takes: [bundle(), arg("to", place("the folder"))],
  options: ExtractBundleOptions,
  output: ExtractBundleResult,
  errors: [...bundleErrors, "already_exists"],
  command: "bundle extract",
  run: async (_hand, path, to, options) =>
    (await import("../../look/inspect/bundles.ts")).extractBundle(path, to, options),
});
