import { type DataCase, samplesOf } from "../bench.ts";
import { noteEdited } from "../data/data-sets.ts";
import { type Contender, alternate, runCommand } from "../measure.ts";
import { ratioBars } from "../result.ts";
import { changeOnePercent, listFiles } from "./change-files.ts";

export const onePercent: DataCase = {
  name: "one-percent",
  data: ["small"],
  run(bench, data) {
    const { cairn, restic } = bench.saved(data);
    const git = bench.git(data);
    if (git !== null) {
      git.fresh();
      runCommand(git.save());
    }
    const files = listFiles(data.folder);
    const contenders = [cairn, restic, ...(git === null ? [] : [git])].map((store): Contender => ({
      name: store.name,
      command: store.save(),
    }));
    const samples = samplesOf(alternate(contenders, bench.repeats, (round) => void changeOnePercent(files, round)));
    noteEdited(data);
    return {
      case: "one-percent",
      data: data.name,
      unit: "ms",
      samples,
      bars: ratioBars(samples, { git: 0.6 }),
      meaning: "A point after one file in a hundred was edited; all programs save the same edits.",
      notes: [],
    };
  },
};
