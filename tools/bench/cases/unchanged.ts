import { type DataCase, samplesOf } from "../bench.ts";
import { alternate } from "../measure.ts";
import { ratioBars } from "../result.ts";

export const unchanged: DataCase = {
  name: "unchanged",
  data: ["small", "tree"],
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
      bars: ratioBars(samples, { restic: 0.17 }),
      meaning: `Another point of ${data.what} with nothing changed: every entry is looked at, no content is read, a point is written.`,
      notes: [],
    };
  },
};
