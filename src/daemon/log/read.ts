import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { number, object, type Of, orNull, text } from "../../contract/schema.ts";
import { CairnError, throwIfAborted } from "../../errors.ts";
import { logText } from "./log.ts";

export const LogRecord = object({
  time: text(),
  priority: number("syslog's priority: 3 error, 4 warning, 6 information"),
  message: text(),
  pid: orNull(number()),
  workspace: orNull(text()),
  verb: orNull(text()),
  uid: orNull(number("user id of the caller")),
  duration_ms: orNull(number()),
  outcome: orNull(text("`ok`, or the code of an error")),
});
export type LogRecord = Of<typeof LogRecord>;

export interface ReadLog {
  /** True: the daemon of all users, by its unit of the system. False: the user's own. */
  isSystem: boolean;
  unit: string;
  /** The number of newest lines; null: all. */
  lines: number | null;
  /** A folder: only lines about this folder. */
  workspace: string | null;
  /** A time in the form of `journalctl --since`. */
  since: string | null;
  /** True: goes on with new lines. */
  follow: boolean;
  /** False: systemd keeps no journal here; journalctl does not report that. */
  isKept: boolean;
  signal: AbortSignal;
}

/** Yields lines of the daemon's log from systemd's journal, oldest first. Throws `not_found` if there is no journal. */
export async function* readLog(options: ReadLog): AsyncGenerator<LogRecord> {
  const { isSystem, unit, lines, workspace, since, follow, isKept, signal } = options;
  throwIfAborted(signal);
  if (follow && !isKept) throw noJournal("systemd does not run");
  const words = ["--output=json", "--all", "--no-pager", "--quiet", ...(isSystem ? [] : ["--user"]), `--unit=${unit}`];
  words.push(`--lines=${lines ?? "all"}`);
  if (since !== null) words.push(`--since=${since}`);
  if (follow) words.push("--follow");
  if (workspace !== null) words.push(`CAIRN_WORKSPACE=${logText(workspace)}`);
  const child = spawn("journalctl", words, { stdio: ["ignore", "pipe", "pipe"] });
  const stop = (): void => void child.kill();
  signal.addEventListener("abort", stop);
  let said = "";
  let count = 0;
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(0, MAX_SAID);
  });
  const ended = once(child, "close") as Promise<[number | null]>;
  ended.catch(() => undefined);
  try {
    for await (const line of createInterface({ input: child.stdout, crlfDelay: Infinity })) {
      const record = recordOf(line);
      if (record === null) continue;
      count++;
      yield record;
    }
    const [status] = await ended;
    throwIfAborted(signal);
    if (status !== 0) throw new CairnError("io", `journalctl ended with status ${status}: ${said.trim()}`);
    if (count === 0 && !isKept) throw noJournal("systemd does not run");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    throw noJournal("journalctl is not installed");
  } finally {
    signal.removeEventListener("abort", stop);
    child.kill();
  }
}

const MAX_SAID = 1000;

function noJournal(why: string): CairnError {
  return new CairnError("not_found", `cannot read systemd's journal: ${why}`, {
    hint: "if systemd does not run the daemon, its log is on the daemon's standard error",
  });
}

/** Parses one entry of `journalctl --output=json`; null if the line is not an entry. */
function recordOf(line: string): LogRecord | null {
  let entry: Record<string, unknown>;
  try {
    entry = JSON.parse(line) as Record<string, unknown>;
  } catch {
    return null;
  }
  const text = (name: string): string | null => {
    const value = entry[name];
    // journalctl gives bytes that are not text as numbers, and a repeated field as a list.
    if (Array.isArray(value))
      return logText(value.every(Number.isInteger) ? Buffer.from(value as number[]) : String(value[0]));
    return typeof value === "string" ? logText(value) : null;
  };
  const number = (name: string): number | null => {
    const value = Number(text(name) ?? Number.NaN);
    return Number.isFinite(value) ? value : null;
  };
  const micros = number("__REALTIME_TIMESTAMP");
  if (micros === null) return null;
  return {
    time: new Date(micros / 1000).toISOString(),
    priority: number("PRIORITY") ?? 6,
    message: text("MESSAGE") ?? "",
    pid: number("_PID"),
    workspace: text("CAIRN_WORKSPACE"),
    verb: text("CAIRN_VERB"),
    uid: number("CAIRN_UID"),
    duration_ms: number("CAIRN_DURATION_MS"),
    outcome: text("CAIRN_OUTCOME"),
  };
}
