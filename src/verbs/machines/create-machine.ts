import { CreateMachineOptions, MachineInfo, machineErrors, machines, name } from "../../contract/machines.ts";
import { libraryVerb } from "../kinds/define.ts";

export const createMachine = libraryVerb({
  about: "Creates a virtual machine from a disk image, a kernel, or both.",
  takes: [machines(), name()],
  options: CreateMachineOptions,
  output: MachineInfo,
  errors: [...machineErrors, "already_exists", "refused"],
  command: { "vm create": MachineInfo, "vm run": MachineInfo },
  unserved: "it runs a program, which is its caller's to run",
  run: async (_hand, root, name, options) =>
    (await import("../../keep/machines/life.ts")).createMachine(root, name, options),
});
