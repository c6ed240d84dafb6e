import { RestoreMachineOptions, RestoreMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const restoreMachine = libraryVerb({
  about:
    "Brings a machine back to a saved state. All of it is checked and staged before the machine is stopped, and what fails puts it back.",
  takes: [machines(), name()],
  options: RestoreMachineOptions,
  output: RestoreMachineResult,
  errors: [...machineErrors, "damaged", "newer_version", "refused", "no_space"],
  command: "vm restore",
  unserved: "it runs a program, which is its caller's to run",
  run: async (...given) => (await import("../../operations/machines/states.ts")).restoreMachine(...given),
});
