import { appendFileSync, fstatSync, readSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Environment } from "../fs/home.ts";
import { type Cover, coveredFile, coverageOf, readCovered, realFolder, repositoryOf, textOf } from "./covered.ts";
import { eventIn, factOf } from "./hook-event.ts";

/** The first thing that a hook does: it ends in a folder that is not covered, before the command is loaded. */

const PIECE_BYTES = 64 << 10;
/** Repositories that are not covered are noted up to this size of their file. */
const MOST_NOTED_BYTES = 256 << 10;

/**
 * True if the hook of the arguments (`agent hook TOOL --if-covered`) has nothing to do. Otherwise standard input can be read as
 * before. Never throws: if it cannot be decided, the hook goes on.
 */
export function hasNothingToDo(argv: readonly string[], env: Environment = process.env): boolean {
  try {
    const tool = argv.slice(2).find((word) => !word.startsWith("-")) ?? "";
    const list = readCovered(env);
    // A terminal is left to the command.
    if (list === null || fstatSync(0).isCharacterDevice()) return false;
    const { bytes, event } = readInput();
    const cwd = factOf(event, "cwd");
    const coverage = cwd?.startsWith("/") === true ? coverageOf(list, tool, cwd) : undefined;
    const isOfToolCall = /^(?:before|after|.*Tool.*)$/.test(factOf(event, "event") ?? "");
    if (coverage === undefined || (coverage !== null && !(coverage.cover.each === "turn" && isOfToolCall))) {
      if (bytes.length > 0) process.stdin.unshift(bytes);
      // The tool may keep standard input open.
      if (event !== null) process.stdin.push(null);
      return false;
    }
    if (coverage === null) noteRepository(list, tool, cwd!, env);
    if (argv.includes("--verbose"))
      process.stdout.write(
        "no point was made: the folder is not covered by `cairn agent install`, or not for tool calls\n",
      );
    return true;
  } catch {
    return false;
  }
}

/**
 * Reads standard input until it is whole JSON, or to its end. Waits for the tool, which writes at once: an asynchronous read costs
 * 3 ms, a tenth of the start of Node. `event` null: the input is no JSON, or a pipe that does not wait.
 */
function readInput(): { bytes: Buffer; event: unknown } {
  const pieces: Buffer[] = [];
  try {
    for (;;) {
      const piece = Buffer.allocUnsafe(PIECE_BYTES);
      const count = readSync(0, piece);
      pieces.push(piece.subarray(0, count));
      if (count > 0 && !/[}\s]/.test(String.fromCodePoint(piece[count - 1]!))) continue;
      const bytes = Buffer.concat(pieces);
      const event = eventIn(bytes);
      if (event !== null || count === 0) return { bytes, event };
    }
  } catch {
    return { bytes: Buffer.concat(pieces), event: null };
  }
}

/** A git repository in which a hook ran, and that is not covered. */
export interface UncoveredRepository {
  readonly tool: string;
  /** top of the worktree */
  readonly top: string;
  /** git's common directory */
  readonly common: string;
  readonly at: string;
}

/** Path of the list of repositories that are not covered: lines of JSON. */
export function uncoveredFile(env: Environment): string | null {
  const file = coveredFile(env);
  return file === null ? null : join(dirname(file), "uncovered.jsonl");
}

/** Notes a repository once, if it may be a clone of a covered one. `cairn agent status` asks git whether it is. */
function noteRepository(list: readonly Cover[], tool: string, cwd: string, env: Environment): void {
  if (!list.some((each) => each.tool === tool && each.folder?.git)) return;
  const repository = repositoryOf(realFolder(cwd));
  if (repository === null) return;
  const { top, common } = repository;
  // Only a part of the repository is covered, or a person refused this worktree.
  if (list.some((each) => each.tool === tool && each.folder?.git?.common === common)) return;
  const file = uncoveredFile(env)!;
  const known = textOf(file) ?? "";
  const words = `{"tool":${JSON.stringify(tool)},"common":${JSON.stringify(common)},`;
  if (known.includes(words) || known.length > MOST_NOTED_BYTES) return;
  const rest = JSON.stringify({ top, at: new Date().toISOString() }).slice(1);
  try {
    appendFileSync(file, `${words}${rest}\n`, { mode: 0o600 });
  } catch {
    // The disk is full or read-only: a later hook notes it.
  }
}
