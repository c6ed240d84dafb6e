import { ExportPointResult } from "../../contract/export-directory.ts";
import { ExportMachineOptions, machineErrors, machines, name } from "../../contract/machines.ts";
import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { libraryVerb } from "../kinds/define.ts";

export const exportMachine = libraryVerb({
  about: "Writes a saved state of a machine as an export directory.",
  takes: [machines(), name(), arg("to", place("the directory, absent or empty"))],
  options: ExportMachineOptions,
  output: ExportPointResult,
  errors: [...machineErrors, "already_exists", "no_space"],
  command: "vm export",
  run: async (...given) => (await import("../../keep/machines/states.ts")).exportMachine(...given),
});
