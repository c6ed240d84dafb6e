import type { DataCase } from "../bench.ts";
import type { DataName } from "../data/data-sets.ts";
import { runCommand } from "../measure.ts";
import { ratioBars } from "../result.ts";
import { bytesBelow } from "./store-size.ts";

const BARS: Record<DataName, number> = { small: 1.01, tree: 1.04, big: 1.07 };

export const backupSize: DataCase = {
  name: "backup-size",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const cairn = bench.backup(data);
    const restic = bench.restic(data);
    // New ones: each holds one snapshot of the data as it is now, nothing older.
    const others = [restic, ...bench.peers(data)];
    for (const store of [cairn, ...others]) {
      store.fresh();
      runCommand(store.save());
    }
    const sizes = others.map(({ name, repository }): [string, number[]] => [name, [bytesBelow(repository)]]);
    const samples = { cairn: [bytesBelow(cairn.repository)], ...Object.fromEntries(sizes) };
    return {
      case: "backup-size",
      data: data.name,
      unit: "bytes",
      samples,
      bars: ratioBars(samples, { restic: BARS[data.name] }),
      meaning: "The bytes of all files in the repository after one backup.",
      notes: [],
    };
  },
};
