import { appendFileSync, read } from "node:fs";
import { dirname, join } from "node:path";
import type { Environment } from "../fs/home.ts";
import {
  type CoveredList,
  coveredFile,
  coverageOf,
  readCovered,
  readText,
  realFolder,
  repositoryOf,
} from "./covered.ts";
import { JsonStrings } from "./json-strings.ts";

/** The first thing that a hook does: it ends in a folder that is not covered, before the command is loaded. */

const READ_MS = 1000;
const PIECE_BYTES = 64 << 10;
/** Repositories that are not covered are noted up to this size of their file. */
const MOST_NOTED_BYTES = 256 << 10;

/**
 * True if the hook of the arguments (`agent hook TOOL --if-covered`) has nothing to do. Otherwise standard input can be read as
 * before. Never throws: if it cannot be decided, the hook goes on.
 */
export async function hasNothingToDo(argv: readonly string[], env: Environment = process.env): Promise<boolean> {
  try {
    const [, , tool = ""] = argv;
    const list = readCovered(env);
    if (list === null) return false;
    const strings = new JsonStrings(["cwd", "event", "hook_event_name"]);
    const { bytes, isWhole } = await readInput(strings);
    const [cwd, event] = [strings.get("cwd"), eventIn(strings)];
    const isKnown = cwd?.startsWith("/") === true && (isWhole || event !== undefined);
    const coverage = isKnown ? coverageOf(list, tool, cwd) : null;
    const isCovered = coverage !== null && !(coverage.cover.each === "turn" && isOfToolCall(event ?? ""));
    if (!isKnown || isCovered) {
      if (bytes.length > 0) process.stdin.unshift(bytes);
      // Standard input was read to its end.
      if (isWhole) process.stdin.push(null);
      return false;
    }
    // A tool may take it for a failure if nobody reads the rest.
    if (!isWhole) await readInput(null);
    if (coverage === null) noteRepository(list, tool, cwd, env);
    if (argv.includes("--verbose")) process.stdout.write(`no point was made: ${NOT_COVERED}\n`);
    return true;
  } catch {
    return false;
  }
}

const NOT_COVERED = "the folder is not covered by `cairn agent install`, or not for tool calls";

const isOfToolCall = (event: string): boolean => /^(?:before|after|.*Tool.*)$/.test(event);

const eventIn = (strings: JsonStrings): string | undefined => strings.get("event") ?? strings.get("hook_event_name");

/**
 * Reads standard input to its end, for a second at most, and only until folder and event are known. `strings` null: throws the bytes
 * away.
 */
async function readInput(strings: JsonStrings | null): Promise<{ bytes: Buffer; isWhole: boolean }> {
  const pieces: Buffer[] = [];
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((done) => {
    timer = setTimeout(() => done(null), READ_MS);
  });
  try {
    for (;;) {
      const piece = Buffer.allocUnsafe(PIECE_BYTES);
      const reading = new Promise<number>((done) => {
        // A pipe that does not wait has an error instead of content; process.stdin can read it.
        read(0, piece, 0, PIECE_BYTES, null, (error, count) => done(error === null ? count : -1));
      });
      const count = await Promise.race([reading, late]);
      // Bytes that come later belong to the hook.
      if (count === null) void reading.then((later) => later > 0 && process.stdin.unshift(piece.subarray(0, later)));
      if (count === null || count <= 0) return { bytes: Buffer.concat(pieces), isWhole: count === 0 };
      if (strings === null) continue;
      pieces.push(piece.subarray(0, count));
      strings.push(pieces.at(-1)!);
      if (strings.get("cwd") !== undefined && eventIn(strings) !== undefined)
        return { bytes: Buffer.concat(pieces), isWhole: false };
    }
  } finally {
    clearTimeout(timer);
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
function noteRepository(list: CoveredList, tool: string, cwd: string, env: Environment): void {
  if (!list.covers.some((each) => each.tool === tool && typeof each.folder?.git?.first === "string")) return;
  const repository = repositoryOf(realFolder(cwd));
  if (repository === null) return;
  const { top, common } = repository;
  // Only a part of the repository is covered, or a person refused this worktree.
  if (list.covers.some((each) => each.tool === tool && each.folder?.git?.common === common)) return;
  const file = uncoveredFile(env)!;
  const known = notedIn(file);
  const words = `{"tool":${JSON.stringify(tool)},"common":${JSON.stringify(common)},`;
  if (known.includes(words) || known.length > MOST_NOTED_BYTES) return;
  const rest = JSON.stringify({ top, at: new Date().toISOString() }).slice(1);
  appendFileSync(file, `${words}${rest}\n`, { mode: 0o600 });
}

function notedIn(file: string): string {
  try {
    return readText(file);
  } catch {
    return "";
  }
}
