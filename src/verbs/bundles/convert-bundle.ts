import { ConvertBundleOptions, ConvertBundleResult, bundle, bundleErrors } from "../../contract/bundles.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const convertBundle = libraryVerb({
  about: "Writes what is in a bundle as a new one in another layout, once all of it was checked.",
  takes: [bundle(), arg("to", place("a file that is not there"))],
  options: ConvertBundleOptions,
  output: ConvertBundleResult,
  errors: [...bundleErrors, "already_exists"],
  command: "bundle convert",
  run: async (_hand, path, to, options) =>
    (await import("../../operations/inspect/bundles.ts")).convertBundle(path, to, options),
});
