import { BundleInfo, bundle, bundleErrors } from "../../contract/bundles.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const inspectBundle = libraryVerb({
  about:
    "Lists the content of a bundle from its manifest, and compares the manifest with the zip's directory. File contents are not read.",
  takes: [bundle()],
  options: CallOptions,
  output: BundleInfo,
  errors: bundleErrors,
  command: "bundle inspect",
  run: async (_hand, path) => (await import("../../look/inspect/bundles.ts")).inspectBundle(path),
});
