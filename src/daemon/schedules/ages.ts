import type { ServedWorkspace } from "../../formats/records/daemon-state.ts";
import type { ScheduledRun } from "../../formats/records/schedule.ts";
import { newest } from "../../keep/schedule.ts";
import { printablePath } from "../../fs/paths/safe-path.ts";
import type { Limits } from "../config.ts";

/** Times of the last good save, backup and proof of a workspace; null: there was none, or the time is unknown. */
export interface Ages {
  last_save_at: string | null;
  last_backup_at: string | null;
  last_proof_at: string | null;
  /** Kinds whose limit is passed. */
  overdue: Kind[];
}

type Kind = "save" | "backup" | "proof";

/** The last good time of a job that has a limit. */
export interface Measured {
  kind: Kind;
  /** Null: the job never succeeded. */
  at: string | null;
  /** When the first run was due. */
  since: string;
  repository: string | null;
}

/**
 * Returns the ages of a workspace at `now`, and sentences about passed limits. A backup that finds nothing new counts
 * as good. Each repository has its own limit. A job that never succeeded counts from when its first run was due.
 */
export function agesOf(
  served: Pick<ServedWorkspace, "id" | "registered_at"> & { path: string; last_point_at: string | null },
  { runs, limits, now }: { runs: readonly ScheduledRun[]; limits: Limits; now: number },
): { ages: Ages; reasons: string[]; measured: Measured[]; late: Measured[] } {
  const since = served.registered_at;
  const save = newest([
    served.last_point_at,
    runs.find(({ kind, workspace }) => kind === "save" && workspace === served.id)?.good_at ?? null,
  ]);
  const backups = runs.filter(({ kind, workspace }) => kind === "backup" && workspace === served.id);
  const proofs = backups.flatMap(({ repository, good_at: stored }): Measured[] => {
    const of = runs.filter(
      ({ kind, repository: at, workspace }) =>
        at === repository && (kind === "verify" || (kind === "restore-check" && workspace === served.id)),
    );
    // A sound repository proves nothing about a folder without a backup in it.
    const at = stored === null ? null : newest(of.map((run) => run.good_at));
    return of.length === 0 ? [] : [{ kind: "proof", at, since: of[0]!.since, repository }];
  });
  const missing = (kind: Kind): Measured => ({ kind, at: null, since, repository: null });
  const stored = backups.map((run): Measured => ({
    kind: "backup",
    at: run.good_at,
    since: run.since,
    repository: run.repository,
  }));
  const measured: Measured[] = [
    { kind: "save", at: save, since, repository: null },
    ...(stored.length > 0 ? stored : [missing("backup")]),
    ...(proofs.length > 0 ? proofs : [missing("proof")]),
  ];
  const most = { save: limits.save_age_ms, backup: limits.backup_age_ms, proof: limits.proof_age_ms };
  const late = measured.filter(
    ({ kind, at, since: from }) => most[kind] !== null && now - Date.parse(at ?? from) > most[kind],
  );
  const ages = {
    last_save_at: save,
    last_backup_at: newest(stored.map(({ at }) => at)),
    last_proof_at: newest(proofs.map(({ at }) => at)),
    overdue: [...new Set(late.map(({ kind }) => kind))],
  };
  return { ages, reasons: late.map((each) => sentence(served.path, each)), measured, late };
}

function sentence(path: string, { kind, at, repository }: Measured): string {
  const where = repository === null ? "" : ` ${kind === "backup" ? "into" : "of"} ${printablePath(repository)}`;
  const when = at === null ? `there is no good ${kind}${where} yet` : `the last good ${kind}${where} was at ${at}`;
  return `${printablePath(path)}: ${when}; the limit is exceeded`;
}
