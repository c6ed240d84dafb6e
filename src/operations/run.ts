import { statSync } from "node:fs";
import { CairnError, throwIfAborted, toCairnError } from "../errors.ts";
import type { Cause, RunOptions, RunResult, SaveOptions, SavePoint, SaveResult } from "../contract/index.ts";
import { checkCommand, runProcess, type ProcessEnd } from "./run-process.ts";

export interface RunParts {
  /** Saves the workspace that the options name. */
  save: (options: SaveOptions) => Promise<SaveResult>;
  /** Absolute path of the workspace. */
  root: string;
}

/** Words of a command beyond so many bytes are left out of the cause. */
const MAX_COMMAND_BYTES = 32 * 1024;

/**
 * Saves, runs a command, saves again; the second point's cause says what ran, how it ended and how long it took.
 * A failure before the command is thrown and nothing is started; one after it is in the result.
 */
export async function run(command: readonly string[], options: RunOptions, parts: RunParts): Promise<RunResult> {
  checkCommand(command);
  const cwd = options.cwd ?? parts.root;
  // Of the workspace's own folder the save says more.
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

/** The command as a cause holds it: whole, unless it is very long. */
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
  const { workspaceName, message, tags, signal, onProgress, onWarning, lockTimeoutMs } = options;
  return {
    cause,
    ...(workspaceName === undefined ? {} : { workspaceName }),
    ...(message === undefined ? {} : { message }),
    ...(tags === undefined ? {} : { tags }),
    ...(signal === undefined ? {} : { signal }),
    ...(onProgress === undefined ? {} : { onProgress }),
    ...(onWarning === undefined ? {} : { onWarning }),
    ...(lockTimeoutMs === undefined ? {} : { lockTimeoutMs }),
  };
}

/** The point alone, without what only its save knew. */
function pointOf(saved: SaveResult): SavePoint {
  const {
    made: _made,
    changes: _changes,
    read_bytes: _read,
    duration_ms: _duration,
    left_out: _left,
    ...point
  } = saved;
  return point;
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
