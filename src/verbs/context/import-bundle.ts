import { ImportBundleOptions, ImportBundleResult, importErrors, store } from "../../contract/context.ts";
import { place, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const importBundle = libraryVerb({
  about: "Imports a bundle below a URI of a context store. Checks the whole bundle before it writes.",
  takes: [store(), arg("path", place("a bundle")), arg("parent", text("viking://SCOPE/…"))],
  options: ImportBundleOptions,
  output: ImportBundleResult,
  errors: importErrors,
  command: "bundle import",
  run: async (_hand, store, path, parent, options) =>
    (await import("../../keep/context/bundles.ts")).importBundle(store, path, parent, options),
});
