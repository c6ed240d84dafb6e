import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Result } from "./result.ts";

/**
 * The ratchet of `npm run bench -- --quick`: Cairn's times divided by those of the same peers in the same run, beside
 * the ratios of the last release. The machine may be another one, so seconds are not compared. No test depends on it.
 */

const LAST_RELEASE = path.join(import.meta.dirname, "last-release.json");
/** A ratio counts as fallen behind if it grew by more than this. */
const TOLERATED = 0.1;

export interface Ratios {
  /** of Cairn */
  version: string;
  /** "case, data: cairn / peer" → ratio; less is better */
  ratios: Record<string, number>;
}

/** Returns the ratio to each peer with a version in its name: others are whatever the system has. */
export function ratiosOf(results: readonly Result[]): Ratios["ratios"] {
  const rows = results.flatMap(({ case: name, data, samples }) => {
    const own = samples["cairn"];
    if (own === undefined) return [];
    const peers = Object.entries(samples).filter(([peer]) => /\d/.test(peer) && !peer.startsWith("cairn"));
    // The least of the samples is disturbed least by other programs.
    return peers.map(([peer, theirs]): [string, number] => [
      `${name}${data === undefined ? "" : `, ${data}`}: cairn / ${peer}`,
      Number((Math.min(...own) / Math.min(...theirs)).toFixed(3)),
    ]);
  });
  return Object.fromEntries(rows);
}

/** Returns a line for each ratio, those that fell behind the last release first. */
export function compareRatios(now: Ratios["ratios"], then: Ratios): string[] {
  const rows = Object.entries(now).flatMap(([name, ratio]) => {
    const before = then.ratios[name];
    return before === undefined ? [] : [{ name, ratio, before, growth: ratio / before - 1 }];
  });
  const missing = Object.keys(then.ratios).filter((name) => now[name] === undefined);
  const fallen = rows.filter(({ growth }) => growth > TOLERATED);
  const width = Math.max(0, ...rows.map(({ name }) => name.length));
  return [
    `${fallen.length} of ${rows.length} ratios grew by more than a tenth since ${then.version}`,
    ...rows
      .toSorted((a, b) => b.growth - a.growth)
      .map(({ name, ratio, before, growth }) => {
        const change = `${growth < 0 ? "-" : "+"}${Math.abs(growth * 100).toFixed(0)} %`;
        return `  ${name.padEnd(width)}  ${ratio.toFixed(3)}, was ${before.toFixed(3)} (${change})${growth > TOLERATED ? "  FELL BEHIND" : ""}`;
      }),
    ...missing.map((name) => `  ${name}: not measured; tools/install-peers brings the peers`),
  ];
}

/** Prints how the ratios compare with those of the last release, or makes them those of the release `version`. */
export function ratchet(results: readonly Result[], version: string, isRelease: boolean): void {
  const ratios = ratiosOf(results);
  if (Object.keys(ratios).length === 0) throw new Error("no peer was measured: tools/install-peers brings them");
  if (isRelease) {
    writeFileSync(LAST_RELEASE, `${JSON.stringify({ version, ratios } satisfies Ratios, null, 2)}\n`);
    console.log(`${path.basename(LAST_RELEASE)} has the ratios of ${version} now`);
  } else if (existsSync(LAST_RELEASE)) {
    console.log(compareRatios(ratios, JSON.parse(readFileSync(LAST_RELEASE, "utf8")) as Ratios).join("\n"));
  } else console.log("there are no ratios of a release; --quick --release makes them");
}
