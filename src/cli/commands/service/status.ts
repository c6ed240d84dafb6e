import type { DaemonStatus } from "../../../contract/daemon.ts";
import { CairnError, reworded } from "../../../errors.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import { askDaemon as ofFirst } from "../../../api/client/service.ts";
import { socketsOfClient } from "../../../daemon/places.ts";
import { INSTALLABLE, installedUnit, ownScope } from "../../../daemon/unit.ts";
import { formatAge, formatBytes, formatDuration, plural, printable } from "../../render/format.ts";
import { renderTable } from "../../render/table.ts";
import type { Style } from "../../render/style.ts";

/** Makes a call of the first daemon that answers. Throws `no_daemon` if none does. */
export async function askDaemon(name: string, members: Record<string, unknown> = {}): Promise<unknown> {
  return ofFirst(socketsOfClient(), name, members);
}

export const command: CommandDefinition = {
  name: "service status",
  harmless: true,
  options: [{ flags: "--check", text: "check every workspace again first" }],
  examples: [{ line: "cairn service status", text: "show the backend, the state, each workspace, and the schedules" }],
  async run(context, input) {
    const timer = installedUnit(ownScope(), "timer");
    const asked = askDaemon(input.flag("check") ? "reconcile" : "daemon");
    const status = (await asked.catch((error: unknown) => {
      throw timer === null ? error : besideTimer(error, timer);
    })) as DaemonStatus;
    const outcome: Outcome = { data: status, paged: true, text: () => render(status, { timer, style: context.style }) };
    const { overdue } = status;
    const sick = status.workspaces.filter(({ health }) => health !== "ok");
    const [first] = sick;
    if (first !== undefined)
      outcome.error = new CairnError(
        sick.every(({ health }) => health === "folder_gone") ? "not_found" : "damaged",
        `${printable(first.path)}: ${first.detail ?? first.health}${sick.length > 1 ? `, and ${plural(sick.length - 1, "workspace")} more with problems` : ""}`,
        { hint: first.remedy ?? "`cairn service logs` shows what failed" },
      );
    else if (overdue.length > 0)
      outcome.error = new CairnError(
        "overdue",
        `${overdue[0]!}${overdue.length > 1 ? `, and ${overdue.length - 1} more` : ""}`,
        {
          hint: "`cairn service logs` shows what failed",
        },
      );
    return outcome;
  },
};

/** Adds to the error without a daemon that the timer is on. */
function besideTimer(error: unknown, timer: string): unknown {
  if (!(error instanceof CairnError) || error.code !== "no_daemon") return error;
  const scope = ownScope().isSystem ? "" : "--user ";
  return reworded(error, {
    message: `no daemon runs; the timer ${printable(timer)} saves and backs up your folders each hour`,
    hint: `\`systemctl ${scope}list-timers ${INSTALLABLE.timer}\` shows its last and its next run; \`cairn backup due\` runs the same now`,
  });
}

export const reload: CommandDefinition = {
  name: "service reload",
  examples: [
    {
      line: "cairn service reload",
      text: "a configuration with an error is refused, with the line, and changes nothing",
    },
  ],
  async run() {
    await askDaemon("reload");
    return { data: { reloaded: true }, text: () => "the daemon has read the configuration again" };
  },
};

async function render(status: DaemonStatus, { timer, style }: { timer: string | null; style: Style }): Promise<string> {
  const { backend, retention, workspaces } = status;
  const now = Date.now();
  const cleaned = retention.cleanup_at === null ? "never" : formatAge(retention.cleanup_at, now);
  const lines = [
    `daemon     pid ${status.pid}, since ${formatAge(status.started_at, now)}, on ${printable(status.socket)}`,
    `backend    ${backend.type}: ${printable(backend.reason)}`,
    `state      ${printable(status.state_file)}; configuration ${printable(status.config_file)}`,
    ...renderSchedules(status, now, style),
    `cleanup    last ${cleaned}, ${plural(retention.removed, "point")} removed; next ${retention.next_at === null ? "never" : formatAge(retention.next_at, now)}`,
  ];
  if (timer !== null) lines.push(`timer      ${printable(timer)} saves and backs up your folders each hour, too`);
  if (backend.warning !== null) lines.push(style.yellow(`           ${printable(backend.warning)}`));
  for (const failed of retention.failed) lines.push(style.yellow(`           ${printable(failed)}`));
  if (status.unclean_shutdown !== null)
    lines.push(style.yellow(`unclean    the previous daemon was killed: ${printable(status.unclean_shutdown)}`));
  for (const { mount, free_bytes: free, total_bytes: total } of status.file_systems)
    lines.push(`disk       ${printable(mount)}: ${formatBytes(free)} of ${formatBytes(total)} free`);
  for (const advice of status.advice) lines.push(style.yellow(`advice     ${printable(advice)}`));
  const rows = workspaces.map((workspace) => {
    const { health, points, path, detail, remedy, overdue } = workspace;
    const said = [detail, remedy].flatMap((each) => (each === null ? [] : [printable(each)]));
    const state =
      health !== "ok"
        ? style.red(health.replace("_", " "))
        : overdue.length > 0
          ? style.red("overdue")
          : style.green("ok");
    return [state, plural(points, "point"), [printable(path), ages(workspace, now), ...said].join("\n           ")];
  });
  if (rows.length === 0) lines.push("you have no workspace here; `cairn save DIR` makes one");
  return [...lines, ...(await renderTable(rows, [1]))].join("\n");
}

function ages(workspace: DaemonStatus["workspaces"][number], now: number): string {
  return (["save", "backup", "proof"] as const)
    .map((what) => {
      const at = workspace[`last_${what}_at`];
      const late = workspace.overdue.includes(what) ? " (overdue)" : "";
      return `${what} ${at === null ? "never" : formatAge(at, now)}${late}`;
    })
    .join(", ");
}

function renderSchedules({ saves, schedules }: DaemonStatus, now: number, style: Style): string[] {
  const lines: string[] = [];
  if (saves !== null) {
    const quiet = saves.watched ? `after ${formatDuration(saves.when_quiet_ms)} without a change, ` : "";
    lines.push(`saves      ${quiet}at most ${formatDuration(saves.at_most_every_ms)} after a change`);
  }
  for (const { kind, repository, workspace, ran_at, next_at, error, overdue } of schedules) {
    const of = [workspace, repository].flatMap((each) => (each === null ? [] : [printable(each)])).join(" into ");
    const last = ran_at === null ? "never" : formatAge(ran_at, now);
    const line = `${kind.padEnd(10)} ${of}: last ${last}${next_at === null ? ", in progress" : `; next ${formatAge(next_at, now)}`}`;
    lines.push(overdue ? style.red(`${line} (overdue)`) : line);
    if (error !== null) lines.push(style.red(`           failed: ${printable(error)}`));
  }
  return lines;
}
