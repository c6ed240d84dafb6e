import { SaveMachineOptions, SaveMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const hibernateMachine = libraryVerb({
  about:
    "Saves a running machine with its memory and ends it in the same pause, so that nothing of its guest's work is lost. `startMachine` lets the guest go on.",
  takes: [machines(), name()],
  options: SaveMachineOptions,
  output: SaveMachineResult,
  errors: [...machineErrors, "no_space", "refused", "conflict"],
  command: "vm hibernate",
  run: async (...given) => (await import("../../keep/machines/states.ts")).hibernateMachine(...given),
});
