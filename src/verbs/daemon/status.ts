import { DaemonStatus, Schedule } from "../../contract/daemon.ts";
import { type Entries, object, oneOf, opt, orNull, rows, text } from "../../contract/schema.ts";
import { daemonCall } from "../kinds/define.ts";

const optional = (entries: Entries): Entries =>
  Object.fromEntries(Object.entries(entries).map(([name, schema]) => [name, opt(schema)]));

export const daemon = daemonCall({
  about: "Returns the state of the daemon and of its workspaces.",
  output: DaemonStatus,
  command: {
    "service status": object({
      ...optional(DaemonStatus.entries),
      runner: orNull(
        object({
          kind: oneOf(["daemon", "timer", "cron"]),
          unit: text("the unit's file; for cron the line of the crontab"),
          next_at: orNull(text("when the timer runs next")),
          problems: orNull(rows(text(), "why it is not going to run; null: this cron cannot be asked, exit 10")),
        }),
      ),
      folders: rows(object({ ...optional(Schedule.entries), path: text(), problems: rows(text()) })),
      problems: rows(text(), "not empty: exit 4"),
    }),
  },
  passing: true,
  agents: [],
});
