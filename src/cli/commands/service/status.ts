import { askDaemon as ofFirst } from "../../../api/client/service.ts";
import { socketsOfClient } from "../../../daemon/places.ts";
import { ownScope, type Runner, runner, whyNothingRuns } from "../../../daemon/unit.ts";
import { CairnError, toCairnError } from "../../../errors.ts";
import { listedNames } from "../../../fs/paths/safe-path.ts";
import type { DaemonStatus, Schedule } from "../../../verbs/schemas.ts";
import type { CommandDefinition, Outcome } from "../../command.ts";
import type { Context } from "../../context.ts";
import { EXIT_PARTLY } from "../../envelope.ts";
import { formatAge, formatBytes, formatDuration, plural, printable } from "../../render/format.ts";
import { describeSchedule } from "../../render/schedule.ts";
import type { Style } from "../../render/style.ts";
import { renderTable } from "../../render/table.ts";

/** Makes a call of the first daemon that answers. Throws `no_daemon` if none does. */
export async function askDaemon(name: string, members: Record<string, unknown> = {}): Promise<unknown> {
  return ofFirst(socketsOfClient(), name, members);
}

/** Notes why nothing is going to run the work of a schedule. Returns true if something does, or may. */
export async function noteRunner(context: Context, { next_at: next }: Schedule): Promise<boolean> {
  const why = next === null ? null : await askDaemon("at", { path: "/" }).then(() => null, whyNothingRuns);
  if (why !== null) context.note(why);
  return why === null;
}

/** A folder's schedule, or why it cannot be read. */
type Folder = Partial<Schedule> & { path: string; problems: string[] };

export const command: CommandDefinition = {
  name: "service status",
  harmless: true,
  options: [{ flags: "--check", text: "check every workspace again first" }],
  examples: [
    {
      line: "cairn service status",
      text: "when each folder was last saved, backed up, verified and proven, and whether its next run is going to happen",
    },
  ],
  async run(context, input) {
    const found = runner(ownScope());
    const asked = askDaemon(input.flag("check") ? "reconcile" : "daemon") as Promise<DaemonStatus>;
    const daemon = await asked.catch((error: unknown) => {
      // A timer and cron need no daemon, and a problem of the daemon's unit says why no daemon answers.
      if (found === null || (found.kind === "daemon" && found.problems?.length === 0)) throw error;
      if (toCairnError(error).code !== "no_daemon") throw error;
      return null;
    });
    if (found?.problems === null)
      context.note("cannot tell whether cron runs: only Debian's cron and cronie can be asked");
    const folders = await foldersOf(context);
    const problems = [
      ...(found?.problems ?? []),
      ...folders.flatMap(({ path, problems: own }) => own.map((problem) => `${printable(path)}: ${problem}`)),
      ...(daemon?.overdue ?? []),
    ];
    const outcome: Outcome = {
      data: { ...daemon, runner: found, folders, problems },
      paged: true,
      text: () => render({ daemon, found, folders, problems }, context.style),
    };
    const sick = (daemon?.workspaces ?? []).filter(({ health }) => health !== "ok");
    const [first] = sick;
    if (first !== undefined)
      outcome.error = new CairnError(
        sick.every(({ health }) => health === "folder_gone") ? "not_found" : "damaged",
        `${printable(first.path)}: ${first.detail ?? first.health}${sick.length > 1 ? `, and ${plural(sick.length - 1, "workspace")} more with problems` : ""}`,
        { hint: first.remedy ?? "`cairn service logs` shows what failed" },
      );
    else if (problems.length > 0)
      outcome.error = new CairnError("overdue", listedNames(problems.slice(0, 3)), {
        hint: "`cairn due` does now what is due, and shows why it fails",
      });
    else if (found?.problems === null) outcome.exitStatus = EXIT_PARTLY;
    return outcome;
  },
};

async function foldersOf(context: Context): Promise<Folder[]> {
  const library = await context.library();
  const options = context.callOptions();
  const folders: Folder[] = [];
  for (const { path, present } of await library.listWorkspaces(options))
    try {
      await using client = await library.open(path, context.openOptions());
      folders.push({ ...(await client.schedule(options)), path });
    } catch (error) {
      if (toCairnError(error).code === "interrupted") throw error;
      if (present) folders.push({ path, problems: [toCairnError(error).message] });
    }
  return folders;
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

interface Answer {
  daemon: DaemonStatus | null;
  found: Runner | null;
  folders: readonly Folder[];
  problems: readonly string[];
}

async function render({ daemon, found, folders, problems }: Answer, style: Style): Promise<string> {
  const now = Date.now();
  const lines = daemon === null ? [] : renderDaemon(daemon, now, style);
  if (found !== null)
    lines.push(
      `${found.kind.padEnd(10)} ${printable(found.unit)}${found.next_at === null ? "" : `; runs next ${formatAge(found.next_at, now)}`}`,
    );
  const health = new Map(daemon?.workspaces.map((each) => [each.path, each]));
  const rows = folders.map((folder) => {
    const { detail, remedy, points } = health.get(folder.path) ?? { detail: null, remedy: null, points: null };
    const isWell = folder.problems.length === 0 && detail === null;
    const said = [detail, remedy].flatMap((each) => (each === null ? [] : [printable(each)]));
    const facts = [printable(folder.path), describeSchedule(folder, now), ...said];
    return [
      isWell ? style.green("ok") : style.red("problem"),
      points === null ? "" : plural(points, "point"),
      facts.join("\n           "),
    ];
  });
  if (rows.length === 0) lines.push("you have no workspace here; `cairn save DIR` makes one");
  return [...lines, ...(await renderTable(rows, [1])), ...problems.map((each) => style.red(each))].join("\n");
}

function renderDaemon(status: DaemonStatus, now: number, style: Style): string[] {
  const { backend, retention, saves } = status;
  const cleaned = retention.cleanup_at === null ? "never" : formatAge(retention.cleanup_at, now);
  const quiet = saves?.watched === true ? `after ${formatDuration(saves.when_quiet_ms)} without a change, ` : "";
  const lines = [
    `daemon     pid ${status.pid}, since ${formatAge(status.started_at, now)}, on ${printable(status.socket)}`,
    `backend    ${backend.type}: ${printable(backend.reason)}`,
    `state      ${printable(status.state_file)}; configuration ${printable(status.config_file)}`,
    ...(saves === null ? [] : [`saves      ${quiet}at most ${formatDuration(saves.at_most_every_ms)} after a change`]),
    `cleanup    last ${cleaned}, ${plural(retention.removed, "point")} removed; next ${retention.next_at === null ? "never" : formatAge(retention.next_at, now)}`,
  ];
  if (backend.warning !== null) lines.push(style.yellow(`           ${printable(backend.warning)}`));
  for (const failed of retention.failed) lines.push(style.yellow(`           ${printable(failed)}`));
  if (status.unclean_shutdown !== null)
    lines.push(style.yellow(`unclean    the previous daemon was killed: ${printable(status.unclean_shutdown)}`));
  for (const { mount, free_bytes: free, total_bytes: total } of status.file_systems)
    lines.push(`disk       ${printable(mount)}: ${formatBytes(free)} of ${formatBytes(total)} free`);
  for (const advice of status.advice) lines.push(style.yellow(`advice     ${printable(advice)}`));
  return lines;
}
