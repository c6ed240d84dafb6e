import { ERROR_TABLE, toCairnError } from "../../errors.ts";
import fs from "node:fs";
import { constants } from "node:os";
import { absolutePath } from "../../fs/users.ts";
import type { CairnLibrary } from "../../contract/index.ts";
import { bindNative } from "../../native.ts";
import { runCli } from "./cli.ts";
import type { CliInput, OutputSink } from "./cli.ts";
import { EXIT_PARTLY } from "../envelope.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Runs one call on the real process and ends it with the call's status. */
export async function runProcess(argv: readonly string[], openLibrary: () => Promise<CairnLibrary>): Promise<void> {
  const controller = new AbortController();
  let running: number | null = null;
  /** The status that a shell gives a process ended by a signal. */
  let stopped = ERROR_TABLE.interrupted.exit as number;
  for (const signal of SIGNALS) {
    // entry.ts ignores it.
    if (process.listenerCount(signal) > 0) continue;
    process.on(signal, () => {
      // The command of `run`, or the pager, decides; this process still has work after it. The terminal sends SIGINT to both.
      if (running !== null) {
        if (signal !== "SIGINT") sendTo(running, signal);
        return;
      }
      stopped = 128 + constants.signals[signal];
      if (controller.signal.aborted) endProcess(stopped);
      controller.abort(new Error(`received ${signal}`));
    });
  }
  let tell: (() => void) | null = null;
  process.on("SIGUSR1", () => {
    if (running === null) tell?.();
    else sendTo(running, "SIGUSR1");
  });
  const stdout = makeSink(process.stdout);
  const status = await runCli({
    argv,
    ...currentFolder(),
    env: process.env,
    stdout,
    stderr: makeSink(process.stderr),
    signal: controller.signal,
    openLibrary,
    setCommandRunning: (pid) => {
      running = pid;
    },
    setTelling: (telling) => {
      tell = telling;
    },
  });
  const ended = reportLostOutput(stdout.failure, status);
  endProcess(ended === ERROR_TABLE.interrupted.exit ? stopped : ended);
}

/** Null if no descriptor is free, because native calls are loaded from a file. */
function exitOfSystem(): ReturnType<typeof bindNative> {
  try {
    return bindNative("void _exit(int status)");
  } catch {
    return null;
  }
}

/** Options of Node whose report is written when Node takes the process down. */
const WATCHED = /--(?:cpu-prof|heap-prof|prof|inspect|trace-event)/;

/**
 * Ends the process once its `exit` listeners have run. Calls _exit, because Node would wait for its compiler threads,
 * and one of them may wait for this thread to collect garbage: a deadlock (nodejs/node#54918).
 */
function endProcess(status: number): never {
  const isWatched =
    process.env["NODE_V8_COVERAGE"] !== undefined ||
    WATCHED.test([...process.execArgv, process.env["NODE_OPTIONS"]].join(" "));
  const exit = isWatched ? null : exitOfSystem();
  // Runs after the listeners that exist already.
  if (exit !== null) process.on("exit", (code) => void exit(Number(process.exitCode ?? code)));
  process.exit(status);
}

/** A result that could not be written (a full disk) is a failure; a reader that left early is none. */
function reportLostOutput(failure: NodeJS.ErrnoException | null, status: number): number {
  if (failure === null || failure.code === "EPIPE" || (status !== 0 && status !== EXIT_PARTLY)) return status;
  const error = toCairnError(failure, "the output could not be written");
  process.stderr.write(`cairn: ${error.message}\n`);
  return error.exitStatus;
}

function sendTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // The process ended just now.
  }
}

/** A removed current folder is not fatal: its former path is known, and most commands can name another folder. */
function currentFolder(): Pick<CliInput, "cwd" | "cwdProblem"> {
  try {
    return { cwd: process.cwd() };
  } catch (error) {
    const isGone = (error as NodeJS.ErrnoException).code === "ENOENT";
    const problem = isGone ? "the current folder no longer exists" : toCairnError(error, "the current folder").message;
    process.stderr.write(`cairn: ${problem}\n`);
    const cwd = isGone ? formerFolder() : null;
    // Node starts no thread in a removed folder.
    process.chdir("/");
    return { cwd, cwdProblem: problem };
  }
}

/** Linux knows the former path; elsewhere the shell may. */
function formerFolder(): string | null {
  try {
    const [, was] = /^(\/.*) \(deleted\)$/s.exec(fs.readlinkSync("/proc/self/cwd")) ?? [];
    if (was !== undefined) return was;
  } catch {
    // This system has no such link.
  }
  return absolutePath(process.env, "PWD");
}

function makeSink(stream: NodeJS.WriteStream): OutputSink & { readonly failure: NodeJS.ErrnoException | null } {
  let closed = false;
  let failure: NodeJS.ErrnoException | null = null;
  // The reader of the output may have gone (`cairn history | head`); the work still continues to a safe end.
  stream.on("error", (error) => {
    closed = true;
    failure ??= error;
  });
  return {
    write(chunk) {
      if (closed) return Promise.resolve();
      return new Promise((done) => {
        stream.write(chunk, (error) => {
          if (error) {
            closed = true;
            failure ??= error;
          }
          done();
        });
      });
    },
    isTerminal: stream.isTTY === true,
    columns: stream.columns ?? 80,
    get closed() {
      return closed;
    },
    get failure() {
      return failure;
    },
  };
}
