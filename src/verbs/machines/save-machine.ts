import { SaveMachineOptions, SaveMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const saveMachine = libraryVerb({
  about: "Saves a machine's disks, and of one that runs its memory and devices, as a save point. Its guest goes on.",
  takes: [machines(), name()],
  options: SaveMachineOptions,
  output: SaveMachineResult,
  errors: [...machineErrors, "no_space", "refused"],
  command: "vm save",
  run: async (...given) => (await import("../../operations/machines/states.ts")).saveMachine(...given),
});
