import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { type Command, runCommand } from "./measure.ts";
import { CairnStore, type Place, type Store } from "./stores.ts";

/** A workspace of Cairn, and a repository elsewhere for backups of its points. */
export class CairnBackupStore implements Store {
  readonly name = "cairn";
  readonly workspace: CairnStore;
  readonly #folder: string;
  readonly #place: Place;

  /** `place`: where the repository is; below the folder by default. */
  constructor(folder: string, data: string, place?: Place) {
    this.#folder = folder;
    this.workspace = new CairnStore(path.join(folder, "workspace"), data);
    this.#place = place ?? { location: path.join(folder, "repository") };
  }

  get exists(): boolean {
    return this.workspace.exists;
  }

  get repository(): string {
    return this.#place.location;
  }

  /** An empty store and an empty repository, as restic's `init` leaves one. */
  fresh(): void {
    rmSync(this.#folder, { recursive: true, force: true });
    this.workspace.fresh();
    this.freshRepository();
  }

  /** Makes only the repository anew; the workspace keeps its points. */
  freshRepository(): void {
    if (path.isAbsolute(this.repository)) rmSync(this.repository, { recursive: true, force: true });
    this.forgetCache();
    mkdirSync(this.#folder, { recursive: true });
    writeFileSync(path.join(this.#folder, "password"), "benchmark", { mode: 0o600 });
    runCommand(this.command("init"));
  }

  /** Removes the caches, as on a machine that has never seen the repository. */
  forgetCache(): void {
    rmSync(path.join(this.#folder, "cache"), { recursive: true, force: true });
  }

  command(verb: string, ...args: string[]): Command {
    const password = path.join(this.#folder, "password");
    const {
      program,
      args: all,
      env,
    } = this.workspace.on("backup", verb, "-r", this.repository, "--password-file", password, ...args);
    const cache = path.join(this.#folder, "cache");
    return { program, args: all, env: { ...env, XDG_CACHE_HOME: cache, ...this.#place.env } };
  }

  /** Reads the folder into a point, and the point into the repository. */
  save(): Command {
    return this.command("create");
  }

  /** Reads the existing point into the repository. */
  create(): Command {
    return this.command("create", "--no-save");
  }

  verify(): Command {
    return this.command("verify");
  }

  restore(target: string): Command {
    return this.command("restore", "latest", "--to", target);
  }
}
