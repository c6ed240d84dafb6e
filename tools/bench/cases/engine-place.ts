import { mkdirSync } from "node:fs";
import path from "node:path";
import type { Bench } from "../bench.ts";
import { makeSmallFiles } from "../data/small-files.ts";
import { LoopVolume, type VolumeKind } from "../loop-volume.ts";
import { runCommand } from "../measure.ts";

interface Client {
  readonly controlDirectory: string;
  save(options?: object): Promise<{ save_point_id: string; effective_engine: string }>;
  seal(): Promise<unknown>;
  restore(options: { target: string; method?: "exchange" }): Promise<{ method: string }>;
  fork(target: string, path: string): Promise<unknown>;
  close(): Promise<void>;
}

interface Library {
  init(folder: string, options: { engineType: string }): Promise<Client>;
}

/** A workspace with many small files on a fresh file system of its own. */
export class EnginePlace {
  readonly folder: string;
  readonly root: string;
  readonly client: Client;
  readonly #volume: LoopVolume;

  private constructor(volume: LoopVolume, client: Client) {
    this.#volume = volume;
    this.root = volume.mountPoint;
    this.folder = path.join(volume.mountPoint, "workspace");
    this.client = client;
  }

  static async make(
    bench: Bench,
    on: { kind: VolumeKind; engine: string; files: number; large?: number; size?: string },
  ): Promise<EnginePlace> {
    if (process.getuid?.() !== 0) throw new Error("not root: no file system can be mounted");
    const scratch = bench.folder(`engines-${on.kind}`, String(on.files));
    process.env["XDG_STATE_HOME"] = bench.folder("engines-state");
    const volume = new LoopVolume(scratch, on.kind, on.size);
    volume.fresh();
    try {
      const folder = path.join(volume.mountPoint, "workspace");
      if (on.kind === "btrfs") runCommand({ program: "btrfs", args: ["-q", "subvolume", "create", folder] });
      else mkdirSync(folder);
      makeSmallFiles(folder, on.files);
      if (on.large !== undefined) {
        const args = ["if=/dev/urandom", `of=${path.join(folder, "large")}`, "bs=1M", `count=${on.large >> 20}`];
        runCommand({ program: "dd", args: [...args, "status=none"] });
      }
      runCommand({ program: "sync", args: [] });
      const library = (await import(path.resolve(import.meta.dirname, "../../../dist/index.js"))) as Library;
      return new EnginePlace(volume, await library.init(folder, { engineType: on.engine }));
    } catch (error) {
      volume.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.client.close();
    this.#volume.close();
  }
}

/** Returns the milliseconds of one call. */
export async function timed(call: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await call();
  return performance.now() - start;
}

export function percentile(samples: readonly number[], share: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}
