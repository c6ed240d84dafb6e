import fs from "node:fs";
import { dirname, join } from "node:path";
import { failpoint } from "../../failpoint.ts";
import { durableWrite, readSmallFile, writeAll } from "../../fs/durable.ts";
import { acquireLock } from "../../fs/lock.ts";
import { absolutePath, knownStateDirectory } from "../../fs/home.ts";

/**
 * The files of the record of agents' events: lines of JSON that only grow. A line is written also if the disk is full: into
 * the spare file, whose 64 KiB exist already, else into the user's state or runtime directory, else into this process's
 * memory. The next line that the log takes moves them there. A kill between a step and the next leaves a line twice, which counts once.
 */

/** The workspace of a record. */
export interface RecordPlace {
  readonly paths: { readonly agentEvents: string };
  readonly control: { readonly storeKey: string };
  readonly workspace: { readonly id: string };
  /** real path; absent: the user's record of hooks whose workspace could not be opened */
  readonly folder?: Buffer | undefined;
}

const MOST_BYTES = 4 << 20;
const SPARE_BYTES = 64 << 10;
const LOCK_MS = 2000;
const MOST_IN_MEMORY = 1000;

const inMemory = new Map<string, string[]>();

interface Parts {
  log: string;
  older: string;
  spare: string;
  /** Files for lines that neither of these takes, the best first. */
  elsewhere: string[];
}

function partsOf({ paths: { agentEvents: log }, workspace }: RecordPlace): Parts {
  const elsewhere = usersPlaces().map((folder) => join(folder, `${workspace.id}.jsonl`));
  return { log, older: `${log}.1`, spare: `${log}.spare`, elsewhere: elsewhere.filter((file) => file !== log) };
}

/** Folders of the user for lines that a control directory does not take. None: a service without a home directory. */
function usersPlaces(): string[] {
  const [state, runtime] = [knownStateDirectory(), absolutePath(process.env, "XDG_RUNTIME_DIR")];
  return [state && join(state, "agents", "events"), runtime && join(runtime, "cairn", "events")].filter(
    (each) => each !== null,
  );
}

/** The user's record of hooks whose workspace could not be opened; null if there is no place for it. */
export function recordOfUnopened(): RecordPlace | null {
  const [folder] = usersPlaces();
  if (folder === undefined) return null;
  const id = "unopened";
  return { paths: { agentEvents: join(folder, `${id}.jsonl`) }, control: { storeKey: "" }, workspace: { id } };
}

/** Takes the lock of a file. Failed saves write without the workspace's lock. */
const locked = async (part: string): ReturnType<typeof acquireLock> =>
  acquireLock(`${part}.lock`, { timeoutMs: LOCK_MS, purpose: "note an agent's event" });

function linesIn(file: string): string[] {
  const text = readSmallFile(file, 4 * MOST_BYTES, true)?.toString("utf8") ?? "";
  return text.split("\n").filter((line) => line !== "");
}

/** Returns the lines of a record, oldest first. */
export function recordedLines(place: RecordPlace): string[] {
  const { log, older, spare, elsewhere } = partsOf(place);
  // Backwards, because lines move to parts that are read later.
  const parts = [inMemory.get(log) ?? [], ...[...elsewhere, spare, log, older].map(linesIn)];
  return [...new Set(parts.toReversed().flat())];
}

/** Appends a line. `short`: the same event in fewer bytes, if there is little room. Never throws. */
export async function appendToRecord(place: RecordPlace, line: string, short: string): Promise<void> {
  const parts = partsOf(place);
  try {
    if (place.folder === undefined) fs.mkdirSync(dirname(parts.log), { recursive: true, mode: 0o700 });
    using _lock = await locked(parts.log);
    try {
      await appendToLog(parts, line);
    } catch {
      putIntoSpare(parts.spare, [line, short]);
    }
  } catch {
    await appendElsewhere(parts, line);
  }
}

