import { ListMachinesResult, machines } from "../../contract/machines.ts";
import { CallOptions } from "../../contract/words.ts";
import { libraryVerb } from "../kinds/define.ts";

export const listMachines = libraryVerb({
  about: "Lists the machines of a folder.",
  takes: [machines()],
  options: CallOptions,
  output: ListMachinesResult,
  command: "vm list",
  run: async (_hand, root, options) => (await import("../../keep/machines/life.ts")).listMachines(root, options),
});
