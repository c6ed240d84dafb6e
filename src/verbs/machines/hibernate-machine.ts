import { SaveMachineOptions, SaveMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const hibernateMachine = libraryVerb({
  about:
    "Saves a running machine with its memory and stops it while its guest is still paused, so that no work of the guest is lost. After `startMachine` the guest continues from the save.",
  takes: [machines(), name()],
  options: SaveMachineOptions,
  output: SaveMachineResult,
  errors: [...machineErrors, "no_space", "refused", "conflict"],
  command: "vm hibernate",
  run: async (...given) => (await import("../../keep/machines/states.ts")).hibernateMachine(...given),
});
