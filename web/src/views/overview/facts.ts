import type {
  AgentHooks,
  AgentsIn,
  HistoryDaysResult,
  Receipts,
  Schedule,
  StatusResult,
  VerbCalls,
  WorkspaceInfo,
} from "cairnstate/client";
import { plural } from "../../parts/numbers.ts";

/** Answers about all workspaces, in the order and groups in which the overview shows them. */

export type Daemon = VerbCalls["daemon"]["answer"];

/** Answers about one workspace. Null: the call failed, or the folder is missing. Absent: not answered yet. */
export interface Facts {
  status?: StatusResult | null | undefined;
  schedule?: Schedule | null;
  hooks?: AgentHooks[] | null;
  sizes?: HistoryDaysResult | null;
  agents?: AgentsIn["agents"];
  /** What no restore has proven, by repository. */
  debt?: Receipts["debt"] | null;
}

export interface Shown extends WorkspaceInfo, Facts {
  health: Daemon["workspaces"][number] | undefined;
}

/** A sentence about something that is damaged, late or failing. `path` null: it is about no single workspace. */
export interface Alarm {
  path: string | null;
  text: string;
  hint?: string;
}

export interface NextRun {
  path: string;
  kind: Schedule["runs"][number]["kind"];
  repository: string | null;
  next_at: string;
  /** When the first of the runs ended that failed since the last good one. */
  failing_since: string | null;
}

/** A thing that is damaged or overdue, in words. `since` null: it is not known, or there is no such time. */
export interface Trouble {
  path: string | null;
  text: string;
  since: string | null;
}

export interface RepositoryFacts {
  repository: string;
  paths: string[];
  backed_up_at: string | null;
  verified_at: string | null;
  proven_at: string | null;
  isFailing: boolean;
  /** Backups that this machine has recorded, and those of them that no restore has proven. */
  backups: number;
  unproven: number;
  /** The workspace whose activity shows the backups: one that owes a proof, if there is one. */
  owing: string;
}

/** Returns the workspaces with their facts, those with problems first, then by their latest save. */
export function shownOf(
  infos: readonly WorkspaceInfo[],
  daemon: Daemon | null,
  facts: ReadonlyMap<string, Facts>,
): Shown[] {
  const byPath = new Map(daemon?.workspaces.map((each) => [each.path, each]));
  const all = infos.map((each) => ({ ...each, ...facts.get(each.path), health: byPath.get(each.path) }));
  return all.toSorted((a, b) => needOf(b) - needOf(a) || (b.last_save_at ?? "").localeCompare(a.last_save_at ?? ""));
}

/** Tells if content of a workspace is damaged or cannot be read. */
export function isDamaged({ health, problem, status }: Shown): boolean {
  const isMissing = (status?.missing.length ?? 0) > 0;
  return problem !== undefined || isMissing || (health !== undefined && health.health !== "ok");
}

/** Tells if work of the schedule failed or is late, or if hooks of an agent fail. */
export function isLate({ health, schedule, hooks }: Shown): boolean {
  const isFailing = hooks?.some(({ failed }) => failed?.over === false) ?? false;
  return isFailing || (schedule?.problems.length ?? 0) > 0 || (health?.overdue.length ?? 0) > 0;
}

/** Milliseconds after which work that was due and did not run is overdue, as in the schedule's own problems. */
const OVERDUE_MS = 3_600_000;

/** Tells if a run that was due at a time is overdue. */
export function isOverdue(at: string, now = Date.now()): boolean {
  return now - Date.parse(at) > OVERDUE_MS;
}

/** Lists what is damaged. Work of the schedule that finds damage is an alarm. */
export function damagedOf(all: readonly Shown[]): Trouble[] {
  return all.filter(isDamaged).map(({ path, problem, health, status }) => {
    const missing = status?.missing.length ?? 0;
    const lacking = missing === 0 ? null : `the content of ${plural(missing, "save point")} is missing`;
    return { path, text: problem ?? health?.detail ?? lacking ?? "damaged", since: null };
  });
}

/** Lists the present workspaces whose status, schedule or proofs could not be read. What in them is damaged, overdue or unproven is not known. */
export function unknownOf(all: readonly Shown[]): Trouble[] {
  return all
    .filter((each) => each.present && !isDamaged(each))
    .filter(({ status, schedule, debt }) => [status, schedule, debt].includes(null))
    .map(({ path }) => ({ path, text: "its state or records could not be read", since: null }));
}

