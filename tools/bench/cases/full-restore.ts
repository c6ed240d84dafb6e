import { rmSync } from "node:fs";
import path from "node:path";
import { type DataCase, samplesOf } from "../bench.ts";
import type { DataName } from "../data/data-sets.ts";
import { LoopVolume } from "../loop-volume.ts";
import { alternate, runCommand } from "../measure.ts";
import { newestBar } from "../result.ts";

const BARS: Record<DataName, number> = { small: 0.5, tree: 0.5, big: 0.7 };

export const fullRestore: DataCase = {
  name: "full-restore",
  data: ["small", "tree", "big"],
  run(bench, data) {
    const { cairn, restic } = bench.saved(data);
    const asRoot = process.getuid?.() === 0;
    const volume = new LoopVolume(bench.folder(data.name, "volume"));
    const plain = bench.folder(data.name, "restored");
    const target = path.join(asRoot ? volume.mountPoint : plain, "out");
    const prepare = (): void => {
      if (asRoot) volume.fresh();
      else rmSync(plain, { recursive: true, force: true });
    };
    try {
      const contenders = [
        {
          name: "cairn",
          prepare,
          command: cairn.on("fork", cairn.latestId(), target),
          // A fork is a workspace; the next one gets the same place.
          after: () => void runCommand(cairn.command("release", target, "--delete-points")),
        },
        ...[restic, ...bench.savedPeers(data)].map((store) => ({
          name: store.name,
          prepare,
          command: store.restore(target),
        })),
      ];
      const samples = samplesOf(alternate(contenders, bench.repeats));
      return {
        case: "full-restore",
        data: data.name,
        unit: "ms",
        samples,
        bars: newestBar(samples, BARS[data.name]),
        meaning: `${data.what} written into an empty folder, with exact times, modes and owners.`,
        notes: asRoot ? [] : ["not root: on the scratch folder's own file system instead of a fresh one"],
      };
    } finally {
      volume.close();
    }
  },
};
