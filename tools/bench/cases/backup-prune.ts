import { rmSync } from "node:fs";
import path from "node:path";
import { type OwnCase, samplesOf } from "../bench.ts";
import { idsByTime, repositoryOfMany, resticOn, storeIn } from "../many-snapshots.ts";
import { type Contender, alternate, peakMemory, runCommand } from "../measure.ts";
import { limitBar, ratioBars } from "../result.ts";
import { bytesBelow } from "./store-size.ts";

const FILES = 2000;
const EDITS = 100;
const LARGE_BYTES = 4 << 20;
const BAR = 0.5;
const BAR_MB = 300;

/** Cairn and restic prune copies of one repository, in which every second of many snapshots was forgotten. */
export const backupPrune: OwnCase = {
  name: "backup-prune",
  data: null,
  async run(bench) {
    const snapshots = bench.quick ? 10 : 100;
    const folder = bench.folder("prune");
    const original = await repositoryOfMany(folder, { files: FILES, snapshots, edits: EDITS, large: LARGE_BYTES });
    const copy = path.join(folder, "copy");
    const cairn = storeIn(folder, copy);
    const restic = resticOn(folder, copy);
    const prepare = (): void => {
      rmSync(copy, { recursive: true, force: true });
      runCommand({ program: "cp", args: ["-a", original.repository, copy] });
      cairn.forgetCache();
      restic.forgetCache();
    };
    prepare();
    const half = idsByTime(restic).filter((_, i) => i % 2 === 0);
    const left: Record<string, number> = {};
    const contender = (name: string, command: Contender["command"]): Contender => ({
      name,
      prepare,
      command,
      after: () => (left[name] = bytesBelow(copy)),
    });
    const contenders = [
      contender("cairn", cairn.command("forget", ...half, "--prune", "--instant")),
      contender(restic.name, restic.command("forget", ...half, "--prune")),
    ];
    const samples = samplesOf(alternate(contenders, bench.repeats));
    const peaks: Record<string, number> = {};
    for (const { name, command } of contenders) {
      prepare();
      peaks[name] = await peakMemory(command);
    }
    runCommand(restic.check());
    const own = peaks["cairn"] ?? Number.NaN;
    const megabytes = (bytes: number | undefined): string => `${((bytes ?? Number.NaN) / 1e6).toFixed(1)} MB`;
    return {
      case: "backup-prune",
      unit: "ms",
      samples,
      bars: [
        ...ratioBars(samples, { [restic.name]: BAR }),
        limitBar("peak, restic's", own, peaks[restic.name] ?? Number.NaN, "bytes"),
        limitBar("peak", own, BAR_MB * 1e6, "bytes"),
      ],
      meaning: `Every second of ${snapshots} snapshots is forgotten by its id and what only it needed is freed; each time in a copy of the same repository, which Cairn made, without caches.`,
      notes: [
        `peak memory: cairn ${megabytes(own)}, restic ${megabytes(peaks[restic.name])}`,
        `the repository: ${megabytes(bytesBelow(original.repository))} before, ${megabytes(left["cairn"])} after cairn, ${megabytes(left[restic.name])} after restic`,
      ],
    };
  },
};
