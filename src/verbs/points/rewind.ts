import { optionsOf, PATHS, restored, type Tool } from "../kinds/tool.ts";
import { RestoreResult, throughSqlite } from "../../contract/points.ts";
import { opt, pick, text } from "../../contract/schema.ts";
import { RewindOptions } from "../../contract/turns.ts";
import { arg } from "../../contract/verb.ts";
import { workspaceVerb } from "../kinds/define.ts";

const TURN = text("a turn's id or a unique prefix of it, or how many turns to go back: `1` is the newest turn");

const tool: Tool = {
  title: "Go back to before a turn",
  about:
    "Restores the folder to the state before an agent's turn, also what shell commands changed. The present is saved first: `undo` brings it back. Refused if other sessions changed something since.",
  takes: { turn: opt(TURN), paths: PATHS, ...pick(RewindOptions, "session") },
  output: RestoreResult,
  changes: true,
  async run(client, given, options) {
    const own = optionsOf<RewindOptions>(given, ["paths", "session"], options);
    const data = await client.rewind(given["turn"] as string | undefined, own);
    return { data, words: restored(data) };
  },
};

export const rewind = workspaceVerb({
  about: "Saves the present, then restores the state before an agent's turn.",
  takes: [arg("turn", opt(TURN))],
  options: RewindOptions,
  output: RestoreResult,
  errors: ["not_found", "ambiguous", "refused"],
  command: "rewind",
  by: "writers",
  agents: ["session", "paths", "cause"],
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (rewound) => ({ type: "restore", data: rewound }),
  tool,
  run: async ({ workspace }, turn, options) =>
    (await import("../../operations/turns.ts")).rewind(workspace, turn, options),
});
