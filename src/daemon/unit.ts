import { spawnSync, type SpawnSyncReturns } from "node:child_process";
import { existsSync, readFileSync, realpathSync, rmSync } from "node:fs";
import { userInfo } from "node:os";
import { dirname, join } from "node:path";
import { advice, CairnError } from "../errors.ts";
import { isLocked } from "../fs/linux/kernel-lock.ts";
import { isSystemRoot } from "../fs/linux/user-namespace.ts";
import { durableMkdir, durableWrite } from "../fs/durable.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import { shellQuote } from "../fs/paths/safe-path.ts";
import { runShell } from "../fs/shell-command.ts";
import { bareVariables, type DaemonPlaces, decidingVariables } from "./places.ts";

export const UNIT = "cairn.service";
const TIMED_UNIT = "cairn-due.service";

type Scope = Pick<DaemonPlaces, "isSystem">;

interface Caller {
  env: NodeJS.ProcessEnv;
  signal: AbortSignal;
}

/** Units of the system for root, else of the user. A timer needs no place for a socket, which some sessions lack. */
export function ownScope(): Scope {
  return { isSystem: isSystemRoot() };
}

/** Units that Cairn can install, by the one that systemd enables: either the daemon, or a timer with the service that it starts. */
export const INSTALLABLE = { daemon: UNIT, timer: "cairn-due.timer" } as const;
export type Installable = keyof typeof INSTALLABLE;

/** A unit of systemd, and the result of an install or uninstall. */
export interface InstalledUnit {
  unit: string;
  /** Commands that systemd was given, or that a person has to give if systemd does not run here. */
  commands: string[];
  /** False: no systemd runs here, so nothing was started. */
  started: boolean;
}

/**
 * The unit's text. A system daemon acts for every user on any folder and mounts its image for all. So the unit has no
 * setting that gives the daemon its own mounts or devices, as most hardening settings do.
 */
export function unitText(places: DaemonPlaces, program: readonly string[]): string {
  const own = places.isSystem
    ? [
        "StateDirectory=cairn",
        "StateDirectoryMode=0711",
        "RuntimeDirectory=cairn",
        "ConfigurationDirectory=cairn",
        "NoNewPrivileges=yes",
        // Backups go to other machines.
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictRealtime=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        "UMask=0077",
      ]
    : ["NoNewPrivileges=yes", "UMask=0077"];
  const command = program.map(quoted).join(" ");
  return `[Unit]
Description=Cairn, save points of the workspaces of ${places.isSystem ? "this machine" : "this user"}
Documentation=man:cairn(1)
${places.isSystem ? "After=local-fs.target\nRequiresMountsFor=/var/lib/cairn\n" : ""}
[Service]
Type=notify
ExecStart=${command} daemon
ExecReload=${command} service reload
Restart=on-failure
RestartPreventExitStatus=2 3 5 6 7
TimeoutStartSec=infinity
TimeoutStopSec=20
${own.join("\n")}

[Install]
WantedBy=${places.isSystem ? "multi-user.target" : "default.target"}
`;
}

/** Returns the texts of the timer's units by name, the timer last. `env` may name other places of records than systemd's services. */
export function timerTexts(
  { isSystem }: Scope,
  program: readonly string[],
  env: NodeJS.ProcessEnv,
): [string, string][] {
  const variables = Object.entries(decidingVariables(env)).map((pair) => `Environment=${escaped(pair.join("="))}\n`);
  const whose = `of ${isSystem ? "root" : "this user"}`;
  const service = `[Unit]
Description=Cairn, save and back up the folders ${whose}
Documentation=man:cairn-due(1)

[Service]
Type=oneshot
${variables.join("")}ExecStart=${program.map(quoted).join(" ")} due -q
SuccessExitStatus=10
`;
  const timer = `[Unit]
Description=Cairn, save and back up the folders ${whose} when they are due
Documentation=man:cairn-due(1)

[Timer]
OnCalendar=*:0/10
RandomizedDelaySec=1min
Persistent=true

[Install]
WantedBy=timers.target
`;
  return [
    [TIMED_UNIT, service],
    [INSTALLABLE.timer, timer],
  ];
}

/** Quotes a word of a unit's command line, as systemd.service(5) describes. */
function quoted(word: string): string {
  return escaped(word).replaceAll("$", "$$$$");
}

/** Escapes a word of a unit so that `$` stands for itself. */
function escaped(word: string): string {
  return `"${word.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%")}"`;
}

/** The command of this process for a unit, with links resolved, because a package manager may move its links. */
export function thisProgram(): string[] {
  return [process.execPath, realpathSync(process.argv[1]!)];
}