/** Lists the work that is overdue or fails, and the limits that are exceeded. `unrun`: why nothing runs the work. */
export function overdueOf(
  all: readonly Shown[],
  daemon: Daemon | null,
  unrun: string | null,
  now = Date.now(),
): Trouble[] {
  const planned = nextRuns(all);
  const runs = planned.flatMap(({ path, kind, repository, next_at: next, failing_since: failing }) => {
    if (failing === null && !isOverdue(next, now)) return [];
    const to = kind === "backup" ? "into" : "of";
    const what = repository === null ? RUN_NAMES[kind] : `${RUN_NAMES[kind]} ${to} ${repository}`;
    return [{ path, text: failing === null ? `${what}: due` : `${what}: fails since`, since: failing ?? next }];
  });
  const limits = all.flatMap(({ path, health }) =>
    (health?.overdue ?? []).map((kind) => {
      const since = health![`last_${kind}_at`];
      return { path, text: since === null ? `there is no ${kind} yet` : `the last ${kind} was`, since };
    }),
  );
  const packs = (daemon?.schedules ?? []).filter(({ overdue }) => overdue);
  return [
    ...(unrun === null || planned.length === 0 ? [] : [{ path: null, text: unrun, since: null }]),
    ...runs,
    ...limits,
    ...packs.map(({ repository, all_read_since: since }) => ({
      path: null,
      text: since === null ? `${repository}: not all packs were read yet` : `${repository}: all packs were last read`,
      since,
    })),
  ];
}

/** The meanings of two words. */
export const PROVEN = "a backup was restored, read again and found equal to what was saved";
export const VERIFIED = "the repository's data were read, and nothing in them was damaged";

export const RUN_NAMES: Readonly<Record<NextRun["kind"], string>> = {
  save: "Save",
  backup: "Backup",
  verify: "Verification",
  "restore-check": "Restore as a test",
  prune: "Prune",
};

/** Returns when a backup of a workspace was last proven, by the schedule or by a restore with a receipt. */
export function provenAt({ schedule, debt }: Shown): string | null {
  return (debt ?? []).reduce<string | null>((at, each) => later(at, each.proven_at), schedule?.last_proof_at ?? null);
}

function needOf(shown: Shown): number {
  if (isDamaged(shown)) return 3;
  if (!shown.present) return 2;
  return isLate(shown) ? 1 : 0;
}

/** Lists the sentences of all answers about damage, failures and missed limits, in the order of `all`. */
export function alarmsOf(all: readonly Shown[], daemon: Daemon | null): Alarm[] {
  const own = all.flatMap(({ path, problem, health, schedule, status, hooks, agents }) => {
    const { detail = null, remedy = null } = health ?? {};
    const missing = status?.missing.length ?? 0;
    const failed =
      hooks?.flatMap(({ agent, failed: each }) => (each?.over === false ? [{ agent, ...each }] : [])) ?? [];
    const texts = [
      ...(problem === undefined ? [] : [problem]),
      ...(detail === null ? [] : [remedy === null ? detail : `${detail}; ${remedy}`]),
      ...(missing === 0 ? [] : [`the content of ${plural(missing, "save point")} is missing`]),
      ...(schedule?.problems ?? []),
      ...(agents ?? []).flatMap(({ problems }) => problems),
      ...failed.map(({ agent, count, reason }) => `${plural(count, "hook")} of ${agent} failed: ${reason}`),
    ];
    return texts.map((text) => {
      const isAbsent = (schedule?.runs ?? []).some(
        (each) => isWithoutRepository(each) && text.includes(each.error!.message),
      );
      return { path, text, ...(isAbsent ? { hint: ABSENT_DISK } : {}) };
    });
  });
  const others = daemon === null ? [] : [...daemon.overdue, ...daemon.retention.failed, ...daemon.advice];
  return [...own, ...others.map((text) => ({ path: null, text }))];
}

const ABSENT_DISK = "Is the disk with the repository connected and mounted?";

/** True for a run that found no repository in a folder of this machine. */
function isWithoutRepository({ repository, error }: Schedule["runs"][number]): boolean {
  return error?.code === "not_found" && repository?.startsWith("/") === true;
}

/** Returns the agents that work in a workspace and whose hooks do not save it. */
export function agentsWithoutHooks({ agents }: Shown): string[] {
  return (agents ?? []).filter((each) => promptWithoutHook(each) !== null).map(({ tool }) => tool);
}

/** Milliseconds after the last hook from which a prompt without a hook counts. */
const MISSED_MS = 60_000;

