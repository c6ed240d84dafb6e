/**
 * Parts of a repository's packs, so that a verification of some of them each time reads every pack again within a set time. A
 * pack belongs to one part by its name, so that each part has packs that were written since, too.
 */

/** The part of the time in which all is read; the rest is for runs that do not take place. */
const PLANNED = 0.8;

/** The number of parts, one for each run of that time. */
export function partCount(withinMs: number | null, everyMs: number): number {
  return withinMs === null ? 1 : Math.max(1, Math.floor((PLANNED * withinMs) / everyMs));
}

/** When each part was read last, milliseconds since 1970, in a new number of parts where it was another: nothing counts as newer than it is. */
export function partTimes(known: readonly string[] | undefined, count: number, since: string): number[] {
  const times = (known ?? [since]).map((at) => Date.parse(at));
  const oldest = Math.min(...times);
  return times.length === count ? times : Array.from({ length: count }, () => oldest);
}

/**
 * The parts to be read now, from 0: the one that was read longest ago, and those that would be too old when their turn came,
 * with one in each run to come.
 */
export function partsToRead(
  times: readonly number[],
  { now, withinMs, everyMs }: { now: number; withinMs: number | null; everyMs: number },
): number[] {
  const oldestFirst = times.map((_, part) => part).toSorted((a, b) => times[a]! - times[b]!);
  let count = 1;
  const isLate = (): boolean =>
    oldestFirst.slice(count).some((part, turn) => times[part]! + (withinMs ?? 0) < now + (turn + 1) * everyMs);
  while (isLate()) count++;
  return oldestFirst.slice(0, count);
}