/** The caller holds the record's lock. */
async function appendToLog({ log, older, spare, elsewhere }: Parts, line: string): Promise<void> {
  if ((fs.statSync(log, { throwIfNoEntry: false })?.size ?? 0) > MOST_BYTES) fs.renameSync(log, older);
  failpoint("events.rotated");
  const besides = linesIn(spare);
  appendLines(log, [...besides, line]);
  failpoint("events.appended");
  if (besides.length > 0 || fs.statSync(spare, { throwIfNoEntry: false })?.size !== SPARE_BYTES)
    durableWrite(spare, Buffer.alloc(SPARE_BYTES, "\n"));
  failpoint("events.spare-emptied");
  for (const file of elsewhere.filter((each) => fs.existsSync(each))) {
    using _elsewhere = await locked(file);
    appendLines(log, linesIn(file));
    failpoint("events.brought-home");
    fs.rmSync(file);
  }
  appendLines(log, inMemory.get(log) ?? []);
  inMemory.delete(log);
}

/** Appends whole lines, also after a line that a full disk cut off. */
function appendLines(file: string, lines: readonly string[]): void {
  if (lines.length === 0) return;
  const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW } = fs.constants;
  const descriptor = fs.openSync(file, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
  try {
    const last = Buffer.alloc(1, "\n");
    const { size } = fs.fstatSync(descriptor);
    if (size > 0) fs.readSync(descriptor, last, 0, 1, size - 1);
    const isCut = last.toString() !== "\n";
    writeAll(descriptor, Buffer.from(`${isCut ? "\n" : ""}${lines.join("\n")}\n`));
  } finally {
    fs.closeSync(descriptor);
  }
}

/** Writes the first of these lines that fits into the spare file, over the empty lines that it is full of. Throws if none does. */
function putIntoSpare(spare: string, lines: readonly string[]): void {
  const descriptor = fs.openSync(spare, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW);
  try {
    const content = Buffer.alloc(SPARE_BYTES);
    const size = fs.readSync(descriptor, content, 0, SPARE_BYTES, 0);
    let end = size;
    while (end > 0 && content[end - 1] === 0x0a) end--;
    const begin = end === 0 ? 0 : end + 1;
    const bytes = lines.map((line) => Buffer.from(`${line}\n`)).find((each) => begin + each.length <= size);
    if (bytes === undefined) throw new Error("the spare file is full");
    for (let done = 0; done < bytes.length;)
      done += fs.writeSync(descriptor, bytes, done, bytes.length - done, begin + done);
  } finally {
    fs.closeSync(descriptor);
  }
}

async function appendElsewhere({ log, elsewhere }: Parts, line: string): Promise<void> {
  for (const file of elsewhere) {
    try {
      fs.mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
      if ((fs.statSync(file, { throwIfNoEntry: false })?.size ?? 0) > MOST_BYTES) continue;
      using _lock = await locked(file);
      return appendLines(file, [line]);
    } catch {
      // The next place may take the line.
    }
  }
  const lines = [...(inMemory.get(log) ?? []), line];
  inMemory.set(log, lines.slice(-MOST_IN_MEMORY));
}

/**
 * Replaces each line of a record by the result of `edit`; null removes the line. Each file is replaced as a whole. After
 * a kill some files have the old lines; a repetition finishes the work. Throws `busy`.
 */
export async function rewriteRecord(place: RecordPlace, edit: (line: string) => string | null): Promise<void> {
  const { log, older, spare, elsewhere } = partsOf(place);
  using _lock = await locked(log);
  for (const file of [older, log, spare]) rewritePart(file, edit, file === spare ? SPARE_BYTES : 0);
  for (const file of elsewhere.filter((each) => fs.existsSync(each))) {
    using _elsewhere = await locked(file);
    rewritePart(file, edit, 0);
  }
  const held = inMemory.get(log)?.flatMap((line) => edit(line) ?? []);
  if (held !== undefined) inMemory.set(log, held);
}

function rewritePart(file: string, edit: (line: string) => string | null, leastBytes: number): void {
  const lines = linesIn(file);
  const edited = lines.flatMap((line) => edit(line) ?? []);
  if (edited.length === lines.length && edited.every((line, i) => line === lines[i])) return;
  const text = edited.map((line) => `${line}\n`).join("");
  durableWrite(file, Buffer.from(text.padEnd(leastBytes, "\n")));
  failpoint("events.part-rewritten");
}
