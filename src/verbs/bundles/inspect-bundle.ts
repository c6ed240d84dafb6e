import { BundleInfo, bundle, bundleErrors } from "../../contract/bundles.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const inspectBundle = libraryVerb({
  about: "Says what is in a bundle by its manifest, which is compared with the zip; no content is read.",
  takes: [bundle()],
  options: CallOptions,
  output: BundleInfo,
  errors: bundleErrors,
  command: "bundle inspect",
  run: async (_hand, path) => (await import("../../operations/inspect/bundles.ts")).inspectBundle(path),
});
