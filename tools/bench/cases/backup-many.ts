import { rmSync } from "node:fs";
import path from "node:path";
import type { OwnCase } from "../bench.ts";
import { besideRestic, idsByTime, repositoryOfMany, resticOn, storeIn, type Verbs } from "../many-snapshots.ts";
import { runCommand } from "../measure.ts";

/** A thousand snapshots with 25 new small files each: measures the commands that walk all snapshots. */
export const backupMany: OwnCase = {
  name: "backup-many",
  data: null,
  async run(bench) {
    const folder = bench.folder("many");
    const snapshots = bench.quick ? 20 : 1000;
    const original = await repositoryOfMany(folder, { files: 500, snapshots, edits: 25, large: 0 });
    const copy = path.join(folder, "copy");
    const cairn = storeIn(folder, copy);
    const restic = resticOn(folder, copy);
    const fresh = (): void => {
      rmSync(copy, { recursive: true, force: true });
      runCommand({ program: "cp", args: ["-a", original.repository, copy] });
      cairn.forgetCache();
      restic.forgetCache();
    };
    fresh();
    const half = idsByTime(restic).filter((_, i) => i % 2 === 0);
    const verbs: Verbs = {
      verify: [cairn.verify(), restic.check()],
      find: [cairn.command("find", "module-7.ts"), restic.command("find", "module-7.ts")],
      prune: [cairn.command("forget", ...half, "--prune", "--instant"), restic.command("forget", ...half, "--prune")],
    };
    const { samples, bars } = await besideRestic(bench, verbs, {
      restic,
      prepare: fresh,
      limits: { wall: 0.5, memory: 1 },
    });
    return {
      case: "backup-many",
      unit: "ms",
      samples,
      bars,
      meaning: `${snapshots} snapshots, each with 25 small files that the one before has not; each time a copy of the same repository, which Cairn made, without caches.`,
      notes: [],
    };
  },
};
