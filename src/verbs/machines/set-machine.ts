import { MachineInfo, SetMachineOptions, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const setMachine = libraryVerb({
  about: "Changes the memory, CPUs or disk size of a stopped machine. Saved states keep their own.",
  takes: [machines(), name()],
  options: SetMachineOptions,
  output: MachineInfo,
  errors: [...machineErrors, "conflict", "refused", "no_space"],
  command: "vm set",
  run: async (_hand, root, name, options) =>
    (await import("../../keep/machines/life.ts")).setMachine(root, name, options),
});
