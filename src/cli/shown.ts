import { fsyncSync, rmSync } from "node:fs";
import { toCairnError } from "../errors.ts";
import { durableRename, writePieces } from "../fs/durable.ts";
import { unfinishedBeside } from "../fs/work-directory.ts";
import { splitWord } from "../contract/operand.ts";
import type { Client, ListedEntry, NamedPath, PathInput } from "../contract/index.ts";
import type { Outcome } from "./command.ts";
import type { Context } from "./context.ts";
import type { OptionDefinition } from "./definitions.ts";
import { parseBase64, usage } from "./input.ts";
import { formatBytes, printable } from "./render/format.ts";
import type { Input } from "./input.ts";

export const RECURSIVE: OptionDefinition = {
  flags: "-R, --recursive",
  text: "list everything below the path, one entry a line, instead of printing a file",
  excludes: ["--limit", "--sort", "--archive", "--to"],
};

export const TARGET: OptionDefinition = {
  flags: "--to <file>",
  text: "write the file's bytes, or the archive, into this file instead of to stdout: completely or not at all",
};

export const PATH_B64: OptionDefinition = {
  flags: "--path-b64 <base64>",
  text: "the path, for a name that is not UTF-8",
};

/** Returns the parts before and after the colon. `--path-b64` may replace the path, which is undefined for everything. */
export function splitTarget(input: Input, text = input.required(0)): [string, PathInput | undefined] {
  const [target, path] = splitWord(text);
  return [target, pathOf(input, path)];
}

/** Returns the path after the colon, or the one of `--path-b64`. Throws `usage` if the line has both. */
export function pathOf<T extends string | undefined>(input: Input, path: T): T | Uint8Array {
  const encoded = input.text("pathB64");
  if (encoded === undefined) return path;
  if (path !== undefined && path !== "") throw usage("a path after the colon and --path-b64 exclude each other");
  return parseBase64(encoded, "--path-b64");
}

/**
 * Splits `NAME:POINT:PATH`, a point of another workspace of the control directory, after the point. `splitTarget()` has
 * split after NAME, which is no point of this workspace.
 */
export async function splitSibling(
  client: Client,
  [target, path]: ReturnType<typeof splitTarget>,
): Promise<ReturnType<typeof splitTarget>> {
  if (typeof path !== "string") return [target, path];
  const [point, below] = splitWord(path);
  const isSibling = !(await isPoint(client, target)) && (await isPoint(client, `${target}:${point}`));
  return isSibling ? [`${target}:${point}`, below] : [target, path];
}

export async function isPoint(client: Client, target: string): Promise<boolean> {
  return client.resolve(target).then(
    () => true,
    () => false,
  );
}

/** Splits a snapshot and a folder in it. */
export function splitSnapshot(word: string): [string, string | undefined] {
  const [snapshot, path] = splitWord(word);
  if (snapshot === "") throw usage("no snapshot is named before the colon: for example latest:PATH");
  return [snapshot, path];
}

// Base64 in one JSON string; a larger file does not fit into a string of the platform.
const JSON_CONTENT_LIMIT = 256 * 1024 * 1024;

/** Prints a file's bytes on stdout; with `--json` in the result. Throws `usage` if the file is too large for that. */
export function contentOutcome(
  { globals }: Context,
  shown: { entries: ListedEntry[] },
  content: () => AsyncIterable<Uint8Array>,
): Outcome {
  const size = shown.entries[0]?.size ?? 0;
  if (globals.json && size > JSON_CONTENT_LIMIT) {
    throw usage(
      `the file is too large for JSON: ${size} bytes, at most ${JSON_CONTENT_LIMIT}`,
      "run the command without --json: the bytes go to stdout",
    );
  }
  return {
    data: shown,
    content: content(),
    contentData: (bytes) => ({ ...shown, content_b64: Buffer.from(bytes).toString("base64") }),
  };
}

/** Throws `usage` if an archive would be sent to a terminal. */
export function requireArchivePlace({ globals }: Context, input: Input, isArchive: boolean): void {
  const target = input.text("to");
  if (isArchive && target === undefined && (globals.json || process.stdout.isTTY))
    throw usage("an archive is not written to a terminal: use a pipe, or --to FILE");
}

/** Writes a file's bytes, or an archive, into `file`. */
export async function writtenOutcome<T extends { kind: string }>(
  context: Context,
  { shown, file, isArchive }: { shown: T; file: string; isArchive: boolean },
  content: () => AsyncIterable<Uint8Array>,
): Promise<Outcome> {
  if (shown.kind !== "file" && !isArchive)
    throw usage(`a ${shown.kind} can only be written as an archive: use --archive tar`);
  const written = await writtenTo(context.place(file), content());
  return {
    data: { ...shown, ...written },
    text: () => `${formatBytes(written.bytes)} in ${printable(written.target)}`,
  };
}

/** Writes content into a new file, which gets its name (absolute) once all bytes are on the disk. */
async function writtenTo(
  target: string,
  content: AsyncIterable<Uint8Array>,
): Promise<{ target: string; bytes: number }> {
  const temporary = unfinishedBeside(target);
  try {
    const bytes = await writePieces(temporary, content, 0o666, fsyncSync);
    durableRename(temporary, target);
    return { target, bytes };
  } catch (error) {
    rmSync(temporary, { force: true });
    throw toCairnError(error, `write ${target}`);
  }
}

/** More entries do not fit into a string of the platform. */
const JSON_ENTRIES_LIMIT = 1_000_000;
/** The number of lines that are aligned together. */
const ALIGNED = 500;

/** Lists everything below a place: lines as they come, after those of `head`; with `--json` one list in the result. */
export async function walkOutcome(
  { globals, style }: Context,
  { shown, entries, head }: { shown: NamedPath; entries: AsyncIterable<ListedEntry>; head: () => Promise<string[]> },
): Promise<Outcome> {
  if (!globals.json) return { data: null, paged: true, content: lines() };
  const all: ListedEntry[] = [];
  for await (const entry of entries) {
    if (all.length === JSON_ENTRIES_LIMIT)
      throw usage(
        `more than ${JSON_ENTRIES_LIMIT} entries are too many for JSON`,
        "name a folder, or run the command without --json",
      );
    all.push(entry);
  }
  return { data: { ...shown, entries: all } };

  async function* lines(): AsyncGenerator<Uint8Array> {
    const { renderListing } = await import("./render/listing.ts");
    const toBytes = (text: string[]): Uint8Array => Buffer.from(text.map((line) => `${line}\n`).join(""));
    yield toBytes(await head());
    let some: ListedEntry[] = [];
    for await (const entry of entries) {
      some.push(entry);
      if (some.length < ALIGNED) continue;
      yield toBytes(await renderListing({ ...shown, entries: some }, style));
      some = [];
    }
    yield toBytes(await renderListing({ ...shown, entries: some }, style));
  }
}
