import type { DataName } from "./data/data-sets.ts";

export type Unit = "ms" | "bytes" | "count";

export interface Bar {
  what: string;
  value: number;
  limit: number;
  /** How value and limit are shown: a plain ratio, or in a unit. */
  unit: "ratio" | Unit;
}

/** The result of one case on one data set. */
export interface Result {
  case: string;
  data?: DataName | undefined;
  unit: Unit;
  /** Contender → samples. */
  samples: Record<string, number[]>;
  bars: Bar[];
  /** A sentence that explains the numbers. */
  meaning: string;
  notes: string[];
}

export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/**
 * Returns bars of Cairn's median against medians of others, for example `{ restic: 0.37 }`. No bar without a measurement.
 */
export function ratioBars(
  samples: Readonly<Record<string, readonly number[]>>,
  limits: Readonly<Record<string, number>>,
): Bar[] {
  const own = median(samples["cairn"] ?? []);
  return Object.entries(limits).flatMap(([peer, limit]) => {
    const theirs = samples[peer];
    if (theirs === undefined || theirs.length === 0) return [];
    return [{ what: `cairn / ${peer}`, value: own / median(theirs), limit, unit: "ratio" as const }];
  });
}

/** The newest versions of the programs that do the same as Cairn. Other versions are only measured. */
const NEWEST = /^(?:restic \d|rustic )/;

/** Returns the bar of Cairn's or another contender's median against the faster of the newest restic and rustic, if any. */
export function newestBar(samples: Readonly<Record<string, readonly number[]>>, limit: number, own = "cairn"): Bar[] {
  const newest = Object.entries(samples).filter(([name]) => NEWEST.test(name));
  const mine = samples[own];
  if (newest.length === 0 || mine === undefined) return [];
  const [name, theirs] = newest.reduce((a, b) => (median(b[1]) < median(a[1]) ? b : a));
  return [{ what: `${own} / ${name}, the faster`, value: median(mine) / median(theirs), limit, unit: "ratio" }];
}

export function limitBar(what: string, value: number, limit: number, unit: Bar["unit"]): Bar {
  return { what, value, limit, unit };
}

/** Returns the lines that a person reads. */
export function resultLines(result: Result): string[] {
  const title = result.data === undefined ? result.case : `${result.case}, ${result.data}`;
  const bare = ratiosWithoutBar(result);
  const names = [...Object.keys(result.samples), ...[...bare, ...result.bars].map(({ what }) => what)];
  const width = Math.max(...names.map(({ length }) => length));
  const rows = Object.entries(result.samples).map(([name, samples]) => {
    const range =
      samples.length > 1
        ? `  (${shown(Math.min(...samples), result.unit)} … ${shown(Math.max(...samples), result.unit)}, n=${samples.length})`
        : "";
    return `  ${name.padEnd(width)} ${shown(median(samples), result.unit).padStart(11)}${range}`;
  });
  const ratios = bare.map(({ what, value }) => `  ${what.padEnd(width)} ${shown(value, "ratio").padStart(11)}  no bar`);
  const bars = result.bars.map((bar) => {
    const verdict = bar.value <= bar.limit ? "pass" : "FALLS SHORT";
    return `  ${bar.what.padEnd(width)} ${shown(bar.value, bar.unit).padStart(11)}  bar ≤ ${shown(bar.limit, bar.unit)}: ${verdict}`;
  });
  return [
    title,
    `  ${result.meaning}`,
    ...rows,
    ...bars,
    ...ratios,
    ...result.notes.map((note) => `  note: ${note}`),
    "",
  ];
}

/** Returns the ratios of Cairn's median to the medians of programs without a bar. */
function ratiosWithoutBar({ samples, bars }: Result): { what: string; value: number }[] {
  const own = samples["cairn"];
  if (own === undefined) return [];
  return Object.entries(samples)
    .filter(([name]) => !name.startsWith("cairn"))
    .map(([name, theirs]) => ({ what: `cairn / ${name}`, value: median(own) / median(theirs) }))
    .filter(({ what }) => !bars.some((bar) => bar.what === what));
}

/** Formats a value for a person. */
export function shown(value: number, unit: "ratio" | Unit): string {
  if (unit === "ratio") return value.toFixed(3);
  if (unit === "count") return String(value);
  if (unit === "bytes") return `${(value / 1e6).toFixed(1)} MB`;
  return value < 1000 ? `${value.toFixed(1)} ms` : `${(value / 1000).toFixed(2)} s`;
}
