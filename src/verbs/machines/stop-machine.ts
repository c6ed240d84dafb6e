import { StopMachineOptions, StopMachineResult, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const stopMachine = libraryVerb({
  about: "Shuts a machine's guest down, or powers it off.",
  takes: [machines(), name()],
  options: StopMachineOptions,
  output: StopMachineResult,
  errors: machineErrors,
  command: "vm stop",
  run: async (_hand, root, name, options) =>
    (await import("../../keep/machines/life.ts")).stopMachine(root, name, options),
});
