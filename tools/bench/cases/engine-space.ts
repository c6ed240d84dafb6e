import path from "node:path";
import type { OwnCase } from "../bench.ts";
import { runCommand } from "../measure.ts";
import { EnginePlace } from "./engine-place.ts";

const FORKS = 64;

/** btrfs: what many forks of one workspace cost in room. */
export const engineSpace: OwnCase = {
  name: "engine-space",
  data: null,
  async run(bench) {
    const files = bench.quick ? 2000 : 100_000;
    const place = await EnginePlace.make(bench, { kind: "btrfs", engine: "btrfs-snapshot", files });
    try {
      const { save_point_id: point } = await place.client.save();
      await place.client.seal();
      const before = usedBytes(place.root);
      for (let i = 0; i < FORKS; i++) await place.client.fork(point, path.join(place.root, `fork-${i}`));
      const added = usedBytes(place.root) - before;
      return {
        case: "engine-space",
        unit: "bytes",
        samples: { "before the forks": [before], [`added by ${FORKS}`]: [added] },
        bars: [{ what: "added / before", value: added / before, limit: 0.01, unit: "ratio" }],
        meaning: `${FORKS} forks of a workspace of ${files} files, each a workspace of its own.`,
        notes: [],
      };
    } finally {
      await place.close();
    }
  },
};

function usedBytes(root: string): number {
  runCommand({ program: "sync", args: ["-f", root] });
  const said = runCommand({ program: "btrfs", args: ["filesystem", "usage", "-b", root] });
  return Number(/^\s*Used:\s+(\d+)/m.exec(said)?.[1] ?? Number.NaN);
}
