import { target } from "../../contract/words.ts";
import { ExportPointOptions, ExportPointResult } from "../../contract/export-directory.ts";

import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const exportPoint = workspaceVerb({
  about:
    "Writes a save point, also of another workspace, as an export directory: its content, and an envelope that is written last. The directory must be absent or empty.",
  takes: [arg("target", target()), arg("to", place("the directory (absolute)"))],
  options: ExportPointOptions,
  output: ExportPointResult,
  errors: ["already_exists", "incomplete", "refused", "no_space", "unsupported"],
  command: "export",
  by: "operators",
  looks: true,
  seals: true,
  run: async ({ workspace }, point, to, options) =>
    (await import("../../change/export.ts")).exportPoint(workspace, point, to, options),
});
