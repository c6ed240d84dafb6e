import { RestoreMachineOptions, RestoreMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const restoreMachine = libraryVerb({
  about:
    "Restores a machine to a saved state. Checks and stages the whole state before it stops the machine; if a later step fails, the machine is put back.",
  takes: [machines(), name()],
  options: RestoreMachineOptions,
  output: RestoreMachineResult,
  errors: [...machineErrors, "damaged", "newer_version", "refused", "no_space"],
  command: "vm restore",
  unserved: "it runs a program, which is its caller's to run",
  run: async (...given) => (await import("../../keep/machines/bring.ts")).restoreMachine(...given),
});