/** The variable PATH of cron on Debian. That of systemd's services has more folders. */
const CRON_PATH = "/usr/bin:/bin";
const SYSTEMD_PATH = `/usr/local/sbin:/usr/local/bin:/usr/sbin:/sbin:${CRON_PATH}`;
const TRY_MS = 120_000;

/**
 * Runs this command as systemd will run it, or cron on a machine without systemd: in `/`, without a terminal, with few variables.
 * Returns null if it succeeds, else its output.
 */
export async function tryLater(
  words: readonly string[],
  { env, signal }: Caller,
  more: Record<string, string> = {},
): Promise<string | null> {
  const path = existsSync("/run/systemd/system") ? SYSTEMD_PATH : CRON_PATH;
  const onlyEnv = { ...bareVariables(env, path), ...decidingVariables(env), ...more };
  const line = [...thisProgram(), ...words].map(shellQuote).join(" ");
  const ended = await runShell(line, { onlyEnv, signal, timeoutMs: TRY_MS, mostBytes: 2000 });
  if (ended.exitCode === 0) return null;
  if (ended.isTimedOut) return `no end after ${TRY_MS / 1000} s`;
  const said = Buffer.from(ended.output).toString().trim();
  return said.replace(/^cairn: /, "").replaceAll(/\s*\n\s*/g, "; ");
}

/** Opens the repository that is kept for a folder as the timer and cron will. Returns null, or why that fails. */
export async function tryKept(folder: string, context: Caller): Promise<string | null> {
  return tryLater(["-C", folder, "backup", "list", "--latest", "1", "-q"], context);
}

function unitPath({ isSystem }: Scope, name: string): string {
  if (isSystem) return join("/etc/systemd/system", name);
  const config = absolutePath(process.env, "XDG_CONFIG_HOME") ?? join(homeDirectory(), ".config");
  return join(config, "systemd", "user", name);
}

/** Returns the path of an installed unit's file; null if there is none. */
export function installedUnit(scope: Scope, what: Installable, root = ""): string | null {
  const unit = root + unitPath(scope, INSTALLABLE[what]);
  return existsSync(unit) ? unit : null;
}

/**
 * Writes the unit and starts it. A repeated call changes only the unit's text. Returns null, without a change, if systemd is not
 * reachable.
 */
export function installUnit(places: DaemonPlaces, root = ""): InstalledUnit | null {
  return install(places, "daemon", [[UNIT, unitText(places, thisProgram())]], root);
}

/** Installs the timer as {@link installUnit} installs the daemon. */
export function installTimer(scope: Scope, root = ""): InstalledUnit | null {
  return install(scope, "timer", timerTexts(scope, thisProgram(), process.env), root);
}

/** Throws `refused` if the other of the daemon and the timer is installed, because both save and back up on a schedule. */
function install(
  scope: Scope,
  what: Installable,
  texts: readonly [string, string][],
  root: string,
): InstalledUnit | null {
  if (root === "" && !isReachable(scope)) return null;
  const other = installedUnit(scope, what === "daemon" ? "timer" : "daemon", root);
  if (other !== null)
    throw new CairnError("refused", `${other} is installed, which saves and backs up by the clock, too`, {
      hint: advice`keep one of the daemon and the timer: \`cairn service uninstall\` removes the installed one`,
    });
  const units = texts.map(([name, text]) => {
    const unit = root + unitPath(scope, name);
    durableMkdir(dirname(unit), { mode: 0o755 });
    durableWrite(unit, Buffer.from(text), { mode: 0o644 });
    return unit;
  });
  return {
    unit: units.at(-1)!,
    ...systemctl(scope, root, [["daemon-reload"], ["enable", "--now", INSTALLABLE[what]]]),
  };
}

/** Stops the daemon or the timer, and removes its units; state, configuration and points stay. Throws `not_found` without one. */
export function uninstallUnit(scope: Scope, root = ""): InstalledUnit & { what: Installable } {
  const what = installedUnit(scope, "timer", root) === null ? "daemon" : "timer";
  const unit = installedUnit(scope, what, root);
  if (unit === null)
    throw new CairnError("not_found", `there is no unit ${root}${unitPath(scope, UNIT)}`, {
      hint: "`systemctl list-unit-files` lists the units",
    });
  const ended = systemctl(scope, root, [["disable", "--now", INSTALLABLE[what]]]);
  // The unit that identifies the installation goes last, so that a killed call can be repeated.
  if (what === "timer") rmSync(root + unitPath(scope, TIMED_UNIT), { force: true });
  rmSync(unit);
  const { commands } = systemctl(scope, root, [["daemon-reload"]]);
  return { what, unit, commands: [...ended.commands, ...commands], started: false };
}

