import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Peer } from "../../test/fixtures/peers.ts";
import { type Command, runCommand } from "./measure.ts";

/**
 * Stores of each program for one data set, and their command lines. `fresh()` makes a store anew. All stores lie on the
 * same file system.
 */

const ROOT = path.resolve(import.meta.dirname, "../..");
export const CAIRN = process.env["CAIRN_BENCH_COMMAND"] ?? path.join(ROOT, "cairn");

export interface Store {
  readonly name: string;
  fresh(): void;
  save(message?: string): Command;
}

/** The place of a repository outside its store's folder, and the settings with which its program reaches it. */
export interface Place {
  readonly location: string;
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

export class CairnStore implements Store {
  readonly name = "cairn";
  readonly #folder: string;
  readonly #data: string;

  constructor(folder: string, data: string) {
    this.#folder = folder;
    this.#data = data;
  }

  get controlDirectory(): string {
    return path.join(this.#folder, "control");
  }

  get exists(): boolean {
    return existsSync(this.controlDirectory);
  }

  fresh(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder, { recursive: true });
    runCommand(this.command("init", this.#data, "--control-dir", this.controlDirectory));
  }

  /** Returns a command of Cairn whose registry lies beside the store, never in the user's folders. */
  command(...args: string[]): Command {
    const env = { XDG_STATE_HOME: path.join(this.#folder, "state"), NO_COLOR: "1" };
    return { program: CAIRN, args, env };
  }

  save(message = "bench"): Command {
    return this.command("save", this.#data, "-m", message);
  }

  on(...args: string[]): Command {
    return this.command("-C", this.#data, ...args);
  }

  /** `data` of the JSON that a command prints. */
  json(...args: string[]): Record<string, unknown> {
    const text = runCommand(this.on(...args, "--json"));
    return (JSON.parse(text) as { data: Record<string, unknown> }).data;
  }

  repository(): string {
    return String(this.json("store")["repository"]);
  }

  latestId(): string {
    const points = this.json("history", "-n", "1")["save_points"] as { save_point_id: string }[];
    return points[0]?.save_point_id ?? "";
  }
}

export class ResticStore implements Store {
  readonly name: string;
  readonly repository: string;
  readonly #program: string;
  readonly #folder: string;
  readonly #data: string;
  readonly #place: Place;

  /** `peer`: a restic other than the system's. */
  constructor(folder: string, data: string, { place, peer }: { place?: Place; peer?: Peer } = {}) {
    this.#folder = folder;
    this.#data = data;
    this.#place = place ?? { location: path.join(folder, "repository") };
    this.repository = this.#place.location;
    this.#program = peer?.program ?? "restic";
    this.name = peer === undefined ? "restic" : `restic ${peer.version}`;
  }

  get exists(): boolean {
    return existsSync(this.repository);
  }

  fresh(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder, { recursive: true });
    writeFileSync(path.join(this.#folder, "password"), "benchmark", { mode: 0o600 });
    runCommand(this.command("init"));
  }

  /** Removes the caches, as on a machine that has never seen the repository. */
  forgetCache(): void {
    rmSync(path.join(this.#folder, "cache"), { recursive: true, force: true });
  }

  command(...args: string[]): Command {
    const password = path.join(this.#folder, "password");
    const cache = path.join(this.#folder, "cache");
    const { args: more = [], env = {} } = this.#place;
    return {
      program: this.#program,
      args: ["-q", "-r", this.repository, "--password-file", password, "--cache-dir", cache, ...more, ...args],
      env,
    };
  }

  save(): Command {
    return this.command("backup", this.#data);
  }

  check(): Command {
    return this.command("check", "--read-data");
  }

  restore(target: string): Command {
    return this.command("restore", "latest", "--target", target);
  }
}

export class BorgStore implements Store {
  readonly name = "borg";
  readonly #folder: string;
  readonly #data: string;

  constructor(folder: string, data: string) {
    this.#folder = folder;
    this.#data = data;
  }

  get exists(): boolean {
    return existsSync(path.join(this.#folder, "repository"));
  }

  fresh(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    mkdirSync(this.#folder, { recursive: true });
    runCommand(this.#command("init", "--encryption=repokey", path.join(this.#folder, "repository")));
  }

  save(): Command {
    return this.#command(
      "create",
      "--compression",
      "zstd,3",
      `${path.join(this.#folder, "repository")}::{now:%H%M%S.%f}`,
      this.#data,
    );
  }

  #command(...args: string[]): Command {
    const env = {
      BORG_PASSPHRASE: "benchmark",
      BORG_BASE_DIR: path.join(this.#folder, "base"),
      BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: "yes",
    };
    return { program: "borg", args, env };
  }
}

/**
 * A git repository. Its objects are many small files: deleting them would slow the next creation on ext4, so they go last.
 */
export class GitStore implements Store {
  readonly name = "git";
  readonly #folder: string;
  readonly #data: string;
  #generation = 0;

  constructor(folder: string, data: string) {
    this.#folder = folder;
    this.#data = data;
  }

  get #directory(): string {
    return path.join(this.#folder, `git-${this.#generation}`);
  }

  fresh(): void {
    if (this.#generation === 0 && existsSync(this.#folder))
      renameSync(this.#folder, `${this.#folder}-old-${randomUUID()}`);
    this.#generation += 1;
    mkdirSync(this.#directory, { recursive: true });
    runCommand({ program: "git", args: ["--git-dir", this.#directory, "--work-tree", this.#data, "init", "-q"] });
  }

  /** Runs two commands in one shell, as a person would, without maintenance in the background. */
  save(): Command {
    const git =
      'git --git-dir "$1" --work-tree "$2" -c gc.auto=0 -c maintenance.auto=false -c user.name=bench -c user.email=bench@localhost -c core.excludesFile=/dev/null';
    return {
      program: "sh",
      args: ["-c", `cd "$2" && ${git} add -A . && ${git} commit -q -m bench`, "sh", this.#directory, this.#data],
    };
  }
}

/** Returns the path of a program; null if the search path does not have the program. */
export function programPath(program: string): string | null {
  const { status, stdout } = spawnSync("sh", ["-c", 'command -v "$1"', "sh", program], { encoding: "utf8" });
  return status === 0 ? stdout.trim() : null;
}

/** True if the program is installed. */
export function isInstalled(program: string): boolean {
  return programPath(program) !== null;
}