/** Returns the time of an agent's last prompt in a folder that its hooks do not save; null if a hook saw that prompt. */
export function promptWithoutHook({
  covered,
  last_prompt: prompt,
  last_hook_at: hook,
}: AgentsIn["agents"][number]): string | null {
  if (covered || prompt === null) return null;
  return Date.parse(prompt) > Date.parse(hook ?? "1970-01-01") + MISSED_MS ? prompt : null;
}

/** Lists the scheduled runs, the next one first. Work on a whole repository is listed once. */
export function nextRuns(all: readonly Shown[]): NextRun[] {
  const runs = new Map<string, NextRun>();
  for (const { path, schedule } of all)
    for (const { kind, repository, next_at, failing_since } of schedule?.runs ?? []) {
      const isOfFolder = kind === "save" || kind === "backup";
      const key = JSON.stringify([kind, repository, isOfFolder ? path : next_at]);
      if (!runs.has(key)) runs.set(key, { path, kind, repository, next_at, failing_since });
    }
  return [...runs.values()].toSorted((a, b) => a.next_at.localeCompare(b.next_at));
}

/** Lists the repositories of backups and schedules, failing ones first. */
export function repositoriesOf(all: readonly Shown[]): RepositoryFacts[] {
  const found = new Map<string, RepositoryFacts>();
  const at = (repository: string, path: string): RepositoryFacts => {
    const none = { backed_up_at: null, verified_at: null, proven_at: null, isFailing: false, backups: 0, unproven: 0 };
    const known = found.get(repository) ?? { repository, paths: [], owing: path, ...none };
    found.set(repository, known);
    if (!known.paths.includes(path)) known.paths.push(path);
    return known;
  };
  for (const { path, schedule, status, debt } of all) {
    for (const { kind, repository, good_at, error } of schedule?.runs ?? []) {
      if (repository === null) continue;
      const row = at(repository, path);
      row.isFailing ||= error !== null;
      if (kind === "backup") row.backed_up_at = later(row.backed_up_at, good_at);
      if (kind === "verify") row.verified_at = later(row.verified_at, good_at);
      if (kind === "restore-check") row.proven_at = later(row.proven_at, good_at);
    }
    for (const { repository, backups, unproven, proven_at, verified_at, backed_up_at } of debt ?? []) {
      const row = at(repository, path);
      if (row.backups === 0 || (row.unproven === 0 && unproven > 0)) row.owing = path;
      row.backups += backups;
      row.unproven += unproven;
      row.backed_up_at = later(row.backed_up_at, backed_up_at);
      row.proven_at = later(row.proven_at, proven_at);
      row.verified_at = later(row.verified_at, verified_at);
    }
    const last = status?.last_backup ?? null;
    if (last === null) continue;
    const row = at(last.location, path);
    row.backed_up_at = later(row.backed_up_at, last.at);
  }
  const byNeed = (a: RepositoryFacts, b: RepositoryFacts): number => Number(b.isFailing) - Number(a.isFailing);
  return [...found.values()].toSorted((a, b) => byNeed(a, b) || a.repository.localeCompare(b.repository));
}

function later(a: string | null, b: string | null): string | null {
  return a === null || (b !== null && b > a) ? b : a;
}

/** The earliest of some times, and the number of absent ones: what holds for all of them since then. */
export function earliest(times: readonly (string | null)[]): { at: string | null; absent: number } {
  const known = times.filter((each) => each !== null).toSorted();
  return { at: known[0] ?? null, absent: times.length - known.length };
}

/** Days that the chart of growth shows, the last ones. */
const MOST_DAYS = 90;
const DAY_MS = 86_400_000;

/** Returns the folder's size of each day with a point as fractions of the chart: of its width, and of the largest size. */
export function growthOf({ days }: HistoryDaysResult): { at: number; height: number; day: string; bytes: number }[] {
  const known = days.flatMap(({ day, bytes }) => (bytes === null || day === "" ? [] : [{ day, bytes }])).toReversed();
  const end = Date.parse(known.at(-1)?.day ?? "");
  const shown = known.filter(({ day }) => end - Date.parse(day) < MOST_DAYS * DAY_MS);
  const start = Date.parse(shown[0]?.day ?? "");
  const most = Math.max(1, ...shown.map(({ bytes }) => bytes));
  return shown.map(({ day, bytes }) => ({
    at: end === start ? 0 : (Date.parse(day) - start) / (end - start),
    height: bytes / most,
    day,
    bytes,
  }));
}
