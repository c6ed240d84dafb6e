import { type DataCase, samplesOf } from "../bench.ts";
import { alternate, type Command } from "../measure.ts";
import { ratioBars } from "../result.ts";
import { RestoreTarget } from "../restore-target.ts";

/** A point as an export directory on a fresh file system, beside a copy of the folder that is on the disk when it ends. */
export const exportDirectory: DataCase = {
  name: "export-directory",
  data: ["small"],
  run(bench, data) {
    const { cairn } = bench.saved(data);
    const target = new RestoreTarget(bench.folder(data.name, "export"));
    const shell = (line: string): Command => ({ program: "sh", args: ["-c", line, "sh", data.folder, target.folder] });
    try {
      const contenders = [
        { name: "cairn", command: cairn.on("export", "head", "--to", target.folder) },
        { name: "cp -a, then sync", command: shell('cp -a "$1" "$2" && sync -f "$2"') },
        { name: "cp -a", command: shell('cp -a "$1" "$2"') },
      ].map((each) => ({ ...each, prepare: target.fresh }));
      const samples = samplesOf(alternate(contenders, bench.repeats));
      return {
        case: "export-directory",
        data: data.name,
        unit: "ms",
        samples,
        bars: ratioBars(samples, { "cp -a, then sync": 1.1, "cp -a": 1.1 }),
        meaning: `A point of ${data.what} as an export directory: every file written, read again for its digest, and on the disk.`,
        notes: [...target.notes],
      };
    } finally {
      target.close();
    }
  },
};
