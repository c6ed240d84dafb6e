import { writeFileSync } from "node:fs";
import path from "node:path";
import type { Bench, OwnCase } from "../bench.ts";
import { runCommand, timeCommand } from "../measure.ts";
import { type Bar, limitBar, median, type Result } from "../result.ts";
import { EnginePlace, percentile, timed } from "./engine-place.ts";

const ROUNDS = 30;

/** btrfs: save and restore as library calls, beside the command that makes a snapshot, with few and with many files by turns. */
export const snapshots: OwnCase = {
  name: "snapshots",
  data: null,
  run: measureAll,
};

const FEW = 1000;
const MANY = 100_000;

async function measureAll(bench: Bench): Promise<Result> {
  const places: EnginePlace[] = [];
  try {
    const measured: Measured[] = [];
    for (const files of bench.quick ? [100, FEW] : [FEW, MANY]) {
      const on = { kind: "btrfs", engine: "btrfs-snapshot", files, size: "8G" } as const;
      const place = await EnginePlace.make(bench, on);
      places.push(place);
      measured.push({ files, place, clean: noTimes(), changed: noTimes(), restore: [] });
    }
    await measure(measured, bench.quick ? 3 : ROUNDS);
    return {
      case: snapshots.name,
      unit: "ms",
      samples: Object.fromEntries(
        measured.flatMap(({ files, clean, changed, restore }) => [
          [`save, clean, ${files}`, clean.save],
          [`btrfs snapshot, clean, ${files}`, clean.command],
          [`save, a file written, ${files}`, changed.save],
          [`btrfs snapshot, a file written, ${files}`, changed.command],
          [`restore, ${files}`, restore],
        ]),
      ),
      bars: [...measured.flatMap(barsOf), flatness(measured)],
      meaning:
        "One call of the library; the command is measured with its start, as a caller has it, on a folder with the same files.",
      notes: [
        ...measured.map(
          ({ files, changed }) =>
            `save / btrfs snapshot -r, a file written, ${files} files: ${(median(changed.save) / median(changed.command)).toFixed(3)}`,
        ),
        "the slowest restores: while the kernel removes the first tree displaced, in which the files were written; that rewrites who owns each of its blocks, and commits wait for it",
      ],
    };
  } finally {
    for (const place of places) await place.close();
  }
}

/** Milliseconds. */
interface Times {
  save: number[];
  command: number[];
}

interface Measured {
  files: number;
  place: EnginePlace;
  /** nothing was done to the folder since the last save */
  clean: Times;
  /** a file was written before, and not synced */
  changed: Times;
  restore: number[];
}

function noTimes(): Times {
  return { save: [], command: [] };
}

function barsOf({ files, clean: { save, command }, restore }: Measured): Bar[] {
  const ratio = (value: number, limit: number, what: string): Bar => ({ what, value, limit, unit: "ratio" });
  return [
    ratio(median(save) / median(command), 1, `save / btrfs snapshot -r, ${files} files`),
    ratio(percentile(save, 0.99) / median(save), 4, `save p99 / p50, ${files} files`),
    limitBar(`restore, ${files} files`, median(restore), 15, "ms"),
  ];
}

function flatness(measured: readonly Measured[]): Bar {
  const [few, many] = measured.map(({ clean }) => median(clean.save)) as [number, number];
  return { what: "save, many files / few", value: many / few, limit: 1.3, unit: "ratio" };
}

async function measure(all: readonly Measured[], rounds: number): Promise<void> {
  // The command has a folder of its own: a snapshot that somebody else makes of a workspace is a change of it.
  for (const { place } of all) btrfs("subvolume", "snapshot", place.folder, twinOf(place));
  for (const { place } of all) for (let i = 0; i < 5; i++) await place.client.save();
  for (let i = 0; i < rounds; i++) {
    for (const { place, clean, changed } of all) {
      for (const times of [clean, changed]) {
        if (times === changed) for (const folder of [place.folder, twinOf(place)]) writeOne(folder, i);
        times.save.push(await timed(async () => place.client.save({ message: "bench" })));
        const made = path.join(place.root, `snapshot-${times === clean ? "clean" : "changed"}-${i}`);
        const args = ["-q", "subvolume", "snapshot", "-r", twinOf(place), made];
        times.command.push(timeCommand({ program: "btrfs", args }));
      }
    }
  }
  const targets: string[] = [];
  for (const { place } of all) {
    runCommand({
      program: "sh",
      args: ["-c", 'btrfs -q subvolume delete "$1"/snapshot-* "$1"/twin', "sh", place.root],
    });
    // What the file system goes on removing by itself is none of a restore's.
    btrfs("subvolume", "sync", place.root);
    targets.push((await place.client.save()).save_point_id);
    await place.client.seal();
  }
  for (let i = 0; i < rounds; i++) {
    for (const [n, { place, restore }] of all.entries()) {
      restore.push(await timed(async () => place.client.restore({ target: targets[n]!, method: "exchange" })));
    }
  }
}

function twinOf({ root }: EnginePlace): string {
  return path.join(root, "twin");
}

function btrfs(...args: string[]): void {
  runCommand({ program: "btrfs", args: ["-q", ...args] });
}

function writeOne(folder: string, round: number): void {
  writeFileSync(path.join(folder, "written"), `round ${round}\n`.repeat(1000));
}
