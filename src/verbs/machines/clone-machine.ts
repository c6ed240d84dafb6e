import { CloneMachineOptions, CloneMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const cloneMachine = libraryVerb({
  about: "Creates a new machine, with a new identity, from a saved state. The saved state is only read.",
  takes: [machines(), name("name of the new machine")],
  options: CloneMachineOptions,
  output: CloneMachineResult,
  errors: [...machineErrors, "damaged", "newer_version", "already_exists", "refused"],
  command: "vm clone",
  unserved: "it runs a program, which is its caller's to run",
  run: async (...given) => (await import("../../keep/machines/bring.ts")).cloneMachine(...given),
});
