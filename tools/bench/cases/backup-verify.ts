import { type DataCase, samplesOf } from "../bench.ts";
import type { DataName } from "../data/data-sets.ts";
import { alternate } from "../measure.ts";
import { newestBar } from "../result.ts";

const BARS: Record<DataName, number> = { small: 0.4, tree: 0.45, big: 0.5 };

export const backupVerify: DataCase = {
  name: "backup-verify",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const { cairn, restic } = bench.backedUp(data);
    const contenders = [
      { name: "cairn", command: cairn.verify() },
      ...[restic, ...bench.savedPeers(data)].map((store) => ({ name: store.name, command: store.check() })),
    ];
    const samples = samplesOf(alternate(contenders, bench.repeats));
    return {
      case: "backup-verify",
      data: data.name,
      unit: "ms",
      samples,
      bars: newestBar(samples, BARS[data.name]),
      meaning: "Every byte of the repository is read, authenticated, decompressed and hashed again.",
      notes: [],
    };
  },
};
