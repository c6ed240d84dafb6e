import { closeSync, openSync, rmSync, writeSync } from "node:fs";
import { randomBytes } from "node:crypto";
import path from "node:path";
import type { Bench, OwnCase } from "../bench.ts";
import { type Command, runCommand, timeCommand } from "../measure.ts";
import { median, type Result } from "../result.ts";
import { CAIRN, GitStore, isInstalled } from "../stores.ts";
import { EnginePlace, percentile, timed } from "./engine-place.ts";

const MB = 1 << 20;
const DIRTY = [0, 100 * MB, 1024 * MB];

const EXCHANGE = ["--method", "exchange"];

interface Setting {
  kind: "btrfs" | "xfs" | "ext4";
  engine: string;
  files: number;
  dirty: number;
  rounds: number;
  /** with the folder committed; null where git is not installed */
  git: GitStore | null;
}

const ENGINES = [
  { kind: "btrfs", engine: "btrfs-snapshot" },
  { kind: "xfs", engine: "reflink-copy" },
  { kind: "ext4", engine: "copy" },
] as const;

/** Save and restore by each engine on its own file system, while some written data is not yet on the disk. */
export const engineLatency: OwnCase = {
  name: "engine-latency",
  data: null,
  run: async (bench) => measureAll(bench, bench.quick ? [100] : [1000, 100_000]),
};

async function measureAll(bench: Bench, sizes: readonly number[]): Promise<Result> {
  const samples: Record<string, number[]> = {};
  const notes: string[] = [];
  for (const on of ENGINES) {
    for (const files of sizes) {
      const place = await EnginePlace.make(bench, { ...on, files, size: "30G" });
      try {
        const git = isInstalled("git") ? filledGit(bench, place, { ...on, files }) : null;
        for (const dirty of bench.quick ? [0, MB] : DIRTY) {
          const times = await measure(place, { ...on, files, dirty, rounds: bench.repeats, git });
          for (const [what, values] of Object.entries(times)) {
            const row = `${on.engine}, ${files} files, ${dirty / MB} MB: ${what}`;
            samples[row] = values;
            notes.push(`${row}: p50 ${median(values).toFixed(1)} ms, p99 ${percentile(values, 0.99).toFixed(1)} ms`);
          }
        }
      } finally {
        await place.close();
      }
    }
  }
  return {
    case: engineLatency.name,
    unit: "ms",
    samples,
    bars: [],
    meaning: "Save and restore as calls of the library and as whole commands, beside others that copy the folder.",
    notes,
  };
}

async function measure(place: EnginePlace, on: Setting): Promise<Record<string, number[]>> {
  const { client, folder } = place;
  const times: Record<string, number[]> = {};
  const add = (what: string, value: number): void => {
    (times[what] ??= []).push(value);
  };
  const { save_point_id: target } = await client.save();
  await client.seal();
  const peers = peersOf(place, on);
  // Asked for: processes of a machine that cannot be asked would lead to a restore entry by entry.
  const isExchanged = on.kind === "btrfs";
  for (let round = 0; round < on.rounds; round++) {
    for (const turn of ["library", "command"] as const) {
      makeDirty(folder, on.dirty);
      const save = { program: CAIRN, args: ["save", folder] };
      add(`save, ${turn}`, await once(turn, async () => client.save(), save));
      makeDirty(folder, on.dirty);
      const restore = { program: CAIRN, args: ["-C", folder, "restore", target, ...(isExchanged ? EXCHANGE : [])] };
      const call = { target, ...(isExchanged ? { method: "exchange" as const } : {}) };
      add(`restore, ${turn}`, await once(turn, async () => client.restore(call), restore));
    }
    for (const { name, command, after } of peers) {
      makeDirty(folder, on.dirty);
      add(name, timeCommand(command, { sync: false }));
      after?.();
    }
    rmSync(path.join(folder, DIRTY_NAME), { force: true });
  }
  return times;
}

async function once(turn: "library" | "command", call: () => Promise<unknown>, command: Command): Promise<number> {
  return turn === "library" ? timed(call) : timeCommand(command, { sync: false });
}

interface Peer {
  name: string;
  command: Command;
  after?: () => void;
}

function filledGit(bench: Bench, { folder }: EnginePlace, on: Pick<Setting, "kind" | "files">): GitStore {
  const git = new GitStore(bench.folder("engines-git", `${on.kind}-${on.files}`), folder);
  git.fresh();
  runCommand(git.save());
  return git;
}

function peersOf({ folder, root }: EnginePlace, on: Setting): Peer[] {
  const copy = path.join(root, "copy");
  const remove = (): void => rmSync(copy, { recursive: true, force: true });
  const cp = (name: string, ...flags: string[]): Peer => {
    return { name, command: { program: "cp", args: ["-a", ...flags, folder, copy] }, after: remove };
  };
  const peers: Peer[] = [on.kind === "ext4" ? cp("cp -a") : cp("cp -a --reflink=always", "--reflink=always")];
  if (on.kind === "btrfs") {
    peers.push({
      name: "btrfs subvolume snapshot",
      command: { program: "btrfs", args: ["-q", "subvolume", "snapshot", "-r", folder, copy] },
      after: () => runCommand({ program: "btrfs", args: ["-q", "subvolume", "delete", copy] }),
    });
  }
  if (on.git !== null && on.dirty > 0) peers.push({ name: "git add, git commit", command: on.git.save() });
  return peers;
}

const DIRTY_NAME = "dirty";

/** Rewrites a file of `bytes` bytes, which then wait in the page cache. 0: writes nothing. */
function makeDirty(folder: string, bytes: number): void {
  if (bytes === 0) return;
  const piece = randomBytes(Math.min(bytes, 8 * MB));
  const fd = openSync(path.join(folder, DIRTY_NAME), "w");
  for (let at = 0; at < bytes; at += piece.length) {
    piece.writeUInt32LE(at / MB, 0);
    writeSync(fd, piece, 0, Math.min(piece.length, bytes - at));
  }
  closeSync(fd);
}
