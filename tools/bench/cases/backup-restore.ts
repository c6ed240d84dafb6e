import { type DataCase, samplesOf } from "../bench.ts";
import type { DataName } from "../data/data-sets.ts";
import { alternate } from "../measure.ts";
import { memoryProof, RestoreTarget } from "../restore-target.ts";
import { newestBar } from "../result.ts";

const BARS: Record<DataName, number> = { small: 0.6, tree: 0.7, big: 1 };

export const backupRestore: DataCase = {
  name: "backup-restore",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const { cairn, restic } = bench.backedUp(data);
    const target = new RestoreTarget(bench.folder(data.name));
    try {
      const contenders = [
        { name: "cairn", prepare: target.fresh, command: cairn.restore(target.folder) },
        {
          name: "cairn --no-prove",
          prepare: target.fresh,
          command: cairn.command("restore", "latest", "--prove", "no", "--to", target.folder),
        },
        {
          name: "cairn --prove-from memory",
          prepare: target.fresh,
          command: cairn.command(...memoryProof(target)),
        },
        ...[restic, ...bench.savedPeers(data)].map((store) => ({
          name: store.name,
          prepare: target.fresh,
          command: store.restore(target.folder),
        })),
      ];
      const samples = samplesOf(alternate(contenders, bench.repeats));
      return {
        case: "backup-restore",
        data: data.name,
        unit: "ms",
        samples,
        bars: newestBar(samples, BARS[data.name]),
        meaning: `${data.what} written into an empty folder. Cairn then reads every byte again (from the disk, unless it is told that memory does), compares the state digest and signs a receipt; the others do not.`,
        notes: [...target.notes],
      };
    } finally {
      target.close();
    }
  },
};
