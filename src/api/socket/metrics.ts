import { VERSION } from "../../formats/program.ts";
import type { DaemonStatus } from "../../verbs/schemas.ts";

/** A daemon's status in the text format of Prometheus. */

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

/** Lines of one metric; empty without samples. */
function metric(name: string, help: string, samples: readonly Sample[]): string[] {
  if (samples.length === 0) return [];
  return [
    `# HELP cairn_${name} ${help}`,
    `# TYPE cairn_${name} gauge`,
    ...samples.map(([labels, value]) => {
      const inside = Object.entries(labels).map(([label, text]) => `${label}="${escaped(text)}"`);
      return `cairn_${name}${inside.length === 0 ? "" : `{${inside.join(",")}}`} ${value}`;
    }),
  ];
}

const escaped = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
const seconds = (time: string): number => Date.parse(time) / 1000;

/** Metrics of ages, limits and scheduled work. */
function ages(
  { limits, schedules }: DaemonStatus,
  each: (value: (workspace: DaemonStatus["workspaces"][number]) => number | null) => Sample[],
): string[] {
  const time = (at: string | null): number | null => (at === null ? null : seconds(at));
  const most = { save: limits.save_age_ms, backup: limits.backup_age_ms, proof: limits.proof_age_ms };
  const kinds = ["save", "backup", "proof"] as const;
  const limited = kinds.filter((kind) => most[kind] !== null);
  const named = ({ kind, repository, workspace }: DaemonStatus["schedules"][number]): Record<string, string> => ({
    kind,
    repository,
    ...(workspace === null ? {} : { path: workspace }),
  });
  return [
    ...kinds.flatMap((kind) =>
      metric(
        `workspace_last_${kind}_time_seconds`,
        `When the last good ${kind} of the workspace was.`,
        each((workspace) => time(workspace[`last_${kind}_at`])),
      ),
    ),
    ...metric(
      "age_limit_seconds",
      "The greatest age that the last success may have.",
      limited.map((kind) => [{ kind }, most[kind]! / 1000] as const),
    ),
    ...metric(
      "workspace_overdue",
      "1: this age exceeds its limit.",
      limited.flatMap((kind) =>
        each(({ overdue }) => Number(overdue.includes(kind))).map(
          ([labels, value]) => [{ ...labels, kind }, value] as const,
        ),
      ),
    ),
    ...metric(
      "schedule_last_run_time_seconds",
      "When the scheduled task ran last.",
      schedules.flatMap((row) => (row.ran_at === null ? [] : [[named(row), seconds(row.ran_at)] as const])),
    ),
    ...metric(
      "schedule_last_good_time_seconds",
      "When the scheduled task last succeeded.",
      schedules.flatMap((row) => (row.good_at === null ? [] : [[named(row), seconds(row.good_at)] as const])),
    ),
    ...metric(
      "schedule_failed",
      "1: the last run of the scheduled task failed.",
      schedules.map((row) => [named(row), Number(row.error !== null)] as const),
    ),
    ...metric(
      "schedule_overdue",
      "1: packs of the repository were not read within read_all_within.",
      schedules.filter(({ kind }) => kind === "verify").map((row) => [named(row), Number(row.overdue)] as const),
    ),
  ];
}

/** Metrics of the status that the caller may see. */
export function metricsOf(status: DaemonStatus): string {
  const { workspaces, retention, file_systems: fileSystems } = status;
  const each = (value: (workspace: DaemonStatus["workspaces"][number]) => number | null): Sample[] =>
    workspaces.flatMap((workspace) => {
      const found = value(workspace);
      return found === null ? [] : [[{ path: workspace.path }, found] as const];
    });
  return [
    ...metric("build_info", "The version of the daemon.", [[{ version: VERSION, backend: status.backend.type }, 1]]),
    ...metric("start_time_seconds", "When the daemon started.", [[{}, seconds(status.started_at)]]),
    ...metric("unclean_shutdown", "1: the previous daemon was killed.", [
      [{}, Number(status.unclean_shutdown !== null)],
    ]),
    ...metric(
      "workspace_healthy",
      "1: nothing is wrong with the workspace.",
      each(({ health }) => Number(health === "ok")),
    ),
    ...metric(
      "workspace_points",
      "Save points of the workspace.",
      each(({ points }) => points),
    ),
    ...metric(
      "workspace_missing_points",
      "Save points whose content is missing.",
      each(({ missing }) => missing.length),
    ),
    ...metric(
      "workspace_last_point_time_seconds",
      "When the newest save point was made.",
      each(({ last_point_at: at }) => (at === null ? null : seconds(at))),
    ),
    ...ages(status, each),
    ...metric("retention_failed_workspaces", "Workspaces whose last cleanup failed.", [[{}, retention.failed.length]]),
    ...(retention.cleanup_at === null
      ? []
      : metric("retention_last_time_seconds", "When the keep rules last removed points.", [
          [{}, seconds(retention.cleanup_at)],
        ])),
    ...metric(
      "file_system_free_bytes",
      "Free space of the file systems with workspaces and points.",
      fileSystems.map((at) => [{ mount: at.mount }, at.free_bytes] as const),
    ),
    ...metric(
      "file_system_size_bytes",
      "Size of the file systems with workspaces and points.",
      fileSystems.map((at) => [{ mount: at.mount }, at.total_bytes] as const),
    ),
    "",
  ].join("\n");
}
