import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { OwnCase } from "../bench.ts";
import { besideRestic, resticOn, storeIn, type Verbs } from "../many-snapshots.ts";
import { runCommand } from "../measure.ts";

/** One folder with very many entries, whose tree is one large blob. */
export const backupWide: OwnCase = {
  name: "backup-wide",
  data: null,
  async run(bench) {
    const folder = bench.folder("wide");
    const entries = bench.quick ? 10_000 : 300_000;
    const data = path.join(folder, "workspace");
    const cairn = storeIn(folder);
    if (!existsSync(data)) {
      mkdirSync(data, { recursive: true });
      for (let i = 0; i < entries; i++) writeFileSync(path.join(data, `entry-${i}.txt`), `${i}\n`);
      cairn.fresh();
      runCommand(cairn.save());
    }
    const restic = resticOn(folder, cairn.repository);
    const target = path.join(folder, "restored");
    const one = path.join(data, `entry-${entries >> 1}.txt`);
    const verbs: Verbs = {
      verify: [cairn.verify(), restic.check()],
      "restore of one file": [
        cairn.command("restore", "latest", path.basename(one), "--to", target),
        restic.command("restore", "latest", "--include", one, "--target", target),
      ],
    };
    const prepare = (): void => rmSync(target, { recursive: true, force: true });
    const { samples, bars } = await besideRestic(bench, verbs, { restic, prepare, limits: { wall: 1, memory: 1 } });
    return {
      case: "backup-wide",
      unit: "ms",
      samples,
      bars,
      meaning: `One folder with ${entries} files in a repository that Cairn made; Cairn reads again what it restored, and signs a receipt.`,
      notes: [],
    };
  },
};
