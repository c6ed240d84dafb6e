import type { DataCase } from "../bench.ts";
import { noteEdited } from "../data/data-sets.ts";
import { runCommand, timeCommand } from "../measure.ts";
import { limitBar, median } from "../result.ts";
import { changeOnePercent, fingerprints, listFiles } from "./change-files.ts";

const OVER_STATUS_MS = 500;

export const restoreChanges: DataCase = {
  name: "restore-changes",
  data: ["small"],
  run(bench, data) {
    const { cairn } = bench.saved(data);
    runCommand(cairn.save("before"));
    const target = cairn.latestId();
    const files = listFiles(data.folder);
    const status: number[] = [];
    const restore: number[] = [];
    let strays = 0;
    for (let round = 0; round < bench.repeats; round++) {
      const changed = new Set(changeOnePercent(files, round));
      const before = fingerprints(files);
      status.push(timeCommand(cairn.on("status")));
      restore.push(timeCommand(cairn.on("restore", target)));
      for (const [file, print] of fingerprints(files)) {
        if (before.get(file) !== print && !changed.has(file)) strays += 1;
      }
    }
    noteEdited(data);
    const samples = { "cairn status": status, "cairn restore": restore };
    return {
      case: "restore-changes",
      data: data.name,
      unit: "ms",
      samples,
      bars: [
        limitBar("restore − status", median(restore) - median(status), OVER_STATUS_MS, "ms"),
        limitBar("other files touched", strays, 0, "count"),
      ],
      meaning:
        "One file in a hundred is edited and not saved; restore saves the edits, then puts those files back and touches no other.",
      notes: [],
    };
  },
};
