import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { findPeer, NEWER_RESTIC, type Peer } from "../../test/fixtures/peers.ts";
import { type Command, runCommand } from "./measure.ts";
import { programPath, ResticStore, type Store } from "./stores.ts";

/**
 * Programs that Debian does not have, if `tools/install-peers` installed them. They are measured beside the other programs
 * and named with their versions, and have no bar.
 */
export interface PeerStore extends Store {
  readonly exists: boolean;
  readonly repository: string;
  /** Reads every byte of the repository. */
  check(): Command;
  /** Restores the last point into a missing folder. */
  restore(target: string): Command;
}

type Maker = (peer: Peer, folder: string, data: string) => PeerStore;

const MAKERS: readonly { name: "restic" | "rustic" | "kopia"; atLeast?: string; make: Maker }[] = [
  { name: "restic", atLeast: NEWER_RESTIC, make: (peer, folder, data) => new ResticStore(folder, data, { peer }) },
  { name: "rustic", make: (peer, folder, data) => new RusticStore(peer, folder, data) },
  { name: "kopia", make: (peer, folder, data) => new KopiaStore(peer, folder, data) },
];

/** Returns a store of each installed program, and the reasons why the other programs are missing. */
export function peerStores(
  folderOf: (name: string) => string,
  data: string,
): { stores: PeerStore[]; missing: string[] } {
  const [stores, missing]: [PeerStore[], string[]] = [[], []];
  for (const { name, atLeast, make } of MAKERS) {
    const peer = findPeer(name, atLeast);
    if ("reason" in peer) missing.push(peer.reason);
    // Where the system's own is as new, it is measured already.
    else if (peer.program !== programPath(name) || name !== "restic")
      stores.push(make(peer, folderOf(`new-${name}`), data));
  }
  return { stores, missing };
}

/** A program that keeps all its files in one folder. */
class FolderOfPeer {
  readonly name: string;
  readonly repository: string;
  readonly program: string;
  readonly folder: string;
  readonly data: string;

  constructor(peer: Peer, folder: string, data: string) {
    this.name = `${path.basename(peer.program)} ${peer.version}`;
    this.repository = path.join(folder, "repository");
    this.program = peer.program;
    this.folder = folder;
    this.data = data;
  }

  get exists(): boolean {
    return existsSync(this.repository);
  }
}

/** rustic with its usual settings: zstd 3, and chunks as restic's. */
class RusticStore extends FolderOfPeer implements PeerStore {
  fresh(): void {
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder, { recursive: true });
    writeFileSync(path.join(this.folder, "password"), "benchmark", { mode: 0o600 });
    runCommand(this.#command("init"));
  }

  save(): Command {
    return this.#command("backup", this.data);
  }

  check(): Command {
    return this.#command("check", "--read-data");
  }

  restore(target: string): Command {
    return this.#command("restore", "latest", target);
  }

  #command(...args: string[]): Command {
    const own = ["--password-file", path.join(this.folder, "password"), "--cache-dir", path.join(this.folder, "cache")];
    const quiet = ["--no-progress", "--log-level", "error"];
    return { program: this.program, args: [...quiet, "-r", this.repository, ...own, ...args] };
  }
}

/** kopia with zstd, which is off by default, and without maintenance beside a save. */
class KopiaStore extends FolderOfPeer implements PeerStore {
  fresh(): void {
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.repository, { recursive: true });
    runCommand(this.#command("repository", "create", "filesystem", "--path", this.repository));
    runCommand(this.#command("policy", "set", "--global", "--compression=zstd"));
  }

  save(): Command {
    return this.#command("snapshot", "create", this.data, "--no-progress", "--no-auto-maintenance");
  }

  check(): Command {
    return this.#command("snapshot", "verify", "--verify-files-percent=100", "--no-progress");
  }

  restore(target: string): Command {
    return this.#command("snapshot", "restore", this.data, target, "--no-progress");
  }

  #command(...args: string[]): Command {
    const env = {
      KOPIA_CONFIG_PATH: path.join(this.folder, "config"),
      KOPIA_CACHE_DIRECTORY: path.join(this.folder, "cache"),
      KOPIA_LOG_DIR: path.join(this.folder, "log"),
      KOPIA_PASSWORD: "benchmark",
      KOPIA_USE_KEYRING: "false",
      KOPIA_CHECK_FOR_UPDATES: "false",
    };
    return { program: this.program, args, env };
  }
}
