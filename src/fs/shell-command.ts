import { spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { throwIfAborted } from "../errors.ts";
import { withPipes } from "./child-pipes.ts";

/** The end of a command of the user. */
export interface ShellEnd {
  /** Exit status; null if a signal ended the command. */
  status: number | null;
  /** Stdout; without `mostBytes` it is not read. */
  output: Buffer;
  /** The end of stderr, as text. */
  said: string;
  /** Why the command was killed; null if it was not. */
  killed: "late" | "long" | null;
}

interface ShellOptions {
  cwd: string;
  /** Default: this process's. */
  env?: NodeJS.ProcessEnv | undefined;
  input?: string | undefined;
  /** The command is killed when its stdout gets longer. Absent: stdout is thrown away. */
  mostBytes?: number | undefined;
  /** Milliseconds after which the command is killed. */
  timeLimitMs?: number | undefined;
  signal?: AbortSignal | undefined;
}

const MOST_SAID = 4000;
/** Milliseconds for which output is awaited after the end: a process that left the group may hold the pipe. */
const DRAIN_MS = 1000;

/**
 * Runs a command with /bin/sh in its own process group, which is killed when the command has ended, is late or prints
 * too much. Throws `interrupted`, and system errors if the shell cannot be started.
 */
export async function runShell(command: string, options: ShellOptions): Promise<ShellEnd> {
  const { cwd, env, input, mostBytes, timeLimitMs, signal } = options;
  throwIfAborted(signal);
  const child = withPipes(
    spawn("/bin/sh", ["-c", command], { cwd, detached: true, ...(env === undefined ? {} : { env }) }),
    "/bin/sh",
  );
  const end: ShellEnd = { status: null, output: Buffer.alloc(0), said: "", killed: null };
  const pieces: Buffer[] = [];
  let bytes = 0;
  const kill = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    } catch {
      // All processes of the group have ended.
    }
  };
  const stop = (why: "late" | "long"): void => {
    end.killed ??= why;
    kill();
  };
  // A command may end without reading its input.
  child.stdin.on("error", () => undefined);
  child.stdin.end(input);
  child.stdout.on("data", (piece: Buffer) => {
    if (mostBytes === undefined) return;
    bytes += piece.length;
    if (bytes > mostBytes) stop("long");
    else pieces.push(piece);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => (end.said = (end.said + text).slice(-MOST_SAID)));
  const timer = timeLimitMs === undefined ? undefined : setTimeout(() => stop("late"), timeLimitMs);
  signal?.addEventListener("abort", kill);
  const closed = once(child, "close");
  closed.catch(() => undefined);
  try {
    const [status] = (await once(child, "exit")) as [number | null];
    kill();
    await Promise.race([closed, sleep(DRAIN_MS, undefined, { ref: false })]);
    throwIfAborted(signal);
    return { ...end, status, output: Buffer.concat(pieces) };
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", kill);
    child.stdout.destroy();
    child.stderr.destroy();
  }
}
