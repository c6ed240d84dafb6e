import { existsSync, renameSync } from "node:fs";
import { makeSmallFiles } from "../data/small-files.ts";
import type { OwnCase } from "../bench.ts";
import { peakMemory } from "../measure.ts";
import { limitBar } from "../result.ts";
import { CairnStore } from "../stores.ts";

const FILES = 1_000_000;
const BAR_MB = 700;

/** Only on request (`--only memory-million`): the data takes 6 GB and minutes. */
export const memoryMillion: OwnCase = {
  name: "memory-million",
  data: null,
  async run(bench) {
    const folder = `${bench.scratch}/data/million${bench.quick ? "-quick" : ""}`;
    if (!existsSync(folder)) {
      console.error(`making ${FILES} files in ${folder}`);
      makeSmallFiles(`${folder}.new`, bench.quick ? 20_000 : FILES);
      renameSync(`${folder}.new`, folder);
    }
    const cairn = new CairnStore(bench.folder("million", "cairn"), folder);
    cairn.fresh();
    const first = await peakMemory(cairn.save());
    const second = await peakMemory(cairn.save());
    return {
      case: "memory-million",
      unit: "bytes",
      samples: { "cairn first": [first], "cairn unchanged": [second] },
      bars: [
        limitBar("cairn first", first, BAR_MB * 1e6, "bytes"),
        limitBar("cairn unchanged", second, BAR_MB * 1e6, "bytes"),
      ],
      meaning: "The most memory that saves of 1 000 000 files held at once.",
      notes: [],
    };
  },
};
