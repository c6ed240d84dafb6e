import type { ServedWorkspace } from "../formats/records/daemon-state.ts";
import { displayPath, printablePath } from "../fs/paths/safe-path.ts";
import type { DaemonStatus } from "../verbs/schemas.ts";
import type { DaemonConfig } from "./config.ts";
import type { Decision } from "./decide-start.ts";
import { adviceOn, fileSystemsOf, type Health, pointsOf, WELL } from "./health.ts";
import type { Instance } from "./instance.ts";
import type { DaemonPlaces } from "./places.ts";
import { agesOf } from "./schedules/ages.ts";
import type { Schedules } from "./schedules/schedules.ts";
import { folderOf, type KeptState } from "./state/kept-state.ts";

export { type Health, linkReplaced, lookAfter, PointCounts, pointsOf, WELL } from "./health.ts";

interface Parts {
  /** The workspaces on which the caller may act. */
  workspaces: readonly ServedWorkspace[];
  /** True: the caller may know of all workspaces. */
  isAll: boolean;
  health: ReadonlyMap<string, Health>;
  kept: KeptState;
  decision: Decision;
  instance: Instance;
  startedAt: string;
  config: DaemonConfig;
  schedules: Schedules;
  places: DaemonPlaces;
}

/** Returns the daemon's status, with the parts that one caller may know. */
export function statusOf(parts: Parts): DaemonStatus {
  const { isAll, health, kept, decision, instance, config, schedules, places } = parts;
  const { runs } = schedules;
  const { limits } = config;
  const now = Date.now();
  const late: string[][] = [];
  const workspaces = parts.workspaces.map((each) => {
    const counted = { ...each, ...(pointsOf(each) ?? { points: each.points, last_point_at: null }) };
    const { ages, reasons } = agesOf(counted, { runs, limits, now });
    late.push(reasons);
    return { ...counted, ...(health.get(each.id) ?? WELL), ...ages, ...displayPath(folderOf(each)) };
  });
  const facts = schedules.facts(new Set(parts.workspaces.map(({ id }) => id)), isAll);
  const fileSystems = fileSystemsOf(parts.workspaces, places.state);
  return {
    pid: process.pid,
    started_at: parts.startedAt,
    unclean_shutdown: instance.killed,
    backend: { ...kept.state.backend, reason: decision.reason, warning: decision.warning },
    state_file: kept.path,
    config_file: places.config,
    socket: places.socket,
    workspaces,
    ...facts,
    retention: {
      ...facts.retention,
      failed: facts.retention.failed.filter((each) => workspaces.some(({ path }) => each.startsWith(`${path}: `))),
    },
    limits,
    overdue: [
      ...late.flat(),
      ...facts.schedules
        .filter(({ overdue }) => overdue)
        .map(({ repository }) => `${printablePath(repository)}: packs were not read within read_all_within`),
    ],
    file_systems: fileSystems,
    advice: adviceOn(workspaces, fileSystems, kept.state.moves),
  };
}
