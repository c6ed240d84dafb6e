import { MethodOption, RestoreOptions, RestorePlan, RestoreResult, throughSqlite } from "../../contract/points.ts";
import { flag, object, type Of, opt, pick, text } from "../../contract/schema.ts";
import { TurnsOptions } from "../../contract/turns.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";
import { optionsOf, PATHS, restored, type Tool } from "../kinds/tool.ts";

export const RewindOptions = object({
  ...WorkspaceCallOptions.entries,
  ...MethodOption.entries,
  session: TurnsOptions.entries.session,
  paths: RestoreOptions.entries.paths,
  over: opt(flag("make the folder equal to the state before the turn: also revert what others changed since")),
  strict: opt(flag("change nothing, and fail with `refused`, if an entry of the turn cannot go back")),
  ...pick(RestoreOptions, "cause", "plan"),
});
export type RewindOptions = Of<typeof RewindOptions>;

const TURN = text("a turn's id or a unique prefix of it, or how many turns to go back: `1` is the newest turn");

const tool: Tool = {
  title: "Go back to before a turn",
  about:
    "Takes back the changes that an agent's session made since a turn began, also by shell commands. Changes of the person and of other sessions stay. An entry that the session changed and somebody edited later stays too, and the answer lists it. The present is saved first: `undo` brings it back.",
  takes: { turn: opt(TURN), paths: PATHS, ...pick(RewindOptions, "session", "plan") },
  output: RestoreResult,
  changes: true,
  async run(client, given, options) {
    const own = optionsOf<RewindOptions>(given, ["paths", "session", "plan"], options);
    const data = await client.rewind(given["turn"] as string | undefined, own);
    return { data, words: restored(data) };
  },
};

export const rewind = workspaceVerb({
  about: "Saves the present, then takes back what an agent's session changed since a turn began. Others' changes stay.",
  takes: [arg("turn", opt(TURN))],
  options: RewindOptions,
  output: RestoreResult,
  errors: ["not_found", "ambiguous", "refused", "stale_plan"],
  command: "rewind",
  by: "writers",
  agents: ["session", "paths", "cause", "plan", "strict"],
  opensPaths: throughSqlite,
  makesPoint: "undo",
  changesPoints: true,
  event: (rewound) => ({ type: "restore", data: rewound }),
  tool,
  run: async ({ workspace }, turn, options) => (await import("./rewind.run.ts")).rewind(workspace, turn, options),
});

export const planRewind = workspaceVerb({
  about: "Plans a rewind: returns what it would do now. Changes and saves nothing.",
  takes: [arg("turn", opt(TURN))],
  options: RewindOptions,
  output: RestorePlan,
  errors: ["not_found", "ambiguous"],
  command: { "rewind --plan": object({ plan: RestorePlan }) },
  by: "writers",
  looks: true,
  agents: ["session", "paths", "cause", "strict"],
  seals: true,
  opensPaths: throughSqlite,
  run: async ({ workspace }, turn, options) => (await import("./rewind.run.ts")).planRewind(workspace, turn, options),
});
