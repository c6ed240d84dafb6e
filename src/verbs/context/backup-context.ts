import { ExportBundleOptions, ExportBundleResult, exportErrors, store } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const backupContext = libraryVerb({
  about: "Packs all scopes of a context store as a bundle that only a restore takes.",
  takes: [store(), arg("to", place("a file that is not there"))],
  options: ExportBundleOptions,
  output: ExportBundleResult,
  errors: exportErrors,
  command: "bundle backup",
  run: async (_hand, store, to, options) =>
    (await import("../../operations/context/bundles.ts")).backupContext(store, to, options),
});
