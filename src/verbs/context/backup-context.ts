import { ExportBundleOptions, ExportBundleResult, exportErrors, store } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const backupContext = libraryVerb({
  about: "Exports all scopes of a context store as one bundle, for `restoreContext` only.",
  takes: [store(), arg("to", place("the new file, which must not exist"))],
  options: ExportBundleOptions,
  output: ExportBundleResult,
  errors: exportErrors,
  command: "bundle backup",
  run: async (_hand, store, to, options) =>
    (await import("../../keep/context/bundles.ts")).backupContext(store, to, options),
});
