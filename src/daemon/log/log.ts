import { printablePath } from "../../fs/paths/safe-path.ts";
import { journalOf, sendToJournal } from "./journal.ts";

/** Facts of a line, for whoever filters by them. */
export interface LogFields {
  /** As syslog has it; default `info`. */
  priority?: Priority;
  workspace?: string | Uint8Array | undefined;
  verb?: string;
  /** User who asked for it. */
  uid?: number;
  duration_ms?: number;
  /** `ok`, or the code of an error. */
  outcome?: string;
}

/** Writes a line of the operator's log. */
export type Log = (message: string, fields?: LogFields) => void;

const PRIORITIES = { error: 3, warning: 4, info: 6 } as const;
type Priority = keyof typeof PRIORITIES;

/** Characters of a line, and of a field; callers choose names. */
const MOST = 4000;

/**
 * The text as a log has it: on one line, without a user and password in an address, and not longer than a line may be. No
 * field is ever made of the content of a file, a variable, or an option of a call.
 */
export function logText(text: string | Uint8Array): string {
  const shown = printablePath(text).replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/)[^/@\s]*@/gi, "$1");
  return shown.length > MOST ? `${shown.slice(0, MOST)}…` : shown;
}

/** Members of a journal's entry. All values are on one line. */
export function membersOf(message: string, fields: LogFields): Readonly<Record<string, string | undefined>> {
  const { priority = "info", workspace, verb, uid, duration_ms: ms, outcome } = fields;
  return {
    MESSAGE: logText(message),
    PRIORITY: String(PRIORITIES[priority]),
    SYSLOG_IDENTIFIER: "cairn",
    CAIRN_WORKSPACE: workspace === undefined ? undefined : logText(workspace),
    CAIRN_VERB: verb,
    CAIRN_UID: uid === undefined ? undefined : String(uid),
    CAIRN_DURATION_MS: ms === undefined ? undefined : String(Math.round(ms)),
    CAIRN_OUTCOME: outcome,
  };
}

/** The daemon's log: systemd's journal where stderr is one, else `line` for each, which is printable and begins with the time. */
export function openLog(line: (text: string) => void, env = process.env): Log {
  const socket = journalOf(env);
  return (message, fields = {}) => {
    if (socket === null || !sendToJournal(socket, membersOf(message, fields)))
      line(`${new Date().toISOString()} ${logText(message)}`);
  };
}
