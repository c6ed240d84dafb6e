import path from "node:path";
import type { OwnCase } from "../bench.ts";
import { runCommand, timeCommand } from "../measure.ts";
import { type Bar, limitBar, median } from "../result.ts";
import { EnginePlace, percentile, timed } from "./engine-place.ts";

const ROUNDS = 30;

/** btrfs: save and restore as library calls, beside the command that makes a snapshot, with few and with many files. */
export const snapshots: OwnCase = {
  name: "snapshots",
  data: null,
  async run(bench) {
    const samples: Record<string, number[]> = {};
    const bars: Bar[] = [];
    const sizes = bench.quick ? [100, 1000] : [1000, 100_000];
    for (const files of sizes) {
      const place = await EnginePlace.make(bench, { kind: "btrfs", engine: "btrfs-snapshot", files });
      try {
        const { save, command, restore } = await measure(place, bench.quick ? 3 : ROUNDS);
        samples[`save, ${files}`] = save;
        samples[`btrfs snapshot, ${files}`] = command;
        samples[`restore, ${files}`] = restore;
        const ratio = (value: number, limit: number, what: string): Bar => ({ what, value, limit, unit: "ratio" });
        bars.push(ratio(median(save) / median(command), 1, `save / btrfs snapshot -r, ${files} files`));
        bars.push(ratio(percentile(save, 0.99) / median(save), 4, `save p99 / p50, ${files} files`));
        bars.push(limitBar(`restore, ${files} files`, median(restore), 15, "ms"));
      } finally {
        place.close();
      }
    }
    const [few, many] = sizes.map((files) => median(samples[`save, ${files}`] ?? [])) as [number, number];
    bars.push({ what: "save, many files / few", value: many / few, limit: 1.3, unit: "ratio" });
    return {
      case: "snapshots",
      unit: "ms",
      samples,
      bars,
      meaning: "One call of the library on a clean tree; the command is measured with its start, as a caller has it.",
      notes: [],
    };
  },
};

async function measure(place: EnginePlace, rounds: number): Promise<Record<"save" | "command" | "restore", number[]>> {
  const { client, folder, root } = place;
  const times = { save: [] as number[], command: [] as number[], restore: [] as number[] };
  for (let i = 0; i < 5; i++) await client.save();
  for (let i = 0; i < rounds; i++) {
    times.save.push(await timed(async () => client.save({ message: "bench" })));
    const made = path.join(root, `snapshot-${i}`);
    times.command.push(timeCommand({ program: "btrfs", args: ["-q", "subvolume", "snapshot", "-r", folder, made] }));
  }
  runCommand({ program: "sh", args: ["-c", 'btrfs -q subvolume delete "$1"/snapshot-*', "sh", root] });
  const { save_point_id: target } = await client.save();
  await client.seal();
  for (let i = 0; i < rounds; i++) {
    times.restore.push(await timed(async () => client.restore({ target, method: "exchange" })));
  }
  return times;
}
