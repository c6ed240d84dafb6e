import { DoctorOptions, DoctorResult } from "../../contract/care.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const doctor = workspaceVerb({
  about: "Finds problems of a workspace and its store, and repairs them.",
  options: DoctorOptions,
  output: DoctorResult,
  command: "doctor",
  looks: true,
  changesWith: ["repair", "breakLocks"],
  run: async ({ workspace }, options) => (await import("../../keep/engine.ts")).doctor(workspace, options),
});
