import { printablePath } from "../../fs/paths/safe-path.ts";
import { journalOf, sendToJournal } from "./journal.ts";

/** Fields of a line by which an operator can filter. */
export interface LogFields {
  /** A priority of syslog; default `info`. */
  priority?: Priority;
  workspace?: string | Uint8Array | undefined;
  verb?: string;
  /** The user who made the call. */
  uid?: number;
  duration_ms?: number;
  /** `ok`, or the code of an error. */
  outcome?: string;
}

export type Log = (message: string, fields?: LogFields) => void;

const PRIORITIES = { error: 3, warning: 4, info: 6 } as const;
type Priority = keyof typeof PRIORITIES;

/** The most characters of a line, and of a field: callers choose names and paths. */
const MOST = 4000;

/**
 * Returns the text in one line, without user and password in addresses, and cut to the longest line. Callers pass no
 * file content, variables or option values.
 */
export function logText(text: string | Uint8Array): string {
  const shown = printablePath(text).replaceAll(/(\b[a-z][a-z0-9+.-]*:\/\/)[^/@\s]*@/gi, "$1");
  return shown.length > MOST ? `${shown.slice(0, MOST)}…` : shown;
}

/** Fields of a journal entry. All values are on one line. */
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

/**
 * Opens the daemon's log: systemd's journal if stderr is a stream of it, else `line` is called with each printable
 * line, which begins with the time.
 */
export function openLog(line: (text: string) => void, env = process.env): Log {
  const socket = journalOf(env);
  return (message, fields = {}) => {
    if (socket === null || !sendToJournal(socket, membersOf(message, fields)))
      line(`${new Date().toISOString()} ${logText(message)}`);
  };
}
