import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import type { ScheduledKind } from "../formats/records/schedule.ts";
import { runTool } from "../fs/child-pipes.ts";
import { printablePath } from "../fs/paths/safe-path.ts";
import { runShell } from "../fs/shell-command.ts";

/** Job that an alarm is about: a kind of scheduled run, or a limit of the daemon's configuration. */
type AlarmJob = ScheduledKind | "proof";

/** Facts that an alarm gets as JSON. */
export interface AlarmFacts {
  what: AlarmJob;
  /**
   * `failed`: the last run failed. `late`: a limit is passed. `partly`: the last run could not read some entries. `well`:
   * the job succeeds again.
   */
  state: "failed" | "late" | "partly" | "well";
  /** Null: the job is about a repository alone. */
  workspace: { name: string; path: string } | null;
  /** Location without a password; null: no repository is involved. */
  repository: string | null;
  /** Time at which the job began to fail or to be late; also if `state` is `well`. */
  since: string;
  last_success_at: string | null;
  /** Null unless `state` is `failed` or `partly`. */
  error: { code: string; message: string; hint: string | null } | null;
}

/** Limit for both attempts together. */
const TIME_LIMIT_MS = 30_000;
const RETRY_AFTER_MS = 3_000;
const MOST_OUTPUT_BYTES = 64 << 10;
/** Milliseconds for which an alarm that did not end in time is not called again, so that many folders wait for it once. */
const HUNG_FOR_MS = 5 * 60_000;
/** Alarms that did not end in time, with the time of that, by `performance.now()`. */
const hung = new Map<string, number>();

/** Throws `usage` unless `alarm` is a shell command or an http(s) URL. */
export function checkAlarm(alarm: string): void {
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(alarm)?.[1]?.toLowerCase();
  const isUrl = scheme === "http" || scheme === "https";
  if (alarm.trim() !== "" && (scheme === undefined || (isUrl && URL.canParse(alarm)))) return;
  throw new CairnError("usage", 'an alarm is a command for the shell, or an http(s) URL such as "https://host/path"');
}

/** Throws `usage` with the shell's message if `alarm` is a command that the shell cannot parse. Runs nothing. */
export async function checkAlarmSyntax(alarm: string): Promise<void> {
  checkAlarm(alarm);
  if (!isAddress(alarm)) await requireShellSyntax(alarm);
}

/** Throws `usage` with the shell's message if the shell cannot parse `command`. Runs nothing. */
export async function requireShellSyntax(command: string): Promise<void> {
  const failed = await runTool("/bin/sh", ["-n", "-c", command]).then(() => null, toCairnError);
  if (failed !== null) throw new CairnError("usage", failed.message.replace(/^\/bin\/sh: /, ""));
}

/** Describes `alarm` for people. Shows only the host of a URL, because webhooks have secrets in their paths. */
export function shownAlarm(alarm: string): string {
  return isAddress(alarm) ? `POST to ${new URL(alarm).origin}` : printablePath(alarm);
}

/** Returns one sentence on `facts`, for example `backup of /srv into /mnt/backups failed: no space`. */
export function alarmText({ what, state, workspace, repository, last_success_at: at, error }: AlarmFacts): string {
  const places = [workspace?.path, repository].filter((place) => typeof place === "string");
  const job = `${what} of ${places.map(printablePath).join(what === "backup" ? " into " : " in ")}`;
  if (state === "well") return `${job} is well again`;
  if (state === "partly") return `${job} lacks entries: ${error?.message ?? ""}`;
  if (state === "failed") return `${job} failed: ${error?.message ?? "the reason is not known"}`;
  return `${job} is late: ${at === null ? "there was no success yet" : `the last success was at ${at}`}`;
}

/**
 * Calls `alarm` with `facts`: runs it with /bin/sh and JSON on stdin, or posts the JSON to it if it is a URL. Tries a second time after
 * a failure. Throws `io` without the path of the URL, and `interrupted`.
 */
export async function callAlarm(alarm: string, facts: AlarmFacts, signal?: AbortSignal): Promise<void> {
  const body = `${JSON.stringify({ text: alarmText(facts), ...facts, host: hostname() })}\n`;
  const late = new CairnError("io", `${nameOf(alarm)} did not end within ${TIME_LIMIT_MS / 1000} s`);
  if (performance.now() - (hung.get(alarm) ?? -Infinity) < HUNG_FOR_MS) throw late;
  const limit = AbortSignal.timeout(TIME_LIMIT_MS);
  const within = signal === undefined ? limit : AbortSignal.any([limit, signal]);
  const attempt = async (): Promise<void> =>
    isAddress(alarm) ? post(alarm, body, within) : runCommand(alarm, body, within);
  const throwIfOver = (): void => {
    throwIfAborted(signal);
    if (!limit.aborted) return;
    hung.set(alarm, performance.now());
    throw late;
  };
  try {
    await attempt();
  } catch {
    throwIfOver();
    await sleep(RETRY_AFTER_MS, undefined, { signal: within }).catch(throwIfOver);
    await attempt().catch((error: unknown) => {
      throwIfOver();
      throw error;
    });
  }
}

function isAddress(alarm: string): boolean {
  return /^https?:\/\//i.test(alarm);
}

/** Names the alarm in messages, without secrets. */
function nameOf(alarm: string): string {
  return isAddress(alarm) ? `the alarm at ${new URL(alarm).origin}` : "the alarm's command";
}

async function post(address: string, body: string, signal: AbortSignal): Promise<void> {
  const url = new URL(address);
  const { username, password } = url;
  const headers: Record<string, string> = { "content-type": "application/json" };
  // `fetch` refuses a URL with a user name.
  if (username !== "" || password !== "") {
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    headers["authorization"] = `Basic ${Buffer.from(credentials).toString("base64")}`;
    url.username = url.password = "";
  }
  let response: Response;
  try {
    response = await fetch(url, { method: "POST", headers, body, signal, redirect: "manual" });
  } catch (error) {
    const { code, message } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
    throw new CairnError("io", `${nameOf(address)} failed: ${code ?? message}`);
  }
  await response.body?.cancel();
  if (!response.ok) throw new CairnError("io", `${nameOf(address)} answered ${response.status}`);
}

/** Runs a command, which gets `body` on stdin. If it fails, its output goes to this process's stderr. */
async function runCommand(command: string, body: string, signal: AbortSignal): Promise<void> {
  const limits = { timeoutMs: TIME_LIMIT_MS, mostBytes: MOST_OUTPUT_BYTES };
  const { exitCode: status, output } = await runShell(command, { ...limits, input: body, signal });
  if (status !== 0 && output.length > 0) process.stderr.write(output);
  if (status !== 0) throw new CairnError("io", `${nameOf(command)} ended with status ${status ?? "of a signal"}`);
}
