import { ConvertBundleOptions, ConvertBundleResult, bundle, bundleErrors } from "../../contract/bundles.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const convertBundle = libraryVerb({
  about: "Checks a bundle and writes its content as a new bundle in another layout.",
  takes: [bundle(), arg("to", place("the new file, which must not exist"))],
  options: ConvertBundleOptions,
  output: ConvertBundleResult,
  errors: [...bundleErrors, "already_exists"],
  command: "bundle convert",
  run: async (_hand, path, to, options) =>
    (await import("../../look/inspect/bundles.ts")).convertBundle(path, to, options),
});
