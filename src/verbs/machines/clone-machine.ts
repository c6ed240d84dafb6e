import { CloneMachineOptions, CloneMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const cloneMachine = libraryVerb({
  about: "Makes a new machine of a saved state, which is only read. It has an identity of its own.",
  takes: [machines(), name("of the new machine")],
  options: CloneMachineOptions,
  output: CloneMachineResult,
  errors: [...machineErrors, "damaged", "newer_version", "already_exists", "refused"],
  command: "vm clone",
  unserved: "it runs a program, which is its caller's to run",
  run: async (...given) => (await import("../../operations/machines/states.ts")).cloneMachine(...given),
});
