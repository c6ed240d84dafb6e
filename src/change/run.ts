import { statSync } from "node:fs";
import { advice, CairnError, line, throwIfAborted, toCairnError } from "../errors.ts";
import type { Cause, SavePoint } from "../contract/words.ts";
import type { RunOptions, RunResult, SaveOptions, SaveResult } from "../contract/points.ts";
import { withPipes } from "../fs/child-pipes.ts";
import { spawn } from "node:child_process";
import { constants } from "node:os";

export interface RunParts {
  /** Saves the workspace that the options name. */
  save: (options: SaveOptions) => Promise<SaveResult>;
  /** Absolute path of the workspace. */
  root: string;
}

/** Words of a command beyond this many bytes are left out of the cause. */
const MAX_COMMAND_BYTES = 32 * 1024;

/**
 * Saves, runs a command, saves again. The second point's cause has the command, its exit status and its duration. A
 * failure before the command is thrown; a failure after it is in the result.
 */
export async function run(command: readonly string[], options: RunOptions, parts: RunParts): Promise<RunResult> {
  checkCommand(command);
  const cwd = options.cwd ?? parts.root;
  // If the workspace's own folder is missing, the save has a better error.
  if (cwd !== parts.root && !isDirectory(cwd))
    throw new CairnError("not_found", `the folder to run in is not there: ${cwd}`);
  const words = recordedCommand(command);
  const before = await parts.save(saveOptions(options, { ...words, kind: "command", phase: "before" }));
  throwIfAborted(options.signal);
  const { stdout = "inherit", signal, onCommand } = options;
  const ended = await runProcess({ command, cwd, stdout, signal, onCommand });
  if (ended.notStarted !== null) options.onWarning?.(ended.notStarted);
  const cause: Cause = { ...options.cause, ...words, ...endOf(ended), phase: "after", kind: "command" };
  const saved = await saveAfter(parts, saveOptions(options, cause));
  return {
    command: [...command],
    before: pointOf(before),
    after: saved.after === null ? null : pointOf(saved.after),
    exit_code: ended.exitCode,
    signal: ended.signal,
    duration_ms: ended.durationMs,
    changes: saved.after?.changes ?? null,
    after_error: saved.error,
  };
}

async function saveAfter(
  parts: RunParts,
  options: SaveOptions,
): Promise<{ after: SaveResult | null; error: RunResult["after_error"] }> {
  try {
    return { after: await parts.save(options), error: null };
  } catch (error) {
    const { code, message, hint } = toCairnError(error);
    return { after: null, error: { code, message, ...(hint === undefined ? {} : { hint }) } };
  }
}

function endOf(ended: ProcessEnd): Record<string, unknown> {
  return {
    exit_code: ended.exitCode,
    ...(ended.signal === null ? {} : { signal: ended.signal }),
    duration_ms: ended.durationMs,
  };
}

/** Returns the command for a cause. Cuts a very long one. */
function recordedCommand(command: readonly string[]): { command: string[]; command_truncated?: true } {
  const words: string[] = [];
  let bytes = 0;
  for (const word of command) {
    bytes += Buffer.byteLength(word) + 3;
    if (bytes > MAX_COMMAND_BYTES) return { command: words, command_truncated: true };
    words.push(word);
  }
  return { command: words };
}

function saveOptions(options: RunOptions, cause: Cause): SaveOptions {
  const { cwd: _cwd, stdout: _stdout, onCommand: _told, ...ofSave } = options;
  return { ...ofSave, cause };
}

/** Returns the point without the fields that only a save's result has. */
function pointOf(saved: SaveResult): SavePoint {
  const {
    made: _made,
    changes: _changes,
    read_bytes: _read,
    duration_ms: _duration,
    left_out: _left,
    not_kept: _notKept,
    secrets: _secrets,
    rows: _rows,
    hooks: _hooks,
    ...point
  } = saved;
  return point;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}

export interface ProcessEnd {
  /** 128 + signal number if a signal ended the process; 127 not found, 126 found and not started. */
  exitCode: number;
  signal: NodeJS.Signals | null;
  durationMs: number;
  /** Reason why the process could not be started, one sentence; null if it was. */
  notStarted: string | null;
}

export interface ProcessRequest {
  command: readonly string[];
  /** Absolute path. */
  cwd: string;
  stdout: "inherit" | "stderr";
  /** Variables that are added to the environment of this process. */
  env?: Readonly<Record<string, string>> | undefined;
  signal?: AbortSignal | undefined;
  onCommand?: ((event: "started" | "ended", pid: number) => void) | undefined;
}

const KILL_AFTER_MS = 2000;

