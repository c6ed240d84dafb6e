import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { throwIfAborted } from "../errors.ts";
import { withPipes } from "./child-pipes.ts";

export interface ShellRequest {
  /** Variables that are added to the environment of this process. */
  env?: Readonly<Record<string, string>>;
  /** The whole environment, instead of this process's. */
  onlyEnv?: NodeJS.ProcessEnv;
  /** Default: no stdin. */
  input?: string;
  timeoutMs: number;
  /** Bytes of the output that are kept: the last ones. */
  mostBytes: number;
  /** True: `output` is stdout alone, and a command that prints more than `mostBytes` is killed; `said` is the end of stderr. */
  isAnswer?: boolean;
  signal?: AbortSignal | undefined;
}

export interface ShellEnd {
  /** Null: a signal or a limit ended the command. */
  exitCode: number | null;
  isTimedOut: boolean;
  /** With `isAnswer`: the command printed too much. */
  isTooLong: boolean;
  /** The end of stdout and stderr, in the order in which they were written. */
  output: Uint8Array;
  /** With `isAnswer`: the end of stderr. */
  said: string;
  durationMs: number;
}

/** A process that the command left in the background may hold the pipes. */
const DRAIN_MS = 500;
const MOST_SAID = 4000;

/**
 * Runs a command with /bin/sh in `/`, in its own process group. At a limit and at an abort the whole group is killed.
 * Throws `interrupted`, and `io` if no process can be started.
 */
export async function runShell(command: string, request: ShellRequest): Promise<ShellEnd> {
  const { env, onlyEnv, input, timeoutMs, mostBytes, isAnswer = false, signal } = request;
  throwIfAborted(signal);
  const started = performance.now();
  const child = withPipes(
    spawn("/bin/sh", ["-c", isAnswer ? command : `exec 2>&1\n${command}`], {
      cwd: "/",
      detached: true,
      env: onlyEnv ?? { ...process.env, ...env },
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    }),
    "/bin/sh",
  );
  let [output, said] = [Buffer.alloc(0), ""];
  let [isTimedOut, isTooLong] = [false, false];
  const stop = (): void => killGroup(child.pid);
  // A command may end without reading its input.
  child.stdin?.on("error", () => undefined);
  child.stdin?.end(input);
  child.stdout!.on("data", (bytes: Buffer) => {
    output = Buffer.from(Buffer.concat([output, bytes]).subarray(-mostBytes - 1));
    if (!isAnswer) output = output.subarray(-mostBytes);
    else if (output.length > mostBytes) {
      isTooLong = true;
      stop();
    }
  });
  child.stderr!.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-MOST_SAID)));
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
    const closed = Promise.all(
      [child.stdout!, child.stderr!].map(async (each) =>
        each.closed ? null : new Promise((done) => each.once("close", done)),
      ),
    );
    await Promise.race([closed, sleep(DRAIN_MS, undefined, { signal: drained.signal }).catch(() => undefined)]);
    drained.abort();
    throwIfAborted(signal);
    return {
      exitCode: isTimedOut || isTooLong ? null : exitCode,
      isTimedOut,
      isTooLong,
      output,
      said,
      durationMs: Math.round(performance.now() - started),
    };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
    child.stdout!.destroy();
    child.stderr!.destroy();
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
