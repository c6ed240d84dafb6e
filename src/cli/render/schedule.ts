import type { Schedule } from "../../verbs/schemas.ts";
import { formatAge } from "./format.ts";

const WORDS = { save: "saved", backup: "backed up", verify: "verified", proof: "proven" } as const;

/** Returns when a folder was last saved, backed up, verified and proven, and when its next run is due. `isRun`: something runs it. */
export function describeSchedule(schedule: Partial<Schedule>, now: number, isRun = true): string {
  const done = (Object.keys(WORDS) as (keyof typeof WORDS)[]).map((what) => {
    const at = schedule[`last_${what}_at`] ?? null;
    return at === null ? `never ${WORDS[what]}` : `${WORDS[what]} ${formatAge(at, now)}`;
  });
  const { next_at: next = null } = schedule;
  return [...done, next === null ? "no next run" : `${isRun ? "next run" : "due"} ${dueIn(next, now)}`].join(", ");
}

export function dueIn(at: string, now: number): string {
  return Date.parse(at) <= now ? "as soon as possible" : formatAge(at, now);
}