/** The unit or the line of a crontab that starts scheduled work. */
export interface Runner {
  kind: "daemon" | "timer" | "cron";
  /** The unit's file; for cron the line of the crontab. */
  unit: string;
  next_at: string | null;
  /** Reasons why systemd or cron is not going to start it, one sentence each. Null if Cairn cannot ask the cron of this machine. */
  problems: string[] | null;
}

/**
 * Returns the reason why no cron runs. Debian's cron and cronie hold a lock as long as they run; other crons cannot be
 * asked: null. The pid in that file may belong to another process by now.
 */
export function cronProblems(): string[] | null {
  const isRunning = isLocked("/run/crond.pid");
  if (isRunning === true) return [];
  const name = ["cron", "crond"].find(
    (each) => existsSync(`/usr/sbin/${each}`) && readFileSync(`/usr/sbin/${each}`).includes("crond.pid"),
  );
  if (isRunning === null || name === undefined) return null;
  return [`${name} is not running: \`service ${name} start\` changes that`];
}

/** Returns the unit or crontab line that runs the scheduled work of this user; null if neither is installed. */
export function runner(scope: Scope): Runner | null {
  const kind = (["timer", "daemon"] as const).find((each) => installedUnit(scope, each) !== null);
  if (kind === undefined) {
    const { stdout } = spawnSync("crontab", ["-l"], { encoding: "utf8" });
    const line = /^[^#\n].* (?:backup )?due -q.*$/m.exec(stdout ?? "")?.[0];
    return line === undefined ? null : { kind: "cron", unit: line, next_at: null, problems: cronProblems() };
  }
  const name = INSTALLABLE[kind];
  const ask = (...words: string[]): string => runSystemctl(scope, words).stdout?.trim() ?? "";
  const flag = scope.isSystem ? "" : "--user ";
  const problems: string[] = [];
  for (const [wanted, way] of Object.entries({ enabled: "enable", active: "start" })) {
    const found = ask(`is-${wanted}`, name);
    const next = found === "failed" ? `${flag}status ${name}\` shows why` : `${flag}${way} ${name}\` changes that`;
    if (found !== wanted) problems.push(`${name} is ${found === "" ? `not ${wanted}` : found}: \`systemctl ${next}`);
  }
  const elapse = Date.parse(ask("show", "--value", "-p", "NextElapseUSecRealtime", "--timestamp=utc", name));
  const next_at = Number.isNaN(elapse) ? null : new Date(elapse).toISOString();
  // While its service runs, a timer has no next run yet.
  if (
    kind === "timer" &&
    next_at === null &&
    problems.length === 0 &&
    ask("show", "--value", "-p", "SubState", name) !== "running"
  )
    problems.push(`${name} has no next run`);
  const { username } = userInfo();
  if (!scope.isSystem && !existsSync(`/var/lib/systemd/linger/${username}`))
    problems.push(`the units of ${username} run only during a login: \`loginctl enable-linger\` changes that`);
  return { kind, unit: installedUnit(scope, kind)!, next_at, problems };
}

/** Returns why nothing is going to run the scheduled work of this user, if no daemon does; null if something may. */
export function whyNothingRuns(): string | null {
  const found = runner(ownScope());
  if (found !== null) return found.problems?.[0] ?? null;
  return "nothing known runs the schedule: `cairn service install --timer` sets up a timer";
}

/** True if systemd runs here and answers this user: without a session no manager of the user's units runs. */
function isReachable(scope: Scope): boolean {
  return existsSync("/run/systemd/system") && runSystemctl(scope, ["show-environment"]).status === 0;
}

function runSystemctl({ isSystem }: Scope, words: readonly string[]): SpawnSyncReturns<string> {
  return spawnSync("systemctl", [...(isSystem ? [] : ["--user"]), ...words], { encoding: "utf8" });
}

/** Throws `io` with the error text of systemctl. */
function systemctl(
  scope: Scope,
  root: string,
  calls: readonly (readonly string[])[],
): { commands: string[]; started: boolean } {
  const flag = scope.isSystem ? "" : "--user ";
  const unit = calls.flat().find((word) => word.startsWith("cairn")) ?? UNIT;
  const commands = calls.map((words) => `systemctl ${flag}${words.join(" ")}`);
  if (root !== "" || !existsSync("/run/systemd/system")) return { commands, started: false };
  for (const words of calls) {
    const done = runSystemctl(scope, words);
    if (done.status !== 0)
      throw new CairnError("io", `systemctl ${words.join(" ")}: ${(done.stderr || String(done.error)).trim()}`, {
        hint: `the unit's file was written; see \`journalctl ${scope.isSystem ? "" : "--user "}-u ${unit}\``,
      });
  }
  return { commands, started: true };
}
