/**
 * Parts of a repository's packs. Each verification reads some parts, so that every pack is read again within a set
 * time. A pack's name decides its part, so new packs belong to a part, too.
 */

/** The part of the time in which all packs are read; the rest allows for missed runs. */
const PLANNED = 0.8;

/** Returns the number of parts, one for each planned run. */
export function partCount(withinMs: number | null, everyMs: number): number {
  return withinMs === null ? 1 : Math.max(1, Math.floor((PLANNED * withinMs) / everyMs));
}

/** Returns the time of each part's last read, in ms since 1970. If the number of parts changed, all parts get the oldest time. */
export function partTimes(known: readonly string[] | undefined, count: number, since: string): number[] {
  const times = (known ?? [since]).map((at) => Date.parse(at));
  const oldest = Math.min(...times);
  return times.length === count ? times : Array.from({ length: count }, () => oldest);
}

/**
 * Returns the parts to read now, from 0: the oldest, and parts that would be late if each later run read only one part.
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
