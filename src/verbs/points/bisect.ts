import { BisectOptions, BisectResult } from "../../contract/points.ts";
import { list, object, orNull, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { target } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const bisect = workspaceVerb({
  about:
    "Finds the first bad save point after a good one by a binary search: runs a command in temporary folders with the content of points. Exit status 0 means good, 125 skips the point, 1 to 127 means bad.",
  takes: [arg("good", target()), arg("bad", target()), arg("command", list(text(), "the command and its arguments"))],
  options: BisectOptions,
  output: BisectResult,
  errors: ["not_found", "ambiguous", "damaged"],
  command: {
    bisect: object({
      ...BisectResult.entries,
      address: orNull(text("the fragment of the address of `first_bad` in the page of `cairn ui`")),
    }),
  },
  unserved: "it runs a program, which is its caller's to run",
  needs: "nothing",
  run: async ({ within }, good, bad, command, options) =>
    (await import("./bisect.run.ts")).bisect({ good, bad, command }, options, within),
});
