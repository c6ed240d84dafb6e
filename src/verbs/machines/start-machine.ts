import { MachineInfo, machineErrors, machines, name } from "../../contract/machines.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const startMachine = libraryVerb({
  about: "Boots a machine that is not running. A hibernated guest goes on.",
  takes: [machines(), name()],
  options: CallOptions,
  output: MachineInfo,
  errors: [...machineErrors, "conflict", "refused"],
  command: "vm start",
  unserved: "it runs a program, which is its caller's to run",
  run: async (_hand, root, name, options) =>
    (await import("../../keep/machines/life.ts")).startMachine(root, name, options),
});
