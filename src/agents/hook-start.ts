import { appendFileSync, fstatSync, readSync } from "node:fs";
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

const PIECE_BYTES = 64 << 10;
/** Milliseconds without bytes after which the rest of an event is not waited for. */
const SILENT_MS = 300;
/** Repositories that are not covered are noted up to this size of their file. */
const MOST_NOTED_BYTES = 256 << 10;

/**
 * True if the hook of the arguments (`agent hook TOOL --if-covered`) has nothing to do. Otherwise standard input can be read as
 * before. Never throws: if it cannot be decided, the hook goes on.
 */
export async function hasNothingToDo(argv: readonly string[], env: Environment = process.env): Promise<boolean> {
  try {
    const tool = argv.slice(2).find((word) => !word.startsWith("-")) ?? "";
    const list = readCovered(env);
    if (list === null) return false;
    const strings = new JsonStrings(["cwd", "event", "hook_event_name"]);
    const { bytes, isWhole } = readInput(strings);
    const [cwd, event] = [strings.get("cwd"), eventIn(strings)];
    const isKnown = cwd?.startsWith("/") === true && (isWhole || event !== undefined);
    const coverage = isKnown ? coverageOf(list, tool, cwd) : null;
    const isCovered = coverage !== null && !(coverage.cover.each === "turn" && isOfToolCall(event ?? ""));
    if (!isKnown || isCovered) {
      if (bytes.length > 0) process.stdin.unshift(bytes);
      // The command reads no more than this.
      if (isWhole) process.stdin.push(null);
      return false;
    }
    // A tool may take it for a failure if nobody reads the rest.
    if (!isWhole) await passRest();
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

/** Reads the rest of a large event to its end, or until no bytes come: a tool may keep standard input open. */
async function passRest(): Promise<void> {
  await new Promise<void>((done) => {
    const timer = setTimeout(done, SILENT_MS);
    process.stdin
      .on("data", () => timer.refresh())
      .on("end", done)
      .on("error", done);
  });
}

/**
 * Reads standard input until folder and event are known, or to its end. Waits for the tool, which writes at once: an asynchronous
 * read costs 3 ms, a tenth of the start of Node. A terminal, and a pipe that does not wait, are left to the command.
 */
function readInput(strings: JsonStrings): { bytes: Buffer; isWhole: boolean } {
  const pieces: Buffer[] = [];
  try {
    if (fstatSync(0).isCharacterDevice()) return { bytes: Buffer.alloc(0), isWhole: false };
    for (;;) {
      const piece = Buffer.allocUnsafe(PIECE_BYTES);
      const count = readSync(0, piece);
      if (count === 0) return { bytes: Buffer.concat(pieces), isWhole: true };
      pieces.push(piece.subarray(0, count));
      strings.push(pieces.at(-1)!);
      if (strings.get("cwd") !== undefined && eventIn(strings) !== undefined)
        return { bytes: Buffer.concat(pieces), isWhole: pieces.length === 1 && isJson(pieces[0]!) };
    }
  } catch {
    return { bytes: Buffer.concat(pieces), isWhole: false };
  }
}

/** True for a whole value: a tool may keep standard input open after it. */
function isJson(bytes: Buffer): boolean {
  try {
    JSON.parse(bytes.toString("utf8"));
    return true;
  } catch {
    return false;
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
  try {
    appendFileSync(file, `${words}${rest}\n`, { mode: 0o600 });
  } catch {
    // The disk is full or read-only: a later hook notes it.
  }
}

function notedIn(file: string): string {
  try {
    return readText(file);
  } catch {
    return "";
  }
}
