import { MachineInfo, machineErrors, machines, name } from "../../contract/machines.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const inspectMachine = libraryVerb({
  about: "Returns a machine's configuration and state.",
  takes: [machines(), name()],
  options: CallOptions,
  output: MachineInfo,
  errors: machineErrors,
  command: "vm inspect",
  run: async (_hand, root, name) => (await import("../../keep/machines/life.ts")).inspectMachine(root, name),
});
