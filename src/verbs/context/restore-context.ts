import { ImportBundleResult, RestoreContextOptions, importErrors, store } from "../../contract/context.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const restoreContext = libraryVerb({
  about: "Restores all scopes of a backup bundle into a context store. Checks the whole bundle before it writes.",
  takes: [store(), arg("path", place("a bundle"))],
  options: RestoreContextOptions,
  output: ImportBundleResult,
  errors: importErrors,
  command: "bundle restore",
  run: async (_hand, store, path, options) =>
    (await import("../../keep/context/bundles.ts")).restoreContext(store, path, options),
});
