import { operand } from "../../contract/words.ts";
import { lookErrors } from "../../contract/repositories.ts";
import { ExportPointOptions, ExportPointResult } from "../../contract/export-directory.ts";

import { place } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const exportPoint = workspaceVerb({
  about:
    "Writes a save point, also of another workspace, a backup, or an entry of one, as an export directory: its content, and an envelope that is written last. The directory must be absent or empty.",
  takes: [arg("target", operand()), arg("to", place("the directory (absolute)"))],
  options: ExportPointOptions,
  output: ExportPointResult,
  errors: [...lookErrors, "already_exists", "incomplete", "refused", "no_space", "unsupported"],
  command: "export",
  by: "operators",
  looks: true,
  seals: true,
  run: async (hand, target, to, options) =>
    (await import("../../change/export.ts")).exportPoint(hand, target, to, options),
});
