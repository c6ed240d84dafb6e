import { SaveMachineOptions, SaveMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const saveMachine = libraryVerb({
  about:
    "Saves a machine's disks as a save point, for a running machine with memory and devices. The guest then continues.",
  takes: [machines(), name()],
  options: SaveMachineOptions,
  output: SaveMachineResult,
  errors: [...machineErrors, "no_space", "refused"],
  command: "vm save",
  run: async (...given) => (await import("../../keep/machines/states.ts")).saveMachine(...given),
});
