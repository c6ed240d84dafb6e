import { readFileSync, rmSync } from "node:fs";
import path from "node:path";
import type { DataName, DataSet } from "./data/data-sets.ts";
import { warm } from "./data/data-sets.ts";
import { runCommand } from "./measure.ts";
import type { Result } from "./result.ts";
import { CairnBackupStore } from "./backup-stores.ts";
import { type PeerStore, peerStores } from "./peer-stores.ts";
import { BorgStore, CairnStore, GitStore, ResticStore, type Store, isInstalled } from "./stores.ts";

/** One row of the table of bars, measured on each of the row's data sets. */
export interface DataCase {
  readonly name: string;
  readonly data: readonly DataName[];
  run(bench: Bench, data: DataSet): Promise<Result> | Result;
}

/** A case that makes its own workspace. */
export interface OwnCase {
  readonly name: string;
  readonly data: null;
  run(bench: Bench): Promise<Result> | Result;
}

export type BenchCase = DataCase | OwnCase;

/** The scratch folder, settings and stores that every case uses. */
export class Bench {
  readonly scratch: string;
  readonly repeats: number;
  readonly quick: boolean;
  readonly #isRatchet: boolean;

  /** `isRatchet`: only the peers of known versions count, so git is not measured. */
  constructor(options: { scratch: string; repeats: number; quick: boolean; isRatchet: boolean }) {
    this.#isRatchet = options.isRatchet;
    this.scratch = options.scratch;
    this.repeats = options.repeats;
    this.quick = options.quick;
  }

  folder(...parts: string[]): string {
    return path.join(this.scratch, "work", ...parts);
  }

  cairn(data: DataSet): CairnStore {
    return new CairnStore(this.folder(data.name, "cairn"), data.folder);
  }

  restic(data: DataSet): ResticStore {
    return new ResticStore(this.folder(data.name, "restic"), data.folder);
  }

  backup(data: DataSet): CairnBackupStore {
    return new CairnBackupStore(this.folder(data.name, "backup"), data.folder);
  }

  git(data: DataSet): GitStore | null {
    return !this.#isRatchet && isInstalled("git") ? new GitStore(this.folder(data.name, "git"), data.folder) : null;
  }

  borg(data: DataSet): BorgStore | null {
    return isInstalled("borg") ? new BorgStore(this.folder(data.name, "borg"), data.folder) : null;
  }

  /** Returns the stores of further programs that are installed. */
  peers(data: DataSet): PeerStore[] {
    return peerStores((name) => this.folder(data.name, name), data.folder).stores;
  }

  /** Returns the stores of `peers()` with at least one point of the data in each. */
  savedPeers(data: DataSet): PeerStore[] {
    const peers = this.peers(data);
    fill(data, peers);
    return peers;
  }

  /** Returns Cairn's and restic's stores with at least one point of the data in each, and a warm cache. */
  saved(data: DataSet): { cairn: CairnStore; restic: ResticStore } {
    const cairn = this.cairn(data);
    const restic = this.restic(data);
    fill(data, [cairn, restic]);
    return { cairn, restic };
  }

  /** Returns Cairn's backup store and restic's store, with at least one point of the data in each. */
  backedUp(data: DataSet): { cairn: CairnBackupStore; restic: ResticStore } {
    const cairn = this.backup(data);
    const restic = this.restic(data);
    fill(data, [cairn, restic]);
    return { cairn, restic };
  }

  /** Returns the stores of `backedUp()`, and borg's store if borg is installed. */
  backedUpByAll(data: DataSet): { cairn: CairnBackupStore; restic: ResticStore; borg: BorgStore | null } {
    const borg = this.borg(data);
    if (borg !== null) fill(data, [borg]);
    return { ...this.backedUp(data), borg };
  }

  /** Removes all stores; the data stays for the next run. */
  cleanUp(): void {
    this.unmount();
    rmSync(this.folder(), { recursive: true, force: true });
  }

  /** Unmounts the file systems that a killed run left mounted. */
  unmount(): void {
    for (const line of readFileSync("/proc/mounts", "utf8").split("\n")) {
      const mountPoint = line.split(" ")[1] ?? "";
      if (mountPoint.startsWith(`${this.folder()}/`)) runCommand({ program: "umount", args: [mountPoint] });
    }
  }
}

function fill(data: DataSet, stores: readonly (Store & { exists: boolean })[]): void {
  for (const store of stores) {
    if (store.exists) continue;
    store.fresh();
    runCommand(store.save());
  }
  warm(data.folder);
}

/** Returns the samples by contender as a plain object. */
export function samplesOf(times: ReadonlyMap<string, number[]>): Record<string, number[]> {
  return Object.fromEntries(times);
}
