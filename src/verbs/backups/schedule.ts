import { flag, number, object, type Of, oneOf, opt, orNull, rows, strict, text } from "../../contract/schema.ts";
import { arg } from "../../contract/verb.ts";
import { WorkspaceCallOptions, WorkspaceRef } from "../../contract/words.ts";
import { workspaceVerb } from "../kinds/define.ts";
import type { Tool } from "../kinds/tool.ts";

const ScheduledKind = oneOf(["save", "backup", "verify", "restore-check", "prune"]);
const RunError = orNull(object({ code: text(), message: text(), hint: orNull(text()) }));
const repositoryOrNone = () => orNull(text("address of the repository, without a password; null: none is involved"));
export const DueResult = object({
  ran: rows(object({ kind: ScheduledKind, repository: repositoryOrNone(), error: RunError }), "the work that was due"),
  save_point_id: orNull(text("the point that was made; null: nothing was due or had changed")),
  snapshot_id: orNull(text("the snapshot that was made; null: nothing was due or had changed")),
  removed: rows(text(), "snapshots that the kept rules no longer keep"),
  partly: flag("true: the point or the snapshot lacks a part of the folder, or a command after it failed: exit 10"),
});
export type DueResult = Of<typeof DueResult>;
export const ScheduleRow = object({
  kind: ScheduledKind,
  repository: repositoryOrNone(),
  every_ms: number(),
  ran_at: orNull(text("when the last run ended")),
  good_at: orNull(text("when the last good run ended")),
  next_at: text("when the next run is due; a past time: as soon as possible"),
  failing_since: orNull(text("when the first of the runs ended that failed since the last good one")),
  failures: number("failed runs since the last good one"),
  error: RunError,
});
export type ScheduleRow = Of<typeof ScheduleRow>;
export const Schedule = object({
  workspace: WorkspaceRef,
  last_save_at: orNull(text("when the newest point was made, or the folder was last found equal to it")),
  last_backup_at: orNull(text("when the newest backup succeeded, with or without changes")),
  last_verify_at: orNull(text("when a repository of the folder was last verified without finding damage")),
  last_proof_at: orNull(text("when a restore of the newest backup last had the state digest of its save")),
  next_at: orNull(text("when the next work is due; null: nothing is scheduled")),
  runs: rows(ScheduleRow, "scheduled work on the folder"),
  problems: rows(text(), "work that fails or is late, one sentence each"),
});
export type Schedule = Of<typeof Schedule>;
const every = (what: string, name: string, usual: string) =>
  opt(orNull(text(`time between two ${what}, for example 12h or 7d; null or '': as usual, ${usual}`)), {
    flags: `--${name} <time>`,
    text: `time between two ${what}, e.g. 30m, 12h or 7d (empty: as usual, ${usual})`,
  });
export const ScheduleEdit = strict(
  {
    save: every("saves", "save", "1h"),
    backup: every("backups", "backup", "1d"),
    verify: every("verifications of the repository", "verify", "never"),
    restoreCheck: every("restores of the newest backup as a test", "restore-check", "never"),
    prune: every("removals of snapshots by the rules of `backup use`", "prune", "1d"),
  },
  "an absent member stays as it is",
);
export type ScheduleEdit = Of<typeof ScheduleEdit>;

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
  options: WorkspaceCallOptions,
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
