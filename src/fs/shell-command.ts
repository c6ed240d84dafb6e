import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { throwIfAborted } from "../errors.ts";
import { withPipes } from "./child-pipes.ts";

export interface ShellRequest {
  /** Variables that are added to the environment of this process. */
  env?: Readonly<Record<string, string>>;
  timeoutMs: number;
  /** Bytes of the output that are kept: the last ones. */
  mostBytes: number;
  signal?: AbortSignal | undefined;
}

export interface ShellEnd {
  /** Null: a signal or the time limit ended the command. */
  exitCode: number | null;
  isTimedOut: boolean;
  /** The end of stdout and stderr, in the order in which they were written. */
  output: Uint8Array;
  durationMs: number;
}

/** A process that the command left in the background may hold the pipes. */
const DRAIN_MS = 500;

/**
 * Runs a command with /bin/sh in `/`, without stdin, in its own process group. At the time limit and at an abort the
 * whole group is killed. Throws `interrupted`, and `io` if no process can be started.
 */
export async function runShell(command: string, request: ShellRequest): Promise<ShellEnd> {
  const { env, timeoutMs, mostBytes, signal } = request;
  throwIfAborted(signal);
  const started = performance.now();
  const child = withPipes(
    spawn("/bin/sh", ["-c", `exec 2>&1\n${command}`], {
      cwd: "/",
      detached: true,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "ignore"],
    }),
    "/bin/sh",
  );
  let output = Buffer.alloc(0);
  child.stdout.on(
    "data",
    (bytes: Buffer) => (output = Buffer.from(Buffer.concat([output, bytes]).subarray(-mostBytes))),
  );
  let isTimedOut = false;
  const stop = (): void => killGroup(child.pid);
  const timer = setTimeout(() => {
    isTimedOut = true;
    stop();
  }, timeoutMs);
  signal?.addEventListener("abort", stop);
  try {
    const exitCode = await new Promise<number | null>((resolve, reject) => {
      child.once("error", reject).once("exit", resolve);
    });
    const drained = new AbortController();
    const closed = child.stdout.closed ? null : new Promise((done) => child.stdout.once("close", done));
    await Promise.race([closed, sleep(DRAIN_MS, undefined, { signal: drained.signal }).catch(() => undefined)]);
    drained.abort();
    throwIfAborted(signal);
    return {
      exitCode: isTimedOut ? null : exitCode,
      isTimedOut,
      output,
      durationMs: Math.round(performance.now() - started),
    };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    child.stdout.destroy();
  }
}

/** Kills all processes of a group; an ended one is ignored. */
export function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // The processes have ended.
  }
}
