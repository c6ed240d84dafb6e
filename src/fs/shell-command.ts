import { spawn } from "node:child_process";
import type { Duplex } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { CairnError, throwIfAborted } from "../errors.ts";
import { withPipes } from "./child-pipes.ts";
import { processFacts } from "./lock-owner.ts";
import { namesIn } from "./paths/names-in.ts";

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
  /** True: the command ends once its process group is empty, so that a child in the background is awaited. */
  awaitsChildren?: boolean;
  signal?: AbortSignal | undefined;
}

export interface ShellEnd {
  /** Null: a signal or a limit ended the command. */
  exitCode: number | null;
  isTimedOut: boolean;
  /** With `awaitsChildren`: name of a child that still ran at the time limit, after the shell had ended; else null. */
  child: string | null;
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
/** Pauses between two looks at the children of a command. */
const [FIRST_LOOK_MS, LAST_LOOK_MS] = [5, 250];
const MOST_SAID = 4000;

/**
 * Runs a command with /bin/sh in `/`, in its own process group. At a limit and at an abort the whole group is killed.
 * Throws `interrupted`, and `io` if no process can be started.
 */
export async function runShell(command: string, request: ShellRequest): Promise<ShellEnd> {
  const { env, onlyEnv, input, timeoutMs, mostBytes, isAnswer = false, awaitsChildren, signal } = request;
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
    const isOver = (): boolean => awaitsChildren !== true || isTimedOut || isTooLong || signal?.aborted === true;
    let left: string | null = null;
    for (let ms = FIRST_LOOK_MS; !isOver(); ms = Math.min(2 * ms, LAST_LOOK_MS)) {
      if ((left = memberOfGroup(child.pid!)) === null) break;
      await sleep(ms);
    }
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
      child: left,
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

/**
 * Copies stdin to the command, and holds the command's input open until this process has said that the content is
 * whole. If this process ends without that, even by a kill, the whole group is killed, and the command never sees the
 * end of a part. When the command ends, the guard says so, reads the rest of the input and tells its length.
 */
const GUARD = `{
  { IFS= read -r word && [ "$word" = whole ] || kill -KILL 0; } <&3 &
  cat && wait $! || kill -KILL 0
} | { sh -c "$1" 3<&-; end=$?; echo >&3; wc -c >&3; exit $end; }`;

/**
 * Runs a command with /bin/sh in its own session, and writes `content` to its stdin. Returns the number of bytes that
 * the command took. If `content` fails, the command is killed before its input ends. Throws `io` unless the command's
 * status is 0.
 */
export async function feedCommand(
  command: string,
  content: AsyncIterable<Uint8Array>,
  { toStderr, signal }: { toStderr: boolean; signal?: AbortSignal | undefined },
): Promise<number> {
  throwIfAborted(signal);
  const child = withPipes(
    spawn("/bin/sh", ["-c", GUARD, "cairn", command], {
      detached: true,
      stdio: ["pipe", toStderr ? 2 : "inherit", "inherit", "pipe"],
    }),
    "/bin/sh",
  );
  const stdin = child.stdin!;
  const control = child.stdio[3] as Duplex;
  for (const pipe of [stdin, control]) pipe.on("error", () => undefined);
  let [hasEnded, told] = [false, ""];
  const over = new Promise<void>((resolve) => {
    control.setEncoding("utf8").on("data", (text: string) => {
      told += text;
      resolve();
    });
    child.once("close", resolve);
  });
  const ended = new Promise<string | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, killed) => {
      hasEnded = true;
      resolve(code === 0 ? null : code === null ? `was ended by ${killed}` : `ended with status ${code}`);
    });
  });
  const stop = (): void => killGroup(child.pid);
  signal?.addEventListener("abort", stop);
  let bytes = 0;
  try {
    for await (const piece of content) {
      if (told !== "" || hasEnded) break;
      bytes += piece.length;
      if (!stdin.write(piece)) await Promise.race([new Promise((drained) => stdin.once("drain", drained)), over]);
    }
    // Only once every byte has left this process.
    if (!hasEnded) stdin.end(() => control.end("whole\n"));
    const failed = await ended;
    throwIfAborted(signal);
    if (failed !== null)
      throw new CairnError("io", `the command ${failed}`, { hint: "see its output on stderr, above" });
    return bytes - Number(told);
  } finally {
    if (!hasEnded) stop();
    signal?.removeEventListener("abort", stop);
    stdin.destroy();
    control.destroy();
  }
}

/** Name of a running process of a group; "a process" if `/proc` does not show it; null if there is none. */
function memberOfGroup(group: number): string | null {
  try {
    process.kill(-group, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ESRCH") return null;
  }
  const members = namesIn("/proc").flatMap((pid) => {
    const facts = /^\d+$/.test(pid) ? processFacts(Number(pid)) : null;
    return facts?.group === group ? [facts] : [];
  });
  // The first process of a container may never reap orphans.
  return (members.length === 0 ? "a process" : members.find(({ state }) => state !== "Z")?.name) ?? null;
}

/** Kills all processes of a group; an ended one is ignored. */
export function killGroup(pid: number | undefined): void {
  try {
    if (pid !== undefined) process.kill(-pid, "SIGKILL");
  } catch {
    // The processes have ended.
  }
}
