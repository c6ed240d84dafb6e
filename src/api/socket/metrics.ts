import type { DaemonStatus } from "../../contract/daemon.ts";
import { VERSION } from "../../formats/program.ts";

/** A daemon's status in the text format that Prometheus reads. */

type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

/** Lines of one metric; nothing of one without samples. */
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

/** The metrics of what the caller may see. */
export function metricsOf(status: DaemonStatus): string {
  const { workspaces, retention, file_systems: fileSystems } = status;
  const each = (value: (workspace: DaemonStatus["workspaces"][number]) => number | null): Sample[] =>
    workspaces.flatMap((workspace) => {
      const found = value(workspace);
      return found === null ? [] : [[{ path: workspace.path }, found] as const];
    });
  return [
    ...metric("build_info", "The version that serves.", [[{ version: VERSION, backend: status.backend.type }, 1]]),
    ...metric("start_time_seconds", "When the daemon started.", [[{}, seconds(status.started_at)]]),
    ...metric("unclean_shutdown", "1: the daemon before this one was killed.", [
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
      "Save points whose content is not there.",
      each(({ missing }) => missing.length),
    ),
    ...metric(
      "workspace_last_point_time_seconds",
      "When the newest save point was made.",
      each(({ last_point_at: at }) => (at === null ? null : seconds(at))),
    ),
    ...metric("retention_failed_workspaces", "Workspaces at which the last cleanup failed.", [
      [{}, retention.failed.length],
    ]),
    ...(retention.cleanup_at === null
      ? []
      : metric("retention_last_time_seconds", "When points were removed by the keep rules last.", [
          [{}, seconds(retention.cleanup_at)],
        ])),
    ...metric(
      "file_system_free_bytes",
      "Free room where workspaces and points lie.",
      fileSystems.map((at) => [{ mount: at.mount }, at.free_bytes] as const),
    ),
    ...metric(
      "file_system_size_bytes",
      "Size of those file systems.",
      fileSystems.map((at) => [{ mount: at.mount }, at.total_bytes] as const),
    ),
    "",
  ].join("\n");
}
