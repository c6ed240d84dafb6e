import { ReadOptions } from "../../contract/looking.ts";
import { custom, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { PathInput, target } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const read = workspaceVerb({
  about:
    "Reads a file of a save point in pieces of at most 1 MiB, or a folder as an archive. With target null it reads a file of the current folder. If the read fails, an archive lacks its end.",
  takes: [arg("target", orNull(target())), arg("path", PathInput)],
  options: ReadOptions,
  output: custom<Uint8Array>("Uint8Array", "bytes", (value) => value instanceof Uint8Array),
  how: "stream",
  errors: ["not_found", "damaged", "conflict"],
  looks: true,
  withoutFolder: true,
  agents: ["offset", "length", "archive", "paths"],
  // A call without a point reads the present folder.
  opensPaths: ({ target: read }) => (read ?? null) === null,
  givesContent: true,
  run: async ({ workspace }, target, path, options) =>
    options.archive === undefined
      ? (await import("../../look/read.ts")).read(workspace, target, path, options)
      : (await import("../../look/archive.ts")).readArchive(workspace, target, path, options),
});
