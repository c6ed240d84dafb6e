import { EngineOptions } from "../../contract/care.ts";
import { ServedWorkspace } from "../../contract/daemon.ts";
import { object, pick, place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { Conversion } from "../../contract/words.ts";
import { daemonCall } from "../kinds/define.ts";

export const recover = daemonCall({
  about: "Converts a workspace back into a plain folder, and stops serving it.",
  takes: [arg("path", place("absolute"))],
  options: EngineOptions,
  output: object({ ...ServedWorkspace.entries, ...Conversion.entries }),
  errors: ["refused", "conflict", "permission"],
  command: {
    "service recover": object({
      ...pick(ServedWorkspace, "path", "control_directory"),
      ...pick(Conversion, "original", "entries"),
    }),
  },
});
