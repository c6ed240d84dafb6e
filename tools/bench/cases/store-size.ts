import { readdirSync, statSync } from "node:fs";
import path from "node:path";
import type { DataCase } from "../bench.ts";
import type { DataName } from "../data/data-sets.ts";
import { runCommand } from "../measure.ts";
import { ratioBars } from "../result.ts";

const BARS: Record<DataName, number> = { small: 1.01, tree: 1.04, big: 1.07 };

export const storeSize: DataCase = {
  name: "store-size",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const cairn = bench.cairn(data);
    const restic = bench.restic(data);
    // New stores: each holds one point of the data as it is now, nothing older.
    const others = [restic, ...bench.peers(data)];
    for (const store of [cairn, ...others]) {
      store.fresh();
      runCommand(store.save());
    }
    const sizes = others.map(({ name, repository }): [string, number[]] => [name, [bytesBelow(repository)]]);
    const samples = { cairn: [bytesBelow(cairn.repository())], ...Object.fromEntries(sizes) };
    return {
      case: "store-size",
      data: data.name,
      unit: "bytes",
      samples,
      bars: ratioBars(samples, { restic: BARS[data.name] }),
      meaning: "The bytes of all files in the repository after one save.",
      notes: [],
    };
  },
};

/** The bytes of all files below a folder. */
export function bytesBelow(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(path.join(entry.parentPath, entry.name)).size, 0);
}
