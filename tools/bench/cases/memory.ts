import type { DataCase } from "../bench.ts";
import { peakMemory } from "../measure.ts";
import { limitBar, median } from "../result.ts";

const BAR_MB = 160;

export const memory: DataCase = {
  name: "memory",
  data: ["small", "tree", "big"],
  async run(bench, data) {
    const samples: Record<string, number[]> = {};
    for (const store of [bench.cairn(data), bench.restic(data)]) {
      const peaks = [];
      // Peaks hardly vary; three runs show that.
      for (let round = 0; round < Math.min(3, bench.repeats); round++) {
        store.fresh();
        peaks.push(await peakMemory(store.save()));
      }
      samples[store.name] = peaks;
    }
    return {
      case: "memory",
      data: data.name,
      unit: "bytes",
      samples,
      bars: [limitBar("cairn", median(samples["cairn"] ?? []), BAR_MB * 1e6, "bytes")],
      meaning:
        "The most memory that all processes of a first save held at once (resident, sampled every 10 ms, in runs of its own).",
      notes: [],
    };
  },
};
