import { LIMIT, limited, listed, MORE, optionsOf, PATHS, TARGET, type Tool } from "../kinds/tool.ts";
import { operand } from "../../contract/words.ts";
import { DiffOptions, DiffResult } from "../../contract/looking.ts";
import { object, opt, orNull } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

const tool: Tool = {
  title: "Compare save points",
  about: "Lists the differences between two save points, or between a save point and the current folder (without `b`).",
  takes: { a: TARGET, b: opt(TARGET), paths: PATHS, ...LIMIT },
  output: object({ ...DiffResult.entries, ...MORE }),
  changes: false,
  async run(client, given, options) {
    const { entries, ...rest } = await client.diff(
      given["a"] as string,
      (given["b"] as string | undefined) ?? null,
      optionsOf(given, ["paths"], options),
    );
    const { rows, more } = limited(entries, given);
    const lines = rows.map(
      ({ change, path, from_path }) => `${change} ${from_path === undefined ? "" : `${from_path} -> `}${path}`,
    );
    return { data: { ...rest, entries: rows, more }, words: listed(lines, more, "no differences") };
  },
};

export const diff = workspaceVerb({
  about: "Compares two states, by default the second of them the current folder.",
  takes: [arg("a", operand()), arg("b", opt(orNull(operand())))],
  options: DiffOptions,
  output: DiffResult,
  errors: ["not_found", "ambiguous", "damaged"],
  command: "diff",
  by: "writers",
  looks: true,
  agents: ["paths"],
  seals: true,
  tool,
  run: async (hand, a, b, options) => (await import("../../look/diff.ts")).diff(hand, a, b ?? null, options),
});