/** The program and its arguments. If this process ignores signals (`nohup`), through a shell that ignores them: Node would not pass that on. */
function ignoringToo(program: string, words: readonly string[]): [string, string[]] {
  const ignored = Number.parseInt(process.env["CAIRN_IGNORED"]?.slice(-8) ?? "", 16);
  if (Number.isNaN(ignored)) return [program, [...words]];
  const names = ["HUP", "INT", "TERM"].filter(
    (name) => (ignored >> (constants.signals[`SIG${name}` as NodeJS.Signals] - 1)) & 1,
  );
  return ["/bin/sh", ["-c", `trap '' ${names.join(" ")}; exec "$0" "$@"`, program, ...words]];
}

/**
 * Runs a program without a shell, on this process's terminal. An abort sends SIGTERM, and SIGKILL two seconds later.
 * Never throws: a failed start has a shell's exit status.
 */
export async function runProcess(request: ProcessRequest): Promise<ProcessEnd> {
  const [program = "", ...words] = request.command;
  const started = performance.now();
  const since = (): number => Math.round(performance.now() - started);
  return new Promise((resolve) => {
    let child: ReturnType<typeof spawn>;
    try {
      child = spawn(...ignoringToo(program, words), {
        cwd: request.cwd,
        env: { ...process.env, ...request.env },
        stdio: ["inherit", request.stdout === "stderr" ? 2 : "inherit", "inherit"],
      });
    } catch (error) {
      resolve({ ...refusal(program, error), durationMs: since() });
      return;
    }
    const { pid } = child;
    if (pid !== undefined) request.onCommand?.("started", pid);
    const stop = stopper(child, request.signal);
    child.once("error", (error) => {
      // A failed kill of the running program also emits `error`. Only a program without a pid was not started.
      if (pid !== undefined) return;
      stop();
      resolve({ ...refusal(program, error), durationMs: since() });
    });
    child.once("exit", (code, signal) => {
      stop();
      if (pid !== undefined) request.onCommand?.("ended", pid);
      const exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal]);
      resolve({ exitCode, signal, durationMs: since(), notStarted: null });
    });
  });
}

/**
 * Yields the stdout of a program, which shares this process's stderr and has no stdin. Throws `not_found` or
 * `permission` if it cannot be started, `io` if no descriptors are left, and at the end if its status is not 0.
 */
export async function* processOutput(
  request: Pick<ProcessRequest, "command" | "cwd" | "signal">,
): AsyncGenerator<Uint8Array> {
  const [program = "", ...words] = request.command;
  const child = withPipes(
    spawn(...ignoringToo(program, words), { cwd: request.cwd, stdio: ["ignore", "pipe", "inherit"] }),
    program,
  );
  const stop = stopper(child, request.signal);
  const ended = new Promise<CairnError | null>((resolve) => {
    child.once("error", (error) => {
      if (child.pid !== undefined) return;
      const { code } = toCairnError(error);
      resolve(new CairnError(code, refusal(program, error).notStarted!));
    });
    child.once("exit", (code, signal) => {
      const how = code === null ? `was ended by ${signal}` : `ended with status ${code}`;
      resolve(
        code === 0 ? null : new CairnError("io", `${program} ${how}`, { hint: "see its output on stderr, above" }),
      );
    });
  });
  try {
    yield* child.stdout as AsyncIterable<Uint8Array>;
    const failure = await ended;
    if (failure !== null) throw failure;
  } finally {
    stop();
    child.kill();
  }
}

/** Ends the child if the signal fires. Returns a function that cancels this. */
function stopper(child: ReturnType<typeof spawn>, signal: AbortSignal | undefined): () => void {
  let timer: NodeJS.Timeout | undefined;
  const stop = (): void => {
    child.kill("SIGTERM");
    timer = setTimeout(() => child.kill("SIGKILL"), KILL_AFTER_MS);
  };
  if (signal?.aborted === true) stop();
  signal?.addEventListener("abort", stop, { once: true });
  return () => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  };
}

function refusal(program: string, error: unknown): Omit<ProcessEnd, "durationMs"> {
  const name = (error as NodeJS.ErrnoException).code;
  const missing = name === "ENOENT";
  const why = missing
    ? "there is no such program"
    : name === "EACCES"
      ? "this user may not execute it"
      : (error as Error).message;
  return { exitCode: missing ? 127 : 126, signal: null, notStarted: `${program} was not started: ${why}` };
}

/** Throws `usage` if the words cannot be a command. */
export function checkCommand(command: readonly string[]): void {
  if (command.length === 0 || command[0] === "") {
    throw new CairnError("usage", "there is no command to run", {
      hint: advice`for example: ${line("run -- npm test", "run", ["npm", "test"])}`,
    });
  }
  const bad = command.findIndex((word) => word.includes("\0"));
  if (bad >= 0) throw new CairnError("usage", `word ${bad + 1} of the command holds a NUL byte`);
}
