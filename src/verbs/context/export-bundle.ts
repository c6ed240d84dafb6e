import { ExportBundleOptions, ExportBundleResult, at, exportErrors, store } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const exportBundle = libraryVerb({
  about:
    "Packs a subtree of a context store, or a whole scope, as a bundle, which is read again before it has its name.",
  takes: [store(), at(), arg("to", place("a file that is not there"))],
  options: ExportBundleOptions,
  output: ExportBundleResult,
  errors: exportErrors,
  command: "bundle export",
  run: async (_hand, store, uri, to, options) =>
    (await import("../../operations/context/bundles.ts")).exportBundle(store, uri, to, options),
});
