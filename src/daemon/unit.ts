import { spawnSync } from "node:child_process";
import { existsSync, realpathSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { CairnError } from "../errors.ts";
import { durableMkdir, durableWrite } from "../fs/durable.ts";
import { absolutePath, homeDirectory } from "../fs/users.ts";
import type { DaemonPlaces } from "./places.ts";

export const UNIT = "cairn.service";

/** A unit of systemd, and what was done with it. */
export interface InstalledUnit {
  unit: string;
  /** Commands that systemd was given, or that are to be given where none runs here. */
  commands: string[];
  /** False: no systemd runs here, so nothing was started. */
  started: boolean;
}

/**
 * The unit's text. A system daemon acts for every user on any folder and mounts its image for all: no setting is in it that gives
 * it mounts or devices of its own, as most of the others do.
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

/** A word of a unit's command line: systemd.service(5). */
function quoted(word: string): string {
  return `"${word.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("%", "%%").replaceAll("$", "$$$$")}"`;
}

/** The program of this process, as a unit starts it: a link that a package manager moves is followed. */
export function thisProgram(): string[] {
  return [process.execPath, realpathSync(process.argv[1]!)];
}

function unitPath({ isSystem }: DaemonPlaces): string {
  if (isSystem) return join("/etc/systemd/system", UNIT);
  const config = absolutePath(process.env, "XDG_CONFIG_HOME") ?? join(homeDirectory(), ".config");
  return join(config, "systemd", "user", UNIT);
}

/** Writes the unit and starts it where systemd runs; done again it changes nothing but the unit's text. */
export function installUnit(places: DaemonPlaces, root = ""): InstalledUnit {
  const unit = root + unitPath(places);
  durableMkdir(dirname(unit), { mode: 0o755 });
  durableWrite(unit, Buffer.from(unitText(places, thisProgram())), { mode: 0o644 });
  return { unit, ...systemctl(places, root, [["daemon-reload"], ["enable", "--now", UNIT]]) };
}

/** Ends it and removes the unit; state, configuration and points stay. Throws `not_found` where there is none. */
export function uninstallUnit(places: DaemonPlaces, root = ""): InstalledUnit {
  const unit = root + unitPath(places);
  if (!existsSync(unit))
    throw new CairnError("not_found", `there is no unit ${unit}`, {
      hint: "`systemctl list-unit-files` lists the units",
    });
  const ended = systemctl(places, root, [["disable", "--now", UNIT]]);
  rmSync(unit);
  const { commands } = systemctl(places, root, [["daemon-reload"]]);
  return { unit, commands: [...ended.commands, ...commands], started: false };
}

/** Throws `io` with what systemctl said. */
function systemctl(
  { isSystem }: DaemonPlaces,
  root: string,
  calls: readonly (readonly string[])[],
): { commands: string[]; started: boolean } {
  const scope = isSystem ? [] : ["--user"];
  const commands = calls.map((words) => ["systemctl", ...scope, ...words].join(" "));
  if (root !== "" || !existsSync("/run/systemd/system")) return { commands, started: false };
  for (const words of calls) {
    const done = spawnSync("systemctl", [...scope, ...words], { encoding: "utf8" });
    if (done.status !== 0)
      throw new CairnError("io", `systemctl ${words.join(" ")}: ${(done.stderr || String(done.error)).trim()}`, {
        hint: `the unit's file was written; see \`journalctl ${isSystem ? "" : "--user "}-u ${UNIT}\``,
      });
  }
  return { commands, started: true };
}
