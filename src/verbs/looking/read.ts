import { ReadOptions } from "../../contract/looking.ts";
import { custom, orNull } from "../../contract/schema.ts";
import { isFolderOperand, NOW } from "../../contract/operand.ts";
import { arg } from "../../contract/verb.ts";
import { operand, PathInput } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const read = workspaceVerb({
  about:
    "Reads a file of a save point in pieces of at most 1 MiB, or a folder as an archive. With target null it reads a file of the current folder. If the read fails, an archive lacks its end.",
  takes: [arg("target", orNull(operand())), arg("path", PathInput)],
  options: ReadOptions,
  output: custom<Uint8Array>("Uint8Array", "bytes", (value) => value instanceof Uint8Array),
  how: "stream",
  errors: ["not_found", "damaged", "conflict"],
  looks: true,
  withoutFolder: true,
  agents: ["offset", "length", "archive", "paths"],
  // A call without a point reads the present folder.
  opensPaths: ({ target: read }) => isFolderOperand((read ?? NOW) as string),
  givesContent: true,
  run: async (hand, target, path, options) =>
    options.archive === undefined
      ? (await import("../../look/read.ts")).read(hand, target, path, options)
      : (await import("../../look/archive.ts")).readArchive(hand, target, path, options),
});
