import { ArchiveOptions } from "../../contract/looking.ts";
import { custom, oneOf } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { target } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const readArchive = workspaceVerb({
  about:
    "Reads a save point, or some of its paths, as a tar or zip archive. If the read fails, the archive lacks its end.",
  takes: [arg("target", target()), arg("format", oneOf(["tar", "zip"]))],
  options: ArchiveOptions,
  output: custom<Uint8Array>("Uint8Array", "bytes", (value) => value instanceof Uint8Array),
  how: "stream",
  errors: ["not_found", "ambiguous", "damaged"],
  looks: true,
  // It gives every file's content, whatever mode the point has for it.
  opensPaths: true,
  run: async ({ workspace }, target, format, options) =>
    (await import("../../operations/looking/archive.ts")).readArchive(workspace, target, format, options),
});
