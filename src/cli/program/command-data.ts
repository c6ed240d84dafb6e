import {
  type AnySchema,
  anything,
  type Entries,
  flag,
  object,
  oneOf,
  opt,
  orNull,
  rows,
  text,
} from "../../contract/schema.ts";
import { ALL_TABLES } from "../../verbs/index.ts";
import { DaemonStatus, DueResult, Schedule } from "../../verbs/schemas.ts";
import { LogRecord } from "../../daemon/log/read.ts";
import { HookData, InstallData, RemoveData, StatusData } from "../commands/agent/data.ts";

const optional = (entries: Entries): Entries =>
  Object.fromEntries(Object.entries(entries).map(([name, schema]) => [name, opt(schema)]));

/** The `data` of commands that are no verbs. */
const OF_COMMANDS: Readonly<Record<string, AnySchema>> = {
  "serve-context": object({
    url: text("`unix:PATH` for a socket"),
    path: text("path of the store"),
    authentication: oneOf(["none", "api-key"]),
    layout: oneOf(["A", "B", "C"], "layout of the bundles that the server sends"),
  }),
  "serve-repository": object({
    url: text(),
    repository: text("the repository URL for clients; USER stands for the user's name"),
    path: text(),
    append_only: flag(),
    private_repositories: flag(),
    authentication: oneOf(["none", "htpasswd"]),
    tls: flag(),
  }),
  "serve-repository --hash-password": object({ htpasswd_line: text() }),
  ui: object({
    url: text("the page's address, with a code that signs in once"),
    path: orNull(text("the workspace that the page begins with")),
    read_only: flag(),
  }),
  daemon: object({
    socket: text(),
    state_directory: text(),
    config: text(),
    url: orNull(text("the TCP address; null if there is none, and with `--check`")),
  }),
  "service install": object({
    unit: orNull(text("the unit's file; null with `--print`, and if nothing was installed")),
    commands: rows(text(), "commands that were run for systemd, or are to be run later if systemd does not run here"),
    started: flag(),
    text: orNull(text("content of the unit, with `--print`; the line for crontab, if no timer can be installed")),
  }),
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
  "service uninstall": object({ unit: text(), commands: rows(text()) }),
  "service logs": object({ records: rows(LogRecord, "oldest first") }),
  "service reload": object({ reloaded: flag() }),
  "service unregister": object({
    path: text(),
    control_directory: orNull(text("null: the folder was no workspace any more")),
  }),
  due: object({
    folders: rows(
      object({
        path: text(),
        ...DueResult.entries,
        error: orNull(object({ code: text(), message: text(), hint: orNull(text()) })),
      }),
    ),
  }),
  "agent install": InstallData,
  "agent remove": RemoveData,
  "agent status": StatusData,
  "agent hook": HookData,
  mcp: object({ path: text("the folder whose save points are served") }),
  "vm console": object({ name: text(), console_log: text() }),
  completion: object({ shell: text(), script: text() }),
  __complete: object({ candidates: rows(anything()) }),
};

/** The `data` of each command with `--json`, by the first words of its line. */
export const COMMAND_DATA: Readonly<Record<string, AnySchema>> = {
  ...Object.fromEntries(
    ALL_TABLES.flatMap((table) => Object.values(table)).flatMap(({ command, output }) =>
      typeof command === "string" ? [[command, output as AnySchema]] : Object.entries(command ?? {}),
    ),
  ),
  ...OF_COMMANDS,
};
