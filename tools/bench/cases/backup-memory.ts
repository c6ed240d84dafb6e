import type { DataCase } from "../bench.ts";
import { type Command, peakMemory } from "../measure.ts";
import { RestoreTarget } from "../restore-target.ts";
import { limitBar, median } from "../result.ts";

const BAR_MB = 160;

export const backupMemory: DataCase = {
  name: "backup-memory",
  data: ["small", "tree", "big"],
  async run(bench, data) {
    const cairn = bench.backup(data);
    const restic = bench.restic(data);
    const target = new RestoreTarget(bench.folder(data.name));
    const samples: Record<string, number[]> = {};
    const measure = async (name: string, command: Command): Promise<void> => {
      (samples[name] ??= []).push(await peakMemory(command));
    };
    try {
      // Peaks hardly vary; two rounds show that.
      for (let round = 0; round < Math.min(2, bench.repeats); round++) {
        cairn.fresh();
        await measure("cairn first", cairn.save());
        await measure("cairn unchanged", cairn.save());
        await measure("cairn verify", cairn.verify());
        target.fresh();
        await measure("cairn restore", cairn.restore(target.folder));
        restic.fresh();
        await measure("restic first", restic.save());
        await measure("restic unchanged", restic.save());
        await measure("restic check", restic.check());
        target.fresh();
        await measure("restic restore", restic.restore(target.folder));
      }
    } finally {
      target.close();
    }
    const own = Object.entries(samples).filter(([name]) => name.startsWith("cairn"));
    return {
      case: "backup-memory",
      data: data.name,
      unit: "bytes",
      samples,
      bars: own.map(([name, peaks]) => limitBar(name, median(peaks), BAR_MB * 1e6, "bytes")),
      meaning:
        "The most memory that all processes of a command held at once (resident, sampled every 10 ms, in runs of its own).",
      notes: [...target.notes],
    };
  },
};
