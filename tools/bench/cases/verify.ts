import { type DataCase, samplesOf } from "../bench.ts";
import type { DataName } from "../data/data-sets.ts";
import { alternate } from "../measure.ts";
import { newestBar } from "../result.ts";

const BARS: Record<DataName, number> = { small: 0.4, tree: 0.45, big: 0.5 };

export const verify: DataCase = {
  name: "verify",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const { cairn, restic } = bench.saved(data);
    const contenders = [
      { name: "cairn", command: cairn.on("verify", "--all") },
      ...[restic, ...bench.savedPeers(data)].map((store) => ({ name: store.name, command: store.check() })),
    ];
    const samples = samplesOf(alternate(contenders, bench.repeats));
    return {
      case: "verify",
      data: data.name,
      unit: "ms",
      samples,
      bars: newestBar(samples, BARS[data.name]),
      meaning:
        "Every stored byte is read, authenticated, decompressed and hashed again; Cairn also recomputes each point's state digest.",
      notes: [],
    };
  },
};
