import { type DataCase, samplesOf } from "../bench.ts";
import { alternate } from "../measure.ts";
import type { DataName } from "../data/data-sets.ts";
import { newestBar } from "../result.ts";

const BARS: Record<DataName, number> = { small: 0.1, tree: 0.1, big: 0.25 };

export const unchanged: DataCase = {
  name: "unchanged",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const { cairn, restic } = bench.saved(data);
    const contenders = [cairn, restic, ...bench.savedPeers(data)].map((store) => ({
      name: store.name,
      command: store.save(),
    }));
    const samples = samplesOf(alternate(contenders, bench.repeats));
    return {
      case: "unchanged",
      data: data.name,
      unit: "ms",
      samples,
      bars: newestBar(samples, BARS[data.name]),
      meaning: `Another point of ${data.what} with nothing changed: every entry is looked at, no content is read, a point is written.`,
      notes: [],
    };
  },
};
