import { DueOptions, DueResult, Schedule, ScheduleEdit } from "../../contract/daemon.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";
import type { Tool } from "../kinds/tool.ts";

const tool: Tool = {
  title: "Do what is due",
  about: "Saves, backs up and checks the folder if that is due by its schedule. Does nothing if nothing is due.",
  takes: {},
  output: DueResult,
  changes: true,
  async run(client, _given, options) {
    const data = await client.due(options);
    const lines = data.ran.map(({ kind, error }) => `${kind}: ${error === null ? "done" : `failed: ${error.message}`}`);
    return { data, words: lines.length === 0 ? "nothing was due" : lines.join("\n") };
  },
};

export const due = workspaceVerb({
  about: "Does what is due on a workspace by its schedule: saves, backups, verifications, restore checks, prunes.",
  options: DueOptions,
  output: DueResult,
  errors: ["interrupted"],
  needs: "nothing",
  takesTurns: true,
  // An agent chooses nothing: a person has scheduled the work, and its time has come.
  agents: [],
  tool,
  run: async (...given) => (await import("./schedule.run.ts")).due(...given),
});

export const schedule = workspaceVerb({
  about: "Returns the scheduled work of a workspace: when each job runs next, and how its last run ended.",
  options: WorkspaceCallOptions,
  output: Schedule,
  command: "schedule",
  looks: true,
  withoutFolder: true,
  needs: "nothing",
  run: async (...given) => (await import("./schedule.run.ts")).schedule(...given),
});

export const setSchedule = workspaceVerb({
  about: "Changes how often a workspace is saved, backed up, verified, checked and pruned without a daemon.",
  takes: [arg("edit", ScheduleEdit)],
  options: WorkspaceCallOptions,
  output: Schedule,
  errors: ["usage", "refused"],
  needs: "nothing",
  run: async (...given) => (await import("./schedule.run.ts")).setSchedule(...given),
});
