import {
  type AnySchema,
  anything,
  type Entries,
  flag,
  number,
  object,
  oneOf,
  opt,
  orNull,
  rows,
  text,
} from "../../contract/schema.ts";
import { HistoryResult } from "../../contract/looking.ts";
import { CloneMachineResult } from "../../contract/machines.ts";
import { ALL_TABLES } from "../../verbs/index.ts";
import { DaemonStatus, DueResult, Schedule } from "../../verbs/schemas.ts";
import { LogRecord } from "../../daemon/log/read.ts";
import { HookData, InstallData, RemoveData, StatusData } from "../commands/agent/data.ts";

const optional = (entries: Entries): Entries =>
  Object.fromEntries(Object.entries(entries).map(([name, schema]) => [name, opt(schema)]));

/** Commands that are no verbs, with the reason and their `data`. docs/cli.md prints the reasons. */
export const WITHOUT_VERB: Readonly<Record<string, { why: string; data: AnySchema }>> = {
  "serve-context": {
    why: "serves a store until it is stopped: a server is no call",
    data: object({
      url: text("`unix:PATH` for a socket"),
      path: text("path of the store"),
      authentication: oneOf(["none", "api-key"]),
      layout: oneOf(["A", "B", "C"], "layout of the bundles that the server sends"),
    }),
  },
  "serve-repository": {
    why: "serves repositories until it is stopped: a server is no call",
    data: object({
      url: text(),
      repository: text("the repository URL for clients; USER stands for the user's name"),
      path: text(),
      append_only: flag(),
      private_repositories: flag(),
      authentication: oneOf(["none", "htpasswd"]),
      tls: flag(),
    }),
  },
  "serve-repository --hash-password": {
    why: "makes a line of a password file from what is typed; a password is not sent to a daemon",
    data: object({ htpasswd_line: text() }),
  },
  ui: {
    why: "serves the page until it is stopped, for the browser of this machine",
    data: object({
      url: text("the page's address, with a code that signs in once"),
      path: orNull(text("the workspace that the page begins with")),
      read_only: flag(),
    }),
  },
  daemon: {
    why: "is the daemon, which serves the verbs",
    data: object({
      socket: text(),
      state_directory: text(),
      config: text(),
      url: orNull(text("the TCP address; null if there is none, and with `--check`")),
    }),
  },
  "service install": {
    why: "writes a unit of this machine's systemd, so that the daemon runs",
    data: object({
      unit: orNull(text("the unit's file; null with `--plan`, and if nothing was installed")),
      commands: rows(text(), "commands that were run for systemd, or are to be run later if systemd does not run here"),
      started: flag(),
      text: orNull(text("content of the unit, with `--plan`; the line for crontab, if no timer can be installed")),
    }),
  },
  "service status": {
    why: "joins the daemon's answer, this machine's timer, and folders that no daemon serves",
    data: object({
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
  "service uninstall": {
    why: "removes the unit of this machine's systemd",
    data: object({ unit: text(), commands: rows(text()) }),
  },
  "service logs": {
    why: "reads this machine's journal, also if no daemon answers",
    data: object({ records: rows(LogRecord, "oldest first") }),
  },
  "service reload": { why: "is the daemon's call `reload` with another answer", data: object({ reloaded: flag() }) },
  "service unregister": {
    why: "is the daemon's call `release`, and answers for a folder that is gone",
    data: object({
      path: text(),
      control_directory: orNull(text("null: the folder was no workspace any more")),
    }),
  },
  due: {
    why: "calls the verb `due` for each folder of this machine's timer",
    data: object({
      folders: rows(
        object({
          path: text(),
          ...DueResult.entries,
          error: orNull(object({ code: text(), message: text(), hint: orNull(text()) })),
        }),
      ),
    }),
  },
  "agent install": { why: "writes hooks into the settings of a coding agent on this machine", data: InstallData },
  "agent remove": { why: "removes the hooks from those settings", data: RemoveData },
  "agent status": { why: "reads the settings of coding agents on this machine", data: StatusData },
  "agent hook": { why: "is called by a coding agent's hook, with its event on stdin", data: HookData },
  mcp: {
    why: "speaks MCP on stdin and stdout: the verbs are its tools",
    data: object({ path: text("the folder whose save points are served") }),
  },
  "backup restore --as-machine": {
    why: "restores a snapshot of a machine's states, and calls `cloneMachine` of it",
    data: CloneMachineResult,
  },
  "vm import": { why: "unpacks a tar, and calls `cloneMachine` of it", data: CloneMachineResult },
  "vm history": { why: "calls `history` of a machine's saved states", data: HistoryResult },
  "vm logs": {
    why: "prints the file that a machine's console is written to",
    data: object({ name: text(), console_log: text() }),
  },
  "vm console": {
    why: "joins this terminal to a machine's console",
    data: object({ name: text(), console_log: text() }),
  },
  "vm ssh": {
    why: "runs this user's ssh on this terminal",
    data: object({ name: text(), port: number("port of 127.0.0.1"), exit_code: number("the guest's command") }),
  },
  "vm exec": {
    why: "runs a command in a guest, with this process's input and output",
    data: object({ name: text(), exit_code: number("the guest's command") }),
  },
  "vm cp": {
    why: "copies between files that the caller names and a guest",
    data: object({ name: text(), path: text("in the guest"), file: text(), bytes: number(), sha256: text() }),
  },
  completion: { why: "prints a script for the shell", data: object({ shell: text(), script: text() }) },
  __complete: { why: "answers the shell's completion script", data: object({ candidates: rows(anything()) }) },
};

/** The `data` of each command with `--json`, by the first words of its line. */
export const COMMAND_DATA: Readonly<Record<string, AnySchema>> = {
  ...Object.fromEntries(
    ALL_TABLES.flatMap((table) => Object.values(table)).flatMap(({ command, output }) =>
      typeof command === "string" ? [[command, output as AnySchema]] : Object.entries(command ?? {}),
    ),
  ),
  ...Object.fromEntries(Object.entries(WITHOUT_VERB).map(([line, { data }]) => [line, data])),
};
