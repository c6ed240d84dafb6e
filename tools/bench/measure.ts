import { spawn, spawnSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";

export interface Command {
  program: string;
  args: readonly string[];
  cwd?: string;
  env?: Readonly<Record<string, string>>;
  /** Exit statuses besides 0 that count as done. */
  accepted?: readonly number[];
}

export interface Contender {
  name: string;
  command: Command;
  /** Run before each measurement, not timed. */
  prepare?: () => void;
  /** Run after each measurement, not timed. */
  after?: () => void;
}

const SAMPLE_EVERY_MS = 10;

/** Runs a command and returns its standard output. Throws with its standard error when it fails. */
export function runCommand(command: Command): string {
  const result = spawnSync(command.program, command.args, {
    cwd: command.cwd,
    env: { ...process.env, ...command.env },
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "pipe"],
  });
  if (!succeeded(command, result.status)) {
    throw new Error(
      `${command.program} ${command.args.join(" ")}: exit ${result.status}\n${result.stderr}${result.error?.message ?? ""}`,
    );
  }
  return result.stdout;
}

/** Returns the milliseconds from spawn to exit. Syncs first, unless unwritten data is part of the measurement. */
export function timeCommand(command: Command, options: { sync?: boolean } = {}): number {
  if (options.sync !== false) spawnSync("sync");
  const start = performance.now();
  const result = spawnSync(command.program, command.args, {
    cwd: command.cwd,
    env: { ...process.env, ...command.env },
    stdio: ["ignore", "ignore", "pipe"],
  });
  const elapsed = performance.now() - start;
  if (!succeeded(command, result.status)) {
    throw new Error(`${command.program} ${command.args.join(" ")}: exit ${result.status}\n${result.stderr.toString()}`);
  }
  return elapsed;
}

function succeeded(command: Command, status: number | null): boolean {
  return status === 0 || (status !== null && (command.accepted ?? []).includes(status));
}

/**
 * Times each contender `repeats` times, taking turns and changing who begins.
 * Returns milliseconds by contender, in the order measured.
 */
export function alternate(
  contenders: readonly Contender[],
  repeats: number,
  before?: (round: number) => void,
): Map<string, number[]> {
  const times = new Map<string, number[]>(contenders.map((contender) => [contender.name, []]));
  for (let round = 0; round < repeats; round++) {
    before?.(round);
    for (let turn = 0; turn < contenders.length; turn++) {
      const contender = contenders[(round + turn) % contenders.length];
      if (contender === undefined) continue;
      contender.prepare?.();
      times.get(contender.name)?.push(timeCommand(contender.command));
      contender.after?.();
    }
  }
  return times;
}

/** Returns the peak memory of a command with its descendants: the largest sum of high-water marks of living processes. */
export async function peakMemory(command: Command): Promise<number> {
  const child = spawn(command.program, command.args, {
    cwd: command.cwd,
    env: { ...process.env, ...command.env },
    stdio: "ignore",
  });
  let peak = 0;
  const timer = setInterval(() => {
    if (child.pid !== undefined) peak = Math.max(peak, sumOfTree(child.pid));
  }, SAMPLE_EVERY_MS);
  const { promise, resolve } = Promise.withResolvers<number | null>();
  child.on("exit", resolve);
  child.on("error", () => resolve(null));
  const status = await promise;
  clearInterval(timer);
  if (!succeeded(command, status)) throw new Error(`${command.program}: exit ${status}`);
  return peak;
}

function sumOfTree(pid: number): number {
  try {
    let sum = highWaterMark(pid);
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const children = readFileSync(`/proc/${pid}/task/${task}/children`, "utf8").trim();
      if (children !== "") for (const child of children.split(" ")) sum += sumOfTree(Number(child));
    }
    return sum;
  } catch {
    // It ended between two looks.
    return 0;
  }
}

function highWaterMark(pid: number): number {
  const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1] ?? 0) * 1024;
}
