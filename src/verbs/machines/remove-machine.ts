import { RemoveMachineOptions, machineErrors, machines, name } from "../../contract/machines.ts";
import { object, text } from "../../contract/schema.ts";
import { libraryVerb } from "../kinds/define.ts";

export const removeMachine = libraryVerb({
  about: "Removes a machine.",
  takes: [machines(), name()],
  options: RemoveMachineOptions,
  output: object({ name: text() }),
  errors: [...machineErrors, "refused"],
  command: "vm rm",
  run: async (...given) => (await import("../../keep/machines/life.ts")).removeMachine(...given),
});
