import type { SavePointId } from "../ids.ts";
import type { ControlPaths } from "../workspace/control-layout.ts";
import { allPoints } from "../workspace/points.ts";
import { collectPaced, newPacer } from "../pacer.ts";
import type { CallOptions } from "../contract/index.ts";

const MIN_DIGITS = 8;

/**
 * The shortest prefix of each id that no other point of the control directory shares, at least 8 digits; ids that are
 * not there likewise. Reads the point catalogs, not the descriptors.
 */
export async function shortIds(
  control: ControlPaths,
  ids: readonly SavePointId[],
  { signal }: CallOptions,
): Promise<string[]> {
  if (ids.length === 0) return [];
  const wanted = new Map<string, Set<string>>();
  for (const id of ids) wanted.set(id.slice(0, MIN_DIGITS), new Set());
  const others = await collectPaced(sharing(control, [...wanted.keys()]), newPacer(signal));
  for (const id of [...others, ...ids]) wanted.get(id.slice(0, MIN_DIGITS))?.add(id);
  return ids.map((id) => {
    let digits = MIN_DIGITS;
    for (const other of wanted.get(id.slice(0, MIN_DIGITS)) ?? []) {
      if (other !== id) digits = Math.max(digits, commonDigits(id, other) + 1);
    }
    return id.slice(0, digits);
  });
}

function* sharing(control: ControlPaths, prefixes: readonly string[]): Generator<SavePointId> {
  for (const { points } of allPoints(control)) yield* points.idsWith(prefixes);
}

function commonDigits(a: string, b: string): number {
  let digits = 0;
  while (digits < a.length && a[digits] === b[digits]) digits++;
  return digits;
}
