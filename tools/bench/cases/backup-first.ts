import { type DataCase, samplesOf } from "../bench.ts";
import { warm } from "../data/data-sets.ts";
import { type Contender, alternate, runCommand } from "../measure.ts";
import type { Store } from "../stores.ts";

export const backupFirst: DataCase = {
  name: "backup-first",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const cairn = bench.backup(data);
    const restic = bench.restic(data);
    const borg = bench.borg(data);
    const whole = (store: Store): Contender => ({
      name: store.name,
      prepare: () => store.fresh(),
      // A getter: the command names the store that prepare() has just made.
      get command() {
        return store.save();
      },
      // borg evicts what it read from the page cache.
      ...(store.name === "borg" ? { after: () => warm(data.folder) } : {}),
    });
    const two: Contender = {
      name: "cairn, from a point",
      prepare: () => {
        cairn.fresh();
        runCommand(cairn.workspace.save());
      },
      command: cairn.create(),
    };
    warm(data.folder);
    const others = [restic, ...(borg === null ? [] : [borg]), ...bench.peers(data)];
    const contenders = [whole(cairn), two, ...others.map(whole)];
    const samples = samplesOf(alternate(contenders, bench.repeats));
    return {
      case: "backup-first",
      data: data.name,
      unit: "ms",
      samples,
      bars: [],
      meaning: `The first backup of ${data.what} into an empty repository. "cairn" is the whole, \`cairn backup create\`: a first point and its backup, content written twice.`,
      notes: [
        '"from a point": `cairn backup create --no-save` of a point that was saved before; the folder is not read',
      ],
    };
  },
};
