import { ExportBundleOptions, ExportBundleResult, at, exportErrors, store } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const exportBundle = libraryVerb({
  about:
    "Exports a subtree or a whole scope of a context store as a bundle. The file gets its name after it was read again and verified.",
  takes: [store(), at(), arg("to", place("the new file, which must not exist"))],
  options: ExportBundleOptions,
  output: ExportBundleResult,
  errors: exportErrors,
  command: "bundle export",
  run: async (_hand, store, uri, to, options) =>
    (await import("../../keep/context/bundles.ts")).exportBundle(store, uri, to, options),
});
