import { type DataCase, samplesOf } from "../bench.ts";
import { type Contender, alternate } from "../measure.ts";
import type { DataName } from "../data/data-sets.ts";
import { newestBar } from "../result.ts";

const BARS: Record<DataName, number> = { small: 0.1, tree: 0.1, big: 0.25 };

export const backupUnchanged: DataCase = {
  name: "backup-unchanged",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const { cairn, restic, borg } = bench.backedUpByAll(data);
    const others = [restic, ...(borg === null ? [] : [borg]), ...bench.savedPeers(data)];
    const contenders: Contender[] = [
      { name: "cairn", command: cairn.save() },
      { name: "cairn, from a point", command: cairn.create() },
      ...others.map((store) => ({ name: store.name, command: store.save() })),
    ];
    const samples = samplesOf(alternate(contenders, bench.repeats));
    return {
      case: "backup-unchanged",
      data: data.name,
      unit: "ms",
      samples,
      bars: newestBar(samples, BARS[data.name]),
      meaning: `Another snapshot of ${data.what} with nothing changed. "cairn" is \`cairn backup create\`: every entry of the folder is looked at, as the others do.`,
      notes: [
        '"from a point": `cairn backup create --no-save` of the point that is there; the folder is not looked at',
      ],
    };
  },
};
