import { DiffBundleFilesResult, bundleErrors } from "../../contract/bundles.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const diffBundles = libraryVerb({
  about: "Compares two bundles by their manifests.",
  takes: [arg("a", place("a bundle")), arg("b", place("a bundle"))],
  options: CallOptions,
  output: DiffBundleFilesResult,
  errors: bundleErrors,
  command: "bundle diff",
  run: async (_hand, a, b) => (await import("../../look/inspect/bundles.ts")).diffBundles(a, b),
});
