import { type DataCase, samplesOf } from "../bench.ts";
import { type DataName, warm } from "../data/data-sets.ts";
import { type Contender, alternate } from "../measure.ts";
import { newestBar, ratioBars } from "../result.ts";
import type { Store } from "../stores.ts";

const BARS: Record<DataName, number> = { small: 0.33, tree: 0.33, big: 0.55 };

export const firstSave: DataCase = {
  name: "first-save",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const stores: (Store | null)[] = [
      bench.cairn(data),
      bench.restic(data),
      data.name === "small" ? bench.git(data) : null,
      bench.borg(data),
      ...bench.peers(data),
    ];
    const contenders = stores
      .filter((store) => store !== null)
      .map((store): Contender => {
        const contender = {
          name: store.name,
          prepare: () => store.fresh(),
          // A getter: the command names the store that prepare() has just made.
          get command() {
            return store.save();
          },
        };
        // borg evicts what it read from the page cache.
        return store.name === "borg" ? Object.assign(contender, { after: () => warm(data.folder) }) : contender;
      });
    warm(data.folder);
    const samples = samplesOf(alternate(contenders, bench.repeats));
    return {
      case: "first-save",
      data: data.name,
      unit: "ms",
      samples,
      bars: [...newestBar(samples, BARS[data.name]), ...ratioBars(samples, { git: 0.3 })],
      meaning: `The first point of ${data.what}, into a new store: everything is read, hashed, compressed, encrypted and made durable.`,
      notes: data.name === "small" ? ["git does not encrypt, and its add and commit do not wait for the disk"] : [],
    };
  },
};
