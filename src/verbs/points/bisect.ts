import {
  about,
  callback,
  list,
  number,
  object,
  type Of,
  oneOf,
  opt,
  orNull,
  rows,
  text,
} from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { pointId, SavePoint, target, WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";

export const BisectOptions = object({
  ...WorkspaceCallOptions.entries,
  onTest: opt(
    callback<(point: SavePoint, step: number, steps: number) => void>(
      "(point: SavePoint, step: number, steps: number) => void",
      "called before each run of the command with the tested point, the number of the run (from 1) and about how many runs there will be",
    ),
  ),
});
export type BisectOptions = Of<typeof BisectOptions>;
export const BisectTest = object({
  save_point_id: pointId(),
  exit_code: orNull(number("null if the command did not run, because the point is damaged or incomplete")),
  verdict: oneOf(
    ["good", "bad", "skipped"],
    "`skipped`: the command ended with 125, did not run, or may have seen an entry that appeared in the folder meanwhile",
  ),
  duration_ms: number("duration of the command alone"),
});
export type BisectTest = Of<typeof BisectTest>;
export const BisectResult = object({
  first_bad: orNull(about(SavePoint, "null if points that were skipped leave more than one candidate")),
  last_good: pointId("the newest good point before the candidates"),
  candidates: rows(
    pointId(),
    "the points of which one is the first bad point, oldest first; empty if `first_bad` is known",
  ),
  tested: rows(BisectTest, "in the order of the tests"),
});
export type BisectResult = Of<typeof BisectResult>;

export const bisect = workspaceVerb({
  about:
    "Finds the first bad save point after a good one by a binary search: runs a command at the folder's path, which shows the content of a point to the command only. Tests the good and the bad point first. Exit status 0 means good, 125 skips the point, 1 to 127 means bad.",
  takes: [arg("good", target()), arg("bad", target()), arg("command", list(text(), "the command and its arguments"))],
  options: BisectOptions,
  output: BisectResult,
  errors: ["not_found", "ambiguous", "damaged", "refused", "unsupported"],
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
