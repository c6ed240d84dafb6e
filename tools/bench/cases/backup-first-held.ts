import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type OwnCase, samplesOf } from "../bench.ts";
import { warm } from "../data/data-sets.ts";
import { alternate, type Command, type Contender, runCommand } from "../measure.ts";
import { ratioBars } from "../result.ts";
import { CAIRN, ResticStore } from "../stores.ts";
import { EnginePlace } from "./engine-place.ts";

/** The first backup of a folder on btrfs: a snapshot of it, which is read into the store and the repository in one pass. */
export const backupFirstHeld: OwnCase = {
  name: "backup-first-held",
  data: null,
  async run(bench) {
    const files = bench.quick ? 2000 : 100_000;
    const place = await EnginePlace.make(bench, { kind: "btrfs", engine: "btrfs-snapshot", files });
    await place.client.close();
    const at = bench.folder("backup-first-held");
    const repository = path.join(at, "repository");
    const password = path.join(at, "password");
    const env = {
      XDG_STATE_HOME: process.env["XDG_STATE_HOME"]!,
      XDG_CACHE_HOME: path.join(at, "cache"),
      NO_COLOR: "1",
    };
    const cairn = (...args: string[]): Command => ({ program: CAIRN, args: ["-C", place.folder, ...args], env });
    const backup = (verb: string, ...args: string[]): Command =>
      cairn("backup", verb, "-r", repository, "--password-file", password, ...args);
    const anew = (): void => {
      rmSync(at, { recursive: true, force: true });
      mkdirSync(at, { recursive: true });
      writeFileSync(password, "benchmark", { mode: 0o600 });
      runCommand({ program: CAIRN, args: ["release", place.folder, "--delete-points"], env });
      runCommand({ program: CAIRN, args: ["init", place.folder, "--engine", "btrfs-snapshot"], env });
      runCommand(backup("init"));
      warm(place.folder);
    };
    const restic = new ResticStore(bench.folder("backup-first-held-restic"), place.folder);
    try {
      const contenders: Contender[] = [
        { name: "cairn", prepare: anew, command: backup("create") },
        {
          name: "restic",
          prepare: () => {
            restic.fresh();
            warm(place.folder);
          },
          command: restic.save(),
        },
      ];
      const samples = samplesOf(alternate(contenders, bench.repeats));
      return {
        case: "backup-first-held",
        unit: "ms",
        samples,
        bars: ratioBars(samples, { restic: 0.37 }),
        meaning: `The first backup of ${files} small files on btrfs: \`cairn backup create --save\`, whose point is a snapshot.`,
        notes: ["the folder is in memory, which helps restic alone: what a snapshot has is read from the disk"],
      };
    } finally {
      await place.close();
    }
  },
};
