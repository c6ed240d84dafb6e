import { MachineInfo, machineErrors, machines, name } from "../../contract/machines.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const startMachine = libraryVerb({
  about: "Boots a stopped machine. The guest of a hibernated machine continues from its saved memory instead.",
  takes: [machines(), name()],
  options: CallOptions,
  output: MachineInfo,
  errors: [...machineErrors, "conflict", "refused"],
  command: "vm start",
  unserved: "it runs a program, which is its caller's to run",
  run: async (_hand, root, name, options) =>
    (await import("../../keep/machines/life.ts")).startMachine(root, name, options),
});
